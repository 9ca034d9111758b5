"""Eight Gaussians on a circle, one class each: the paper's toy setting.

  ./run.sh mixture                               # everything below, both bases
  F="--config=configs/mixture.py --workdir=runs/mix"
  python -m experiments.train_denoiser $F
  python -m experiments.collect_statistics $F
  python -m experiments.train_guidance $F
  python -m experiments.search_trajectory $F
  python -m experiments.evaluate --workdir=runs/mix

The paper gives no sizes for its toy; all numbers here are our choice. Labels are
dropped half of the time, so that the base learns its condition slowly.

Variants (`--config=configs/mixture.py:VARIANT`), with the energy distance to test data
that seed 0 gives, unguided / best constant / self-consistency / trajectory; both take 4
minutes on 2 CPU cores:
  under_trained  300 steps, the default: guidance helps.  3.1225 / .4101 / .4250 / .3482
  well_trained   6000 steps: any constant weight hurts.   .0014 / .0097 / .0014 / .0014
  exact          the denoiser of the mixture itself: its weights should be 0.
  smoke          a minute on one core; its numbers mean nothing.
"""

from configs import common


def get_config(variant: str = 'under_trained'):
  """The config of one variant."""
  config = common.get_default()
  config.data.name = 'mixture'
  config.denoiser.width = 128
  config.denoiser.num_steps = 300
  config.denoiser.learning_rate = 3e-4
  config.denoiser.label_dropout = 0.5
  config.guidance.num_steps = 3000  # The weights it needs are far from 0.
  config.trajectory.omega_max = 12.0
  config.evaluation.constants = (
      0.1, 0.25, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0,
  )  # fmt: skip
  config.evaluation.interval_omegas = (1.0, 4.0)
  config.evaluation.clamp_linear_omegas = (0.5, 1.0, 2.0)
  config.compare.omegas = (0.02, 0.1, 0.5, 2.0, 4.0, 6.0, 10.0, 15.0)
  config.compare.rates = (0.1, 1.0, 10.0, 100.0)
  well_trained = {'denoiser': {'num_steps': 6000}}
  variants = {
    'under_trained': {},
    'well_trained': well_trained,
    'exact': {'denoiser': common.get_exact_recipe()},
  }
  return common.apply_variant(config, variant, variants)
