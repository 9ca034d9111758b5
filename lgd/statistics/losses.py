"""Gram statistics: all that the objectives need of one denoiser pass.

At a datum x_0 and a time t, for particles j = 1..m with noise e_j,

  (1)  x_t = alpha_t x_0 + sigma_t e_j
       r_j = x0_cond_j - x_0,  delta_j = x0_cond_j - x0_null_j

By alpha_s = coef_xt alpha_t + coef_x0 (`transitions`, (5)) the guided particle at s is

  (2)  xg_j = alpha_s x_0 + u_j + std z_j
  (3)  u_j  = coef_xt sigma_t e_j + coef_x0 (r_j + omega delta_j)

so with the Gram matrix G of {e_j}, {r_j}, {delta_j} every <u_j, u_k> is a quadratic in
omega, w^T G_jk w with w = (coef_xt sigma_t, coef_x0, coef_x0 omega). What noise is
left, z_j and that of the true particles, is Gaussian and independent, and integrated
out: with M(q, v) = E||mu + sqrt(v) g||^beta (`mmd`) the loss (22) of the paper has, for
given e_j, the mean

  (4)  L = 1/m sum_j M(||u_j||^2, std^2 + sigma_s^2)
           - lambda/2 1/(m(m-1)) sum_{j != k} M(||u_j - u_k||^2, 2 std^2)

G holds for every s < t, churn, beta, lambda and guidance network: one pass over the
data serves them all, and neither images nor the denoiser are needed again.

For n data at one t, one particle each, the Gram matrix of {x_i}, {e_i}, {r_i} and
{delta_i} gives in the same way the distances between data: the marginal loss (15) is

  (5)  L = 1/(n(n-1)) sum_{i != k} M(||y_i - alpha_s x_k||^2, std^2 + sigma_s^2)
           - lambda/2 1/(n(n-1)) sum_{i != k} M(||y_i - y_k||^2, 2 std^2)
       y_i = alpha_s x_i + u_i

class-conditional if the n data share their condition, pooled if they do not. Several
guidance directions, omega_1 delta^1 + omega_2 delta^2 + ..., only add vectors to G.

l2 and score matching are quadratic in omega; wherever data share it, the minimum is

  (6)  omega = -E[b^2 <delta, r> + b coef_xt sigma_t <delta, e>] / E[b^2 ||delta||^2]
  (7)  omega = -E<delta, r> / E||delta||^2

with b = coef_x0.
"""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np

from lgd import mmd
from lgd import transitions
from lgd import types

# On accelerators the default is a reduced precision, which makes squared distances of
# close particles negative.
_HIGHEST = jax.lax.Precision.HIGHEST


def gram(
  eps: jax.Array,
  x0: jax.Array,
  x0_cond: jax.Array,
  x0_null: jax.Array | Sequence[jax.Array],
) -> jax.Array:
  """Inner products of the vectors (1) of each datum.

  Args:
    eps: `[batch, m, *data]`, the noise of the particles.
    x0: `[batch, *data]`.
    x0_cond: `[batch, m, *data]`, conditional predictions.
    x0_null: `[batch, m, *data]`, null predictions; or K of them, one for each guidance
      direction x0_cond - x0_null.

  Returns:
    `[batch, 3m, 3m]`, in general `[batch, (2 + K) m, (2 + K) m]`: e_1..e_m, r_1..r_m,
    then the delta of each direction. Symmetric.

  Cost: O(batch m dim) memory.
  """
  directions = _directions(x0_cond, x0_null)
  chex.assert_equal_shape([eps, x0_cond, *directions])
  return _inner_products([eps, x0_cond - x0[:, None], *directions])


def group_gram(
  eps: jax.Array,
  x0: jax.Array,
  x0_cond: jax.Array,
  x0_null: jax.Array | Sequence[jax.Array],
) -> jax.Array:
  """Inner products of the vectors (1) and the data, within groups that share a t.

  Args:
    eps: `[groups, n, *data]`, the noise of each member.
    x0: `[groups, n, *data]`.
    x0_cond: `[groups, n, *data]`.
    x0_null: `[groups, n, *data]`, or K of them.

  Returns:
    `[groups, (3 + K) n, (3 + K) n]`: x_1..x_n about their mean, then as in `gram`.
  """
  directions = _directions(x0_cond, x0_null)
  chex.assert_equal_shape([eps, x0, x0_cond, *directions])
  centred = x0 - jnp.mean(x0, axis=1, keepdims=True)  # Only differences matter.
  return _inner_products([centred, eps, x0_cond - x0, *directions])


