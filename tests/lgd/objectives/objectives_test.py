"""The objectives: float64 loops, exact laws, and the 1-d oracle table.

The oracle: rectified flow, p(x_0 | c) = N(1, 1), p(x_0 | null) = N(0, 2). Both
denoisers are affine, so a guided particle is Gaussian and the expected loss of every
omega has a closed form.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized
from scipy import special
from scipy import stats

from lgd import denoiser as denoiser_lib
from lgd import guidance
from lgd import mmd
from lgd import objectives
from lgd import schedules

OPTIMIZED = True

SCHEDULE = schedules.RectifiedFlow()
OMEGAS = np.round(0.1 * np.arange(-15, 16), 1)

# Columns: share of D_c in the conditional denoiser, objective, churn.
COLUMNS = {
  'exact_full_churn1': (1.0, 'full', 1.0),
  'exact_l2_churn1': (1.0, 'l2', 1.0),
  'exact_l2_churn0': (1.0, 'l2', 0.0),
  'mixed_full_churn1': (0.6, 'full', 1.0),
  'mixed_l2_churn1': (0.6, 'l2', 1.0),
}
ROWS = {
  (0.2, 0.4): (-0.7, 0.2, 0.6, -0.6, 0.9),
  (0.4, 0.6): (-0.4, 0.2, 0.8, 0.1, 1.1),
  (0.6, 0.8): (-0.1, 0.2, 0.6, 0.6, 0.9),
}
TABLE = [
  (times, column, omega)
  for times, omegas in ROWS.items()
  for column, omega in zip(COLUMNS, omegas, strict=True)
]


def _affine_denoiser(params, xt, t, cond):
  """`params` D_c + (1 - params) D_null where cond = 0; D_null where cond = 1."""
  t = t[:, None]

  def posterior_mean(mean, variance):
    alpha, sigma = 1.0 - t, t
    gain = alpha * variance / (alpha**2 * variance + sigma**2)
    return mean + gain * (xt - alpha * mean)

  share = jnp.where(cond[:, None] == 0, params, 0.0)
  return share * posterior_mean(1.0, 1.0) + (1.0 - share) * posterior_mean(0.0, 2.0)


def _norm_power(mean, variance, beta):
  """E|N(mean, variance)|^beta, by Kummer's function."""
  factor = (2.0 * variance) ** (beta / 2) * special.gamma((1.0 + beta) / 2)
  kummer = special.hyp1f1(-beta / 2, 0.5, -(mean**2) / (2.0 * variance))
  return factor / special.gamma(0.5) * kummer


def _expected_loss(omega, s, t, share, kind, churn):
  """The closed form of the expected loss at every omega, in float64."""
  beta, interaction = (1.75, 1.0) if kind == 'full' else (2.0, 0.0)
  a_t, a_s, e = 1.0 - t, 1.0 - s, churn**2
  u = e * (a_t / a_s) * (s / t) + 1.0 - e
  coef_xt, coef_x0 = s / t * u, a_s * (1.0 - (a_t / a_s) * (s / t) * u)
  variance = s**2 * (1.0 - u**2)
  # D = intercept + gain x_t.
  gain_c = a_t / (a_t**2 + t**2)
  gain_n = 2.0 * a_t / (2.0 * a_t**2 + t**2)
  gain = share * gain_c + (1.0 - share) * gain_n
  intercept = share * (1.0 - gain_c * a_t)
  slope = coef_xt + coef_x0 * (gain + omega * (gain - gain_n))
  offset = coef_x0 * (1.0 + omega) * intercept
  # xg - x_s = offset + (slope a_t - a_s) x_0 + slope t e + sqrt(v) z - s e'.
  lag = slope * a_t - a_s
  spread = slope**2 * t**2 + variance
  attraction = _norm_power(offset + lag, lag**2 + spread + s**2, beta)
  return attraction - 0.5 * interaction * _norm_power(0.0, 2.0 * spread, beta)


@functools.partial(jax.jit, static_argnames=('num_data', 'num_particles'))
def _draw_oracle(key, share, s, t, *, num_data, num_particles):
  key_x0, key_particles = jax.random.split(key)
  return objectives.draw_particles(
    key_particles,
    denoiser_lib.classifier_free(_affine_denoiser, 1),
    share,
    SCHEDULE,
    1.0 + jax.random.normal(key_x0, (num_data, 1)),
    jnp.zeros(num_data, jnp.int32),
    jnp.full(num_data, s),
    jnp.full(num_data, t),
    num_particles=num_particles,
  )


