"""Energy-kernel MMD between particle sets, and its kernel with noise integrated out.

  (1)  k(a, b)    = -||a - b||^beta,  0 < beta < 2
  (2)  MMD^2(P, Q) = 2 E||X - Y||^beta - E||X - X'||^beta - E||Y - Y'||^beta

(2) is the energy distance of Szekely and Rizzo (2013); at beta = 2 it degenerates
to 2 ||E X - E Y||^2, which is why beta = 2 appears only in the l2 objective.

Between points known up to Gaussian noise, the kernel has a closed form. With
S = ||mu + sqrt(v) g||^2, g ~ N(0, I_d), q = ||mu||^2 and h = beta / 2:

  (3)  M(q, v) = E S^h = (2v)^h Gamma(d/2 + h) / Gamma(d/2) 1F1(-h; d/2; -q/(2v))
  (4)  M = (2v)^h F(x; d/2, h),  x = q/(2v),
       F(x; b, h) = e^(-x) sum_k x^k/k! Gamma(b + k + h) / Gamma(b + k),
       dF/dx = h F(x; b + 1, h - 1)
  (5)  M ~ q^h sum_n t_n,  t_0 = 1,
       t_n+1 / t_n = (n - h) (n + 1 - h - d/2) / ((n + 1) x)
  (6)  M ~ m^h [1 + C(h,2) c2 + C(h,3) c3 + C(h,4) (c4 + 3 c2^2)
                  + C(h,5) 10 c2 c3 + C(h,6) 15 c2^3 + O(1/d^4)]
       m = E S = q + d v,  c_r = 2^(r-1) (r-1)! v^(r-1) (d v + r q) / m^r

(4) is (3) after Kummer's transformation, a Poisson mixture of the moments of central
chi-squares: its terms are positive, so it keeps full precision. (5) is the asymptotic
series of 1F1 for large x (DLMF 13.7.2). Together they serve small d. (6) expands E S^h
around the mean in the cumulants c_r of S / m, and serves every x once d is large. All
are evaluated at q + d v = 1 and scaled, M(c q, c v) = c^h M(q, v), so that no power
over- or underflows.
"""

import jax
import jax.numpy as jnp

from lgd import checks

_SMALL_DIM = 16  # Below it (4) and (5), from it on (6): relative error below 1e-5.
_LARGE_X = 16.0  # Where (5) takes over from (4).
_NUM_TERMS = 56  # Of (4): the rest is below 1e-7 of the sum at x = 16.
_NUM_ASYMPTOTIC_TERMS = 12  # Of (5): the smallest terms at x = 16.


def pairwise_energy(x: jax.Array, y: jax.Array, beta: float) -> jax.Array:
  """`||x_i - y_j||^beta` for every pair.

  Differences are formed explicitly: expanding the square into a matrix product
  cancels catastrophically for close particles when the product runs in bfloat16.

  Args:
    x: `[n, dim]`; integers and half precisions are taken as float32.
    y: `[m, dim]`.
    beta: exponent, in (0, 2].

  Returns:
    `[n, m]`.

  Gradient: defined as zero where x_i == y_j (it is singular there for beta <= 1).
  Cost: O(n m dim) memory.

  Raises:
    ValueError: arrays of other shapes.
  """
  checks.matrices(x=x, y=y)
  x, y = (z.astype(jnp.promote_types(z.dtype, jnp.float32)) for z in (x, y))
  sq_dist = jnp.sum(jnp.square(x[:, None, :] - y[None, :, :]), axis=-1)
  coincide = sq_dist == 0.0
  safe_sq_dist = jnp.where(coincide, 1.0, sq_dist)  # Inner where: finite gradient.
  return jnp.where(coincide, 0.0, safe_sq_dist ** (0.5 * beta))


def energy_mmd2(x: jax.Array, y: jax.Array, *, beta: float = 1.0) -> jax.Array:
  """Unbiased U-statistic estimate of the squared energy MMD, (2).

    2/(nm) sum_ij ||x_i - y_j||^beta
      - 1/(n(n-1)) sum_{i != j} ||x_i - x_j||^beta
      - 1/(m(m-1)) sum_{i != j} ||y_i - y_j||^beta

  The energy-kernel case of Gretton et al. (JMLR 2012), Eq. (3). May be negative.

  Args:
    x: `[n, dim]` particles from P, n >= 2.
    y: `[m, dim]` particles from Q, m >= 2.
    beta: kernel exponent, in (0, 2).

  Returns:
    Scalar estimate.

  Raises:
    ValueError: sets of other shapes, fewer than two particles in one, or beta outside
      (0, 2).
  """
  checks.matrices(x=x, y=y)
  n, m = x.shape[0], y.shape[0]
  if min(n, m) < 2:
    raise ValueError(f'energy_mmd2 needs >= 2 particles per set, got n={n}, m={m}.')
  if not 0.0 < beta < 2.0:
    raise ValueError(f'energy_mmd2 needs beta in (0, 2), got beta={beta}.')
  cross = jnp.mean(pairwise_energy(x, y, beta))
  within_x = jnp.sum(pairwise_energy(x, x, beta)) / (n * (n - 1))
  within_y = jnp.sum(pairwise_energy(y, y, beta)) / (m * (m - 1))
  return 2.0 * cross - within_x - within_y


