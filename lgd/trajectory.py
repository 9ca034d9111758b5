"""Weights chosen along guided trajectories: a line search at every step.

One-step objectives look at true x_t; the sampler visits states that carry the error of
all steps before. Here N particles per condition are guided from noise to data, and at
each transition t -> s the weight of a condition is the one that brings them closest to
its true marginal, at s or a little further down, at s' = max(s - lookahead, 0). With
predictions at the particles x_i,

  (1)  x'_i(omega) = a_i + omega b_i + std z_i,  one transition from t to s'
       a = coef_xt x_t + coef_x0 x0_cond,  b = coef_x0 (x0_cond - x0_null)
  (2)  D(omega) = 1/(N R) sum_ik E||x'_i(omega) - y_k||^beta
                  - 1/2 1/(N(N-1)) sum_{i != j} E||x'_i(omega) - x'_j(omega)||^beta
  (3)  C_k = fade C_k-1 + D_k

for reference data y ~ q(y_s' | c): half the energy distance up to a constant. Why look
ahead: at s the noise hides errors that only later steps reveal, when guidance has lost
its power over them. (1) has its own churn; the particles move on as in the sampler.

The candidates lie on both sides of 0. Particles and references are dealt into B blocks,
and every curve comes with B others, each without one block: a jackknife. With C_c of
condition c, its mean over conditions C, and var the jackknife's variance,

  (4)  rho = max(0, 1 - mean_c var(C_c') / mean_c (C_c' - C')^2)   at the minimum of C
  (5)  C_c <- C + rho (C_c - C)
  (6)  omega_c = argmin C_c,  if C_c(0) - C_c(omega_c) > confidence sd(the same), or 0

(4) is James and Stein's: conditions whose slopes differ by no more than their noise
share one curve. (6) is `jackknife`, (2): it keeps noise from becoming guidance. Weights
below 0 are returned as 0: they are no more than what lets noise at 0 have two sides.

Curves of several distances, as of pixels and of features, are added in units of their
own size, which brings them to one scale at every step:

  (7)  D = sum_i share_i D_i / mean_c D_ic(0)

In pixels every candidate follows from inner products of {a_i}, {b_i} and the data, with
z and the noise of y integrated out (`mmd`, (3)); in features f the candidates cost f
alone. The denoiser is called twice per particle and step, as by the sampler, whatever
the number of candidates. (3) smooths over steps: curves are added up, and fade, before
the minimum is taken, so that the particles follow the weights returned.
"""

import functools
import math
from collections.abc import Callable
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from lgd import arrays
from lgd import checks
from lgd import denoiser as denoiser_lib
from lgd import jackknife
from lgd import mmd
from lgd import noising
from lgd import transitions
from lgd import types

# (key, a [conds, N, *data], b, std [], s' [], omegas [K]) -> curves (2)
# [conds, 1 + B, K]: with all particles and references, and without each block.
CurveFn = Callable[
  [jax.Array, jax.Array, jax.Array, jax.Array, jax.Array, jax.Array], jax.Array
]


