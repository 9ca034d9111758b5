"""Losses of guidance weights: from statistics, and by Algorithms 1 and 4 as printed."""

import functools
from typing import Any

import jax
from ml_collections import config_dict

from experiments import builders
from experiments import datasets
from experiments import objective_builders
from experiments import rule_builders
from lgd import denoiser as denoiser_lib
from lgd import objectives
from lgd import training
from lgd import types


def make_statistics_loss_fn(
  config: config_dict.ConfigDict, **overrides: jax.Array
) -> training.LossFn:
  """`(guidance_params, store, (), key) -> loss` from stored statistics.

  `overrides` replace numbers of `config.guidance`, and may be traced; with a gamma
  among them the reward counts, whatever its value.
  """
  section = builders.overridden(config.guidance, overrides)
  gamma = section.gamma if 'gamma' in overrides or section.gamma else None
  if section.objective == 'reward':
    gamma = 1.0
  model = builders.weight_model(config, datasets.spec(config))
  objective = objective_builders.statistics_objective(config, **overrides)
  counts = {'num_used': section.num_particles, 'batch': section.batch_size}
  if section.objective in objective_builders.GROUPED:
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
  """Of a batch's weights `[batch]`; at_0 is the share that lies at their bound."""
  return {
    'omega_mean': omega.mean(),
    'omega_max': omega.max(),
    'omega_at_0': (omega <= 0.0).mean(dtype=omega.dtype),
  }


def make_direct_loss_fn(
  config: config_dict.ConfigDict,
  *,
  counter: denoiser_lib.EvaluationCounter | None = None,
  reward: builders.RewardFn | None = None,
) -> training.LossFn:
  """Algorithm 1 as `(guidance_params, denoiser_params, batch, key) -> loss`.

  With a reward, Algorithm 4, whose frozen parameters are `(denoiser_params,
  reward_params)`.
  """
  section, spec = config.guidance, datasets.spec(config)
  model = builders.weight_model(config, spec)
  network = builders.denoiser(config, spec)
  if counter is not None:
    network = counter.wrap(network)
  pair = rule_builders.pair(config, spec, network=network)

  def loss_fn(params, frozen, batch, key):
    denoiser_params, bound = frozen, None
    if reward is not None:
      denoiser_params, reward_params = frozen
      bound = functools.partial(reward, reward_params)
    losses, omega = objectives.guidance_loss(
      key,
      functools.partial(model.apply, params),
      objective_builders.guidance_objective(config, bound),
      pair,
      denoiser_params,
      builders.schedule(config),
      batch.x,
      batch.label,
      num_particles=section.num_particles,
      s_min=section.s_min,
      zeta=section.zeta,
      gap=section.gap,
      group_size=direct_group_size(config),
    )
    return losses.mean(), measure(omega)

  return loss_fn


def count_evaluations(
  config: config_dict.ConfigDict,
  frozen: types.Params,
  batch: Any,
  reward: builders.RewardFn | None = None,
) -> int:
  """Denoiser evaluations of one direct update, counted while its loss is computed."""
  counter = denoiser_lib.EvaluationCounter()
  loss_fn = make_direct_loss_fn(config, counter=counter, reward=reward)
  key = jax.random.key(0)
  params = builders.weight_model(config, datasets.spec(config)).init(key)
  jax.block_until_ready(jax.jit(loss_fn)(params, frozen, batch, key))
  return counter.count


def direct_group_size(config: config_dict.ConfigDict) -> int:
  """Consecutive data of a batch that share (s, t)."""
  section = config.guidance
  return section.group_size if section.objective in objective_builders.GROUPED else 1
