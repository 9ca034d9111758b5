"""From a config to objectives: what `guidance.objective` names, and a reward beside it.

Every name has two forms: one for Algorithms 1 and 4, on the denoiser's predictions, and
one on stored statistics.
"""

import functools

import jax
import jax.numpy as jnp
from ml_collections import config_dict

from experiments import builders
from lgd import guidance
from lgd import objectives
from lgd import types

OBJECTIVES = (
  'self_consistency', 'l2', 'score_matching', 'class_marginal', 'marginal', 'reward'
)  # fmt: skip
# Those that compare data of a group, and the statistics that they need.
GROUPED = {'class_marginal': 'class_groups', 'marginal': 'pooled_groups'}
STATISTICS = ('particles', *GROUPED.values())


def has_reward(config: config_dict.ConfigDict) -> bool:
  """Whether the weight is learned with a reward."""
  return config.guidance.objective == 'reward' or config.guidance.gamma > 0.0


def guidance_objective(
  config: config_dict.ConfigDict, reward: types.Reward | None = None
) -> objectives.Objective:
  """The objective that `guidance.objective` names, for Algorithm 1, or 4 with gamma.

  `reward` is needed if `has_reward`.
  """
  section = config.guidance
  if section.objective == 'reward':
    return objectives.reward_objective(reward)
  objective = _objective_without_reward(config)
  if not has_reward(config):
    return objective
  return objectives.rewarded(
    objective,
    reward,
    gamma=section.gamma,
    group_size=section.group_size if section.objective in GROUPED else 1,
  )


def _objective_without_reward(config):
  section = config.guidance
  if section.objective == 'score_matching':
    return objectives.score_matching_objective(rule=guidance.linear)
  energy = {'beta': section.beta, 'interaction': section.interaction}
  marginal = functools.partial(
    objectives.group_marginal, group_size=section.group_size, **energy
  )
  compare = {
    'self_consistency': functools.partial(objectives.self_consistency, **energy),
    'l2': objectives.l2,
    'class_marginal': marginal,
    'marginal': marginal,
  }[section.objective]
  return objectives.consistency_objective(
    compare,
    schedule=builders.schedule(config),
    churn=section.churn,
    rule=guidance.linear,
  )


def statistics_objective(
  config: config_dict.ConfigDict, **overrides: jax.Array
) -> objectives.StatisticsObjective:
  """The objective that `guidance.objective` names, from stored statistics.

  Without the reward, so that the losses of 'reward' are 0. `overrides` replace numbers
  of `config.guidance`, and may be traced.
  """
  section = builders.overridden(config.guidance, overrides)
  if section.objective == 'reward':
    return lambda store, gram, omega, s, t: jnp.zeros(len(gram))
  if section.objective == 'score_matching':
    return objectives.stored_score_matching
  if section.objective == 'l2':
    return objectives.stored_l2(churn=section.churn)
  return objectives.stored_consistency(
    churn=section.churn, beta=section.beta, interaction=section.interaction
  )