def pixel_curves(
  reference: jax.Array,
  *,
  schedule: types.Schedule,
  beta: float,
  num_references: jax.Array | None = None,
  num_blocks: int = 0,
) -> CurveFn:
  """Curves (2) of the particles themselves, all noise integrated out.

  Args:
    reference: `[num_conds, R, *data]` data of each condition.
    schedule: noise schedule.
    beta: kernel exponent, in (0, 2).
    num_references: `[num_conds]`, how many of the R are data: the first, the rest is
      not looked at; None is all. So a rare condition takes none from the others.
    num_blocks: B of the jackknife; 0 leaves it out.

  Cost: five products of N x N and N x R vectors per condition, then O(N (N + R)) a
  candidate.
  """
  num_conds, dim = reference.shape[0], math.prod(reference.shape[2:])
  reference = _in_float32(reference.reshape(num_conds, -1, dim))
  is_data = _is_data(reference, num_references)

  def curve(a, b, y, is_data, noise_var, sigma_s, omegas):  # Of one condition.
    y = jnp.where(is_data[:, None], y, y[0])
    centre = y.mean(axis=0)  # Only differences matter.
    a, y = a - centre, y - centre

    def product(x, z):
      return jnp.matmul(x, z.T, precision=jax.lax.Precision.HIGHEST)

    aa, ab, bb, ay, by = (
      product(x, z) for x, z in ((a, a), (a, b), (b, b), (a, y), (b, y))
    )
    y_norm = jnp.sum(jnp.square(y), axis=1)

    def distance(omega):
      xx = aa + omega * (ab + ab.T) + omega**2 * bb
      x_norm = jnp.diagonal(xx)
      to_data = x_norm[:, None] + y_norm - 2.0 * (ay + omega * by)
      to_each_other = x_norm[:, None] + x_norm - 2.0 * xx
      return _energies(
        *(
          mmd.expected_norm_power(jnp.maximum(q, 0.0), v, dim, beta)
          for q, v in (
            (to_data, noise_var + sigma_s**2),
            (to_each_other, 2.0 * noise_var),
          )
        ),
        is_data,
        num_blocks,
      )

    return jax.lax.map(distance, omegas).T

  def curves(key, a, b, std, s, omegas):
    del key
    flat = (num_conds, a.shape[1], dim)
    y = schedule.alpha(s) * reference
    args = (a.reshape(flat), b.reshape(flat), y, is_data)
    return jax.lax.map(
      lambda of_cond: curve(*of_cond, jnp.square(std), schedule.sigma(s), omegas), args
    )

  return curves


def feature_curves(
  features: Callable[[jax.Array, jax.Array], jax.Array],
  reference: jax.Array,
  *,
  schedule: types.Schedule,
  beta: float,
  num_references: jax.Array | None = None,
  num_blocks: int = 0,
) -> CurveFn:
  """Curves (2) in the features of noisy data; noise is drawn, the same for all omega.

  Args:
    features: `(xs [batch, *data], s [batch]) -> [batch, num_features]`.
    reference: `[num_conds, R, *data]` data of each condition.
    schedule: noise schedule.
    beta: kernel exponent, in (0, 2).
    num_references: as in `pixel_curves`.
    num_blocks: as in `pixel_curves`.

  Cost: one evaluation of `features` per particle and candidate and, every step, per
  reference; then O(N (N + R) num_features) a candidate.
  """
  is_data = _is_data(reference, num_references)

  def curves(key, a, b, std, s, omegas):
    key_z, key_y = jax.random.split(key)
    z = std * jax.random.normal(key_z, a.shape)
    eps = jax.random.normal(key_y, reference.shape)
    ys = noising.add_noise(schedule, reference, eps, s)

    def embed(x):  # [conds, n, *data] -> [conds, n, num_features]
      flat = x.reshape(-1, *x.shape[2:])
      embedded = features(flat, jnp.full(len(flat), s))
      return _in_float32(embedded.reshape(*x.shape[:2], -1))

    y = embed(ys)

    def norm_power(x, y):  # ||x_i - y_k||^beta within each condition; no gradients.
      product = jnp.einsum('cif,ckf->cik', x, y, precision=jax.lax.Precision.HIGHEST)
      x_norm, y_norm = (jnp.sum(jnp.square(v), axis=2) for v in (x, y))
      sq_dist = x_norm[:, :, None] + y_norm[:, None] - 2.0 * product
      return jnp.maximum(sq_dist, 0.0) ** (0.5 * beta)

    def distance(omega):
      x = embed(a + omega * b + z)
      to_data, to_each_other = norm_power(x, y), norm_power(x, x)
      return jax.vmap(functools.partial(_energies, num_blocks=num_blocks))(
        to_data, to_each_other, is_data
      )

    return jnp.moveaxis(jax.lax.map(distance, omegas), 0, -1)

  return curves


def summed_curves(curve_fns: Sequence[CurveFn], shares: Sequence[float]) -> CurveFn:
  """Curves (7), of several distances at once.

  Args:
    curve_fns: curves of the same conditions, with the same number of blocks.
    shares: of each in the sum.
  """

  def curves(key, a, b, std, s, omegas):
    zero = jnp.argmin(jnp.abs(omegas))
    keys = jax.random.split(key, len(curve_fns))
    each = [f(k, a, b, std, s, omegas) for f, k in zip(curve_fns, keys, strict=True)]
    scales = [jnp.nanmean(curve[:, 0, zero]) for curve in each]
    return sum(
      share * curve / scale
      for share, curve, scale in zip(shares, each, scales, strict=True)
    )

  return curves


