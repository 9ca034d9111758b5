"""Hand-made methods: a schedule of weights and a rule behind every name."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import config_dict

from experiments.builders import models
from experiments.builders import rules
from lgd import errors
from lgd import guidance
from lgd import types


class Family(NamedTuple):
  """A method with a strength.

  Attributes:
    weight: from omega, in which the strength is given (w = 1 + omega), and the config.
    rule: what the weight (or rate) does, one of `rules.RULES`.
  """

  weight: Callable[[float, config_dict.ConfigDict], types.Weight]
  rule: str = 'linear'


def _beta_cfg(omega, config):
  # Its authors' example has a = 2 and b = 3.
  return guidance.beta_cfg(1.0 + omega, 2.0, 3.0, models.time_grid(config))


def _cfg_plus_plus(omega, config):
  """CFG++ with mean 1 + omega over the grid, which its own scale depends on."""
  schedule, times = models.schedule(config), models.time_grid(config)
  unit = guidance.tabulate(guidance.cfg_plus_plus(1.0, schedule), np.zeros(1), times)
  mean = 1.0 + float(guidance.mean_in_time(unit, times)[0])
  return guidance.cfg_plus_plus((1.0 + omega) / mean, schedule)


def _constant(omega, config):
  del config
  return guidance.constant(omega)


FAMILIES = {
  'constant': Family(_constant),
  # The times of the paper's interval on ImageNet, and of stage-wise guidance.
  'interval': Family(lambda omega, _: guidance.interval(omega, 0.2, 0.8)),
  'stage_interval': Family(lambda omega, _: guidance.interval(omega, 0.15, 0.78)),
  # From 0, and from half of their largest weight.
  'rising_linear': Family(lambda omega, _: guidance.clamp_linear(omega)),
  'half_linear': Family(lambda omega, _: guidance.clamp_linear(omega, 0.5 * omega)),
  'rising_cosine': Family(lambda omega, _: guidance.clamp_cosine(omega)),
  'half_cosine': Family(lambda omega, _: guidance.clamp_cosine(omega, 0.5 * omega)),
  'power_cosine': Family(lambda omega, _: guidance.power_cosine(omega, 2.0)),
  'triangle': Family(lambda omega, _: guidance.triangle(omega)),
  'beta_schedule': Family(_beta_cfg),
  'beta_cfg': Family(_beta_cfg, 'power_normalized'),
  'cfg_plus_plus': Family(_cfg_plus_plus),
  'cfg_zero': Family(_constant, 'optimal_scale'),
  'apg': Family(_constant, 'apg'),
  'apg_momentum': Family(_constant, 'apg_momentum'),
  'angle_domain': Family(_constant, 'angle_domain'),
  'autoguidance': Family(_constant, 'autoguidance'),
  # The strength of these two is the rate of (1) and (2) of `rewards`.
  'mpgd': Family(_constant, 'mpgd'),
  'stein': Family(_constant, 'stein'),
}

# Weights that can be given in full: their arguments, and what makes them.
GIVEN: dict[str, tuple[tuple[str, ...], Callable[..., types.Weight]]] = {
  'interval': (('omega', 'lo', 'hi'), guidance.interval),
  'clamp_linear': (('omega', 'floor'), guidance.clamp_linear),
}

HAND_MADE = (*FAMILIES, *(name for name in GIVEN if name not in FAMILIES))
REWARDED = tuple(n for n, f in FAMILIES.items() if rules.RULES[f.rule].improve)


def schedule(name: str, omega: float, config: config_dict.ConfigDict) -> jax.Array:
  """The weights of a family at the sampler's transitions, `[num_steps]`.

  Raises:
    ValueError: a strength that the family does not allow.
  """
  weight = FAMILIES[name].weight(omega, config)
  return guidance.tabulate(weight, np.zeros(1), models.time_grid(config))[0]


def require_usable(name: str, config: config_dict.ConfigDict) -> None:
  """Refuses a family that `config` does not allow.

  Raises:
    errors.InputError: CFG++ at churn, beta-CFG from t = 1, autoguidance without a weak
      model, MPGD at second order, APG with momentum under Heun's method, or a Stein
      step on groups of several classes.
  """
  section, rule = config.evaluation, rules.RULES[_rule_name(name)]
  if name == 'cfg_plus_plus' and section.churn != 0.0:
    raise errors.InputError(
      f'evaluation.churn={section.churn}: CFG++ is a weight at churn 0 only; use that,'
      ' or other methods than cfg_plus_plus.'
    )
  at_noise = section.t_max == 1.0 and models.hides_data(config)
  if rule.act and rule.space == 'eps' and at_noise:
    raise errors.InputError(
      f'evaluation.t_max=1.0: {name} acts on eps, which leaves x0 undetermined at t ='
      ' 1; use --config.evaluation.t_max=0.99, or other methods.'
    )
  if rule.has_weak_model and not config.rule.weak_workdir:
    raise errors.InputError(
      f"rule.weak_workdir='': {name} needs the work directory of a less trained base"
      ' model; give one, or other methods.'
    )
  if rule.is_first_order and section.solver != 'first_order':
    raise errors.InputError(
      f'evaluation.solver={section.solver!r}: {name} is a step of first order, whose'
      ' moves the second extrapolates; use --config.evaluation.solver=first_order, or'
      ' other methods.'
    )
  if rule.has_memory and section.solver == 'heun':
    raise errors.InputError(
      f"evaluation.solver='heun': {name} remembers one prediction of a step, and Heun's"
      ' method makes two; use --config.evaluation.solver=2m, or other methods.'
    )
  together = rules.samples_together(rule_of(name, config))
  if section.samples_per_class % together:
    raise errors.InputError(
      f'evaluation.samples_per_class={section.samples_per_class}: {name} needs a'
      f' multiple of rule.{rule.together}={together}; use that, or other methods.'
    )


def usable(config: config_dict.ConfigDict) -> tuple[str, ...]:
  """All families that `config` allows."""

  def is_usable(name):
    try:
      require_usable(name, config)
    except errors.InputError:
      return False
    return True

  return tuple(name for name in FAMILIES if is_usable(name))


def rule_of(name: str, config: config_dict.ConfigDict) -> config_dict.ConfigDict:
  """The section `rule` for a family: its rule, with the config's constants."""
  rule = config.rule.copy_and_resolve_references()
  rule.name = _rule_name(name)
  return rule


def _rule_name(name):
  return 'linear' if name in GIVEN else FAMILIES[name].rule


def with_rule(
  config: config_dict.ConfigDict, rule: config_dict.ConfigDict
) -> config_dict.ConfigDict:
  """The config with another section `rule`."""
  config = config.copy_and_resolve_references()
  config.rule = rule
  return config
