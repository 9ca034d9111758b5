"""Handwritten digits (8x8, scikit-learn's), the embedded real data.

  ./run.sh digits                                # everything below, both bases
  F="--config=configs/digits.py --workdir=runs/digits"
  python -m experiments.train_denoiser $F
  python -m experiments.collect_statistics $F
  python -m experiments.train_guidance $F
  python -m experiments.search_trajectory $F
  python -m experiments.evaluate --workdir=runs/digits

Variants (`--config=configs/digits.py:VARIANT`), with the energy distance to test data
that seed 0 gives, unguided / best constant / self-consistency / trajectory; both take 6
minutes on 2 CPU cores:
  under_trained  1000 steps, the default: guidance helps.  .1185 / .1024 / .1048 / .1011
  well_trained   6000 steps: any constant weight hurts.    .0653 / .0686 / .0655 / .0652
  smoke          a minute on one core; its numbers mean nothing.
"""

from configs import common


def get_config(variant: str = 'under_trained'):
  """The config of one variant."""
  config = common.get_default()
  config.data.name = 'digits'
  well_trained = {'denoiser': {'num_steps': 6000, 'ema_decay': 0.999}}
  variants = {'under_trained': {}, 'well_trained': well_trained}
  return common.apply_variant(config, variant, variants)