def _energies(
  to_data: jax.Array, to_each_other: jax.Array, is_data: jax.Array, num_blocks: int
) -> jax.Array:
  """(2) from distances `[N, R]` and `[N, N]`: `[1 + B]`, of all and without each block.

  Blocks of particles and of data are those of `jackknife.kept`.
  """
  n, r = to_data.shape
  keep_x, keep_y = (jackknife.kept(num, num_blocks) for num in (n, r))
  keep_y = keep_y & is_data
  if keep_x.sum(axis=1).min() < 2 or r < 2 <= num_blocks:
    raise ValueError(
      f'num_blocks={num_blocks}: without one of them at least 2 of the {n} particles'
      f' and 1 of the {r} references must be left; take more of them.'
    )
  keep_x, keep_y = (jnp.asarray(keep, to_data.dtype) for keep in (keep_x, keep_y))

  def total(weight, values, other):  # Sum over the pairs that are kept.
    product = jnp.matmul(weight, values, precision=jax.lax.Precision.HIGHEST)
    return jnp.sum(product * other, axis=1)

  num_x, num_y = keep_x.sum(axis=1), keep_y.sum(axis=1)
  attraction = total(keep_x, to_data, keep_y) / (num_x * num_y)
  others = jnp.where(np.eye(n, dtype=bool), 0.0, to_each_other)
  repulsion = total(keep_x, others, keep_x) / (num_x * (num_x - 1.0))
  return attraction - 0.5 * repulsion


