"""ImageNet at 64x64, the paper's main experiment.

  python -m experiments.prepare_data --name=imagenet_resized/64x64   # 13 GB, once
  F="--config=configs/imagenet64.py --workdir=runs/imagenet64"
  python -m experiments.train_denoiser $F        # Add --distributed on a cluster.
  python -m experiments.collect_statistics $F
  python -m experiments.train_guidance $F
  python -m experiments.fid --workdir=runs/imagenet64 --method=self_consistency \
      --inception=inception.npz

The U-Net, its loss and optimiser follow the nearest public recipe of the paper's group;
the number of steps, batches of the statistics and the split of devices are our choice.

FID of the paper, 50,000 samples of 100 steps: unguided 4.46, constant 2.40, interval
2.11, self-consistency 1.99. Ours: not run.

Variants (`--config=configs/imagenet64.py:VARIANT`):
  full   261M parameters, batch 512; an accelerator with 80 GB or several.
  small  49M parameters, batch 256; one accelerator, hours.
  smoke  everything, shrunk; its numbers mean nothing.

Operations of every stage:
  python -m experiments.benchmark_unet --count_only --config=configs/imagenet64.py
"""

from configs import common


def get_config(variant: str = 'full'):
  """The config of one variant."""
  config = common.get_image_default()
  config.data.name = 'imagenet_resized/64x64'
  config.data.in_memory = False
  config.statistics.num_data = 262_144
  config.guidance.num_steps = 20_000
  config.evaluation.num_steps = 100
  small = {'denoiser': common.get_small_image_recipe()}
  return common.apply_variant(config, variant, {'full': {}, 'small': small})
