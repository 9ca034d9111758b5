"""The energy MMD against float64 loops and closed forms.

`expected_norm_power` against float64 quadrature of the Laplace transform of
S = ||mu + sqrt(v) g||^2, which no formula of the library uses:

  (1)  phi(y) = E exp(-y S) = (1 + 2 y v)^(-d/2) exp(-y q / (1 + 2 y v))
  (2)  E S^p  = p / Gamma(1 - p) int_0^inf (1 - phi(y)) y^(-p-1) dy,  0 < p < 1
  (3)  E S^-p = 1 / Gamma(p) int_0^inf phi(y) y^(p-1) dy,  0 < p < d/2

With M(q, v) = E S_d^h, the moments in d + 2 and d + 4 dimensions give

  (4)  dM/dq = h E S_(d+2)^(h-1)
  (5)  dM/dv = d dM/dq + 2 q h (h - 1) E S_(d+4)^(h-2)
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized
from scipy import special
from scipy import stats

from lgd import mmd

BETAS = (0.1, 0.5, 1.0, 1.5, 1.75, 2.0)
# Eight decades of q / v, and both sides of the switch of small dimensions at 32.
RATIOS = np.concatenate([10.0 ** np.linspace(-4, 4, 33), [31.999, 32.0, 32.001]])
RATIOS = np.float64(np.float32(RATIOS))


def _loop(x, y, beta):
  """The U-statistic as its definition says, in float64."""
  x, y = np.float64(x), np.float64(y)
  n, m = len(x), len(y)
  cross = within_x = within_y = 0.0
  for i in range(n):
    for j in range(m):
      cross += math.dist(x[i], y[j]) ** beta
    for j in range(n):
      within_x += math.dist(x[i], x[j]) ** beta if i != j else 0.0
  for i in range(m):
    for j in range(m):
      within_y += math.dist(y[i], y[j]) ** beta if i != j else 0.0
  return 2 * cross / (n * m) - within_x / (n * (n - 1)) - within_y / (m * (m - 1))


def _draw(n, m, dim, seed=0):
  key_x, key_y = jax.random.split(jax.random.key(seed))
  return jax.random.normal(key_x, (n, dim)), jax.random.normal(key_y, (m, dim)) + 0.5


def _moment(q, v, dim, power):
  """E S^power in float64: (2) or (3) by the trapezoidal rule in log y.

  Both integrands decay exponentially in log y, and are analytic where its imaginary
  part is below pi / 2, so that the rule converges exponentially in its step.
  """
  q, v = np.float64(q)[..., None], np.float64(v)[..., None]
  mean = q + dim * v
  if power in (0.0, 1.0):
    return mean[..., 0] ** power
  if power > 0.0:
    low, high = -38.0 / (1.0 - power), 38.0 / power
  else:
    low, high = 38.0 / power, 8.0 + math.log(dim) + 38.0 / (0.5 * dim + power)
  log_y = np.arange(low, high, 0.2)
  log_phi = -0.5 * dim * np.logaddexp(0.0, log_y + np.log(2.0 * v / mean))
  log_phi -= q / (mean * np.exp(-log_y) + 2.0 * v)
  if power > 0.0:
    integral = np.sum(-np.expm1(log_phi) * np.exp(-power * log_y), axis=-1)
    factor = power / special.gamma(1.0 - power)
  else:
    integral = np.sum(np.exp(log_phi - power * log_y), axis=-1)
    factor = 1.0 / special.gamma(-power)
  return 0.2 * factor * integral * mean[..., 0] ** power


def _chi_moment(dim, beta):
  """E ||g||^beta, g ~ N(0, I)."""
  gammas = special.gammaln(0.5 * (dim + beta)) - special.gammaln(0.5 * dim)
  return 2.0 ** (0.5 * beta) * np.exp(gammas)


@functools.partial(jax.jit, static_argnames='dim')
def _value_and_slopes(q, v, beta, dim):
  """M, dM/dq and dM/dv, elementwise; beta is traced."""
  value, pull = jax.vjp(lambda q, v: mmd.expected_norm_power(q, v, dim, beta), q, v)
  return value, *pull(jnp.ones_like(value))


class MmdTest(parameterized.TestCase):
  @parameterized.product(beta=(0.5, 1.0, 1.75), dim=(1, 5), jit=(False, True))
  def test_matches_the_double_loop(self, beta, dim, jit):
    x, y = _draw(7, 4, dim)
    fn = functools.partial(mmd.energy_mmd2, beta=beta)
    fn = jax.jit(fn) if jit else fn
    with jax.numpy_rank_promotion('raise'):
      np.testing.assert_allclose(fn(x, y), _loop(x, y, beta), rtol=1e-5, atol=1e-5)

  @parameterized.parameters(0.5, 1.0, 1.75, 2.0)
  def test_pairwise_energy(self, beta):
    x, y = _draw(4, 3, 2)
    expected = [[math.dist(a, b) ** beta for b in np.float64(y)] for a in np.float64(x)]
    np.testing.assert_allclose(mmd.pairwise_energy(x, y, beta), expected, rtol=1e-5)

  @parameterized.parameters('uint8', 'int8', 'int16', 'bfloat16', 'float16')
  def test_of_any_type(self, dtype):
    """Bytes wrap around, and half precisions are coarse: the loop in float64."""
    rng = np.random.default_rng(0)
    x, y = (
      jnp.asarray(rng.integers(-100, 100, size=(n, 3)) % 128, dtype) for n in (7, 5)
    )
    expected = _loop(np.float64(x), np.float64(y), 1.0)
    np.testing.assert_allclose(mmd.energy_mmd2(x, y), expected, rtol=1e-5)
    power = mmd.expected_norm_power(x[:, 0], jnp.zeros(7, dtype), 3, 1.0)
    np.testing.assert_allclose(power, np.sqrt(np.float64(x[:, 0])), rtol=1e-5)

  def test_close_particles_in_many_dimensions(self):
    """A squared distance of .0121 between points of norm 100 is not cancelled."""
    x = jnp.full((2, 10_000), 1.0)
    y = x.at[:, 0].add(0.11)
    expected = float(np.float64(y[0, 0]) - 1.0)
    np.testing.assert_allclose(mmd.pairwise_energy(x, y, 1.0), expected, rtol=1e-6)

  @parameterized.parameters(0.5, 1.0, 1.75)
  def test_mean_zero_under_equal_laws(self, beta):
    """400 replicas, unequal sizes: the mean is 0 within 5 standard errors."""
    key_x, key_y = jax.random.split(jax.random.key(1))
    x = jax.random.normal(key_x, (400, 12, 3))
    y = jax.random.normal(key_y, (400, 20, 3))
    values = jax.jit(jax.vmap(functools.partial(mmd.energy_mmd2, beta=beta)))(x, y)
    error = np.std(values) / math.sqrt(400)
    self.assertLess(abs(np.mean(values)), 5.0 * error)
    self.assertLess(np.min(values), 0.0)  # Unbiased, so it cannot stay positive.

  def test_shift_in_closed_form(self):
    """1-d, beta = 1, shift d: 2 E|N(d, 2)| - 2 E|N(0, 2)| by the folded normal."""
    shift = 0.8
    key_x, key_y = jax.random.split(jax.random.key(2))
    x = jax.random.normal(key_x, (400, 30, 1))
    y = jax.random.normal(key_y, (400, 30, 1)) + shift
    values = jax.vmap(mmd.energy_mmd2)(x, y)
    root = math.sqrt(2.0)
    expected = 2.0 * root * (stats.foldnorm.mean(shift / root) - stats.foldnorm.mean(0))
    self.assertGreater(expected, 0.0)
    self.assertLess(
      abs(np.mean(values) - expected), 5 * np.std(values) / math.sqrt(400)
    )

  def test_permutation_invariant_and_symmetric(self):
    x, y = _draw(6, 5, 3)
    value = mmd.energy_mmd2(x, y)
    np.testing.assert_allclose(mmd.energy_mmd2(x[::-1], jnp.roll(y, 2, 0)), value, 1e-5)
    np.testing.assert_allclose(mmd.energy_mmd2(y, x), value, rtol=1e-5)

  def test_vmap_is_the_loop_over_conditions(self):
    x = jax.random.normal(jax.random.key(0), (3, 6, 2))
    y = jax.random.normal(jax.random.key(1), (3, 5, 2))
    loop = [_loop(a, b, 1.0) for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(jax.vmap(mmd.energy_mmd2)(x, y), loop, atol=1e-5)

  @parameterized.parameters(0.5, 1.0, 1.75)
  def test_gradient_where_particles_coincide(self, beta):
    """Coincident pairs contribute 0; the others as if the pair were not there."""
    x = jnp.asarray([[0.0, 0.0], [0.0, 0.0], [1.0, 2.0]])
    grad = jax.jit(jax.grad(lambda x: mmd.energy_mmd2(x, x[:2] * 1.0, beta=beta)))(x)
    self.assertTrue(np.all(np.isfinite(grad)))
    grad = jax.jit(jax.grad(lambda x: jnp.sum(mmd.pairwise_energy(x[:1], x, beta))))(x)
    # d||a - b||^beta / db = beta ||a - b||^(beta - 2) (b - a); a = 0, b = (1, 2).
    pull = beta * 5.0 ** (beta / 2 - 1) * np.asarray([1.0, 2.0])
    np.testing.assert_allclose(grad, [-pull, np.zeros(2), pull], rtol=1e-5, atol=1e-6)

  def test_errors(self):
    x, y = _draw(3, 1, 2)
    with self.assertRaisesRegex(ValueError, 'n=3, m=1'):
      mmd.energy_mmd2(x, y)
    for beta in (0.0, 2.0, -1.0):
      with self.assertRaisesRegex(ValueError, f'beta={beta}'):
        mmd.energy_mmd2(x, x, beta=beta)
    with self.assertRaisesRegex(ValueError, r'x.shape=\(1, 3, 2\).*must be \[n, dim\]'):
      mmd.energy_mmd2(x[None], x[None])
    with self.assertRaisesRegex(ValueError, r'y.shape=\(3, 1\): .*of one dim'):
      mmd.energy_mmd2(x, x[:, :1])
    with self.assertRaisesRegex(ValueError, r'x.shape=\(3,\)'):
      mmd.pairwise_energy(x[:, 0], x[:, 0], 1.0)


class ExpectedNormPowerTest(parameterized.TestCase):
  @parameterized.parameters(1, 2, 3, 8, 15, 16, 64, 784, 12288)
  def test_quadrature(self, dim):
    """Value within 2e-5, gradients 1e-4, at three scales of the variance.

    The error of dM/dv is relative to (d + .1) dM/dq: at d = 1 it passes through 0.
    """
    for beta in BETAS:
      h = 0.5 * beta
      value = _moment(RATIOS, 1.0, dim, h)
      slope_q = h * _moment(RATIOS, 1.0, dim + 2, h - 1.0)
      slope_v = dim * slope_q
      if beta < 2.0:
        curvature = h * (h - 1.0) * _moment(RATIOS, 1.0, dim + 4, h - 2.0)
        slope_v += 2.0 * RATIOS * curvature
      # The reference itself: M is homogeneous of degree h (Euler's identity).
      np.testing.assert_allclose(RATIOS * slope_q + slope_v, h * value, rtol=1e-9)
      for v in (2.0**-20, 1.0, 2.0**13):  # Powers of 2 keep q / v as it is.
        result, result_q, result_v = np.float64(
          _value_and_slopes(
            jnp.float32(RATIOS * v), jnp.full(RATIOS.shape, v), jnp.float32(beta), dim
          )
        )
        np.testing.assert_allclose(result, v**h * value, rtol=2e-5)
        np.testing.assert_allclose(result_q, v ** (h - 1.0) * slope_q, rtol=1e-4)
        error = np.abs(result_v / v ** (h - 1.0) - slope_v)
        np.testing.assert_array_less(error, 1e-4 * (dim + 0.1) * slope_q)

  @parameterized.product(dim=(1, 2, 3, 8, 15, 16, 64), beta=(0.1, 0.5, 1.0, 1.75))
  def test_kummer(self, dim, beta):
    """The formula with 1F1, by SciPy; also for the quadrature of the other tests."""
    h, v, x = 0.5 * beta, 0.7, np.asarray([0.0, 1e-3, 0.1, 1.0, 4.0, 15.0, 17.0])
    kummer = special.hyp1f1(-h, 0.5 * dim, -x)
    expected = v**h * _chi_moment(dim, beta) * kummer
    value = mmd.expected_norm_power(jnp.float32(2.0 * v * x), jnp.float32(v), dim, beta)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    np.testing.assert_allclose(_moment(2.0 * v * x, v, dim, h), expected, rtol=1e-9)

  @parameterized.parameters(1, 3, 15, 16, 3072)
  def test_without_noise(self, dim):
    """v = 0: M = q^h, dM/dq = h q^(h-1), dM/dv = h (d + beta - 2) q^(h-1)."""
    q = np.asarray([1e-4, 0.3, 1.0, 50.0, 1e5])
    for beta in BETAS:
      value, slope_q, slope_v = _value_and_slopes(
        jnp.float32(q), jnp.zeros(5), jnp.float32(beta), dim
      )
      pull = 0.5 * beta * q ** (0.5 * beta - 1.0)
      np.testing.assert_allclose(value, q ** (0.5 * beta), rtol=1e-5)
      np.testing.assert_allclose(slope_q, pull, rtol=1e-5)
      expected = (dim + beta - 2.0) * pull
      np.testing.assert_array_less(np.abs(slope_v - expected), 1e-5 * dim * pull)

  @parameterized.parameters(1, 2, 15, 16, 3072)
  def test_without_mean(self, dim):
    """q = 0: moments of the chi distribution, by E chi_(d+2)^(p-2) = E chi_d^p / d."""
    v = np.asarray([1e-4, 0.3, 1.0, 1e3])
    for beta in BETAS:
      value, slope_q, slope_v = _value_and_slopes(
        jnp.zeros(4), jnp.float32(v), jnp.float32(beta), dim
      )
      expected = v ** (0.5 * beta) * _chi_moment(dim, beta)
      np.testing.assert_allclose(value, expected, rtol=2e-5)
      np.testing.assert_allclose(slope_v, 0.5 * beta * expected / v, rtol=2e-5)
      np.testing.assert_allclose(slope_q, 0.5 * beta * expected / (v * dim), rtol=2e-5)

  @parameterized.parameters(1, 2, 15, 16, 784)
  def test_beta_2(self, dim):
    """E||mu + sqrt(v) g||^2 = q + d v, with slopes 1 and d."""
    q, v = (a.ravel() for a in np.meshgrid([0.0, 1e-3, 1.0, 40.0], [0.0, 0.1, 2.0]))
    q, v = np.float32(q), np.float32(v)
    value, slope_q, slope_v = _value_and_slopes(q, v, jnp.float32(2.0), dim)
    np.testing.assert_allclose(value, np.float64(q) + dim * np.float64(v), rtol=1e-5)
    some = q + v > 0.0
    np.testing.assert_allclose(slope_q[some], np.ones(np.sum(some)), rtol=1e-5)
    np.testing.assert_allclose(slope_v[some], np.full(np.sum(some), dim), rtol=2e-5)

  @parameterized.product(dim=(1, 3, 20), beta=(0.5, 1.75))
  def test_by_sampling(self, dim, beta):
    """||mu + sqrt(v) g||^beta over 200,000 draws of g, within 5 standard errors."""
    n, v = 200_000, 0.6
    mean = np.linspace(0.2, 0.5, dim)
    draws = mean + math.sqrt(v) * np.random.default_rng(0).normal(size=(n, dim))
    powers = np.sum(draws**2, axis=1) ** (0.5 * beta)
    value = mmd.expected_norm_power(jnp.sum(mean**2), jnp.float32(v), dim, beta)
    self.assertLess(
      abs(np.mean(powers) - float(value)), 5.0 * np.std(powers) / math.sqrt(n)
    )

  @parameterized.product(dim=(1, 15, 16, 3072), jit=(False, True))
  def test_corners(self, dim, jit):
    """Zeros of q and v: both zero gives 0 with zero gradients, one a finite result.

    All corners in one array: a branch not taken must not leave a NaN.
    """
    q = jnp.asarray([0.0, 0.0, 1.0, 1.0, 0.0, 1e-16, 1e16, 1e-36, 0.0, 1e-36, 1e30])
    v = jnp.asarray([0.0, 1.0, 0.0, 1.0, 1e-16, 0.0, 1e-16, 0.0, 1e-36, 1e-37, 1e28])
    fn = _value_and_slopes if jit else _value_and_slopes.__wrapped__
    for beta in BETAS if jit else (0.5, 1.75):
      with jax.numpy_rank_promotion('raise'):
        results = fn(q, v, beta, dim)
      for result in results:
        self.assertTrue(np.all(np.isfinite(result)), (beta, result))
        self.assertEqual(float(result[0]), 0.0)
      self.assertTrue(np.all(results[0][1:] > 0.0))
      self.assertTrue(np.all(results[1][1:] > 0.0))

  @parameterized.parameters(1, 3, 64)
  def test_homogeneous(self, dim):
    """M(c q, c v) = c^h M(q, v): as precise at 1e-30 as at 1, slopes too."""
    q, v = jnp.asarray([0.0, 0.3, 1.0, 50.0]), jnp.asarray([1.0, 0.5, 0.01, 1.0])
    for beta, scale in itertools.product(BETAS, (1e-30, 1e30)):
      results = _value_and_slopes(scale * q, scale * v, jnp.float32(beta), dim)
      expected = _value_and_slopes(q, v, jnp.float32(beta), dim)
      for i, power in enumerate((0.5 * beta, 0.5 * beta - 1.0, 0.5 * beta - 1.0)):
        scaled = np.float64(results[i]) * scale**-power
        np.testing.assert_allclose(scaled, expected[i], rtol=2e-5, atol=2e-5 * dim)

  @parameterized.parameters(1, 3, 15)
  def test_continuous_where_the_series_change(self, dim):
    """Small dimensions, one float32 spacing to either side of q / v = 32."""
    q = np.nextafter(np.float32(32.0), np.float32([0.0, 64.0]))
    for beta in BETAS:
      below, above = np.transpose(
        _value_and_slopes(q, jnp.ones(2), jnp.float32(beta), dim)
      )
      scale = np.asarray([above[0], above[1], (dim + 0.1) * above[1]])
      np.testing.assert_allclose(below / scale, above / scale, atol=1e-4)

  def test_continuous_where_the_expansion_starts(self):
    """From 15 to 16 dimensions M and dM/dq grow as they should, within 3e-5."""
    for beta in BETAS:
      results, slopes, expected, expected_slopes = [], [], [], []
      for dim in (15, 16):
        result, slope, _ = _value_and_slopes(
          jnp.float32(RATIOS), jnp.ones(RATIOS.shape), jnp.float32(beta), dim
        )
        results.append(np.float64(result))
        slopes.append(np.float64(slope))
        expected.append(_moment(RATIOS, 1.0, dim, 0.5 * beta))
        expected_slopes.append(_moment(RATIOS, 1.0, dim + 2, 0.5 * beta - 1.0))
      growth, growth_slope = results[1] / results[0], slopes[1] / slopes[0]
      np.testing.assert_allclose(growth, expected[1] / expected[0], rtol=3e-5)
      np.testing.assert_allclose(
        growth_slope, expected_slopes[1] / expected_slopes[0], rtol=3e-5
      )

  @parameterized.parameters(3, 64)
  def test_jit_and_broadcasting(self, dim):
    """`[3, 1]` and `[1, 4]` give `[3, 4]`; a scalar variance any shape."""
    q, v = jnp.asarray([[0.0], [1.0], [70.0]]), jnp.asarray([[0.0, 0.1, 1.0, 9.0]])
    fn = functools.partial(mmd.expected_norm_power, dim=dim, beta=1.75)
    with jax.numpy_rank_promotion('raise'):
      table = fn(q, v)
      self.assertEqual(table.shape, (3, 4))
      np.testing.assert_allclose(jax.jit(fn)(q, v), table, rtol=1e-6)
      for i in range(3):
        for j in range(4):
          np.testing.assert_allclose(fn(q[i, 0], v[0, j]), table[i, j], rtol=1e-6)
      np.testing.assert_allclose(fn(q, jnp.float32(9.0)), table[:, 3:], rtol=1e-6)

  @parameterized.parameters(3, 784)
  def test_traced_beta(self, dim):
    """vmap over beta is the loop over Python floats, gradients included."""
    q, v = jnp.asarray([0.0, 0.5, 20.0, 900.0]), jnp.asarray([1.0, 2.0, 0.3, 0.0])
    traced = jax.vmap(_value_and_slopes, in_axes=(None, None, 0, None))(
      q, v, jnp.asarray(BETAS), dim
    )
    for i, beta in list(enumerate(BETAS))[1::2]:
      loop = _value_and_slopes.__wrapped__(q, v, beta, dim)
      for a, b in zip(traced, loop, strict=True):
        np.testing.assert_allclose(a[i], b, rtol=1e-5, atol=1e-6 * np.max(np.abs(b)))


if __name__ == '__main__':
  absltest.main()
