"""Losses of the base model and of guidance weights, and warnings about the latter."""

import functools
from typing import Any

import jax
import numpy as np
from absl import logging
from ml_collections import config_dict

from experiments import builders
from experiments import workdirs
from lgd import denoiser as denoiser_lib
from lgd import objectives
from lgd import training
from lgd import types
from lgd.data import splits

# Of the warnings.
_MANY = 0.9  # Share of the data.
_ABSURD = 20.0  # The largest scales in print are w = 15.
_ROUNDING = 1e-6  # Of float32.


def make_statistics_loss_fn(
  config: config_dict.ConfigDict, spec: splits.Spec, **overrides: jax.Array
) -> training.LossFn:
  """`(guidance_params, store, (), key) -> loss` from stored statistics.

  `overrides` replace numbers of `config.guidance`, and may be traced; with a gamma
  among them the reward counts, whatever its value.
  """
  section = builders.models.overridden(config.guidance, overrides)
  gamma = section.gamma if 'gamma' in overrides or section.gamma else None
  if builders.objectives.is_reward_alone(config):
    gamma = 1.0
  model = builders.models.weight_model(config, spec)
  objective = builders.objectives.statistics_objective(config, **overrides)
  counts = {'num_used': section.num_particles, 'batch': section.batch_size}
  if builders.objectives.of(config).is_grouped:
    counts = {
      'num_used': section.group_size,
      'batch': section.batch_size // section.group_size,
    }

  def loss_fn(params, store, batch, key):
    del batch
    losses, omega = objectives.statistics_loss(
      key,
      functools.partial(model.apply, params),
      objective,
      store,
      s_min=section.s_min,
      zeta=section.zeta,
      gap=section.gap,
      gamma=gamma,
      **counts,
    )
    return losses.mean(), measure(omega)

  return loss_fn


def measure(omega: jax.Array) -> dict[str, jax.Array]:
  """Measures of weights `[batch]`; at_0 is the share that lies at their bound."""
  return {
    'omega_mean': omega.mean(),
    'omega_max': omega.max(),
    'omega_at_0': (omega <= 0.0).mean(dtype=omega.dtype),
  }


def make_direct_loss_fn(
  config: config_dict.ConfigDict,
  spec: splits.Spec,
  *,
  counter: denoiser_lib.EvaluationCounter | None = None,
  reward: builders.models.RewardFn | None = None,
) -> training.LossFn:
  """Algorithm 1 as `(guidance_params, denoiser_params, batch, key) -> loss`.

  With a reward, Algorithm 4, whose frozen parameters are `(denoiser_params,
  reward_params)`.
  """
  section, model = config.guidance, builders.models.weight_model(config, spec)
  network = builders.models.denoiser(config, spec)
  if counter is not None:
    network = counter.wrap(network)
  pair = builders.rules.pair(config, spec, network=network)

  def loss_fn(params, frozen, batch, key):
    denoiser_params, bound = frozen, None
    if reward is not None:
      denoiser_params, reward_params = frozen
      bound = functools.partial(reward, reward_params)
    losses, omega = objectives.guidance_loss(
      key,
      functools.partial(model.apply, params),
      builders.objectives.guidance_objective(config, bound),
      pair,
      denoiser_params,
      builders.models.schedule(config),
      batch.x,
      batch.cond,
      num_particles=section.num_particles,
      s_min=section.s_min,
      zeta=section.zeta,
      gap=section.gap,
      group_size=builders.objectives.group_size(config),
    )
    return losses.mean(), measure(omega)

  return loss_fn


def count_evaluations(
  config: config_dict.ConfigDict,
  spec: splits.Spec,
  frozen: types.Params,
  batch: Any,
  reward: builders.models.RewardFn | None = None,
) -> int:
  """Denoiser evaluations of one direct update, counted while its loss is computed."""
  counter = denoiser_lib.EvaluationCounter()
  loss_fn = make_direct_loss_fn(config, spec, counter=counter, reward=reward)
  key = jax.random.key(0)
  params = builders.models.weight_model(config, spec).init(key)
  jax.block_until_ready(jax.jit(loss_fn)(params, frozen, batch, key))
  return counter.count


def warn_learned(config: config_dict.ConfigDict, means: dict[str, float]) -> None:
  """Warns that learned weights ran into a bound.

  Args:
    config: that they were learned with.
    means: of `measure`, over the last updates.
  """
  name, nodes = workdirs.layout.guidance_name(config), config.reward.nodes
  if means['omega_at_0'] > _MANY:
    logging.warning(
      'guidance/%s: omega is at its bound 0 for %.0f%% of the data: less guidance than'
      ' none would serve the objective there, or learning_rate=%g is too high.',
      name,
      100.0 * means['omega_at_0'],
      config.guidance.learning_rate,
    )
  warn_absurd(name, means['omega_max'])
  if builders.objectives.has_reward(config) and means['omega_max'] > nodes[-1]:
    logging.warning(
      'guidance/%s: omega is as large as %.3g, above %g, the last of reward.nodes, from'
      ' where on the reward counts as constant; collect with larger ones.',
      name,
      means['omega_max'],
      nodes[-1],
    )


def warn_absurd(name: str, largest: float) -> None:
  """Warns that weights are beyond what anybody guides with.

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
  """Warns that a search along trajectories chose its largest candidate.

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


def make_denoiser_loss_fn(
  config: config_dict.ConfigDict, spec: splits.Spec
) -> training.LossFn:
  """`(params, None, batch, key) -> loss` of the base model."""
  section = config.denoiser
  net = builders.models.network(config, spec)

  def loss_fn(params, frozen, batch, key):
    del frozen
    losses = objectives.denoising(
      key,
      net.apply,
      params,
      builders.models.schedule(config),
      batch.x,
      batch.cond,
      spec.conditions.null,
      dropout=section.label_dropout,
      prediction=section.prediction,
      sigmoid_bias=section.sigmoid_bias if section.weighting == 'sigmoid' else None,
    )
    return losses.mean(), {}

  return loss_fn
