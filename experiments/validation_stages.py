"""The rules of `validation.py` for what is done with a base model.

Statistics and what guidance may ask of them, the search along trajectories, the sweep,
the comparison, and evaluation.
"""

import itertools

from ml_collections import config_dict

from experiments import config_checks
from experiments import methods
from experiments import objective_builders
from lgd.data import catalog


def validate_statistics(
  config: config_dict.ConfigDict, check: config_checks.Checks
) -> None:
  """The statistics pass, and that the guidance to be learned can use it."""
  section, guidance = config.statistics, config.guidance
  check.one_of('statistics.kind', objective_builders.STATISTICS)
  check.one_of('statistics.split', ('train', 'validation'))
  for key in ('num_data', 'num_particles', 'batch_size', 'shard_size'):
    check.positive(f'statistics.{key}')
  check('statistics.group_size', lambda v: v >= 2, 'a marginal needs at least 2.')
  for key in ('num_data', 'batch_size', 'shard_size'):
    check(
      f'statistics.{key}',
      lambda v: v % section.group_size == 0,
      f'must be a multiple of statistics.group_size={section.group_size}.',
    )
  check('statistics.t_max', lambda v: 0.0 < v <= 1.0, 'must be in (0, 1].')
  if config.denoiser.prediction == 'eps':
    check(
      'statistics.t_max',
      lambda v: v < 1.0,
      "denoiser.prediction='eps' leaves x0 undetermined at t = 1; stay below it by"
      ' --config.statistics.t_max=0.99.',
    )
  check('guidance.group_size', lambda v: v >= 2, 'a marginal needs at least 2.')
  if guidance.objective in objective_builders.GROUPED:
    check(
      'guidance.batch_size',
      lambda v: v % guidance.group_size == 0,
      f'must be a multiple of guidance.group_size={guidance.group_size}.',
    )
  if guidance.source == 'statistics':
    check(
      'guidance.num_microbatches',
      lambda v: v == 1,
      'updates from statistics need no memory to speak of; leave it at 1.',
    )
    for key, stored in (('num_particles', 'particles'), ('group_size', 'members')):
      check(
        f'guidance.{key}',
        lambda v, key=key: v <= section[key],
        f'the statistics hold {section[key]} {stored}; use at most that many, or'
        f' collect with --config.statistics.{key}={guidance[key]}.',
      )
    check(
      'guidance.zeta',
      lambda v: 1.0 - v <= section.t_max + 1e-6,
      f'the statistics have no t above statistics.t_max={section.t_max}; zeta must be'
      ' at least 1 - t_max.',
    )


def validate_trajectory(check: config_checks.Checks) -> None:
  """The search along trajectories."""
  check.one_of('trajectory.distance', ('pixels', 'features'))
  check.one_of('trajectory.reference', ('validation', 'train'))
  for key in ('num_references', 'num_particles', 'num_candidates'):
    check(f'trajectory.{key}', lambda v: v >= 2, 'needs at least 2.')
  for key in (
    'num_repeats', 'omega_max', 'classifier_width', 'classifier_steps', 'fit_steps'
  ):  # fmt: skip
    check.positive(f'trajectory.{key}')
  check.fraction('trajectory.memory')
  check.fraction('trajectory.lookahead')
  check('trajectory.lookahead_churn', lambda v: 0.0 <= v <= 1.0, 'must be in [0, 1].')
  check('trajectory.beta', lambda v: 0.0 < v < 2.0, 'must be in (0, 2).')


def validate_sweep(check: config_checks.Checks) -> None:
  """Every value that a sweep sets keeps the rule of the key it replaces."""
  check.grid('sweep.beta', lambda v: 0.0 < v < 2.0, 'in (0, 2)')
  for key in ('interaction', 'churn'):
    check.grid(f'sweep.{key}', lambda v: 0.0 <= v <= 1.0, 'in [0, 1]')
  check.grid('sweep.gap', lambda v: 0.0 < v < 1.0, 'in (0, 1)')
  check.grid('sweep.s_min', lambda v: 0.0 <= v < 1.0, 'in [0, 1)')
  check.grid(
    'sweep.num_particles',
    lambda v: isinstance(v, int) and v >= 2,
    'that are integers >= 2',
  )
  check.grid('sweep.learning_rate', lambda v: v > 0.0, 'above 0')
  for key in ('num_seeds', 'num_steps', 'batch_size'):
    check.positive(f'sweep.{key}')
  check('sweep.samples_per_class', lambda v: v >= 2, 'a distance needs at least 2.')


