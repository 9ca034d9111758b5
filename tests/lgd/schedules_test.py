"""Schedules against their definitions in float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized

from lgd import schedules
from tests import paths

TIMES = np.linspace(0.0, 1.0, 101)
DDPM = schedules.DiscreteBetas.linear()


class SchedulesTest(parameterized.TestCase):
  @parameterized.named_parameters(*paths.CASES)
  def test_alpha_and_sigma(self, schedule, scales):
    """The formulas of the papers, in float64; under jit and not."""
    t = jnp.asarray(TIMES, jnp.float32)
    alpha, sigma = np.asarray([scales(float(u)) for u in t]).T
    for wrap in (lambda fn: fn, jax.jit):
      np.testing.assert_allclose(wrap(schedule.alpha)(t), alpha, atol=3e-7)
      np.testing.assert_allclose(wrap(schedule.sigma)(t), sigma, rtol=3e-6, atol=3e-7)

  @parameterized.named_parameters(*paths.CASES)
  def test_logsnr(self, schedule, scales):
    """log alpha^2 / sigma^2 in float64, decreasing, at the float32 times given."""
    t = np.linspace(1e-4, 1.0 - 1e-4, 301).astype(np.float32)
    alpha, sigma = np.asarray([scales(float(u)) for u in t]).T
    logsnr = schedule.logsnr(jnp.asarray(t))
    # Of a tabled angle the last digit counts where alpha is near 0.
    atol = 2e-5 + 2e-7 / alpha
    error = np.abs(logsnr - 2.0 * np.log(alpha / sigma))
    np.testing.assert_array_less(error, atol + 1e-5 * np.abs(logsnr))
    self.assertTrue(np.all(np.diff(logsnr) < 0.0))

  @parameterized.named_parameters(*paths.CASES)
  def test_endpoints(self, schedule, scales):
    """Pure data at 0, exactly; pure noise at 1 too, where the path has it."""
    t = jnp.asarray([0.0, 1.0])
    alpha, sigma = scales(1.0)
    np.testing.assert_allclose(schedule.alpha(t), [1.0, alpha], rtol=1e-6)
    np.testing.assert_allclose(schedule.sigma(t), [0.0, sigma], rtol=2e-6)
    self.assertEqual(schedule.logsnr(t)[0], np.inf)
    if alpha == 0.0:
      self.assertEqual(schedule.alpha(t)[1], 0.0)
      self.assertEqual(schedule.logsnr(t)[1], -np.inf)

  def test_time_from_logsnr(self):
    """The inverses: sigmoid(-l/2) for rectified flow, 2/pi atan(e^(-l/2)) cosine."""
    t = jnp.linspace(0.01, 0.99, 99)
    logsnr = np.asarray(schedules.RectifiedFlow().logsnr(t), np.float64)
    np.testing.assert_allclose(1.0 / (1.0 + np.exp(logsnr / 2.0)), t, atol=1e-6)
    logsnr = np.asarray(schedules.Cosine().logsnr(t), np.float64)
    np.testing.assert_allclose(
      2.0 / np.pi * np.arctan(np.exp(-logsnr / 2.0)), t, atol=1e-6
    )

  @parameterized.parameters('cosine', 'ddpm', 'zero_snr')
  def test_preserves_variance(self, name):
    t = jnp.linspace(0.0, 1.0, 1013)
    schedule = paths.PATHS[name].schedule
    np.testing.assert_allclose(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2, 1, 1e-6)

  @parameterized.named_parameters(*paths.CASES)
  def test_is_a_static_argument(self, schedule, scales):
    """Equal schedules are one key of jit's cache, and Python floats are times."""
    copy = type(schedule)(**vars(schedule))
    self.assertEqual(hash(schedule), hash(copy))
    self.assertEqual(schedule, copy)
    traced = jax.jit(lambda s, t: s.alpha(t), static_argnums=0)(schedule, 0.3)
    np.testing.assert_allclose(traced, scales(0.3)[0], rtol=3e-6)
    np.testing.assert_allclose(schedule.alpha(0.3), scales(0.3)[0], rtol=3e-6)


class ModelTimeTest(parameterized.TestCase):
  @parameterized.named_parameters(*paths.CASES)
  def test_there_and_back(self, schedule, scales):
    del scales
    t = np.linspace(0.001, 1.0, 500)
    back = schedule.from_model_time(schedule.to_model_time(t))
    np.testing.assert_allclose(back, t, rtol=1e-12)

  def test_what_models_are_told(self):
    index = np.arange(1000)
    t = ((index + 1) / 1000).astype(np.float32)  # Rounded as any grid is.
    np.testing.assert_array_equal(DDPM.to_model_time(t), index)
    self.assertAlmostEqual(float(DDPM.to_model_time(0.5005)), 499.5)
    np.testing.assert_array_equal(DDPM.to_model_time([0.0, 0.0005]), [0.0, 0.0])
    flow = schedules.RectifiedFlow(timestep_scale=1000.0)
    np.testing.assert_allclose(flow.to_model_time(0.25), 250.0)
    self.assertEqual(schedules.RectifiedFlow().to_model_time(0.25), 0.25)
    self.assertEqual(schedules.Cosine().to_model_time(0.25), 0.25)
    karras = schedules.Karras()
    np.testing.assert_allclose(karras.to_model_time([1.0, 0.01]), [80.0, 0.002])
    self.assertEqual(karras.from_model_time(0.0), 0.0)
    np.testing.assert_allclose(
      karras.from_model_time(np.float32(0.002)), 0.01, rtol=1e-6
    )


