"""Train state, one training step, and its sharding. Knows nothing of guidance.

  (1)  params <- params + tx(grad loss)
  (2)  ema    <- decay * ema + (1 - decay) * params

The step is `jit` over a mesh: state and frozen arguments replicated, the batch
split over the axis 'data'; the state is donated.
"""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AxisType
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec

from lgd import types

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
  loss_fn: LossFn, tx: optax.GradientTransformation, *, ema_decay: float
) -> TrainStep:
  """One update (1)-(2) as a pure function.

  Args:
    loss_fn: `(params, frozen, batch, key) -> (loss, metrics)`; `frozen` is
      whatever it needs and must not change, such as a denoiser's parameters.
    tx: optimiser.
    ema_decay: decay of (2), in [0, 1).

  Returns:
    `(state, frozen, batch, key) -> (state, metrics)`, with 'loss' and 'grad_norm'
    among the metrics. `key` is the root of the run's stream: the step folds its
    own number in, so that a restored state continues with the right draws.
  """

  def train_step(state, frozen, batch, key):
    key = jax.random.fold_in(key, state.step)
    grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
    (loss, metrics), grad = grad_fn(state.params, frozen, batch, key)
    update, opt_state = tx.update(grad, state.opt_state, state.params)
    params = optax.apply_updates(state.params, update)
    ema_params = optax.incremental_update(params, state.ema_params, 1.0 - ema_decay)
    metrics = {'loss': loss, 'grad_norm': optax.tree.norm(grad), **metrics}
    return TrainState(state.step + 1, params, opt_state, ema_params), metrics

  return train_step


def make_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
  """A one-dimensional mesh, axis 'data', over `devices` (default: all)."""
  devices = jax.devices() if devices is None else devices
  return jax.make_mesh(
    (len(devices),), ('data',), axis_types=(AxisType.Auto,), devices=devices
  )


def replicated(mesh: Mesh) -> NamedSharding:
  """The same value on every device."""
  return NamedSharding(mesh, PartitionSpec())


def sharded(mesh: Mesh) -> NamedSharding:
  """The leading axis split over all devices."""
  return NamedSharding(mesh, PartitionSpec(mesh.axis_names))


def compile_step(train_step: TrainStep, mesh: Mesh) -> TrainStep:
  """`jit` with shardings; the incoming state is donated."""
  whole, split = replicated(mesh), sharded(mesh)
  return jax.jit(
    train_step,
    in_shardings=(whole, whole, split, whole),
    out_shardings=(whole, whole),
    donate_argnums=0,
  )


def global_batch(batch: Any, mesh: Mesh) -> Any:
  """This process's share of a batch as one global array, split over 'data'."""
  return jax.tree.map(
    lambda x: jax.make_array_from_process_local_data(sharded(mesh), x), batch
  )