def validate_compare(check: config_checks.Checks) -> None:
  """The comparison of methods."""
  check(
    'compare.methods',
    lambda v: set(v) <= set(methods.FAMILIES),
    f'must be some of {tuple(methods.FAMILIES)}.',
  )
  check('compare.methods', lambda v: len(set(v)) == len(v), 'names a method twice.')
  for key in ('compare.omegas', 'compare.rates'):
    check.grid(key, lambda v: v > 0.0, 'above 0')
  check.grid(
    'compare.num_steps',
    lambda v: isinstance(v, int) and v >= 2,
    'that are integers >= 2',
  )
  check.one_of('compare.match', ('', 'mean', 'nfe'))
  check('compare.reference', lambda v: v, 'must name a learned weight.')


def validate_evaluation(
  config: config_dict.ConfigDict, check: config_checks.Checks
) -> None:
  """The sampler and its grids, and `experiments.fid`."""
  for key in ('num_seeds', 'num_steps', 'classifier_width', 'classifier_steps'):
    check.positive(f'evaluation.{key}')
  check(
    'evaluation.samples_per_class', lambda v: v >= 2, 'a distance needs at least 2.'
  )
  check('evaluation.num_prompts', lambda v: v >= 2, 'a distance needs at least 2.')
  check.positive('evaluation.plan_levels')
  check('evaluation.order', lambda v: v in (1, 2), 'must be 1 or 2.')
  check(
    'evaluation.order',
    lambda v: v == 1 or config.evaluation.churn == 0.0,
    f'the second order is of evaluation.churn=0.0, not {config.evaluation.churn}.',
  )
  check('evaluation.tolerance', lambda v: v >= 0.0, 'must not be negative.')
  check('evaluation.churn', lambda v: 0.0 <= v <= 1.0, 'must be in [0, 1].')
  # Times of float32 that are no smaller stay apart, and are not taken for 0.
  check('evaluation.t_max', lambda v: 1e-6 <= v <= 1.0, 'must be in [1e-6, 1].')
  if config.rule.name == 'power_normalized':
    check(
      'evaluation.t_max',
      lambda v: v < 1.0,
      "rule.name='power_normalized' acts on eps, which leaves x0 undetermined at t = 1;"
      ' start sampling at --config.evaluation.t_max=0.99.',
    )
  if config.denoiser.prediction == 'eps':
    check(
      'evaluation.t_max',
      lambda v: v < 1.0,
      "denoiser.prediction='eps' leaves x0 undetermined at t = 1; start sampling"
      ' at --config.evaluation.t_max=0.99.',
    )
    check(
      'guidance.zeta',
      lambda v: v > 0.0,
      "denoiser.prediction='eps' leaves x0 undetermined at t = 1; keep t below it by"
      ' --config.guidance.zeta=0.01.',
    )
  for key in ('num_samples', 'num_reference'):
    check(f'fid.{key}', lambda v: v >= 4, 'the third neighbour needs at least 4.')
  for key in ('batch_size', 'shard_size'):
    check.positive(f'fid.{key}')
  check.one_of('fid.labels', ('balanced', 'data', 'test'))
  check.one_of('fid.split', catalog.SPLITS)
  check('fid.kid_subset_size', lambda v: v >= 2, 'needs at least 2.')
  check('fid.num_neighbors_samples', lambda v: v >= 4, 'needs at least 4.')
  check.grid('evaluation.constants', lambda v: v > 0.0, 'above 0')
  for key in ('interval_omegas', 'clamp_linear_omegas', 'kappas'):
    check.grid(f'evaluation.{key}', lambda v: v > 0.0, 'above 0', may_be_empty=True)
  check.grid('evaluation.clamp_linear_floors', lambda v: v >= 0.0, 'at least 0')
  check.grid('evaluation.interval_bounds', lambda v: 0.0 <= v <= 1.0, 'in [0, 1]')
  check(
    'evaluation.interval_bounds',
    lambda v: len(v) >= 2 and all(a < b for a, b in itertools.pairwise(v)),
    'needs at least 2 times in increasing order.',
  )
