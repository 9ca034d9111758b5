"""Forty classes in 16 dimensions, each of two Gaussians whose means are random.

  F="--config=configs/mixture40.py --workdir=runs/m40"
  python -m experiments.train_denoiser $F
  python -m experiments.collect_statistics $F
  python -m experiments.train_guidance $F
  python -m experiments.search_trajectory $F
  python -m experiments.evaluate --workdir=runs/m40

All means are uniform on the unit sphere. Not of the paper; all numbers are our choice.

Variants (`--config=configs/mixture40.py:VARIANT`), with the energy distance to test
data that seed 0 gives, mean of 5 sampling seeds, unguided / best constant /
self-consistency / trajectory:
  under_trained  1000 steps, the default: guidance helps.
                 .0357 / .0235 / .0293 / .0226
  well_trained   10,000 steps: any constant weight hurts.
                 .0024 / .0028 / .0026 / .0024
  exact          the denoiser of the mixture itself: its weights should be 0.
  smoke          a minute on one core; its numbers mean nothing.
"""

from configs import common


def get_config(variant: str = 'under_trained'):
  """The config of one variant."""
  config = common.get_default()
  config.data.name = 'random_mixture'
  config.data.num_classes = 40
  config.data.radius = 1.0
  config.data.std = 0.05
  config.denoiser.width = 128
  config.denoiser.learning_rate = 1e-3
  config.evaluation.num_steps = 30
  config.evaluation.interval_omegas = (0.2, 0.4)
  config.evaluation.clamp_linear_omegas = (0.1, 0.2, 0.4)
  well_trained = {'denoiser': {'num_steps': 10_000, 'ema_decay': 0.999}}
  variants = {
    'under_trained': {},
    'well_trained': well_trained,
    'exact': {'denoiser': common.get_exact_recipe()},
  }
  return common.apply_variant(config, variant, variants)
