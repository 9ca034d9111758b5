"""CIFAR-10, 32x32: the smallest natural images, on one accelerator.

  python -m experiments.prepare_data --name=cifar10   # 0.2 GB, once
  F="--config=configs/cifar10.py --workdir=runs/cifar10"
  python -m experiments.train_denoiser $F
  python -m experiments.collect_statistics $F
  python -m experiments.train_guidance $F
  python -m experiments.search_trajectory $F
  python -m experiments.fid --workdir=runs/cifar10 --method=self_consistency \
      --inception=inception.npz

Not of the paper; all numbers are our choice. Ours: not run.

Variants (`--config=configs/cifar10.py:VARIANT`):
  full   38M parameters, batch 256; one accelerator.
  smoke  everything, shrunk; its numbers mean nothing.

Operations, and expected hours if the accelerator sustains 100 TFLOP/s (assumed: the
time was not measured):
  train_denoiser          1.8e18  5
  collect_statistics      3.1e15  0.01
  train_guidance          from statistics: minutes on anything
  fid, 50,000 samples     5.9e16  0.2
Counted by
  python -m experiments.benchmark_unet --count_only --config=configs/cifar10.py
"""

from configs import common


def get_config(variant: str = 'full'):
  """The config of one variant."""
  config = common.get_image_default()
  config.data.name = 'cifar10'
  config.denoiser.update(
    {
      'channels': 128,
      'multipliers': (1, 2, 2, 2),
      'num_blocks': 2,
      'head_dim': 32,
      'remat': False,
      'batch_size': 256,
      'num_steps': 200_000,
      'learning_rate': 2e-4,
      'warmup_steps': 5000,
    }
  )
  config.evaluation.num_steps = 50
  config.evaluation.samples_per_class = 500
  return common.apply_variant(config, variant, {'full': {}})
