"""The objectives of `config.guidance`, with a reward beside them.

`OBJECTIVES` holds all that is known of an objective. It has two forms: a direct one for
Algorithms 1 and 4, on the denoiser's predictions, and one on stored statistics. A form
receives the section `guidance`, whose numbers may be traced, and the noise schedule.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import config_dict

from experiments.builders import models
from lgd import guidance
from lgd import objectives
from lgd import statistics
from lgd import types

# (gram, s, t, section, schedule) -> numerators and denominators of the best weight.
TermsFn = Callable[..., tuple[jax.Array, jax.Array]]


class Objective(NamedTuple):
  """One objective.

  Attributes:
    direct: `(section, schedule) -> objectives.Objective`; None for the reward alone.
    stored: `(section, schedule) -> objectives.StatisticsObjective`; None: the objective
      needs the denoiser at every update, and is refused from statistics.
    statistics: the `statistics.kind` that the stored form needs.
    is_grouped: whether consecutive data are compared with each other.
    by_class: whether the data of a group share their class.
    terms: for the closed form of `guidance.weight='table'`; None: it has none.
  """

  direct: Callable[..., objectives.Objective] | None
  stored: Callable[..., objectives.StatisticsObjective] | None
  statistics: str = 'particles'
  is_grouped: bool = False
  by_class: bool = False
  terms: TermsFn | None = None


def _energy(section):
  return {'beta': section.beta, 'interaction': section.interaction}


def compared(
  compare: Callable[[jax.Array, jax.Array], jax.Array],
  section: config_dict.ConfigDict,
  schedule: types.Schedule,
) -> objectives.Objective:
  """The direct form of a comparison of guided with true particles."""
  return objectives.consistency_objective(
    compare, schedule=schedule, churn=section.churn, rule=guidance.linear
  )


def _self_consistency(section, schedule):
  compare = functools.partial(objectives.self_consistency, **_energy(section))
  return compared(compare, section, schedule)


def _marginal(section, schedule):
  compare = functools.partial(
    objectives.group_marginal, group_size=section.group_size, **_energy(section)
  )
  return compared(compare, section, schedule)


def _stored_consistency(section, schedule):
  del schedule  # The store has it.
  return objectives.stored_consistency(churn=section.churn, **_energy(section))


def _l2_terms(gram, s, t, section, schedule):
  return statistics.l2_terms(gram, s, t, schedule=schedule, churn=section.churn)


OBJECTIVES = {
  'self_consistency': Objective(_self_consistency, _stored_consistency),
  'l2': Objective(
    functools.partial(compared, objectives.l2),
    lambda section, schedule: objectives.stored_l2(churn=section.churn),
    terms=_l2_terms,
  ),
  'score_matching': Objective(
    lambda *_: objectives.score_matching_objective(rule=guidance.linear),
    lambda *_: objectives.stored_score_matching,
    terms=lambda gram, *_: statistics.score_matching_terms(gram),
  ),
  'class_marginal': Objective(
    _marginal, _stored_consistency, 'class_groups', is_grouped=True, by_class=True
  ),
  'marginal': Objective(
    _marginal, _stored_consistency, 'pooled_groups', is_grouped=True
  ),
  # The reward alone: losses are 0 without it.
  'reward': Objective(
    None, lambda *_: lambda store, gram, omega, s, t: jnp.zeros(len(gram))
  ),
}
# Values of `statistics.kind`.
STATISTICS = tuple({entry.statistics: None for entry in OBJECTIVES.values()})


def with_tables() -> tuple[str, ...]:
  """Objectives that have a closed form."""
  return tuple(name for name, entry in OBJECTIVES.items() if entry.terms)


def of(config: config_dict.ConfigDict) -> Objective:
  """The entry that `guidance.objective` names."""
  return OBJECTIVES[config.guidance.objective]


def is_reward_alone(config: config_dict.ConfigDict) -> bool:
  """Whether nothing holds the weight to the data."""
  return of(config).direct is None


def has_reward(config: config_dict.ConfigDict) -> bool:
  """Whether the weight is learned with a reward."""
  return config.guidance.gamma > 0.0 or is_reward_alone(config)


def group_size(config: config_dict.ConfigDict) -> int:
  """Consecutive data of a direct batch that share (s, t)."""
  return config.guidance.group_size if of(config).is_grouped else 1


def guidance_objective(
  config: config_dict.ConfigDict, reward: types.Reward | None = None
) -> objectives.Objective:
  """The objective that `guidance.objective` names, for Algorithm 1, or 4 with gamma.

  `reward` is needed if `has_reward`.
  """
  if is_reward_alone(config):
    return objectives.reward_objective(reward)
  objective = of(config).direct(config.guidance, models.schedule(config))
  if not has_reward(config):
    return objective
  return objectives.rewarded(
    objective,
    reward,
    gamma=config.guidance.gamma,
    group_size=group_size(config),
  )


def statistics_objective(
  config: config_dict.ConfigDict, **overrides: jax.Array
) -> objectives.StatisticsObjective:
  """The objective that `guidance.objective` names, from stored statistics.

  Without the reward, so that the losses of 'reward' are 0. `overrides` replace numbers
  of `config.guidance`, and may be traced.
  """
  section = models.overridden(config.guidance, overrides)
  return of(config).stored(section, models.schedule(config))
