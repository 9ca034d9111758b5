"""Training of the base model: denoising with label dropout.

  (1)  L = E ||network(x_t, t, c') - target(x_0, eps, t)||^2,  t ~ U[0, 1]
  (2)  c' = null with probability p, else c  (Ho and Salimans 2022)

The squared error is of the quantity that the network predicts, per dimension.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from lgd import noising
from lgd import types


def denoising(
  key: jax.Array,
  apply: Callable[..., jax.Array],
  params: types.Params,
  schedule: types.Schedule,
  x0: jax.Array,
  label: jax.Array,
  *,
  null_label: int,
  label_dropout: float,
  prediction: str,
) -> jax.Array:
  """Denoising loss of each datum, (1).

  Args:
    key: one key.
    apply: network, `(params, xt, t, label) -> prediction`.
    params: its parameters; the loss is differentiable in them.
    schedule: noise schedule.
    x0: `[batch, *data]`.
    label: `[batch]` integers.
    null_label: the label that stands for no condition.
    label_dropout: p of (2), in [0, 1).
    prediction: what the network predicts, one of `noising.PREDICTIONS`.

  Returns:
    `[batch]` losses.
  """
  batch = x0.shape[0]
  key_t, key_eps, key_drop = jax.random.split(key, 3)
  t = jax.random.uniform(key_t, (batch,))
  eps = jax.random.normal(key_eps, x0.shape)
  drop = jax.random.bernoulli(key_drop, label_dropout, (batch,))
  xt = noising.add_noise(schedule, x0, eps, t)
  predicted = apply(params, xt, t, jnp.where(drop, null_label, label))
  target = noising.target(schedule, x0, eps, t, prediction)
  return jnp.mean(jnp.square(predicted - target).reshape(batch, -1), axis=1)