def _directions(x0_cond, x0_null):
  nulls = [x0_null] if hasattr(x0_null, 'shape') else x0_null
  return [x0_cond - null for null in nulls]


def _inner_products(vectors):
  flat = jnp.concatenate([v.reshape(*v.shape[:2], -1) for v in vectors], axis=1)
  return jnp.einsum(
    'bid,bjd->bij',
    flat,
    flat,
    precision=_HIGHEST,
    preferred_element_type=jnp.float32,
  )


def pack(gram: jax.Array) -> jax.Array:
  """The upper triangle: `[batch, p, p]` -> `[batch, p (p + 1) / 2]`."""
  return gram[:, *np.triu_indices(gram.shape[-1])]


def unpack(packed: jax.Array) -> jax.Array:
  """The inverse of `pack`."""
  p = int((np.sqrt(8 * packed.shape[-1] + 1) - 1) / 2)
  index = np.zeros((p, p), int)
  index[np.triu_indices(p)] = np.arange(packed.shape[-1])
  return packed[:, np.maximum(index, index.T)]


def first_particles(gram: jax.Array, m: int, num_particles: int) -> jax.Array:
  """The Gram matrix of the first `num_particles` of m particles (members)."""
  batch, p = gram.shape[:2]
  blocks = gram.reshape(batch, p // m, m, p // m, m)
  blocks = blocks[:, :, :num_particles, :, :num_particles]
  return blocks.reshape(batch, *(2 * [p // m * num_particles]))


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

  Returns:
    `[batch]` losses. churn, beta and interaction may be traced.

  Cost: O(m^2) memory per datum, whatever its size.
  """
  coef, noise_var, sigma_s = _step(schedule, s, t, churn)
  products = _particle_products(gram, omega, coef)  # [batch, m, m]
  sq_norm = jnp.diagonal(products, axis1=1, axis2=2)
  attraction = mmd.expected_norm_power(
    _positive(sq_norm), (noise_var + sigma_s**2)[:, None], dim, beta
  ).mean(axis=1)
  if sq_norm.shape[1] == 1:
    return attraction
  return attraction - 0.5 * interaction * _repulsion(products, noise_var, dim, beta)


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
  """Eq. (21) with the noise integrated out: (4) at beta = 2, lambda = 0."""
  return self_consistency(
    gram,
    omega,
    s,
    t,
    schedule=schedule,
    churn=churn,
    beta=2.0,
    interaction=0.0,
    dim=dim,
  )


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
    churn: in [0, 1]; at 0 as good as at 1.
    beta: kernel exponent, in (0, 2].
    interaction: lambda, in [0, 1].
    dim: number of elements of a datum.

  Returns:
    `[groups]` losses: without bias, for a datum is not compared with itself.
  """
  (coef_eps, coef_x0), noise_var, sigma_s = _step(schedule, s, t, churn)
  groups, n = omega.shape[:2]
  alpha_s = schedule.alpha(s)
  omega = omega.reshape(groups, n, -1)
  given = jnp.stack([alpha_s, coef_eps, coef_x0], axis=-1)[:, None]  # [groups, 1, 3]
  weights = jnp.concatenate(
    [jnp.broadcast_to(given, (groups, n, 3)), coef_x0[:, None, None] * omega], axis=-1
  )
  num = weights.shape[-1]
  blocks = gram.reshape(groups, num, n, num, n)
  half = jnp.einsum(
    'gip,gpiqk->gqik', weights, blocks, precision=_HIGHEST
  )  # <y_i, vector q of k>
  yy = jnp.einsum('gqik,gkq->gik', half, weights, precision=_HIGHEST)
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
  """As `l2_terms`, for guided score matching, (7)."""
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
  m = gram.shape[-1] // num
  blocks = gram.reshape(batch, num, m, num, m)
  return jnp.einsum('bp,bpjqk,bq->bjk', weights, blocks, weights, precision=_HIGHEST)


def _repulsion(products, noise_var, dim, beta):
  """Mean distance of all pairs of guided particles, `[batch]`, from `[batch, n, n]`."""
  sq_norm = jnp.diagonal(products, axis1=1, axis2=2)
  j, k = np.triu_indices(products.shape[1], 1)
  sq_dist = sq_norm[:, j] + sq_norm[:, k] - 2.0 * products[:, j, k]
  return mmd.expected_norm_power(
    _positive(sq_dist), 2.0 * noise_var[:, None], dim, beta
  ).mean(axis=1)


def _positive(sq_norm):
  """Rounding can make a squared distance negative."""
  return jnp.maximum(sq_norm, 0.0)
