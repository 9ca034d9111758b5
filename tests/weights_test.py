"""Given weights and their tables against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized

from lgd import guidance
from lgd import sampling


class WeightsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.t = jnp.asarray([0.125, 0.25, 0.5, 0.75, 1.0])
    self.s = self.t / 2.0
    self.cond = jnp.asarray([0, 1, 2, 1, 0])

  @parameterized.parameters(-0.5, 0.0, 2.5)
  def test_constant(self, omega):
    weight = guidance.constant(omega)(self.cond, self.s, self.t)
    np.testing.assert_array_equal(weight, [omega] * 5)

  def test_interval_excludes_lo_and_includes_hi(self):
    weight = guidance.interval(2.0, 0.25, 0.75)(self.cond, self.s, self.t)
    np.testing.assert_array_equal(weight, [0.0, 0.0, 2.0, 2.0, 0.0])

  def test_clamp_linear(self):
    """2 omega (1 - t), no less than the floor; its mean over t is omega at floor 0."""
    weight = guidance.clamp_linear(1.5, 1.0)(self.cond, self.s, self.t)
    np.testing.assert_allclose(weight, [2.625, 2.25, 1.5, 1.0, 1.0])
    t = (jnp.arange(1000) + 0.5) / 1000
    mean = jnp.mean(guidance.clamp_linear(1.5, 0.0)(None, t, t))
    np.testing.assert_allclose(mean, 1.5, rtol=1e-6)

  @parameterized.named_parameters(
    ('constant', lambda v: guidance.constant(v[0]), [0.5, 0.0, 0.0]),
    ('interval', lambda v: guidance.interval(*v), [2.0, 0.3, 0.8]),
    ('clamp_linear', lambda v: guidance.clamp_linear(*v[:2]), [2.0, 0.3, 0.0]),
  )
  def test_constants_may_be_traced(self, make, values):
    """One compiled program serves two settings, each as without jit."""

    @jax.jit
    def run(values):
      return make(values)(self.cond, self.s, self.t)

    for scale in (1.0, 0.75):
      scaled = [scale * v for v in values]
      np.testing.assert_allclose(
        run(scaled), make(scaled)(self.cond, self.s, self.t), rtol=1e-6
      )
    self.assertEqual(run._cache_size(), 1)

  @parameterized.parameters(False, True)
  def test_table(self, jit):
    """Rows by condition, np.interp in t, clamped outside; NumPy or JAX arrays."""
    times = np.asarray([0.9, 0.6, 0.5, 0.2, 0.1])  # The last is no time left from.
    values = np.asarray(jax.random.normal(jax.random.key(0), (3, 4)))

    def run(cond, s, t):
      return guidance.table(values, times)(cond, s, t)

    weight = (jax.jit(run) if jit else run)(self.cond, self.s, self.t)
    expected = [
      np.interp(float(t), times[3::-1], np.float64(values[c][::-1]))
      for t, c in zip(self.t, self.cond, strict=True)
    ]
    np.testing.assert_allclose(weight, expected, rtol=1e-5, atol=1e-6)

  def test_tabulate(self):
    """omega(c, s = times[i + 1], t = times[i]), by loops; a pytree condition."""
    times = np.asarray([1.0, 0.7, 0.3, 0.0])
    cond = {'a': jnp.asarray([0.0, 1.0]), 'b': jnp.ones((2, 3))}

    def weight(cond, s, t):
      return cond['a'] + 10.0 * s + 100.0 * t + jnp.sum(cond['b'], axis=1)

    table = guidance.tabulate(weight, cond, jnp.asarray(times))
    expected = [
      [a + 10.0 * times[i + 1] + 100.0 * times[i] + 3.0 for i in range(3)]
      for a in (0.0, 1.0)
    ]
    np.testing.assert_allclose(table, expected, rtol=1e-6)

  def test_table_of_tabulated_weight_is_the_weight_on_the_grid(self):
    """What a sampler sees of clamp_linear does not change when it is tabulated."""
    times = sampling.time_grid(10)
    weight = guidance.clamp_linear(1.5, 0.4)
    values = guidance.tabulate(weight, jnp.arange(3), times)
    stored = guidance.table(values, times)
    t, s = times[:-1], times[1:]
    cond = jnp.arange(10) % 3
    np.testing.assert_allclose(stored(cond, s, t), weight(cond, s, t), rtol=1e-6)


if __name__ == '__main__':
  absltest.main()
