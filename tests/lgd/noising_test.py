"""The forward marginal and the conversions between predictions."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized

from lgd import noising
from lgd import schedules
from tests import paths


def _path(scales, t, x0, eps):
  """x_t in float64."""
  alpha, sigma = scales(t)
  return alpha * x0 + sigma * eps


def _draw(shape, seed=0):
  key_x0, key_eps = jax.random.split(jax.random.key(seed))
  return jax.random.normal(key_x0, shape), jax.random.normal(key_eps, shape)


class NoisingTest(parameterized.TestCase):
  @parameterized.named_parameters(*paths.CASES)
  def test_add_noise_follows_the_path(self, schedule, scales):
    """alpha x0 + sigma eps element by element in float64; jit and not."""
    x0, eps = _draw((5, 3, 2))
    t = jnp.asarray([0.0, 0.2, 0.5, 0.9, 1.0])
    expected = [
      _path(scales, float(t[i]), np.float64(x0[i]), np.float64(eps[i]))
      for i in range(5)
    ]
    for fn in (noising.add_noise, jax.jit(noising.add_noise, static_argnums=0)):
      xt = fn(schedule, x0, eps, t)
      np.testing.assert_allclose(xt, expected, rtol=2e-6, atol=1e-6)

  @parameterized.named_parameters(*paths.CASES)
  def test_marginal_moments(self, schedule, scales):
    """Mean alpha x0 and standard deviation sigma within 5 standard errors."""
    n, t, value = 40_000, 0.6, 1.5
    eps = jax.random.normal(jax.random.key(0), (n, 1))
    xt = noising.add_noise(schedule, jnp.full((n, 1), value), eps, t)
    mean, std = _path(scales, t, value, 0.0), _path(scales, t, 0.0, 1.0)
    self.assertLess(abs(np.mean(xt) - mean), 5.0 * std / math.sqrt(n))
    self.assertLess(abs(np.std(xt) - std), 5.0 * std / math.sqrt(2 * n))

  @parameterized.named_parameters(*paths.CASES)
  def test_velocity_is_the_time_derivative(self, schedule, scales):
    """Central differences of the path in float64, where no table of it has a kink."""
    x0, eps = _draw((6, 4))
    t = np.linspace(0.0205, 0.9995, 6)
    h = 1e-6
    velocity = noising.target(
      schedule, x0, eps, jnp.asarray(t, jnp.float32), 'velocity'
    )
    for i in range(6):
      a, b = np.float64(x0[i]), np.float64(eps[i])
      expected = (_path(scales, t[i] + h, a, b) - _path(scales, t[i] - h, a, b)) / (
        2.0 * h
      )
      np.testing.assert_allclose(velocity[i], expected, rtol=3e-6, atol=3e-6)

  @parameterized.product(
    kind=noising.PREDICTIONS, schedule=paths.SCHEDULES, jit=(False, True)
  )
  def test_round_trips(self, kind, schedule, jit):
    """x0 -> prediction -> x0, and the true target stands for the true x0."""
    wrap = (lambda fn: jax.jit(fn, static_argnums=(0, 4))) if jit else (lambda fn: fn)
    x0, eps = _draw((9, 8, 8, 1))
    t = jnp.linspace(0.05, 0.95, 9)
    xt = noising.add_noise(schedule, x0, eps, t)
    prediction = wrap(noising.from_x0)(schedule, x0, xt, t, kind)
    back = wrap(noising.to_x0)(schedule, prediction, xt, t, kind)
    # Noise up to 100 times the data takes digits of the data, and of large targets.
    target = noising.target(schedule, x0, eps, t, kind)
    size = max(1.0, *(float(jnp.abs(x).max()) / 4.0 for x in (xt, target)))
    noise = float(jnp.max(schedule.sigma(t) / schedule.alpha(t)))
    atol = 2e-5 * max(size, noise / 19.0)  # 19 is that of rectified flow.
    np.testing.assert_allclose(back, x0, atol=atol)
    np.testing.assert_allclose(prediction, target, atol=atol)
    again = noising.from_x0(
      schedule, noising.to_x0(schedule, target, xt, t, kind), xt, t, kind
    )
    np.testing.assert_allclose(again, target, atol=5.0 * atol)

  @parameterized.product(
    kind=('x0', 'velocity', 'v'), schedule=paths.SCHEDULES, time=(0.0, 1.0)
  )
  def test_x0_is_determined_at_the_ends(self, kind, schedule, time):
    """Both ends, where eps -> x0 or its inverse divides by zero."""
    x0, eps = _draw((4, 3))
    t = jnp.full(4, time)
    xt = noising.add_noise(schedule, x0, eps, t)
    target = noising.target(schedule, x0, eps, t, kind)
    recovered = noising.to_x0(schedule, target, xt, t, kind)
    atol = 1e-6 * max(1.0, float(jnp.abs(target).max()))
    np.testing.assert_allclose(recovered, x0, atol=atol)

  @parameterized.parameters(*noising.PREDICTIONS)
  def test_scalar_time_is_the_same_time_for_all(self, kind):
    x0, eps = _draw((4, 2))
    schedule = schedules.Cosine()
    scalar = noising.from_x0(schedule, x0, eps, 0.3, kind)
    np.testing.assert_allclose(
      scalar, noising.from_x0(schedule, x0, eps, jnp.full(4, 0.3), kind), rtol=1e-6
    )

  def test_v_is_not_the_velocity(self):
    """v = alpha eps - sigma x0; of the cosine schedule the velocity is pi/2 of it."""
    x0, eps = _draw((5, 3))
    t = np.linspace(0.1, 0.9, 5)
    angle = 0.5 * np.pi * t[:, None]
    v = np.cos(angle) * np.float64(eps) - np.sin(angle) * np.float64(x0)
    schedule, t = schedules.Cosine(), jnp.asarray(t, jnp.float32)
    np.testing.assert_allclose(noising.target(schedule, x0, eps, t, 'v'), v, atol=1e-6)
    velocity = noising.target(schedule, x0, eps, t, 'velocity')
    np.testing.assert_allclose(velocity, 0.5 * np.pi * v, atol=2e-6)

  @parameterized.product(
    kind=noising.PREDICTIONS, schedule=paths.SCHEDULES, dtype=('bfloat16', 'int8')
  )
  def test_time_keeps_its_digits(self, kind, schedule, dtype):
    """Whatever the type of the data: t of .47 is not .4707, nor 0."""
    if dtype == 'int8':
      x0, eps, tolerance = jnp.ones((2, 1), 'int8'), jnp.ones((2, 1), 'int8'), 1e-5
    else:
      x0, eps = (x.astype(dtype) for x in _draw((2, 1)))
      tolerance = 3e-2
    t = jnp.full(2, 0.47)
    target = noising.target(schedule, x0, eps, t, kind)
    expected = noising.target(schedule, *map(jnp.float32, (x0, eps)), t, kind)
    np.testing.assert_allclose(jnp.float32(target), expected, atol=1e-6)
    xt = noising.add_noise(schedule, *map(jnp.float32, (x0, eps)), t)
    back = noising.to_x0(schedule, target, xt.astype(jnp.bfloat16), t, kind)
    np.testing.assert_allclose(
      jnp.float32(back), jnp.float32(x0), atol=max(tolerance, 3e-2)
    )

  def test_unknown_kind(self):
    x = jnp.zeros((2, 1))
    for fn in (noising.to_x0, noising.from_x0, noising.target):
      with self.assertRaisesRegex(ValueError, "prediction='score'"):
        fn(schedules.RectifiedFlow(), x, x, 0.5, 'score')


if __name__ == '__main__':
  absltest.main()