def expected_norm_power(
  sq_norm: jax.Array, variance: jax.Array, dim: int, beta: float
) -> jax.Array:
  """`E ||mu + sqrt(variance) g||^beta` with g ~ N(0, I_dim), (3).

  Args:
    sq_norm: q = ||mu||^2 >= 0, any shape.
    variance: v >= 0, broadcast against `sq_norm`.
    dim: d >= 1, a Python integer.
    beta: exponent in (0, 2]; may be traced.

  Returns:
    The expectation, of the broadcast shape; relative error below 1e-5 in float32.

  Gradient: in `sq_norm` and `variance`, not in `beta`; in `variance` to 1e-4 of
  dim dM/dq, since it vanishes for dim = 1, beta = 1. Defined as zero where both are
  zero (it is singular there).

  Raises:
    ValueError: dim below 1, or beta, unless traced, outside (0, 2].
  """
  checks.require('at least 1', lambda v: v >= 1, dim=dim)
  checks.require('in (0, 2]', lambda v: 0.0 < v <= 2.0, beta=beta)
  dtype = jnp.promote_types(jnp.result_type(sq_norm, variance), jnp.float32)
  sq_norm, variance = (x.astype(dtype) for x in jnp.broadcast_arrays(sq_norm, variance))
  h = jax.lax.stop_gradient(0.5 * beta)
  # A constant: the scaling is exact for every one.
  scale = jax.lax.stop_gradient(sq_norm + dim * variance)
  is_zero = scale == 0.0
  scale = jnp.where(is_zero, 1.0, scale)  # Inner where: finite gradients.
  q = jnp.where(is_zero, 1.0, sq_norm / scale)
  v = jnp.where(is_zero, 0.0, variance / scale)
  power = _small_dim_power if dim < _SMALL_DIM else _large_dim_power
  return jnp.where(is_zero, 0.0, scale**h * power(q, v, dim, h))


def _small_dim_power(q: jax.Array, v: jax.Array, dim: int, h: float) -> jax.Array:
  """M of (4) and (5), at q + dim v = 1."""
  is_small = q < 2.0 * _LARGE_X * v
  # Inner where: finite gradients in the branch that is not taken.
  small_v, small_q = jnp.where(is_small, v, 1.0), jnp.where(is_small, q, 0.0)
  large_v, large_q = jnp.where(is_small, 0.0, v), jnp.where(is_small, 1.0, q)
  small = (2.0 * small_v) ** h * _poisson_moment(
    small_q / (2.0 * small_v), 0.5 * dim, h
  )
  large = large_q**h * _asymptotic(2.0 * large_v / large_q, dim, h)
  return jnp.where(is_small, small, large)


def _large_dim_power(q: jax.Array, v: jax.Array, dim: int, h: float) -> jax.Array:
  """M of (6), at q + dim v = 1."""
  mean = q + dim * v
  return mean**h * _expansion(v / mean, dim, h)


@jax.custom_jvp
def _poisson_moment(x: jax.Array, b: float, h: float) -> jax.Array:
  """F of (4), summed from the inside out."""
  total = jnp.ones_like(x)
  for k in reversed(range(_NUM_TERMS)):
    total = 1.0 + total * x * ((b + k + h) / ((b + k) * (k + 1.0)))
  log_first = jax.lax.lgamma(jnp.float32(b + h)) - jax.lax.lgamma(jnp.float32(b))
  return jnp.exp(log_first - x) * total


@_poisson_moment.defjvp
def _poisson_moment_jvp(primals, tangents):
  """The slope (4): differentiating e^(-x) times the sum would cancel."""
  x, b, h = primals
  slope = h * _poisson_moment(x, b + 1.0, h - 1.0)
  return _poisson_moment(x, b, h), slope * tangents[0]


def _asymptotic(inverse_x: jax.Array, dim: int, h: float) -> jax.Array:
  """The sum of (5)."""
  total = jnp.ones_like(inverse_x)
  for n in reversed(range(_NUM_ASYMPTOTIC_TERMS)):
    total = 1.0 + total * inverse_x * ((n - h) * (n + 1.0 - h - 0.5 * dim) / (n + 1.0))
  return total


def _expansion(ratio: jax.Array, dim: int, h: float) -> jax.Array:
  """The bracket of (6), for `ratio` = v / m."""
  share = dim * ratio  # d v / m; q / m is the rest.
  c2, c3, c4 = (
    factor * ratio ** (r - 1) * (share + r * (1.0 - share))
    for r, factor in ((2, 2.0), (3, 8.0), (4, 48.0))
  )
  binomial = [1.0]
  for i in range(6):
    binomial.append(binomial[-1] * (h - i) / (i + 1.0))
  return (
    1.0
    + binomial[2] * c2
    + binomial[3] * c3
    + binomial[4] * (c4 + 3.0 * c2**2)
    + binomial[5] * 10.0 * c2 * c3
    + binomial[6] * 15.0 * c2**3
  )
