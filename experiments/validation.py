"""The rules that a config must keep, checked before anything is computed or written.

Those of the rule and of guidance are here; those of data and reward are in
`validation_data.py`, of networks and their training in `validation_training.py`, and of
what is then done with a base model in `validation_stages.py`. Only this file is called
from outside.
"""

from ml_collections import config_dict

from experiments import builders
from experiments import config_checks
from experiments import datasets
from experiments import launch
from experiments import objective_builders
from experiments import rule_builders
from experiments import validation_data
from experiments import validation_stages
from experiments import validation_training
from lgd import noising


def require_learnable(config: config_dict.ConfigDict) -> None:
  """Refuses a rule that weights cannot be learned for.

  Raises:
    launch.UserError: it is not linear in omega.
  """
  if config.rule.name not in rule_builders.LEARNABLE_RULES:
    raise launch.UserError(
      f'rule.name={config.rule.name!r}: weights are learned for the conditional'
      ' prediction and a direction times omega, as of'
      f' {", ".join(rule_builders.LEARNABLE_RULES)}; use one of them.'
    )


def require_prompts(config: config_dict.ConfigDict) -> None:
  """Refuses data without captions, or with captions that are stored as embeddings.

  Raises:
    launch.UserError: its conditions are no tokens of prompts.
  """
  if config.data.name != 'pairs':
    raise launch.UserError(
      f'data.name={config.data.name!r}: has no captions that are read as tokens; use'
      " 'pairs'."
    )


def validate(config: config_dict.ConfigDict) -> None:
  """Checks every rule before anything is computed or written.

  Raises:
    launch.UserError: one line with key, value, rule and way out.
  """
  check = config_checks.Checks(config)
  check.types()
  check.one_of('schedule', builders.SCHEDULES)
  check.one_of('data.name', datasets.NAMES)
  check.one_of('denoiser.prediction', noising.PREDICTIONS)
  check.one_of('rule.name', rule_builders.PAIR_RULES)
  check.path('rule.weak_workdir')
  if config.rule.name == 'autoguidance':
    check(
      'rule.weak_workdir',
      bool,
      "rule.name='autoguidance' needs the work directory of a less trained base model;"
      ' give one, as by --config.rule.weak_workdir=DIR.',
    )
  check.one_of('guidance.objective', objective_builders.OBJECTIVES)
  check('rule.apg_eta', lambda v: 0.0 <= v <= 1.0, 'must be in [0, 1].')
  check.positive('rule.apg_max_norm')
  check('rule.apg_momentum', lambda v: -1.0 < v < 1.0, 'must be in (-1, 1).')
  check('rule.power', lambda v: 0.0 <= v <= 1.0, 'must be in [0, 1].')
  check.positive('rule.num_particles')
  check('seed', lambda v: v >= 0, 'must not be negative.')
  validation_data.validate_data(config, check)
  validation_data.validate_reward(config, check)
  validation_training.validate_training(config, check)
  check.one_of('guidance.source', ('statistics', 'direct'))
  check.one_of('guidance.weight', ('network', 'table'))
  if config.guidance.weight == 'table':
    check(
      'guidance.objective',
      lambda v: v in ('l2', 'score_matching') and config.guidance.source != 'direct',
      "only l2 and score_matching have the closed form of guidance.weight='table', from"
      ' statistics; use --config.guidance.weight=network.',
    )
  check.one_of('guidance.prompts', ('tokens', 'clip'))
  if config.guidance.prompts == 'clip':
    check(
      'guidance.prompts',
      lambda v: (
        config.data.name == 'pairs'
        and config.guidance.source == 'statistics'
        and config.guidance.weight == 'network'
      ),
      "is for networks that learn from statistics of data.name='pairs'; use"
      ' --config.guidance.prompts=tokens.',
    )
  check.positive('guidance.num_bins')
  validation_stages.validate_statistics(config, check)
  validation_stages.validate_trajectory(check)
  validation_stages.validate_sweep(check)
  validation_stages.validate_compare(check)
  check('guidance.depth', lambda v: v >= 2, 'needs an input and an output layer.')
  check.positive('guidance.num_particles')
  check(
    'guidance.beta',
    lambda v: 0.0 < v < 2.0,
    "must be in (0, 2); beta 2 without interaction is guidance.objective='l2'.",
  )
  check('guidance.interaction', lambda v: 0.0 <= v <= 1.0, 'must be in [0, 1].')
  if (
    config.guidance.objective == 'self_consistency'
    and config.guidance.interaction > 0.0
  ):
    check(
      'guidance.num_particles',
      lambda v: v >= 2,
      'the sum over pairs needs at least 2; use --config.guidance.interaction=0.0'
      ' for single-particle training.',
    )
  check('guidance.churn', lambda v: 0.0 <= v <= 1.0, 'must be in [0, 1].')
  check('guidance.gap', lambda v: 0.0 < v < 1.0, 'must be in (0, 1).')
  check.fraction('guidance.s_min')
  check.fraction('guidance.zeta')
  check(
    'guidance.gap',
    lambda v: config.guidance.s_min + v + config.guidance.zeta <= 1.0,
    f'with s_min={config.guidance.s_min} and zeta={config.guidance.zeta} no s is'
    ' left: s_min + gap + zeta must be at most 1.',
  )
  validation_stages.validate_evaluation(config, check)