def _in_float32(x):
  """Or better: distances of bytes wrap around, those of half precisions are coarse."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _is_data(reference, num_references):
  """`[num_conds, R]`, which of the reference are data."""
  num_conds, num = reference.shape[:2]
  if num_references is None:
    return jnp.ones((num_conds, num), bool)
  return jnp.arange(num) < jnp.asarray(num_references)[:, None]


def choose(curves: jax.Array, omegas: jax.Array, *, confidence: float) -> jax.Array:
  """The weight of every condition, (4)-(6).

  Args:
    curves: `[num_conds, 1 + B, K]`, as a `CurveFn` gives them.
    omegas: `[K]` increasing candidates, K >= 3, among them 0.
    confidence: of (6), >= 0.

  Returns:
    `[num_conds]`, of any sign; NaN where a curve is not a number.
  """
  num_conds = curves.shape[0]
  pooled = jnp.nanmean(curves, axis=0)
  if num_conds > 1:
    k = jnp.clip(jnp.argmin(pooled[0]), 1, len(omegas) - 2)
    slope = curves[:, :, k + 1] - curves[:, :, k - 1]
    noise = jnp.nanmean(jackknife.variance(slope))
    spread = jnp.nanvar(slope[:, 0]) * num_conds / (num_conds - 1)
    rho = jnp.where(spread > noise, 1.0 - noise / jnp.where(spread > 0, spread, 1), 0.0)
    curves = pooled + rho * (curves - pooled)
  best = jnp.argmin(curves[:, 0], axis=1)
  at_best = jnp.take_along_axis(curves, best[:, None, None], axis=2)[:, :, 0]
  gain = curves[:, :, jnp.argmin(jnp.abs(omegas))] - at_best
  omega = jnp.where(jackknife.is_clear(gain, confidence), omegas[best], 0.0)
  # Of NaN, argmin is the first candidate, without a word.
  return jnp.where(jnp.isnan(curves).any(axis=(1, 2)), jnp.nan, omega)


def search(
  key: jax.Array,
  pair: denoiser_lib.Pair,
  params: types.Params,
  schedule: types.Schedule,
  curve_fn: CurveFn,
  cond: types.Cond,
  shape: tuple[int, ...],
  *,
  times: jax.Array,
  churn: float,
  num_particles: int,
  omegas: jax.Array,
  fade: float,
  lookahead: float,
  lookahead_churn: float,
  confidence: float,
) -> jax.Array:
  """The weight of every condition at every transition, (1)-(6).

  Args:
    key: one key.
    pair: of the frozen denoiser, such as `denoiser.classifier_free`.
    params: its parameters.
    schedule: noise schedule.
    curve_fn: `pixel_curves`, `feature_curves` or `summed_curves`, of reference data in
      the order of `cond`.
    cond: pytree of `[num_conds, ...]`.
    shape: of a datum.
    times: `[num_steps + 1]` decreasing times, the sampler's.
    churn: of the sampler, in [0, 1].
    num_particles: N, at least 2.
    omegas: `[K]` increasing candidates, K >= 3, among them 0.
    fade: of (3), in [0, 1): what is left of earlier curves a step later.
    lookahead: how far beyond s to compare, >= 0.
    lookahead_churn: churn of (1).
    confidence: of (6).

  Returns:
    `[num_conds, num_steps]`, at least 0, as `guidance.table` takes it; NaN for a
    condition from the transition on at which its curve is not a number.

  Raises:
    ValueError: one particle, or times that are no grid.

  Cost: 2 N num_steps denoiser evaluations per condition.
  """
  if num_particles < 2:
    raise ValueError(f'num_particles={num_particles}: their distances need at least 2.')
  checks.time_grid(times=times)
  times, omegas = jnp.asarray(times), jnp.asarray(omegas)
  num_conds = jax.tree.leaves(cond)[0].shape[0]
  total = num_conds * num_particles
  particle_cond = jax.tree.map(lambda c: jnp.repeat(c, num_particles, axis=0), cond)
  xt = schedule.sigma(times[0]) * arrays.normal(arrays.fold_in(key, 0), (total, *shape))

  def transition(carry, step):
    xt, curves = carry
    index, t, s = step
    key_curves, key_z = jax.random.split(arrays.fold_in(key, index))
    x0_cond, x0_null = pair(params, xt, jnp.full(total, t), particle_cond)
    by_cond = (num_conds, num_particles, *shape)

    def candidates(s, churn):
      coef_xt, coef_x0, std = transitions.coefficients(schedule, s, t, churn)
      return coef_xt * xt + coef_x0 * x0_cond, coef_x0 * (x0_cond - x0_null), std

    s_ahead = jnp.maximum(s - lookahead, 0.0)
    a, b, std = candidates(s_ahead, lookahead_churn)
    found = curve_fn(
      key_curves, a.reshape(by_cond), b.reshape(by_cond), std, s_ahead, omegas
    )
    curves = fade * curves + found
    omega = jnp.maximum(choose(curves, omegas, confidence=confidence), 0.0)
    scale = arrays.expand_right(jnp.repeat(omega, num_particles), xt)
    a, b, std = candidates(s, churn)
    return (a + scale * b + std * arrays.normal(key_z, xt.shape), curves), omega

  particles = jax.ShapeDtypeStruct((num_conds, num_particles, *shape), xt.dtype)
  time = jax.ShapeDtypeStruct((), times.dtype)
  found = jax.eval_shape(curve_fn, key, particles, particles, time, time, omegas)
  start = (xt, jnp.zeros(found.shape))
  steps = (jnp.arange(1, len(times)), times[:-1], times[1:])
  _, table = jax.lax.scan(transition, start, steps)
  return table.T


def fit_loss(
  key: jax.Array,
  weight: types.Weight,
  table: types.Weight,
  cond: types.Cond,
  times: jax.Array,
) -> jax.Array:
  """Squared error of a weight as an interpolant of a table, at random (s, t).

    E (weight(c, s, t) - table(c, t))^2,  t ~ U[times[N], times[0]], s ~ U[0, t]

  A table knows t alone, and goes on as a constant below its last transition; with all
  s and t the weight can serve other time grids.

  Args:
    key: one key.
    weight: to be fitted; the loss is differentiable in its parameters.
    table: from `guidance.table`.
    cond: pytree of `[batch, ...]`.
    times: `[num_steps + 1]` decreasing times of the table.

  Returns:
    `[batch]` losses.
  """
  batch = jax.tree.leaves(cond)[0].shape[0]
  key_s, key_t = jax.random.split(key)
  t = jax.random.uniform(key_t, (batch,), minval=times[-1], maxval=times[0])
  s = t * jax.random.uniform(key_s, (batch,))
  return jnp.square(weight(cond, s, t) - table(cond, s, t))
