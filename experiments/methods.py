"""Hand-made methods: a schedule of weights and a rule behind every name."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import config_dict

from experiments import builders
from experiments import launch
from lgd import guidance
from lgd import types


class Family(NamedTuple):
  """A method with a strength.

  Attributes:
    weight: from omega, in which the strength is given (w = 1 + omega), and the config.
    rule: what the weight (or rate) does, one of `builders.RULES`.
  """

  weight: Callable[[float, config_dict.ConfigDict], types.Weight]
  rule: str = 'linear'


def _beta_cfg(omega, config):
  # Its authors' example has a = 2 and b = 3.
  return guidance.beta_cfg(1.0 + omega, 2.0, 3.0, builders.time_grid(config))


def _cfg_plus_plus(omega, config):
  """Of mean 1 + omega over the sampler's grid, which its own scale depends on."""
  schedule, times = builders.schedule(config), builders.time_grid(config)
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
  'linear': Family(lambda omega, _: guidance.clamp_linear(omega)),
  'clamp_linear': Family(lambda omega, _: guidance.clamp_linear(omega, 0.5 * omega)),
  'cosine': Family(lambda omega, _: guidance.clamp_cosine(omega)),
  'clamp_cosine': Family(lambda omega, _: guidance.clamp_cosine(omega, 0.5 * omega)),
  'power_cosine': Family(lambda omega, _: guidance.power_cosine(omega, 2.0)),
  'triangle': Family(lambda omega, _: guidance.triangle(omega)),
  'beta_cfg': Family(_beta_cfg),
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

REWARDED = tuple(n for n, f in FAMILIES.items() if f.rule in builders.REWARD_RULES)


def schedule(name: str, omega: float, config: config_dict.ConfigDict) -> jax.Array:
  """The weights of a family at the sampler's transitions, `[num_steps]`.

  Raises:
    ValueError: a strength that the family does not allow.
  """
  weight = FAMILIES[name].weight(omega, config)
  return guidance.tabulate(weight, np.zeros(1), builders.time_grid(config))[0]


def require_usable(name: str, config: config_dict.ConfigDict) -> None:
  """Refuses CFG++ where it is no weight, and autoguidance without a weak model.

  Raises:
    launch.UserError: churn is not 0, or no model is named.
  """
  if name == 'cfg_plus_plus' and config.evaluation.churn != 0.0:
    raise launch.UserError(
      f'evaluation.churn={config.evaluation.churn}: CFG++ is a weight at churn 0 only;'
      ' use that, or other methods than cfg_plus_plus.'
    )
  if FAMILIES[name].rule == 'autoguidance' and not config.rule.weak_workdir:
    raise launch.UserError(
      "rule.weak_workdir='': autoguidance needs the work directory of a less trained"
      ' base model, or other methods.'
    )


def rule_of(name: str, config: config_dict.ConfigDict) -> config_dict.ConfigDict:
  """The section `rule` for a family: its rule, with the config's constants."""
  rule = config.rule.copy_and_resolve_references()
  rule.name = FAMILIES[name].rule
  return rule


def with_rule(
  config: config_dict.ConfigDict, rule: config_dict.ConfigDict
) -> config_dict.ConfigDict:
  """The config with another section `rule`."""
  config = config.copy_and_resolve_references()
  config.rule = rule
  return config
