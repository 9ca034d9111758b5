"""Warnings of weights that ran into a bound: there they say less than they seem to."""

import numpy as np
from absl import logging
from ml_collections import config_dict

from experiments import naming
from experiments import objective_builders

_MANY = 0.9  # Share of the data.
_ABSURD = 20.0  # The largest scales in print are w = 15.
_ROUNDING = 1e-6  # Of float32.


def warn_learned(config: config_dict.ConfigDict, means: dict[str, float]) -> None:
  """Says in the log that learned weights ran into a bound.

  Args:
    config: that they were learned with.
    means: of `guidance_losses.measure`, over the last updates.
  """
  name, nodes = naming.guidance_name(config), config.reward.nodes
  if means['omega_at_0'] > _MANY:
    logging.warning(
      'guidance/%s: omega is at its bound 0 for %.0f%% of the data: less guidance than'
      ' none would serve the objective there, or learning_rate=%g is too high.',
      name,
      100.0 * means['omega_at_0'],
      config.guidance.learning_rate,
    )
  warn_absurd(name, means['omega_max'])
  if objective_builders.has_reward(config) and means['omega_max'] > nodes[-1]:
    logging.warning(
      'guidance/%s: omega is as large as %.3g, above %g, the last of reward.nodes, from'
      ' where on the reward counts as constant; collect with larger ones.',
      name,
      means['omega_max'],
      nodes[-1],
    )


def warn_absurd(name: str, largest: float) -> None:
  """Says in the log that weights are beyond what anybody guides with.

  Args:
    name: of the weight.
    largest: omega.
  """
  if largest > _ABSURD:
    logging.warning(
      'guidance/%s: omega is as large as %.3g. So it is where clean predictions near'
      ' t = 1 are far from all data, as those of a base that predicts eps: clip them by'
      ' --config.denoiser.clip=1.0, or keep t lower by guidance.zeta.',
      name,
      largest,
    )


def warn_searched(config: config_dict.ConfigDict, tables: np.ndarray) -> None:
  """Says in the log that a search along trajectories chose its largest candidate.

  Args:
    config: of the search.
    tables: of any shape, that it found.
  """
  largest = config.trajectory.omega_max
  share = np.mean(np.asarray(tables) >= largest * (1.0 - _ROUNDING))
  if share:
    logging.warning(
      'trajectory: %.3g%% of the weights are trajectory.omega_max=%g, the largest'
      ' candidate; a larger one may be better.',
      100.0 * share,
      largest,
    )
