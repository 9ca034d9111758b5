"""The losses of a Gram matrix, omega, s and t, (2)-(7) of `statistics`."""

import jax
import jax.numpy as jnp
import numpy as np

from lgd import mmd
from lgd import transitions
from lgd import types
from lgd.statistics import gram_matrix


def self_consistency(
  gram: jax.Array,
  omega: jax.Array,
  s: jax.Array,
  t: jax.Array,
  *,
  schedule: types.Schedule,
  churn: float,
  beta: float,
  interaction: float,
  dim: int,
  antithetic: bool = False,
) -> jax.Array:
  """Self-consistency loss of each datum with the noise integrated out, (4).

  Its mean, and that of its gradient, are those of Algorithm 1 with Eq. (22).

  Args:
    gram: `[batch, 3m, 3m]` of `gram`.
    omega: `[batch]`; for K directions `[batch, K]`.
    s: `[batch]`.
    t: `[batch]`, that of the Gram matrix; t > s.
    schedule: noise schedule.
    churn: of the transition, in [0, 1].
    beta: kernel exponent, in (0, 2].
    interaction: lambda, in [0, 1]; without effect if m = 1.
    dim: number of elements of a datum.
    antithetic: whether the noise of the particles is.

  Returns:
    `[batch]` losses. churn, beta and interaction may be traced.

  Raises:
    ValueError: the Gram matrix is not of as many directions as omega, or arrays are of
      other shapes.

  Cost: O(m^2) memory per datum, whatever its size.
  """
  gram_matrix.require_square(gram, omega=omega, s=s, t=t)
  coef, noise_var, sigma_s = _step(schedule, s, t, churn)
  products = _particle_products(gram, omega, coef)  # [batch, m, m]
  sq_norm = jnp.diagonal(products, axis1=1, axis2=2)
  attraction = mmd.expected_norm_power(
    _positive(sq_norm), (noise_var + sigma_s**2)[:, None], dim, beta
  ).mean(axis=1)
  m = sq_norm.shape[1]
  if m == 1:
    return attraction
  repulsion = _repulsion(
    products,
    noise_var,
    dim,
    beta,
    skip=gram_matrix.num_independent(m) if antithetic else None,
  )
  return attraction - 0.5 * interaction * repulsion


def l2(
  gram: jax.Array,
  omega: jax.Array,
  s: jax.Array,
  t: jax.Array,
  *,
  schedule: types.Schedule,
  churn: float,
  dim: int,
) -> jax.Array:
  """Eq. (21) with the noise integrated out: (4) at beta = 2, lambda = 0.

  Arguments as in `self_consistency`; M(q, v) = q + dim v.
  """
  gram_matrix.require_square(gram, omega=omega, s=s, t=t)
  coef, noise_var, sigma_s = _step(schedule, s, t, churn)
  products = _particle_products(gram, omega, coef)
  sq_norm = jnp.diagonal(products, axis1=1, axis2=2).mean(axis=1)
  return sq_norm + dim * (noise_var + sigma_s**2)


def score_matching(gram: jax.Array, omega: jax.Array) -> jax.Array:
  """`1/m sum_j ||r_j + omega delta_j||^2`: guided score matching, `[batch]`."""
  zero, one = jnp.zeros(gram.shape[0]), jnp.ones(gram.shape[0])
  products = _particle_products(gram, omega, (zero, one))
  return jnp.diagonal(products, axis1=1, axis2=2).mean(axis=1)


def marginal(
  gram: jax.Array,
  omega: jax.Array,
  s: jax.Array,
  t: jax.Array,
  *,
  schedule: types.Schedule,
  churn: float,
  beta: float,
  interaction: float,
  dim: int,
) -> jax.Array:
  """Marginal consistency of each group with the noise integrated out, (5); Eq. (15).

  Args:
    gram: `[groups, 4n, 4n]` of `group_gram`.
    omega: `[groups, n]`; for K directions `[groups, n, K]`.
    s: `[groups]`.
    t: `[groups]`, t > s.
    schedule: noise schedule.
    churn: in [0, 1].
    beta: kernel exponent, in (0, 2].
    interaction: lambda, in [0, 1].
    dim: number of elements of a datum.

  Returns:
    `[groups]` losses: without bias, for a datum is not compared with itself.

  Raises:
    ValueError: a group of one datum.
  """
  gram_matrix.require_square(gram, omega=omega, s=s, t=t)
  (coef_eps, coef_x0), noise_var, sigma_s = _step(schedule, s, t, churn)
  groups, n = (*omega.shape, 0)[:2]
  if n < 2:
    raise ValueError(f'{n} datum in a group: a marginal needs at least 2.')
  alpha_s = schedule.alpha(s)
  omega = omega.reshape(groups, n, -1)
  given = jnp.stack([alpha_s, coef_eps, coef_x0], axis=-1)[:, None]  # [groups, 1, 3]
  weights = jnp.concatenate(
    [jnp.broadcast_to(given, (groups, n, 3)), coef_x0[:, None, None] * omega], axis=-1
  )
  num = weights.shape[-1]
  blocks = gram.reshape(groups, num, n, num, n)
  half = jnp.einsum(
    'gip,gpiqk->gqik', weights, blocks, precision=gram_matrix.HIGHEST
  )  # <y_i, vector q of k>
  yy = jnp.einsum('gqik,gkq->gik', half, weights, precision=gram_matrix.HIGHEST)
  yx = alpha_s[:, None, None] * half[:, 0]
  xx_norm = jnp.square(alpha_s)[:, None] * jnp.diagonal(
    blocks[:, 0, :, 0], axis1=1, axis2=2
  )
  yy_norm = jnp.diagonal(yy, axis1=1, axis2=2)
  others = ~np.eye(n, dtype=bool)
  to_true = yy_norm[:, :, None] + xx_norm[:, None] - 2.0 * yx
  attraction = mmd.expected_norm_power(
    _positive(to_true), (noise_var + sigma_s**2)[:, None, None], dim, beta
  ).mean(axis=(1, 2), where=others)
  return attraction - 0.5 * interaction * _repulsion(yy, noise_var, dim, beta)


