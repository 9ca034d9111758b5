"""CelebA at 64x64, with its 40 binary attributes as the condition.

  python -m experiments.prepare_data --name=celeb_a   # 1.4 GB, once
  F="--config=configs/celeba64.py --workdir=runs/celeba64"
  python -m experiments.train_denoiser $F             # Add --distributed on a cluster.
  python -m experiments.collect_statistics $F
  python -m experiments.train_guidance $F
  python -m experiments.fid --workdir=runs/celeba64 --method=self_consistency \
      --inception=inception.npz

The central 140x140 of the aligned images, averaged by area. The paper does not say how
it encodes the attributes. Here they are a vector of zeros and ones, and samples are
drawn for those of the training data. Network and training are those of imagenet64.

FID of the paper, 50,000 samples of 100 steps: unguided 2.44, interval 2.37,
self-consistency 2.10. Ours: not run.

Variants (`--config=configs/celeba64.py:VARIANT`):
  full     260M parameters, batch 512; eight accelerators with 80 GB.
  small    49M parameters, batch 256; one accelerator.
  classes  full, with 5 chosen attributes that make 32 classes, so that experiments
           that compare class by class can be run, too.
  smoke    everything, shrunk; its numbers mean nothing.

Operations, and expected hours of full on eight accelerators if each sustains 150
TFLOP/s (assumed: the time was not measured):
  train_denoiser          1.0e20  24
  collect_statistics      1.8e17  0.05
  train_guidance          from statistics: minutes on anything
  fid, 50,000 samples     1.7e18  0.4
Counted by
  python -m experiments.benchmark_unet --count_only --config=configs/celeba64.py
"""

from configs import common


def get_config(variant: str = 'full'):
  """The config of one variant."""
  config = common.get_image_default()
  config.data.name = 'celeb_a'
  config.data.in_memory = False
  config.denoiser.num_steps = 300_000
  config.statistics.num_data = 131_072
  config.guidance.num_steps = 20_000
  config.evaluation.num_steps = 100
  config.fid.labels = 'data'
  small = {'denoiser': common.get_small_image_recipe()}
  chosen = ('Male', 'Smiling', 'Young', 'Eyeglasses', 'Blond_Hair')
  variants = {'full': {}, 'small': small, 'classes': {'data': {'attributes': chosen}}}
  return common.apply_variant(config, variant, variants)
