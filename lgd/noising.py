"""The forward marginal and the four things a network may predict.

  (1)  q(x_t | x_0) = N(alpha_t x_0, sigma_t^2 I)
  (2)  eps      = (x_t - alpha_t x_0) / sigma_t
  (3)  velocity = dx_t/dt at fixed (x_0, eps) = alpha'_t x_0 + sigma'_t eps
  (4)  x_0      = (sigma'_t x_t - sigma_t velocity) / D_t,
       D_t      = alpha_t sigma'_t - sigma_t alpha'_t
  (5)  v        = alpha_t eps - sigma_t x_0   (Salimans and Ho 2022)
  (6)  x_0      = (alpha_t x_t - sigma_t v) / (alpha_t^2 + sigma_t^2)

(4) solves (1) and (3) for x_0; D_t is positive because logsnr decreases: 1 for
rectified flow, pi/2 for the cosine schedule. So velocity, in contrast to eps,
determines x_0 at every t, t = 1 included; and so does v. The two are not the same: the
cosine schedule's velocity is pi/2 v, that of rectified flow is eps - x_0.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from lgd import arrays
from lgd import checks
from lgd import types

PREDICTIONS = ('x0', 'eps', 'velocity', 'v')


def add_noise(
  schedule: types.Schedule, x0: jax.Array, eps: jax.Array, t: jax.Array
) -> jax.Array:
  """`x_t = alpha(t) x_0 + sigma(t) eps`, (1).

  Args:
    schedule: noise schedule.
    x0: `[batch, *data]`.
    eps: `[batch, *data]` standard normal.
    t: `[batch]` or scalar, in [0, 1].

  Returns:
    `[batch, *data]`.

  Raises:
    ValueError: a time, unless traced, outside [0, 1].
  """
  checks.times(t=t)
  alpha, sigma = schedule.alpha(t), schedule.sigma(t)
  return arrays.expand_right(alpha, x0) * x0 + arrays.expand_right(sigma, x0) * eps


def to_x0(
  schedule: types.Schedule,
  prediction: jax.Array,
  xt: jax.Array,
  t: jax.Array,
  kind: str,
) -> jax.Array:
  """The clean prediction that a network output stands for.

  Args:
    schedule: noise schedule.
    prediction: `[batch, *data]` network output.
    xt: `[batch, *data]` its input.
    t: `[batch]` or scalar. For `kind='eps'` t < 1: alpha(1) = 0 leaves x_0
      undetermined.
    kind: one of `PREDICTIONS`.

  Returns:
    `[batch, *data]`.

  Raises:
    ValueError: unknown `kind`.
  """
  if kind == 'x0':
    return prediction
  alpha, sigma = _scales(schedule, t, xt)
  if kind == 'eps':
    return (xt - sigma * prediction) / alpha
  if kind == 'velocity':
    alpha_dot, sigma_dot = _rates(schedule, t, xt)
    return (sigma_dot * xt - sigma * prediction) / (
      alpha * sigma_dot - sigma * alpha_dot
    )
  if kind == 'v':
    return (alpha * xt - sigma * prediction) / (alpha**2 + sigma**2)
  raise ValueError(f'prediction={kind!r}: must be one of {PREDICTIONS}.')


def from_x0(
  schedule: types.Schedule,
  x0: jax.Array,
  xt: jax.Array,
  t: jax.Array,
  kind: str,
) -> jax.Array:
  """The network output that stands for the clean prediction `x0`; inverts `to_x0`.

  Shapes as in `to_x0`. All but 'x0' need t > 0: x_0 = x_t says nothing of
  the noise.
  """
  if kind == 'x0':
    return x0
  alpha, sigma = _scales(schedule, t, xt)
  return target(schedule, x0, (xt - alpha * x0) / sigma, t, kind)


def target(
  schedule: types.Schedule,
  x0: jax.Array,
  eps: jax.Array,
  t: jax.Array,
  kind: str,
) -> jax.Array:
  """The target of a network of this `kind` at x_t = alpha x_0 + sigma eps.

  Shapes as in `add_noise`; finite at every t in [0, 1].

  Raises:
    ValueError: unknown `kind`.
  """
  if kind == 'x0':
    return x0
  if kind == 'eps':
    return eps
  if kind == 'velocity':
    alpha_dot, sigma_dot = _rates(schedule, t, x0)
    return alpha_dot * x0 + sigma_dot * eps
  if kind == 'v':
    alpha, sigma = _scales(schedule, t, x0)
    return alpha * eps - sigma * x0
  raise ValueError(f'prediction={kind!r}: must be one of {PREDICTIONS}.')


def _scales(schedule: types.Schedule, t: jax.Array, x: jax.Array):
  """alpha and sigma, shaped to broadcast on `x`."""
  t = _exact(t, x)
  return tuple(arrays.expand_right(fn(t), x) for fn in (schedule.alpha, schedule.sigma))


def _rates(schedule: types.Schedule, t: jax.Array, x: jax.Array):
  """Their derivatives in time, likewise."""
  t = _exact(t, x)

  def derivative(fn: Callable[[jax.Array], jax.Array]):
    return arrays.expand_right(jax.jvp(fn, (t,), (jnp.ones_like(t),))[1], x)

  return derivative(schedule.alpha), derivative(schedule.sigma)


def _exact(t, x):
  # A time in bfloat16, or in the integers of an image, would be another time.
  return jnp.asarray(t, jnp.promote_types(x.dtype, jnp.float32))
