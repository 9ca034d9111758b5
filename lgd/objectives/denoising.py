"""Training of the base model: denoising with label dropout.

  (1)  L = E ||network(x_t, t, c') - target(x_0, eps, t)||^2,  t ~ U[0, 1]
  (2)  c' = null with probability p, else c  (Ho and Salimans 2022)

The squared error is of the quantity that the network predicts, per dimension. With a
bias b it is weighted to

  (3)  L = 1/2 E sigmoid(b - lambda) (-dlambda/dt) ||eps_hat - eps||^2,
       lambda = logsnr(t)

(Kingma and Gao 2023; the sigmoid of Hoogeboom et al. 2024), whatever is predicted: an
error of eps is alpha / sigma times one of x_0, and 2 / (sigma |dlambda/dt|) times one
of the velocity.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from lgd import arrays
from lgd import noising
from lgd import types


def denoising(
  key: jax.Array,
  apply: Callable[..., jax.Array],
  params: types.Params,
  schedule: types.Schedule,
  x0: jax.Array,
  cond: types.Cond,
  null_cond: types.Cond,
  *,
  dropout: float,
  prediction: str,
  sigmoid_bias: float | None = None,
) -> jax.Array:
  """Denoising loss of each datum, (1) or (3).

  Args:
    key: one key.
    apply: network, `(params, xt, t, cond) -> prediction`.
    params: its parameters; the loss is differentiable in them.
    schedule: noise schedule.
    x0: `[batch, *data]`.
    cond: pytree of `[batch, ...]`, its condition.
    null_cond: the null condition, without the batch axis.
    dropout: p of (2), in [0, 1).
    prediction: what the network predicts, one of `noising.PREDICTIONS`.
    sigmoid_bias: b of (3); None is (1).

  Returns:
    `[batch]` losses.
  """
  batch = x0.shape[0]
  key_t, key_eps, key_drop = jax.random.split(key, 3)
  t = jax.random.uniform(key_t, (batch,))
  eps = jax.random.normal(key_eps, x0.shape)
  drop = jax.random.bernoulli(key_drop, dropout, (batch,))
  cond = jax.tree.map(
    lambda c, null: jnp.where(arrays.expand_right(drop, c), null, c), cond, null_cond
  )
  xt = noising.add_noise(schedule, x0, eps, t)
  predicted = apply(params, xt, t, cond)
  target = noising.target(schedule, x0, eps, t, prediction)
  losses = jnp.mean(jnp.square(predicted - target).reshape(batch, -1), axis=1)
  if sigmoid_bias is None:
    return losses
  return sigmoid_weight(schedule, t, prediction, bias=sigmoid_bias) * losses


def sigmoid_weight(
  schedule: types.Schedule, t: jax.Array, prediction: str, *, bias: float
) -> jax.Array:
  """What (3) multiplies the squared error of a prediction by.

  Args:
    schedule: noise schedule.
    t: `[batch]`.
    prediction: one of `noising.PREDICTIONS`.
    bias: b.

  Returns:
    `[batch]`, finite for t in [0, 1]: t is kept 1e-4 from the ends, where lambda is
    infinite.
  """
  t = jnp.clip(t, 1e-4, 1.0 - 1e-4)
  logsnr, slope = jax.vmap(jax.value_and_grad(schedule.logsnr))(t)
  log_ratio = {  # Of the error of eps to that of the prediction, squared.
    'eps': jnp.zeros_like(t),
    'x0': logsnr,
    'velocity': 2.0 * jnp.log(-2.0 / (slope * schedule.sigma(t))),
  }[prediction]
  return 0.5 * jnp.exp(jax.nn.log_sigmoid(bias - logsnr) + jnp.log(-slope) + log_ratio)