class GridTest(parameterized.TestCase):
  @parameterized.parameters(
    ('leading', (901, 801, 701, 601, 501, 401, 301, 201, 101, 1)),
    ('linspace', (1000, 889, 778, 667, 556, 445, 334, 223, 112, 1)),
    ('trailing', (1000, 900, 800, 700, 600, 500, 400, 300, 200, 100)),
  )
  def test_discrete(self, spacing, timesteps):
    """Table 2 of Lin et al. 2024, which counts timesteps from 1."""
    grid = DDPM.grid(10, spacing=spacing)
    np.testing.assert_allclose(grid, np.append(timesteps, 0) / 1000.0)

  def test_stable_diffusion(self):
    """20 steps there: 951, 901 ... 1, and then abar_0."""
    grid = DDPM.grid(20, spacing='leading', offset=1, last=1 / 1000)
    np.testing.assert_array_equal(DDPM.to_model_time(grid[[0, 1, -2]]), [951, 901, 1])
    self.assertEqual(DDPM.to_model_time(grid[-1]), 0.0)

  def test_number_that_does_not_divide(self):
    """30 of 1000, trailing: 999, 966, 932 ... 32."""
    index = DDPM.to_model_time(DDPM.grid(30))
    np.testing.assert_array_equal(index[[0, 1, 2, -2]], [999, 966, 932, 32])
    self.assertLen(index, 31)

  def test_rectified_flow(self):
    """Shift 3 sends u = 1/2 to 3/4."""
    flow = schedules.RectifiedFlow()
    np.testing.assert_allclose(flow.grid(2), [1.0, 0.5, 0.0])
    np.testing.assert_allclose(flow.grid(2, shift=3.0), [1.0, 0.75, 0.0])
    for tokens, expected in ((256, 0.5), (4096, 1.15), (1024, 0.63)):
      shift = schedules.resolution_shift(tokens)
      self.assertAlmostEqual(math.log(shift), expected, places=3)

  def test_karras(self):
    """Eq. (5) of Karras et al. 2022, their 18 steps, in float64."""
    karras = schedules.Karras()
    sigmas = karras.to_model_time(karras.grid(18))
    low, high = 0.002 ** (1 / 7), 80.0 ** (1 / 7)
    expected = [(high + i / 17 * (low - high)) ** 7 for i in range(18)]
    np.testing.assert_allclose(sigmas, [*expected, 0.0], rtol=1e-12)

  def test_shift_told_of_the_data(self):
    """LightningDiT's .3 is of u = 1 - t: u -> .3 u / (1 + (.3 - 1) u)."""
    u = np.linspace(0.0, 1.0, 6)
    grid = schedules.RectifiedFlow().grid(5, shift=1.0 / 0.3)
    np.testing.assert_allclose(grid, 1.0 - 0.3 * u / (1.0 - 0.7 * u), atol=1e-12)

  def test_errors(self):
    with self.assertRaisesRegex(ValueError, "spacing='even'"):
      DDPM.grid(10, spacing='even')
    for num_steps in (0, 1001):
      with self.assertRaisesRegex(ValueError, f'num_steps={num_steps}: must be in 1'):
        DDPM.grid(num_steps)
    with self.assertRaisesRegex(ValueError, 'offset=1, last=0: times must fall'):
      DDPM.grid(1000, spacing='leading', offset=1)


class DiscreteBetasTest(parameterized.TestCase):
  def test_levels(self):
    """sqrt(abar) at t = (k + 1) / N, each level, by the recursion in float64."""
    t = jnp.asarray((np.arange(1000) + 1) / 1000, jnp.float32)
    abar = paths.abar_linear()
    np.testing.assert_allclose(DDPM.alpha(t), np.sqrt(abar), atol=1e-6)
    np.testing.assert_allclose(DDPM.sigma(t), np.sqrt(1.0 - abar), atol=1e-6)

  def test_scaled_linear(self):
    """Stable Diffusion's own: sigma_max = 14.6146 of its k-diffusion samplers."""
    sd = schedules.DiscreteBetas.scaled_linear()
    self.assertAlmostEqual(float(sd.sigma(1.0) / sd.alpha(1.0)), 14.6146, places=3)
    first = sd.sigma(0.001) / sd.alpha(0.001)
    self.assertAlmostEqual(float(first), 0.0292, places=4)

  def test_cosine(self):
    """Betas of the definition, none above .999."""

    def f(u):
      return math.cos((u + 0.008) / 1.008 * math.pi / 2.0) ** 2

    abar = np.asarray(schedules.DiscreteBetas.cosine(50).alphas_cumprod)
    betas = 1.0 - abar / np.append(1.0, abar[:-1])
    expected = [min(1.0 - f((k + 1) / 50) / f(k / 50), 0.999) for k in range(50)]
    np.testing.assert_allclose(betas, expected, rtol=1e-9)

  @parameterized.parameters(((),), ((0.9, 0.9),), ((1.0, 0.5),), ((0.5, -0.1),))
  def test_errors(self, abar):
    with self.assertRaisesRegex(ValueError, 'alphas_cumprod: must fall'):
      schedules.DiscreteBetas.of(abar)


class WrongConstantsTest(parameterized.TestCase):
  @parameterized.parameters(
    (lambda: schedules.RectifiedFlow(noise_scale=0.0), 'noise_scale=0.0'),
    (lambda: schedules.Karras(sigma_min=90.0), 'sigma_min=90.0, sigma_max=80.0'),
    (lambda: schedules.Karras(rho=-1.0), 'rho=-1.0'),
    (lambda: schedules.Karras(t_low=1.0), 't_low=1.0'),
  )
  def test_errors(self, make, message):
    with self.assertRaisesRegex(ValueError, message):
      make()


if __name__ == '__main__':
  absltest.main()