def l2_terms(
  gram: jax.Array,
  s: jax.Array,
  t: jax.Array,
  *,
  schedule: types.Schedule,
  churn: float,
) -> tuple[jax.Array, jax.Array]:
  """Numerator and denominator of the weight that minimises l2, (6), of each datum.

  Args:
    gram: `[batch, 3m, 3m]`, one direction.
    s: `[batch]`.
    t: `[batch]`, t > s.
    schedule: noise schedule.
    churn: in [0, 1].

  Returns:
    Two `[batch]` arrays: over any set of data that share omega, at whatever (s, t), the
    best omega is minus the sum of the first over the sum of the second.
  """
  (coef_eps, coef_x0), _, _ = _step(schedule, s, t, churn)
  e_delta, r_delta, delta_delta = _diagonals(gram)
  numerator = coef_x0 * (coef_x0 * r_delta + coef_eps * e_delta)
  return numerator, jnp.square(coef_x0) * delta_delta


def score_matching_terms(gram: jax.Array) -> tuple[jax.Array, jax.Array]:
  """The same as `l2_terms`, for guided score matching, (7)."""
  _, r_delta, delta_delta = _diagonals(gram)
  return r_delta, delta_delta


def _diagonals(gram):
  """Means over the particles of <e, delta>, <r, delta> and ||delta||^2, `[batch]`."""
  m = gram.shape[-1] // 3
  blocks = gram.reshape(gram.shape[0], 3, m, 3, m)
  return (
    jnp.diagonal(blocks[:, i, :, 2], axis1=1, axis2=2).mean(axis=1) for i in range(3)
  )


def _step(schedule, s, t, churn):
  """The coefficients of e and r in (3), std^2, and sigma_s."""
  coef_xt, coef_x0, std = transitions.coefficients(schedule, s, t, churn)
  return (coef_xt * schedule.sigma(t), coef_x0), jnp.square(std), schedule.sigma(s)


def _particle_products(gram, omega, coef):
  """<u_j, u_k> of (3), `[batch, m, m]`."""
  coef_eps, coef_x0 = coef
  omega = omega.reshape(omega.shape[0], -1)  # [batch, K]
  weights = jnp.concatenate(
    [coef_eps[:, None], coef_x0[:, None], coef_x0[:, None] * omega], axis=1
  )
  batch, num = weights.shape
  m, rest = divmod(gram.shape[-1], num)
  if rest:
    raise ValueError(
      f'omega of {num - 2} directions, and a Gram matrix of {gram.shape[-1]} vectors:'
      f' must be {num} for every particle.'
    )
  blocks = gram.reshape(batch, num, m, num, m)
  return jnp.einsum(
    'bp,bpjqk,bq->bjk', weights, blocks, weights, precision=gram_matrix.HIGHEST
  )


def _repulsion(products, noise_var, dim, beta, skip=None):
  """Mean distance of the pairs (j, k) of guided particles but those of k - j = skip.

  Takes the `[batch, n, n]` inner products of the particles; `[batch]`.
  """
  sq_norm = jnp.diagonal(products, axis1=1, axis2=2)
  j, k = np.triu_indices(products.shape[1], 1)
  j, k = j[k - j != skip], k[k - j != skip]
  sq_dist = sq_norm[:, j] + sq_norm[:, k] - 2.0 * products[:, j, k]
  return mmd.expected_norm_power(
    _positive(sq_dist), 2.0 * noise_var[:, None], dim, beta
  ).mean(axis=1)


def _positive(sq_norm):
  """Rounding can make a squared distance negative."""
  return jnp.maximum(sq_norm, 0.0)
