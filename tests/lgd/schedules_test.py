"""Schedules against their definitions in float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized

from lgd import schedules

CASES = (
  ('rectified_flow', schedules.RectifiedFlow(), lambda t: 1.0 - t, lambda t: t),
  (
    'cosine',
    schedules.Cosine(),
    lambda t: math.cos(0.5 * math.pi * t),
    lambda t: math.sin(0.5 * math.pi * t),
  ),
)
TIMES = np.linspace(0.0, 1.0, 101)


class SchedulesTest(parameterized.TestCase):
  @parameterized.named_parameters(*CASES)
  def test_alpha_and_sigma(self, schedule, alpha, sigma):
    """The formulas of the papers, in float64; under jit and not."""
    t = jnp.asarray(TIMES, jnp.float32)
    for wrap in (lambda fn: fn, jax.jit):
      np.testing.assert_allclose(
        wrap(schedule.alpha)(t), [alpha(u) for u in TIMES], atol=3e-7
      )
      np.testing.assert_allclose(
        wrap(schedule.sigma)(t), [sigma(u) for u in TIMES], atol=3e-7
      )

  @parameterized.named_parameters(*CASES)
  def test_logsnr(self, schedule, alpha, sigma):
    """log alpha^2 / sigma^2 in float64, decreasing, at the float32 times given."""
    t = np.linspace(1e-4, 1.0 - 1e-4, 301).astype(np.float32)
    expected = [2.0 * math.log(alpha(float(u)) / sigma(float(u))) for u in t]
    logsnr = schedule.logsnr(jnp.asarray(t))
    np.testing.assert_allclose(logsnr, expected, rtol=1e-5, atol=2e-5)
    self.assertTrue(np.all(np.diff(logsnr) < 0.0))

  @parameterized.named_parameters(*CASES)
  def test_endpoints(self, schedule, alpha, sigma):
    """Pure data at 0, pure noise at 1, exactly; logsnr has its limits there."""
    del alpha, sigma
    t = jnp.asarray([0.0, 1.0])
    np.testing.assert_array_equal(schedule.alpha(t), [1.0, 0.0])
    np.testing.assert_array_equal(schedule.sigma(t), [0.0, 1.0])
    np.testing.assert_array_equal(schedule.logsnr(t), [np.inf, -np.inf])

  def test_time_from_logsnr(self):
    """The inverses: sigmoid(-l/2) for rectified flow, 2/pi atan(e^(-l/2)) cosine."""
    t = jnp.linspace(0.01, 0.99, 99)
    logsnr = np.asarray(schedules.RectifiedFlow().logsnr(t), np.float64)
    np.testing.assert_allclose(1.0 / (1.0 + np.exp(logsnr / 2.0)), t, atol=1e-6)
    logsnr = np.asarray(schedules.Cosine().logsnr(t), np.float64)
    np.testing.assert_allclose(
      2.0 / np.pi * np.arctan(np.exp(-logsnr / 2.0)), t, atol=1e-6
    )

  def test_cosine_preserves_variance(self):
    t = jnp.linspace(0.0, 1.0, 101)
    cosine = schedules.Cosine()
    np.testing.assert_allclose(cosine.alpha(t) ** 2 + cosine.sigma(t) ** 2, 1, 1e-6)

  @parameterized.named_parameters(*CASES)
  def test_is_a_static_argument(self, schedule, alpha, sigma):
    """Equal schedules are one key of jit's cache, and Python floats are times."""
    del sigma
    self.assertEqual(hash(schedule), hash(type(schedule)()))
    self.assertEqual(schedule, type(schedule)())
    traced = jax.jit(lambda s, t: s.alpha(t), static_argnums=0)(schedule, 0.3)
    np.testing.assert_allclose(traced, alpha(0.3), rtol=1e-6)
    np.testing.assert_allclose(schedule.alpha(0.3), alpha(0.3), rtol=1e-6)


if __name__ == '__main__':
  absltest.main()
