"""Tables of weights against loops, integrals and the grids they must cover."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized

from lgd import guidance
from lgd import sampling


class TableTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.t = jnp.asarray([0.125, 0.25, 0.5, 0.75, 1.0])
    self.s = self.t / 2.0
    self.cond = jnp.asarray([0, 1, 2, 1, 0])

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

  def test_times_that_do_not_decrease(self):
    for make in (guidance.table, guidance.per_sample):
      with self.assertRaisesRegex(ValueError, 'must decrease'):
        make(np.ones((2, 2)), np.asarray([0.0, 0.5, 1.0]))

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

  @parameterized.parameters(guidance.table, guidance.per_sample, guidance.mean_in_time)
  def test_shapes_must_match(self, fn):
    """A grid without its last time, a missing row axis; also under jit."""
    for values, times, seen in (
      ((3, 4), 4, r'values.shape=\(3, 4\), times.shape=\(4,\)'),
      ((4,), 5, r'values.shape=\(4,\)'),
    ):
      with self.assertRaisesRegex(ValueError, seen):
        fn(np.ones(values), np.linspace(1.0, 0.0, times))
      with self.assertRaisesRegex(ValueError, 'num_steps'):
        jax.eval_shape(
          lambda v, t: jnp.sum(fn(v, t)), np.ones(values), np.linspace(1, 0, times)
        )


class MatchedMeanTest(parameterized.TestCase):
  @parameterized.product(num_steps=(10, 25, 100), jit=(False, True))
  def test_every_row_has_its_mean(self, num_steps, jit):
    """Three schedules, a mean each; shapes in time stay what they were."""
    times = sampling.time_grid(num_steps)
    values = jnp.concatenate(
      [
        guidance.tabulate(weight, jnp.zeros(1), times)
        for weight in (
          guidance.clamp_linear(1.0),
          guidance.triangle(3.0),
          guidance.interval(0.2, 0.15, 0.78),
        )
      ]
    )
    mean = np.asarray([0.5, 2.0, 1.0])
    fn = jax.jit(guidance.matched_mean) if jit else guidance.matched_mean
    matched = np.float64(fn(values, mean, times))
    np.testing.assert_allclose(matched.mean(axis=1), mean, rtol=1e-6)
    values = np.float64(values)
    np.testing.assert_allclose(
      matched * values[:, 5:6], values * matched[:, 5:6], rtol=1e-5
    )
    np.testing.assert_allclose(fn(values, 0.25, times).mean(axis=1), 0.25, rtol=1e-6)

  def test_transitions_count_by_their_length(self):
    """The integral of the step function over its range, by a loop."""
    values = np.asarray([[1.0, -2.0, 4.0], [0.5, 0.0, 0.25]])
    times = np.asarray([0.9, 0.8, 0.4, 0.1])
    mean = [(0.1 * a + 0.4 * b + 0.3 * c) / 0.8 for a, b, c in values]
    np.testing.assert_allclose(guidance.mean_in_time(values, times), mean, rtol=1e-6)
    matched = guidance.matched_mean(values, 3.0, times)
    for i in range(2):
      np.testing.assert_allclose(matched[i], 3.0 * values[i] / mean[i], rtol=1e-5)

  def test_scaled_in_w(self):
    """The triangle of arXiv 2509.22007 as its authors rescale it: w, not omega."""
    times = sampling.time_grid(10) ** 2
    omega = guidance.tabulate(guidance.triangle(8.0), jnp.zeros(1), times)
    matched = guidance.matched_mean(1.0 + omega, 9.0, times) - 1.0
    t = np.float64(times)
    w = 1.0 + 16.0 * (1.0 - np.abs(2.0 * t[:-1] - 1.0))
    w *= 9.0 / np.sum(w * (t[:-1] - t[1:]))
    np.testing.assert_allclose(matched[0], w - 1.0, rtol=1e-5, atol=1e-5)

  @parameterized.parameters(
    ([0.0, 0.0, 0.0], 1.0),
    ([0.7, -0.6, -0.1], 1.0),  # 0 up to rounding; 3e-8 in float32.
    ([0.1, 0.3, 0.1], -1.0),  # No factor >= 0 does it.
    ([math.nan, 1.0, 1.0], 1.0),
    ([0.1, 0.3, 0.1], math.inf),
  )
  def test_errors(self, row, mean):
    values = np.asarray([[1.0, 1.0, 1.0], row])
    with self.assertRaisesRegex(ValueError, 'row 1 has mean'):
      guidance.matched_mean(values, np.asarray([1.0, mean]), sampling.time_grid(3))

  def test_mean_0(self):
    values, times = np.asarray([[1.0, 3.0]]), np.asarray([1.0, 0.5, 0.0])
    np.testing.assert_array_equal(guidance.matched_mean(values, 0.0, times), [[0, 0]])


class RequireCoverTest(parameterized.TestCase):
  @parameterized.parameters(1, 10, 50, 250)
  def test_same_range(self, num_steps):
    """A table of 50 steps for any number of steps, with t_max 1 or just below."""
    for t_max in (1.0, 0.99):
      for wanted_max in (1.0, 0.99):
        guidance.require_cover(
          sampling.time_grid(50, t_max=t_max),
          sampling.time_grid(num_steps, t_max=wanted_max),
        )

  @parameterized.parameters(
    (1.0, 0.0, 't=1:'),  # Beyond both ends.
    (1.0, 0.3, 't=1:'),  # Above,
    (0.8, 0.0, 't=0.04:'),  # below.
  )
  def test_refused(self, t_max, t_min, seen):
    table = sampling.time_grid(20, t_max=0.8, t_min=0.2)
    wanted = sampling.time_grid(20, t_max=t_max, t_min=t_min)
    with self.assertRaisesRegex(ValueError, seen + r'.* \[0.2, 0.83\]'):
      guidance.require_cover(table, wanted)

  def test_edges(self):
    """One step of the table on either side, and no more."""
    table = np.asarray([0.8, 0.7, 0.4, 0.2])
    guidance.require_cover(table, np.asarray([0.9, 0.2, 0.0]))
    for wanted in ([0.91, 0.3, 0.0], [0.9, 0.19, 0.0]):
      with self.assertRaises(ValueError):
        guidance.require_cover(table, np.asarray(wanted))


if __name__ == '__main__':
  absltest.main()
