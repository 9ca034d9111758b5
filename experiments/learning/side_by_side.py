"""Trains weights that differ in numbers of `config.guidance` by one vmapped step."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import config_dict

from experiments import builders
from experiments.learning import losses as losses_lib
from lgd import errors
from lgd import objectives
from lgd import training
from lgd.data import splits
from lgd.training import reporting

_STEPS_PER_CALL = 25


def train(
  config: config_dict.ConfigDict,
  spec: splits.Spec,
  store: objectives.Store,
  group: Sequence[dict[str, Any]],
  *,
  traced: Sequence[str],
  init_keys: jax.Array,
  keys: jax.Array,
  num_steps: int,
  stage: str,
) -> training.TrainState:
  """Trains a network for every point of `group`, from statistics.

  Args:
    config: whose `guidance` holds for all but what is traced.
    spec: of the data.
    store: the statistics.
    group: points; each has a number for every name in `traced`.
    traced: keys of `guidance` that the points replace.
    init_keys: `[points]`, for the parameters.
    keys: `[points]`, the roots of the streams of the steps.
    num_steps: of each training.
    stage: names the messages.

  Returns:
    The final states, stacked along a leading axis.

  Raises:
    errors.NonFiniteError: names the point.
  """
  model = builders.models.weight_model(config, spec)
  settings = {name: jnp.asarray([p[name] for p in group]) for name in traced}

  def optimizer(overrides):
    return builders.models.optimizer(
      builders.models.overridden(config.guidance, overrides)
    )

  def init(key):
    return training.init_state(model.init(key), optimizer({}))

  def update(state, setting, key, store):
    loss_fn = losses_lib.make_statistics_loss_fn(config, spec, **setting)
    step = training.make_train_step(
      loss_fn, optimizer(setting), ema_decay=config.guidance.ema_decay
    )
    return step(state, store, (), key)

  def several_updates(states, settings, keys, store, num_steps):
    def body(states, _):
      states, measured = jax.vmap(update, in_axes=(0, 0, 0, None))(
        states, settings, keys, store
      )
      return states, measured['loss']

    return jax.lax.scan(body, states, length=num_steps)

  states = jax.jit(jax.vmap(init))(init_keys)
  compiled = jax.jit(several_updates, static_argnums=4, donate_argnums=0)
  done = 0
  progress = reporting.Progress(f'{stage} {len(group)} trainings, step', num_steps)
  while done < num_steps:
    length = min(_STEPS_PER_CALL, num_steps - done)
    states, losses = compiled(states, settings, keys, store, length)
    done += length
    if not np.isfinite(losses).all():
      bad = int(np.argmin(np.isfinite(losses).all(axis=0)))
      raise errors.NonFiniteError(
        f'{stage}: the loss of {group[bad]} is not finite; leave that setting out.'
      )
    if done == num_steps or done % (_STEPS_PER_CALL * 5) == 0:
      progress.log(done, rate=(len(group) * done, 'updates'))
  return states
