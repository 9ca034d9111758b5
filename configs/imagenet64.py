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
  full   261M parameters, batch 512; eight accelerators with 80 GB.
  small  49M parameters, batch 256; one accelerator.
  smoke  everything, shrunk; its numbers mean nothing.

Operations, and expected hours if an accelerator sustains 150 TFLOP/s (assumed: the time
was not measured), full on eight of them / small on one:
  train_denoiser          1.7e20  40     / 2.5e18  4.6
  collect_statistics      3.6e17  0.1    / 6.8e16  0.1
  train_guidance          from statistics: minutes on anything
    guidance.source=direct  6.9e18  1.6  / 1.3e18  2.5
    100,000 steps of it, as in the paper  3.5e19  8
  fid, 50,000 samples     1.7e18  0.4    / 3.3e17  0.6
Counted by
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
