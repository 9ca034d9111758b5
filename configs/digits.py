"""Handwritten digits (8x8, scikit-learn's), the embedded real data.

  ./run.sh                                       # everything below, both bases
  python -m experiments.train_denoiser --config=configs/digits.py --workdir=runs/digits
  python -m experiments.train_guidance --config=configs/digits.py --workdir=runs/digits
  python -m experiments.evaluate --workdir=runs/digits

Variants (`--config=configs/digits.py:VARIANT`):
  under_trained  1000 steps, the default: guidance helps.
  well_trained   6000 steps: any constant weight hurts.
  smoke          a minute on one core; its numbers mean nothing.
"""

from configs import common


def get_config(variant: str = 'under_trained'):
  """The config of one variant."""
  config = common.get_default()
  config.data.name = 'digits'
  if variant == 'under_trained':
    pass
  elif variant == 'well_trained':
    config.denoiser.num_steps = 6000
    config.denoiser.ema_decay = 0.999
  elif variant == 'smoke':
    config.update(common.get_smoke_overrides())
  else:
    raise ValueError(common.unknown_variant(variant))
  return config
