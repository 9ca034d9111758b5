"""The energy MMD against float64 loops and closed forms."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized
from scipy import stats

from lgd import mmd


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
    with self.assertRaises(AssertionError):
      mmd.energy_mmd2(x[None], x[None])
    with self.assertRaises(AssertionError):
      mmd.energy_mmd2(x, x[:, :1])


if __name__ == '__main__':
  absltest.main()
