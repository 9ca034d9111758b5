"""The transition p(x_s | x_t, x_0) from a noisier time t to a cleaner time s.

With r_ij = (alpha_t / alpha_s)^i (sigma_s / sigma_t)^j and e = churn^2, Eqs. (2), (23):

  (1)  x_s = coef_xt x_t + coef_x0 x_0 + std z,  z ~ N(0, I)
  (2)  coef_xt = e r_12 + (1 - e) r_01
  (3)  coef_x0 = alpha_s (1 - e r_22 - (1 - e) r_11)
  (4)  std     = sigma_s sqrt(1 - (e r_11 + 1 - e)^2)

For every churn in [0, 1] and 0 <= s < t <= 1 it keeps the forward marginal: if
x_t ~ q(. | x_0) then x_s ~ q(. | x_0), which is the pair of identities

  (5)  coef_xt alpha_t + coef_x0 = alpha_s
  (6)  coef_xt^2 sigma_t^2 + std^2 = sigma_s^2

churn 0 is DDIM (deterministic), churn 1 the DDPM posterior. The paper prints the
ratios with sigma^2 in place of sigma; (6) fails for that form.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lgd import arrays
from lgd import checks
from lgd import types


class Coefficients(NamedTuple):
  """Coefficients of (1): mean `coef_xt x_t + coef_x0 x_0`, noise scale `std`."""

  coef_xt: jax.Array
  coef_x0: jax.Array
  std: jax.Array


def coefficients(
  schedule: types.Schedule, s: jax.Array, t: jax.Array, churn: float
) -> Coefficients:
  """Coefficients (2)-(4) of p(x_s | x_t, x_0).

  Args:
    schedule: noise schedule.
    s: any shape, 0 <= s < t.
    t: same shape, t <= 1.
    churn: in [0, 1]; 0 is DDIM, 1 DDPM.

  Returns:
    `Coefficients`, each of the shape of `s`.

  Raises:
    ValueError: churn or a time, unless traced, outside [0, 1].
  """
  checks.require('in [0, 1]', lambda v: 0.0 <= v <= 1.0, churn=churn)
  checks.times(s=s, t=t)
  alpha_s, sigma_s = schedule.alpha(s), schedule.sigma(s)
  alpha_ratio = schedule.alpha(t) / alpha_s
  sigma_ratio = sigma_s / schedule.sigma(t)
  r_11 = alpha_ratio * sigma_ratio
  e = churn**2
  coef_xt = sigma_ratio * (e * r_11 + (1.0 - e))
  coef_x0 = alpha_s * (1.0 - r_11 * (e * r_11 + (1.0 - e)))
  # (4) as (1 - u)(1 + u) with 1 - u = e (1 - r_11): exactly 0 at churn 0.
  one_minus_u = e * (1.0 - r_11)
  std = sigma_s * jnp.sqrt(one_minus_u * (2.0 - one_minus_u))
  return Coefficients(coef_xt, coef_x0, std)


def sample(
  key: jax.Array,
  schedule: types.Schedule,
  x0: jax.Array,
  xt: jax.Array,
  s: jax.Array,
  t: jax.Array,
  churn: float,
) -> jax.Array:
  """Draws x_s ~ p(. | x_t, x_0), (1); Eq. (2) with `x0` a (guided) prediction.

  Args:
    key: one key or `[batch]` keys; unused when churn is the Python number 0.
    schedule: noise schedule.
    x0: `[batch, *data]` clean data, or a prediction of it.
    xt: `[batch, *data]`.
    s: `[batch]` or scalar.
    t: `[batch]` or scalar, t > s.
    churn: in [0, 1].

  Returns:
    `[batch, *data]`.
  """
  coef_xt, coef_x0, std = (
    arrays.expand_right(c, xt) for c in coefficients(schedule, s, t, churn)
  )
  mean = coef_xt * xt + coef_x0 * x0
  if isinstance(churn, (int, float)) and churn == 0:
    return mean
  return mean + std * arrays.normal(key, xt.shape)
