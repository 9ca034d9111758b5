"""Train state, one training step, and its sharding. Knows nothing of guidance.

  (1)  params <- params + tx(grad loss)
  (2)  ema    <- decay * ema + (1 - decay) * params

A step whose loss or gradient is not finite may be skipped: it changes nothing but its
number.

A batch may be cut into microbatches, whose gradients are averaged: the step of the
whole batch for the memory of one. The step is `jit` over a mesh (`sharding`); the state
is donated.
"""

import functools
from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from lgd import types
from lgd.training import sharding

# (params, frozen, batch, key) -> (scalar loss, {name: scalar}).
LossFn = Callable[
  [types.Params, Any, Any, jax.Array], tuple[jax.Array, dict[str, jax.Array]]
]


class TrainState(NamedTuple):
  """All that a step changes."""

  step: jax.Array  # [], updates made
  params: types.Params
  opt_state: optax.OptState
  ema_params: types.Params


# (state, frozen, batch, key) -> (state, {name: scalar}).
TrainStep = Callable[
  [TrainState, Any, Any, jax.Array], tuple[TrainState, dict[str, jax.Array]]
]


def init_state(params: types.Params, tx: optax.GradientTransformation) -> TrainState:
  """The state before the first step; the average starts at `params`."""
  return TrainState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    opt_state=tx.init(params),
    ema_params=jax.tree.map(jnp.copy, params),  # Donation forbids an alias.
  )


def make_train_step(
  loss_fn: LossFn,
  tx: optax.GradientTransformation,
  *,
  ema_decay: float,
  num_microbatches: int = 1,
  skip_nonfinite: bool = False,
) -> TrainStep:
  """One update (1)-(2) as a pure function.

  Args:
    loss_fn: `(params, frozen, batch, key) -> (loss, metrics)`; `frozen` is
      whatever it needs and must not change, such as a denoiser's parameters.
    tx: optimiser.
    ema_decay: decay of (2), in [0, 1).
    num_microbatches: must divide the batch; each draws from a key of its own.
    skip_nonfinite: whether steps that are not finite are skipped.

  Returns:
    `(state, frozen, batch, key) -> (state, metrics)`, with 'loss' and 'grad_norm'
    among the metrics, and 'skipped', 0 or 1, if steps may be. `key` is the root of
    the run's stream: the step folds its own number in, so that a restored state
    continues with the right draws.
  """
  grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
  if num_microbatches > 1:
    grad_fn = _accumulated(grad_fn, num_microbatches)

  def train_step(state, frozen, batch, key):
    key = jax.random.fold_in(key, state.step)
    (loss, metrics), grad = grad_fn(state.params, frozen, batch, key)
    update, opt_state = tx.update(grad, state.opt_state, state.params)
    params = optax.apply_updates(state.params, update)
    ema_params = optax.incremental_update(params, state.ema_params, 1.0 - ema_decay)
    metrics = {'loss': loss, 'grad_norm': optax.tree.norm(grad), **metrics}
    new = TrainState(state.step + 1, params, opt_state, ema_params)
    if skip_nonfinite:
      finite = jnp.isfinite(loss) & jnp.isfinite(metrics['grad_norm'])
      kept = state._replace(step=new.step)
      new = jax.tree.map(functools.partial(jnp.where, finite), new, kept)
      metrics['skipped'] = 1.0 - finite
    return new, metrics

  return train_step


def _accumulated(grad_fn, num_microbatches):
  """Means over microbatches of what `grad_fn(params, frozen, batch, key)` returns."""

  def cut(x):
    # Microbatch j has rows j, j + num, ...: a part of every device's rows, so that
    # none has to move.
    rows = x.reshape(x.shape[0] // num_microbatches, num_microbatches, *x.shape[1:])
    return jnp.swapaxes(rows, 0, 1)

  def accumulated(params, frozen, batch, key):
    def add(total, item):
      results = grad_fn(params, frozen, item[0], item[1])
      return jax.tree.map(jnp.add, total, results), None

    items = jax.tree.map(cut, batch), jax.random.split(key, num_microbatches)
    shapes = jax.eval_shape(
      grad_fn, params, frozen, *jax.tree.map(lambda x: x[0], items)
    )
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    total, _ = jax.lax.scan(add, zeros, items)
    return jax.tree.map(lambda x: x / num_microbatches, total)

  return accumulated


def compile_step(train_step: TrainStep, mesh: Mesh, state_shardings: Any) -> TrainStep:
  """`jit` with shardings; the incoming state is donated.

  Args:
    train_step: of `make_train_step`.
    mesh: of `sharding.make_mesh`.
    state_shardings: of the state, as in `sharding.fsdp`; a prefix of its tree will do.

  The frozen arguments stay where they are; the batch is split over all devices.
  """
  whole = sharding.replicated(mesh)
  return jax.jit(
    train_step,
    in_shardings=(state_shardings, None, sharding.split(mesh), whole),
    out_shardings=(state_shardings, whole),
    donate_argnums=0,
  )