@functools.partial(
  jax.jit, static_argnames=('kind', 'churn', 'num_data', 'num_particles')
)
def _loss_sums(key, omega, s, t, share, *, kind, churn, num_data, num_particles):
  """Common random numbers for all omega: sums and squares of loss differences.

  Differences are to the middle omega; also the plain sum. Each `[len(omega)]`.
  """
  key_draw, key_step = jax.random.split(key)
  particles = _draw_oracle(
    key_draw, share, s, t, num_data=num_data, num_particles=num_particles
  )

  def loss(omega):
    x_guided = objectives.guided_particles(
      key_step,
      particles,
      jnp.full(num_data, omega),
      schedule=SCHEDULE,
      churn=churn,
      rule=guidance.linear,
    )
    if kind == 'l2':
      return objectives.l2(x_guided, particles.xs)
    return objectives.self_consistency(
      x_guided, particles.xs, beta=1.75, interaction=1.0
    )

  losses = jax.lax.map(loss, omega)
  diff = losses - losses[len(omega) // 2]
  return jnp.mean(losses, 1), jnp.mean(diff, 1), jnp.mean(diff**2, 1)


class OracleTableTest(parameterized.TestCase):
  @parameterized.parameters(*TABLE)
  def test_closed_form(self, times, column, expected):
    """The table is the argmin of the closed form: Gaussian algebra, no library."""
    loss = _expected_loss(OMEGAS, *times, *COLUMNS[column])
    self.assertEqual(OMEGAS[np.argmin(loss)], expected)

  @parameterized.parameters(*TABLE)
  def test_library(self, times, column, expected):
    """The same table out of the library's own objective, entry by entry.

    Stage 1: the whole grid with 200,000 x_0 and m = 2, common random numbers; every
    expected loss within 5 standard errors of the closed form (relative to omega = 0).
    Stage 2: the tabulated omega against its two neighbours, on fresh draws, until
    both are worse by 5 standard errors (at most 20 million x_0).
    """
    share, kind, churn = COLUMNS[column]
    run = functools.partial(
      _loss_sums,
      s=times[0],
      t=times[1],
      share=share,
      kind=kind,
      churn=churn,
      num_data=200_000,
      num_particles=2,
    )
    key = jax.random.key(0)
    _, diff, square = np.float64(run(jax.random.fold_in(key, 0), OMEGAS))
    error = np.sqrt((square - diff**2) / 200_000)
    exact = _expected_loss(OMEGAS, *times, share, kind, churn)
    exact -= exact[15]
    np.testing.assert_array_less(np.abs(diff - exact), 5.0 * error + 1e-6)
    far = np.abs(OMEGAS - expected) > 0.25
    self.assertGreater(np.min(diff[far]), np.min(diff[~far]))

    near = np.asarray([expected - 0.1, expected, expected + 0.1], np.float32)
    total = np.zeros((2, 2))
    for chunk in range(1, 101):
      _, diff, square = np.float64(run(jax.random.fold_in(key, chunk), near))
      total += np.stack([diff, square])[:, [0, 2]]
      mean, square = total / chunk
      error = np.sqrt((square - mean**2) / (200_000 * chunk))
      if np.all(np.abs(mean) > 5.0 * error):
        break
    self.assertGreater(np.min(mean / error), 5.0)

  @parameterized.product(
    times=tuple(ROWS), share=(1.0, 0.6), churn=(0.0, 1.0), num_particles=(1, 3)
  )
  def test_l2_closed_form(self, times, share, churn, num_particles):
    """omega* = -E<delta, (x0_cond - x0) + (c_t sigma_t / b) e> / E||delta||^2.

    Expectations over the library's particles (400,000 in all) against the vertex of
    the parabola through three values of the closed-form expected loss; 5 standard
    errors of the ratio (delta method).
    """
    s, t = times
    num_data = 400_000 // num_particles
    key = jax.random.key(3)
    particles = _draw_oracle(
      key, share, s, t, num_data=num_data, num_particles=num_particles
    )
    x0 = 1.0 + np.float64(jax.random.normal(jax.random.split(key)[0], (num_data, 1)))
    xt, x0_cond, x0_null = (np.float64(a[..., 0]) for a in particles[3:6])
    delta, eps = x0_cond - x0_null, (xt - (1.0 - t) * x0) / t
    ratio, e = (1.0 - t) / (1.0 - s) * s / t, churn**2
    u = e * ratio + 1.0 - e
    coef_xt, coef_x0 = s / t * u, (1.0 - s) * (1.0 - ratio * u)
    top = np.mean(delta * (x0_cond - x0 + coef_xt * t / coef_x0 * eps), axis=1)
    bottom = np.mean(delta**2, axis=1)
    omega = -np.mean(top) / np.mean(bottom)
    error = np.std(top + omega * bottom) / np.mean(bottom) / math.sqrt(num_data)
    below, middle, above = _expected_loss(
      np.asarray([-1.0, 0.0, 1.0]), s, t, share, 'l2', churn
    )
    vertex = 0.5 * (below - above) / (below - 2.0 * middle + above)
    self.assertLess(abs(omega - vertex), 5.0 * error)
    self.assertLess(error, 0.02)


def _loop_loss(x_guided, x_true, beta, interaction):
  """Eq. (22) as three loops, in float64."""
  x_guided, x_true = np.float64(x_guided), np.float64(x_true)
  batch, m = x_guided.shape[:2]
  losses = np.zeros(batch)
  for i in range(batch):
    for j in range(m):
      for k in range(m):
        d = math.dist(x_guided[i, j].ravel(), x_true[i, k].ravel())
        losses[i] += d**beta / m**2
        if j != k:
          d = math.dist(x_guided[i, j].ravel(), x_guided[i, k].ravel())
          losses[i] -= 0.5 * interaction * d**beta / (m * (m - 1))
  return losses


def _draw_pair(shape, seed=0):
  x_guided, x_true = jax.random.normal(jax.random.key(seed), (2, *shape))
  return x_guided, 0.5 * x_true + 0.2


class SelfConsistencyTest(parameterized.TestCase):
  @parameterized.product(
    kernel=((0.5, 1.0), (1.0, 0.3), (1.75, 1.0), (1.75, 0.0), (2.0, 1.0)),
    shape=((3, 2, 5), (2, 4, 4, 3, 1), (2, 5, 1)),
    jit=(False, True),
  )
  def test_matches_the_triple_loop(self, kernel, shape, jit):
    beta, interaction = kernel
    x_guided, x_true = _draw_pair(shape)
    fn = functools.partial(
      objectives.self_consistency, beta=beta, interaction=interaction
    )
    with jax.numpy_rank_promotion('raise'):
      loss = (jax.jit(fn) if jit else fn)(x_guided, x_true)
    expected = _loop_loss(x_guided, x_true, beta, interaction)
    np.testing.assert_allclose(loss, expected, rtol=2e-6, atol=2e-6)

  @parameterized.product(shape=((3, 1, 5), (2, 4, 2, 2)), jit=(False, True))
  def test_l2_matches_the_triple_loop(self, shape, jit):
    x_guided, x_true = _draw_pair(shape)
    fn = jax.jit(objectives.l2) if jit else objectives.l2
    expected = np.zeros(shape[0])
    for i in range(shape[0]):
      for j in range(shape[1]):
        for k in range(shape[1]):
          diff = np.float64(x_guided[i, j]) - np.float64(x_true[i, k])
          expected[i] += np.sum(diff**2) / shape[1] ** 2
    np.testing.assert_allclose(fn(x_guided, x_true), expected, rtol=2e-6)

  @parameterized.parameters(0.5, 1.0, 1.75, 2.0)
  def test_gradient_at_coincident_particles(self, beta):
    """Finite when all coincide; zero by symmetry then."""
    x = jnp.ones((2, 3, 4))

    def loss(x_guided):
      return jnp.sum(
        objectives.self_consistency(x_guided, x, beta=beta, interaction=1.0)
      )

    np.testing.assert_array_equal(jax.grad(loss)(x), np.zeros(x.shape))
    moved = x.at[:, 0, 0].add(1.0)
    grad = jax.grad(loss)(moved)
    self.assertTrue(np.all(np.isfinite(grad)))
    # The moved particle: pull beta/9 * 3 of the truth, push beta/2 * 2/6 * 2.
    expected = np.zeros(x.shape)
    expected[:, 0, 0] = beta / 3.0 - beta / 3.0
    expected[:, 1:, 0] = beta / 6.0
    np.testing.assert_allclose(grad, expected, atol=1e-6)

  def test_order_of_particles_does_not_matter(self):
    x_guided, x_true = _draw_pair((2, 5, 3))
    fn = functools.partial(objectives.self_consistency, beta=1.0, interaction=1.0)
    permuted = fn(x_guided[:, ::-1], jnp.roll(x_true, 2, axis=1))
    np.testing.assert_allclose(permuted, fn(x_guided, x_true), rtol=1e-5)

  def test_mean_is_half_the_mmd2_and_a_constant(self):
    """1-d, beta = 1, N(d, 1) against N(0, 1): E|N(d, 2)| - E|N(0, 2)| / 2."""
    shift, replicas = 0.7, 20_000
    key_p, key_q = jax.random.split(jax.random.key(0))
    losses = objectives.self_consistency(
      jax.random.normal(key_p, (replicas, 3, 1)) + shift,
      jax.random.normal(key_q, (replicas, 3, 1)),
      beta=1.0,
      interaction=1.0,
    )
    root = math.sqrt(2.0)
    expected = root * (stats.foldnorm.mean(shift / root) - 0.5 * stats.foldnorm.mean(0))
    error = np.std(losses) / math.sqrt(replicas)
    self.assertLess(abs(np.mean(losses) - expected), 5.0 * error)

  def test_errors(self):
    x = jnp.zeros((2, 1, 3))
    with self.assertRaisesRegex(ValueError, 'interaction=1.0 with 1 particle'):
      objectives.self_consistency(x, x, beta=1.0, interaction=1.0)
    with self.assertRaisesRegex(ValueError, r'x_true.shape=.*must be the same'):
      objectives.l2(x, jnp.zeros((2, 2, 3)))


class MarginalTest(parameterized.TestCase):
  @parameterized.product(
    kernel=((0.5, 1.0), (1.0, 0.3), (1.75, 1.0), (1.75, 0.0), (2.0, 1.0)),
    shape=((3, 2, 5), (2, 4, 3, 2, 1)),
    jit=(False, True),
  )
  def test_matches_the_loops(self, kernel, shape, jit):
    """Over ordered pairs of different data, in float64."""
    beta, interaction = kernel
    x_guided, x_true = _draw_pair(shape)
    fn = functools.partial(objectives.marginal, beta=beta, interaction=interaction)
    with jax.numpy_rank_promotion('raise'):
      loss = (jax.jit(fn) if jit else fn)(x_guided, x_true)
    groups, n = shape[:2]
    expected = np.zeros(groups)
    for g in range(groups):
      guided, true = (np.float64(x[g]).reshape(n, -1) for x in (x_guided, x_true))
      for i in range(n):
        for k in range(n):
          if i != k:
            expected[g] += math.dist(guided[i], true[k]) ** beta
            expected[g] -= 0.5 * interaction * math.dist(guided[i], guided[k]) ** beta
    np.testing.assert_allclose(loss, expected / (n * (n - 1)), rtol=1e-5, atol=1e-6)

  @parameterized.parameters(0.0, 0.9)
  def test_mean_is_half_the_mmd2_and_a_constant(self, correlation):
    """1-d, beta = 1: xg_i ~ N(a, 4/9) and x_i ~ N(0, 1), correlated within a datum.

    The mean is E|N(a, 13/9)| - E|N(0, 8/9)| / 2 whatever the correlation, within 5
    standard errors. At lambda = 1 it is also half the energy MMD of independent samples
    of the two laws, plus E|N(0, 2)| / 2, which does not depend on the guided one.
    """
    groups, n, shift, std = 20_000, 4, 0.6, 2.0 / 3.0
    x_true, other = jax.random.normal(jax.random.key(0), (2, groups, n, 1))
    own = math.sqrt(1.0 - correlation**2) * other
    x_guided = shift + std * (correlation * x_true + own)
    for interaction in (0.4, 1.0):
      losses = objectives.marginal(x_guided, x_true, beta=1.0, interaction=interaction)
      scale = math.sqrt(1.0 + std**2)
      expected = scale * stats.foldnorm.mean(shift / scale)
      expected -= 0.5 * interaction * math.sqrt(2.0) * std * stats.foldnorm.mean(0)
      error = np.std(losses) / math.sqrt(groups)
      self.assertLess(abs(np.mean(losses) - expected), 5.0 * error)
    mmd2 = jax.vmap(mmd.energy_mmd2)(shift + std * other, x_true)
    difference = losses - 0.5 * mmd2
    error = np.std(difference) / math.sqrt(groups)
    constant = 0.5 * math.sqrt(2.0) * stats.foldnorm.mean(0)
    self.assertLess(abs(np.mean(difference) - constant), 5.0 * error)

  @parameterized.parameters(1, 3)
  def test_groups_of_consecutive_data(self, m):
    """Particle j of data 0, 1, 2 is one group; of data 3, 4, 5 another."""
    x_guided, x_true = _draw_pair((6, m, 2, 2))
    kernel = {'beta': 1.75, 'interaction': 0.7}
    losses = objectives.group_marginal(x_guided, x_true, group_size=3, **kernel)
    expected = []
    for members in (slice(0, 3), slice(3, 6)):
      for j in range(m):
        group = (x[None, members, j] for x in (x_guided, x_true))
        expected.append(objectives.marginal(*group, **kernel)[0])
    np.testing.assert_allclose(losses, expected, rtol=1e-5)

  @parameterized.parameters(0.5, 1.0, 1.75, 2.0)
  def test_gradient_at_coincident_particles(self, beta):
    """Finite, and zero by symmetry, when all coincide."""
    x = jnp.ones((2, 3, 4))
    fn = functools.partial(objectives.marginal, beta=beta, interaction=1.0)
    grad = jax.grad(lambda x_guided: jnp.sum(fn(x_guided, x)))(x)
    np.testing.assert_array_equal(grad, np.zeros(x.shape))

  def test_order_of_data_does_not_matter(self):
    """As long as both particles of a datum move together."""
    x_guided, x_true = _draw_pair((2, 5, 3))
    fn = functools.partial(objectives.marginal, beta=1.0, interaction=1.0)
    permuted = fn(jnp.roll(x_guided, 2, axis=1), jnp.roll(x_true, 2, axis=1))
    np.testing.assert_allclose(permuted, fn(x_guided, x_true), rtol=1e-5)
    parted = fn(x_guided, jnp.roll(x_true, 2, axis=1))
    self.assertGreater(np.min(np.abs(parted - permuted)), 1e-3)

  def test_errors(self):
    x = jnp.zeros((2, 1, 3))
    with self.assertRaisesRegex(ValueError, '1 datum in a group'):
      objectives.marginal(x, x, beta=1.0, interaction=1.0)
    with self.assertRaisesRegex(ValueError, r'x_true.shape=.*must be the same'):
      objectives.marginal(x, jnp.zeros((2, 2, 3)), beta=1.0, interaction=1.0)


class SampleTimesTest(parameterized.TestCase):
  @parameterized.parameters((0.0, 0.0, 0.1), (0.01, 0.01, 0.1), (0.2, 0.05, 0.02))
  def test_distribution(self, s_min, zeta, gap):
    """s uniform, and dt uniform given s: Kolmogorov-Smirnov, p > 1e-3, fixed key."""
    fn = functools.partial(
      objectives.sample_times, batch=20_000, s_min=s_min, zeta=zeta, gap=gap
    )
    for run in (fn, jax.jit(fn)):
      s, t = np.float64(run(jax.random.key(0)))
      self.assertGreaterEqual(np.min(s), s_min - 1e-7)
      self.assertLessEqual(np.max(t), 1.0 - zeta + 1e-7)
      self.assertGreaterEqual(np.min(t - s), gap - 1e-6)
      unit_s = (s - s_min) / (1.0 - zeta - gap - s_min)
      unit_dt = (t - s - gap) / (1.0 - zeta - s - gap)
      keep = 1.0 - zeta - s - gap > 1e-3  # The quotient is rounding error below.
      self.assertGreater(stats.kstest(unit_s, 'uniform').pvalue, 1e-3)
      self.assertGreater(stats.kstest(unit_dt[keep], 'uniform').pvalue, 1e-3)
      for half in (unit_s < 0.5, unit_s >= 0.5):  # Given s, in both halves.
        p = stats.kstest(unit_dt[keep & half], 'uniform').pvalue
        self.assertGreater(p, 1e-3)

  @parameterized.parameters((0.5, 0.25, 0.25), (0.4, 0.4, 0.2), (0.1, 0.3, 0.6))
  def test_one_pair_left(self, s_min, zeta, gap):
    """s_min + gap = 1 - zeta, up to rounding, leaves a single pair of times."""
    times = {'s_min': s_min, 'zeta': zeta, 'gap': gap}
    s, t = objectives.sample_times(jax.random.key(0), 3, **times)
    np.testing.assert_allclose(s, [s_min] * 3, atol=1e-6)
    np.testing.assert_allclose(t, [s_min + gap] * 3, atol=1e-6)
    s = objectives.sample_s(jax.random.key(0), jnp.full(3, s_min + gap), **times)
    np.testing.assert_allclose(s, [s_min] * 3, atol=1e-6)

  def test_empty_range(self):
    with self.assertRaisesRegex(ValueError, 's_min=0.5, gap=0.4, zeta=0.2'):
      objectives.sample_times(jax.random.key(0), 3, s_min=0.5, zeta=0.2, gap=0.4)


TIMES = (
  {'s_min': 0.0, 'zeta': 0.0, 'gap': 0.1},
  {'s_min': 0.01, 'zeta': 0.01, 'gap': 0.1},
  {'s_min': 0.2, 'zeta': 0.05, 'gap': 0.02},
)


class SampleSTest(parameterized.TestCase):
  @parameterized.product(settings=TIMES, traced=(False, True))
  def test_joint_law(self, settings, traced):
    """t of `sample_times`, then s anew: (s, t) has the same law as s drawn with it.

    Two-sample Kolmogorov-Smirnov on projections of 20,000 pairs, and on s within each
    quarter of t; p > 1e-3 each, fixed keys.
    """

    def draw(keys, settings):
      s, t = objectives.sample_times(keys[0], 20_000, **settings)
      _, t_other = objectives.sample_times(keys[1], 20_000, **settings)
      return s, t, objectives.sample_s(keys[2], t_other, **settings), t_other

    keys = jax.random.split(jax.random.key(0), 3)
    s, t, s_other, t_other = np.float64(
      (jax.jit(draw) if traced else draw)(keys, settings)
    )
    quarters = np.quantile(t, [0.25, 0.5, 0.75])

    def projections(s, t):
      quarter = np.searchsorted(quarters, t)
      return t - s, t + s, s * t, s / t, s, *(s[quarter == i] for i in range(4))

    pairs = zip(projections(s, t), projections(s_other, t_other), strict=True)
    for a, b in pairs:
      self.assertGreater(stats.ks_2samp(a, b).pvalue, 1e-3)

  @parameterized.parameters(0.15, 0.4, 0.9)
  def test_density_of_s(self, t):
    """p(s | t) is as 1 / (1 - zeta - gap - s), the width of dt: KS against its CDF."""
    s_min, zeta, gap = 0.01, 0.05, 0.1
    s = objectives.sample_s(
      jax.random.key(0), jnp.full(20_000, t), s_min=s_min, zeta=zeta, gap=gap
    )
    grid = np.linspace(s_min, t - gap, 10_001)
    width = 1.0 / (1.0 - zeta - gap - 0.5 * (grid[1:] + grid[:-1]))
    cdf = np.concatenate([[0.0], np.cumsum(width)]) / np.sum(width)
    test = stats.kstest(np.float64(s), lambda s: np.interp(s, grid, cdf))
    self.assertGreater(test.pvalue, 1e-3)

  @parameterized.parameters(*TIMES)
  def test_range(self, **settings):
    """s in [s_min, t - gap] up to a rounding of t, at and next to both ends of t."""
    s_min, gap = settings['s_min'], settings['gap']
    low, high = np.float32(s_min + gap), np.float32(1.0 - settings['zeta'])
    for t in (low, np.nextafter(low, high), np.nextafter(high, low), high):
      s = objectives.sample_s(jax.random.key(0), jnp.full(20_000, t), **settings)
      s = np.float64(s)
      self.assertTrue(np.all(np.isfinite(s)))
      self.assertGreaterEqual(np.min(s), max(s_min - 1e-7, 0.0))
      self.assertLessEqual(np.max(s), float(t) - gap + 1e-7)
      if t < 0.5:
        np.testing.assert_allclose(s, s_min, atol=1e-6)


class PredictTest(parameterized.TestCase):
  @parameterized.parameters((1, 1), (2, 2), (3, 2), (4, 2), (7, 4), (8, 4))
  def test_antithetic_noise(self, num_particles, own):
    """The first ones' is the draw of as many particles, the others' its negative."""

    def predict(num_particles, antithetic):
      return objectives.predict(
        jax.random.key(0),
        denoiser_lib.classifier_free(lambda params, xt, t, cond: xt + cond[:, None], 9),
        None,
        schedules.RectifiedFlow(),
        jnp.arange(10.0).reshape(5, 2),
        jnp.arange(5),
        jnp.linspace(0.1, 0.9, 5),
        num_particles=num_particles,
        antithetic=antithetic,
      )

    mirrored, first = predict(num_particles, True), predict(own, False)
    self.assertEqual(mirrored.eps.shape, (5, num_particles, 2))
    for a, b in zip(mirrored, first, strict=True):
      np.testing.assert_array_equal(a[:, :own], b)
    np.testing.assert_array_equal(
      mirrored.eps[:, own:], -first.eps[:, : num_particles - own]
    )
    t = np.linspace(0.1, 0.9, 5)[:, None, None]
    x0 = np.arange(10.0).reshape(5, 1, 2)
    np.testing.assert_allclose(
      mirrored.xt, (1 - t) * x0 + t * mirrored.eps, rtol=1e-5, atol=1e-6
    )


def _pixel_denoiser(params, xt, t, cond):
  """Data `[batch, 2, 1]`; every argument shows in the output."""
  return params * jnp.tanh(xt) * t[:, None, None] + cond[:, None, None]


@functools.partial(jax.jit, static_argnames='num_particles')
def _draw_pixels(params, x0, s, t, *, num_particles):
  return objectives.draw_particles(
    jax.random.key(0),
    denoiser_lib.classifier_free(_pixel_denoiser, -1.0),
    params,
    SCHEDULE,
    x0,
    jnp.arange(x0.shape[0], dtype=jnp.float32),
    s,
    t,
    num_particles=num_particles,
  )


class ParticlesTest(parameterized.TestCase):
  def _draw(self, params=2.0, num_particles=3, x0=None, s=None, t=None):
    x0 = jnp.arange(8.0).reshape(4, 2, 1) if x0 is None else x0
    batch = x0.shape[0]
    return _draw_pixels(
      params,
      x0,
      jnp.linspace(0.1, 0.4, batch) if s is None else s,
      jnp.linspace(0.5, 0.9, batch) if t is None else t,
      num_particles=num_particles,
    )

  def test_shapes_and_predictions(self):
    """Each particle is denoised at its own datum's t and condition."""
    particles = self._draw()
    for name in ('xs', 'xt', 'x0_cond', 'x0_null'):
      self.assertEqual(getattr(particles, name).shape, (4, 3, 2, 1), name)
    xt, t = np.float64(particles.xt), np.linspace(0.5, 0.9, 4)
    for i in range(4):
      for j in range(3):
        scaled = 2.0 * np.tanh(xt[i, j]) * t[i]
        np.testing.assert_allclose(particles.x0_cond[i, j], scaled + i, atol=1e-5)
        np.testing.assert_allclose(particles.x0_null[i, j], scaled - 1.0, atol=1e-5)

  def test_marginals(self):
    """x_s and x_t ~ q(.|x_0), and independent: 5 standard errors; 20,000 particles."""
    n = 20_000
    x0 = jnp.asarray([[[0.5], [-2.0]], [[3.0], [0.0]]])
    s, t = np.asarray([0.1, 0.4]), np.asarray([0.3, 0.8])
    particles = self._draw(num_particles=n, x0=x0, s=jnp.asarray(s), t=jnp.asarray(t))
    for x, time in ((particles.xs, s), (particles.xt, t)):
      for i in range(2):
        error = 5.0 * time[i] / math.sqrt(n)
        expected = (1.0 - time[i]) * np.asarray(x0[i])
        np.testing.assert_allclose(np.mean(x[i], axis=0), expected, atol=error)
        np.testing.assert_allclose(np.std(x[i], axis=0), time[i], atol=error)
    for i in range(2):
      columns = np.concatenate([particles.xs[i, ..., 0], particles.xt[i, ..., 0]], 1)
      correlation = np.corrcoef(columns, rowvar=False) - np.eye(4)
      self.assertLess(np.max(np.abs(correlation)), 5.0 / math.sqrt(n))

  def test_gradient_reaches_the_guidance_and_not_the_denoiser(self):
    """Exactly zero towards the denoiser; not zero towards every guidance leaf."""
    net = guidance.GuidanceNet(
      SCHEDULE, guidance.LabelEmbedding(num_classes=4, width=8), width=8, depth=2
    )
    cond, s, t = jnp.arange(4), jnp.linspace(0.1, 0.4, 4), jnp.linspace(0.5, 0.9, 4)
    phi = jax.jit(net.init)(jax.random.key(0), cond, s, t)
    phi = jax.tree.map(lambda p: p + 0.1, phi)

    def loss(phi, params):
      particles = self._draw(params=params)
      x_guided = objectives.guided_particles(
        jax.random.key(1),
        particles,
        net.apply(phi, cond, particles.s, particles.t),
        schedule=SCHEDULE,
        churn=1.0,
        rule=guidance.linear,
      )
      return jnp.mean(
        objectives.self_consistency(x_guided, particles.xs, beta=1.75, interaction=1.0)
      )

    grad = jax.jit(jax.grad(loss, argnums=(0, 1)))
    grad_phi, grad_params = grad(phi, jnp.float32(2.0))
    self.assertEqual(float(grad_params), 0.0)
    for leaf in jax.tree.leaves(grad_phi):
      self.assertGreater(np.max(np.abs(leaf)), 0.0)

  @parameterized.product(churn=(0.0, 0.5, 1.0), times=((0.0, 0.3), (0.2, 0.9)))
  def test_exact_denoiser_gives_true_particles(self, churn, times):
    """Data that are one point per condition: D_c = x_0, so omega = 0 is exact.

    The guided particles then have the law of the true ones, q(x_s | x_0): mean and
    deviation of each coordinate within 5 standard errors.
    """
    n = 20_000
    s, t = times
    points = jnp.asarray([[1.0, -2.0], [0.5, 3.0]])

    def denoiser(params, xt, t, cond):
      del xt, t
      return params[cond]

    particles = objectives.draw_particles(
      jax.random.key(0),
      denoiser_lib.classifier_free(denoiser, 2),
      jnp.concatenate([points, jnp.zeros((1, 2))]),
      SCHEDULE,
      points,
      jnp.arange(2),
      jnp.full(2, s),
      jnp.full(2, t),
      num_particles=n,
    )
    x_guided = objectives.guided_particles(
      jax.random.key(1),
      particles,
      jnp.zeros(2),
      schedule=SCHEDULE,
      churn=churn,
      rule=guidance.linear,
    )
    error = 5.0 * s / math.sqrt(n) + 1e-6
    np.testing.assert_allclose(np.mean(x_guided, 1), (1.0 - s) * points, atol=error)
    np.testing.assert_allclose(np.std(x_guided, 1), np.full((2, 2), s), atol=error)

  def test_omega_moves_particles_along_delta(self):
    """d xg / d omega = coef_x0 (x0_cond - x0_null), coef_x0 of DDIM in float64."""
    particles = self._draw()
    step = functools.partial(
      objectives.guided_particles,
      jax.random.key(0),
      particles,
      schedule=SCHEDULE,
      churn=0.0,
      rule=guidance.linear,
    )
    _, moved = jax.jvp(step, (jnp.zeros(4),), (jnp.ones(4),))
    s, t = np.float64(particles.s), np.float64(particles.t)
    coef_x0 = ((1.0 - s) - s / t * (1.0 - t))[:, None, None, None]
    delta = np.float64(particles.x0_cond) - np.float64(particles.x0_null)
    np.testing.assert_allclose(moved, coef_x0 * delta, rtol=1e-5)


class ScoreMatchingTest(parameterized.TestCase):
  @parameterized.parameters(((3, 2), 4), ((2, 2, 2, 1), 1))
  def test_matches_the_loop(self, shape, m):
    x0 = jax.random.normal(jax.random.key(0), shape)
    guided = jax.random.normal(jax.random.key(1), (shape[0], m, *shape[1:]))
    expected = [
      np.mean(
        [np.sum((np.float64(guided[i, j]) - np.float64(x0[i])) ** 2) for j in range(m)]
      )
      for i in range(shape[0])
    ]
    np.testing.assert_allclose(objectives.score_matching(x0, guided), expected, 1e-6)

  def test_exact_conditional_denoiser_needs_no_guidance(self):
    """E[x_0 | x_t, c] is the regression: the minimiser over omega is 0, 5 std. errs."""
    key, n = jax.random.key(0), 200_000
    particles = _draw_oracle(key, 1.0, 0.2, 0.6, num_data=n, num_particles=1)
    x0 = 1.0 + jax.random.normal(jax.random.split(key)[0], (n, 1))

    def loss(omega):
      guided = guidance.linear(particles.x0_cond, particles.x0_null, jnp.full(n, omega))
      return objectives.score_matching(x0, guided)

    below, middle, above = np.float64([loss(-1.0), loss(0.0), loss(1.0)])
    curvature = np.mean(below - 2.0 * middle + above)
    slope = 0.5 * (above - below)
    error = np.std(slope) / math.sqrt(n) / curvature
    self.assertLess(abs(np.mean(slope) / curvature), 5.0 * error)
    self.assertLess(error, 0.02)


class DenoisingTest(parameterized.TestCase):
  def _loss(self, apply, x0, prediction, dropout=0.25, params=None):
    @jax.jit  # One program in place of one for every operation.
    def loss(params, x0):
      return objectives.denoising(
        jax.random.key(0),
        apply,
        params,
        SCHEDULE,
        x0,
        jnp.arange(x0.shape[0]) % 3,
        3,
        dropout=dropout,
        prediction=prediction,
      )

    return loss(params, x0)

  def test_zero_network(self):
    """The loss is the mean square of the target: x_0 (exact), eps and x_0 - eps."""
    n = 5_000
    x0 = jnp.arange(n * 4.0).reshape(n, 2, 2) / (4 * n)

    def zero(params, xt, t, label):
      del params, t, label
      return jnp.zeros_like(xt)

    square = np.mean(np.float64(x0) ** 2, axis=(1, 2))
    np.testing.assert_allclose(self._loss(zero, x0, 'x0'), square, rtol=1e-5)
    for prediction, expected in (('eps', 1.0), ('velocity', 1.0 + np.mean(square))):
      loss = self._loss(zero, x0, prediction)
      error = np.std(loss) / math.sqrt(n)
      self.assertLess(abs(np.mean(loss) - expected), 5.0 * error)

  @parameterized.parameters('x0', 'eps', 'velocity')
  def test_sigmoid_weight(self, prediction):
    """Written out for x_t = (1 - t) x_0 + t eps, in float64; finite at the ends."""
    t = np.linspace(0.001, 0.999, 97)
    bias = 2.0
    snr = ((1.0 - t) / t) ** 2
    weight = 1.0 / (1.0 + np.exp(-bias) * snr) / (t * (1.0 - t))
    # eps = x_t + (1 - t) v = (x_t - (1 - t) x_0) / t.
    weight *= {'x0': snr, 'eps': 1.0, 'velocity': (1.0 - t) ** 2}[prediction]
    times = jnp.asarray([*t, 0.0, 1.0], jnp.float32)
    weights = jax.jit(
      lambda t: objectives.sigmoid_weight(SCHEDULE, t, prediction, bias=bias)
    )(times)
    np.testing.assert_allclose(weights[:97], weight, rtol=2e-4)
    self.assertTrue(np.all(np.isfinite(weights)))

  @parameterized.parameters(schedules.RectifiedFlow(), schedules.Cosine())
  def test_sigmoid_weighted_loss_is_of_eps_whatever_is_predicted(self, schedule):
    """One error of eps, written as an error of x_0 and of the velocity."""
    x0 = jax.random.normal(jax.random.key(1), (500, 3))

    @functools.partial(jax.jit, static_argnums=0)
    def losses(prediction):
      def network(params, xt, t, label):
        del params, label
        t = jnp.clip(t[:, None], 1e-3, 1.0 - 1e-3)
        eps_hat = jnp.sin(3.0 * xt)
        x0_hat = (xt - schedule.sigma(t) * eps_hat) / schedule.alpha(t)
        velocity = {
          schedules.RectifiedFlow(): eps_hat - x0_hat,
          schedules.Cosine(): 0.5
          * np.pi
          * (jnp.cos(0.5 * np.pi * t) * eps_hat - jnp.sin(0.5 * np.pi * t) * x0_hat),
        }[schedule]
        return {'eps': eps_hat, 'x0': x0_hat, 'velocity': velocity}[prediction]

      label = jnp.zeros(500, int)
      return objectives.denoising(
        jax.random.key(0),
        network,
        None,
        schedule,
        x0,
        label,
        3,
        dropout=0.1,
        prediction=prediction,
        sigmoid_bias=1.0,
      )

    expected = losses('eps')
    for prediction in ('x0', 'velocity'):
      ratio = losses(prediction) / expected
      self.assertLess(np.mean(np.abs(ratio - 1.0) > 1e-3), 0.01)

  def test_network_sees_the_path(self):
    """With x_0 = 0, eps = x_t / t exactly, and velocity = eps."""

    def oracle(params, xt, t, label):
      del params, label
      return xt / t[:, None]

    for prediction in ('eps', 'velocity'):
      loss = self._loss(oracle, jnp.zeros((1000, 3)), prediction)
      np.testing.assert_allclose(loss, np.zeros(1000), atol=1e-9)

  def test_label_dropout(self):
    """A network that reports its label: null for a share p of the data, 5 std. errs."""
    n, p = 9_000, 0.25
    x0 = (jnp.arange(n) % 3).astype(jnp.float32)[:, None]

    def report(params, xt, t, label):
      del params, t
      return jnp.broadcast_to(label.astype(jnp.float32)[:, None], xt.shape)

    loss = np.asarray(self._loss(report, x0, 'x0', p))
    dropped = loss > 0.0
    np.testing.assert_array_equal(loss[dropped], (3.0 - x0[dropped, 0]) ** 2)
    self.assertLess(abs(np.mean(dropped) - p), 5.0 * math.sqrt(p * (1 - p) / n))
    np.testing.assert_array_equal(self._loss(report, x0, 'x0', 0.0), np.zeros(n))

  def test_differentiable_in_the_parameters(self):
    """x0 prediction by a constant: d/dc mean (c - x_0)^2 = 2 (c - mean x_0)."""

    def constant(params, xt, t, label):
      del t, label
      return jnp.full_like(xt, params)

    x0 = jnp.arange(6.0)[:, None]
    grad = jax.grad(lambda c: jnp.mean(self._loss(constant, x0, 'x0', params=c)))(1.0)
    np.testing.assert_allclose(grad, 2.0 * (1.0 - 2.5), rtol=1e-6)


if __name__ == '__main__':
  absltest.main()
