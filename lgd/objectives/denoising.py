"""Training of the base model: denoising with label dropout.

  (1)  L = E ||network(x_t, t, c') - target(x_0, eps, t)||^2,  t ~ U[0, 1]
  (2)  c' = null with probability p, else c  (Ho and Salimans 2022)

The squared error is of the quantity that the network predicts, per dimension. With a
bias b it is weighted to

  (3)  L = 1/2 E sigmoid(b - lambda) (-dlambda/dt) ||eps_hat - eps||^2,
       lambda = logsnr(t)

(Kingma and Gao 2023; the sigmoid of Hoogeboom et al. 2024), whatever is predicted: an
error of eps is alpha / sigma times one of x_0, 2 / (sigma |dlambda/dt|) times one of
the velocity, and alpha / (alpha^2 + sigma^2) times one of v.

With an importance J(x_0, c) > 0 of each datum, (1) and (3) become

  (4)  L = E J(x_0, c) ||...||^2,  D_J = E[J x_0 | x_t, c] / E[J | x_t, c]

D_J, the minimiser, denoises data of density J p(x_0 | c) up to a constant (Jiao, Chen
and Li 2025, arXiv 2512.04985). For J = 1 / p(c | x_0) that is p(x_0), and D_c - D_J is
the direction of classifier-free guidance.
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
  importance: jax.Array | None = None,
) -> jax.Array:
  """Denoising loss of each datum, (1) or (3), or of these (4).

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
    importance: `[batch]`, J of (4), of the datum's own condition even where that is
      dropped; None is 1. Its scale is free: a mean near 1 leaves the loss comparable.

  Returns:
    `[batch]` losses.

  Raises:
    ValueError: `importance` of another shape.
  """
  batch = x0.shape[0]
  if importance is not None and importance.shape != (batch,):
    raise ValueError(
      f'importance.shape={importance.shape}: must be ({batch},), a number for each'
      ' datum.'
    )
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
  if sigmoid_bias is not None:
    losses = sigmoid_weight(schedule, t, prediction, bias=sigmoid_bias) * losses
  return losses if importance is None else importance * losses


def sigmoid_weight(
  schedule: types.Schedule, t: jax.Array, prediction: str, *, bias: float
) -> jax.Array:
  """The factor of the squared error of a prediction in (3).

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
  alpha, sigma = schedule.alpha(t), schedule.sigma(t)
  logsnr, slope = jax.vmap(jax.value_and_grad(schedule.logsnr))(t)
  log_ratio = {  # Of the error of eps to that of the prediction, squared.
    'eps': jnp.zeros_like(t),
    'x0': logsnr,
    'velocity': 2.0 * jnp.log(-2.0 / (slope * schedule.sigma(t))),
    'v': 2.0 * jnp.log(alpha / (alpha**2 + sigma**2)),
  }[prediction]
  return 0.5 * jnp.exp(jax.nn.log_sigmoid(bias - logsnr) + jnp.log(-slope) + log_ratio)
