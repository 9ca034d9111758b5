"""Given weights against their papers' formulas in float64, limits and means."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
from absl.testing import absltest
from absl.testing import parameterized

from lgd import guidance
from lgd import sampling
from lgd import schedules
from lgd import transitions

TIMES = np.float32([1.0, 0.85, 0.8, 0.5, 0.35, 0.1, 0.0])

# Each with its arguments and its value at one (s, t), from the paper, in float64.
FORMULAS = (
  ('constant', guidance.constant, (-0.5,), lambda s, t, omega: omega),
  (
    'interval',
    guidance.interval,
    (2.0, 0.3, 0.85),
    lambda s, t, omega, lo, hi: omega if lo < t <= hi else 0.0,
  ),
  (
    'clamp_linear',
    guidance.clamp_linear,
    (1.5, 0.7),
    lambda s, t, omega, floor: max(floor, 2.0 * omega * (1.0 - t)),
  ),
  (
    'clamp_cosine',
    guidance.clamp_cosine,
    (1.5, 0.7),
    lambda s, t, omega, floor: max(floor, omega * (1.0 + math.cos(math.pi * t))),
  ),
  (
    'power_cosine',
    guidance.power_cosine,
    (1.5, 2.5),
    lambda s, t, w0, power: w0 * (1.0 - math.cos(math.pi * (1.0 - t) ** power)) / 2.0,
  ),
  (
    'triangle',  # Two straight lines.
    guidance.triangle,
    (0.75,),
    lambda s, t, omega: 4.0 * omega * (t if t < 0.5 else 1.0 - t),
  ),
  (
    'beta_cfg',
    lambda scale, a, b: guidance.beta_cfg(scale, a, b, TIMES),
    (1.5, 2.0, 3.0),
    lambda s, t, scale, a, b: (
      scale
      * scipy.stats.beta.pdf(
        np.interp(t, np.float64(TIMES[-2::-1]), np.arange(5, -1, -1) / 5.0), a, b
      )
      - 1.0
    ),
  ),
  (
    'cfg_plus_plus',  # alpha = 1 - t, sigma = t, multiplied out.
    lambda scale: guidance.cfg_plus_plus(scale, schedules.RectifiedFlow()),
    (0.6,),
    lambda s, t, scale: scale * t * (1.0 - s) / (t - s) - 1.0,
  ),
)


class FormulasTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.t = jnp.asarray([0.125, 0.25, 0.5, 0.8, 0.9, 1.0])
    self.s = jnp.asarray([0.0, 0.125, 0.4, 0.1, 0.7, 0.99])
    self.cond = jnp.asarray([0, 1, 2, 1, 0, 2])

  @parameterized.named_parameters(*FORMULAS)
  def test_formula(self, make, constants, reference):
    """As given and as traced constants, at which one program serves two settings."""

    @jax.jit
    def compiled(constants):
      return make(*constants)(self.cond, self.s, self.t)

    for scale in (1.0, 0.75):
      # Exponents stay what they are: scaled, they would leave their range.
      scaled = (scale * constants[0], *constants[1:])
      expected = [
        reference(float(s), float(t), *scaled)
        for s, t in zip(self.s, self.t, strict=True)
      ]
      weight = make(*scaled)
      eager = weight(self.cond, self.s, self.t)
      self.assertEqual(eager.shape, (6,))
      self.assertEqual(eager.dtype, self.t.dtype)
      for out in (eager, jax.jit(weight)(self.cond, self.s, self.t), compiled(scaled)):
        np.testing.assert_allclose(out, expected, rtol=2e-5, atol=2e-6)
    self.assertEqual(compiled._cache_size(), 1)

  @parameterized.parameters('sampler', 'rounded', 'an ulp up', 'an ulp down', 'cosine')
  def test_interval_on_the_times_of_a_grid(self, grid):
    """All pairs of multiples of 1/20 at 2 to 250 steps, in rational numbers.

    Of the sampler's own grid some numbers of steps: a shape of each is compiled. The
    cosine grid, t = cos(pi i / 2N), meets a bound at 0, 1/2 and 1 alone.
    """
    lo, hi = np.array(list(itertools.combinations(range(21), 2))).T

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, 0, None))
    def inside(lo, hi, t):
      return guidance.interval(1.0, lo, hi)(None, t, t)

    num_wrong = 0
    steps = (20, 25, 31, 50, 100) if grid == 'sampler' else range(2, 251)
    for num_steps in steps:
      i = np.arange(num_steps, 0, -1)  # 20 t, times num_steps: whole numbers.
      above_lo = i * 20 > lo[:, None] * num_steps
      up_to_hi = i * 20 <= hi[:, None] * num_steps
      if grid == 'sampler':
        t = np.asarray(sampling.time_grid(num_steps))[:-1]
      elif grid == 'cosine':
        t = np.cos(0.5 * np.pi * (num_steps - i) / num_steps)
        exact = np.where(3 * (num_steps - i) == 2 * num_steps, 0.5, t)
        above_lo, up_to_hi = exact > lo[:, None] / 20, exact <= hi[:, None] / 20
      else:
        t = np.float32(i / num_steps)
      if 'ulp' in grid:
        t = np.nextafter(t, np.float32(2.0 if 'up' in grid else -1.0))
      padded = np.resize(np.float32(t), 250)  # One shape to compile.
      found = np.asarray(inside(lo / 20, hi / 20, padded))[:, :num_steps]
      num_wrong += np.sum(found != (above_lo & up_to_hi))
    self.assertEqual(num_wrong, 0)

  def test_interval_excludes_lo_and_includes_hi(self):
    weight = guidance.interval(2.0, 0.25, 0.5)(self.cond, self.s, self.t)
    np.testing.assert_array_equal(weight, [0.0, 0.0, 2.0, 0.0, 0.0, 0.0])

  @parameterized.named_parameters(
    ('constant', guidance.constant(0.0)),
    ('interval', guidance.interval(0.0, 0.2, 0.8)),
    ('clamp_linear', guidance.clamp_linear(0.0)),
    ('clamp_cosine', guidance.clamp_cosine(0.0)),
    ('power_cosine', guidance.power_cosine(0.0, 2.0)),
    ('triangle', guidance.triangle(0.0)),
  )
  def test_omega_0_is_the_conditional_model(self, weight):
    np.testing.assert_array_equal(weight(self.cond, self.s, self.t), np.zeros(6))

  @parameterized.named_parameters(
    ('linear', guidance.clamp_linear(1.5), (3.0, 1.5, 0.0)),
    ('cosine', guidance.clamp_cosine(1.5), (3.0, 1.5, 0.0)),
    ('triangle', guidance.triangle(1.5), (0.0, 3.0, 0.0)),
  )
  def test_mean_and_ends(self, weight, ends):
    """The mean over t is omega, by the midpoint rule; values at t = 0, 1/2, 1."""
    t = (jnp.arange(1000) + 0.5) / 1000
    np.testing.assert_allclose(np.mean(np.float64(weight(None, t, t))), 1.5, rtol=1e-5)
    t = jnp.asarray([0.0, 0.5, 1.0])
    np.testing.assert_allclose(weight(None, t, t), ends, atol=1e-6)

  def test_limits_of_power_cosine(self):
    """Power 1 is half of cosine; a large one is omega at t = 0 alone."""
    half = guidance.power_cosine(1.5, 1.0)(self.cond, self.s, self.t)
    cosine = guidance.clamp_cosine(1.5)(self.cond, self.s, self.t)
    np.testing.assert_allclose(2.0 * half, cosine, atol=1e-6)
    t = jnp.asarray([0.0, 0.1, 0.5])
    late = guidance.power_cosine(1.5, 200.0)(None, t, t)
    np.testing.assert_allclose(late, [1.5, 0.0, 0.0], atol=1e-6)

  @parameterized.parameters(2, 50)
  def test_beta_cfg_on_the_grid(self, num_steps):
    """Null prediction at both ends, u by the index of the step; uniform density."""
    times = sampling.time_grid(num_steps, t_min=0.1, t_max=0.9) ** 2  # Not equidistant.

    @jax.jit
    def omega(a, b):
      weight = guidance.beta_cfg(7.5, a, b, times)
      return guidance.tabulate(weight, jnp.zeros(1), times)[0]

    u = np.arange(num_steps) / (num_steps - 1)
    expected = 7.5 * 12.0 * u * (1.0 - u) ** 2 - 1.0  # 1 / B(2, 3) = 12.
    np.testing.assert_allclose(omega(2.0, 3.0), expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(omega(2.0, 3.0)[jnp.asarray([0, -1])], [-1.0, -1.0])
    np.testing.assert_allclose(omega(1.0, 1.0), np.full(num_steps, 6.5), rtol=1e-5)


class CfgPlusPlusTest(parameterized.TestCase):
  def _draw(self, n=300):
    """Times with all of s = 0, t = 1 and both; pairs of predictions; states."""
    rng = np.random.default_rng(0)
    s, t = np.sort(rng.uniform(size=(n, 2)), axis=1).T
    s[:100], t[50:150] = 0.0, 1.0
    return s, t, *rng.normal(size=(3, n, 4))

  @parameterized.product(
    schedule=(
      (schedules.RectifiedFlow(), lambda t: 1.0 - t, lambda t: t),
      (
        schedules.Cosine(),
        lambda t: np.cos(0.5 * np.pi * t),
        lambda t: np.sin(0.5 * np.pi * t),
      ),
    ),
    scale=(0.0, 0.2, 1.0, 1.6),
  )
  def test_step_is_the_papers(self, schedule, scale):
    """The sampler's step with this weight against Algorithm 2, in float64."""
    schedule, alpha, sigma = schedule
    s, t, x0_cond, x0_null, xt = self._draw()
    with jax.enable_x64(True):
      weight = guidance.cfg_plus_plus(scale, schedule)
      guided = guidance.linear(x0_cond, x0_null, weight(None, s, t))
      xs = np.asarray(transitions.sample(None, schedule, guided, xt, s, t, 0.0))
    self.assertEqual(xs.dtype, np.float64)
    alpha_t, sigma_t, alpha_s, sigma_s = (
      f(v)[:, None] for v in (t, s) for f in (alpha, sigma)
    )
    eps_null = (xt - alpha_t * x0_null) / sigma_t
    x0 = x0_null + scale * (x0_cond - x0_null)
    np.testing.assert_allclose(xs, alpha_s * x0 + sigma_s * eps_null, atol=1e-10)
    # As the paper has it, in noise predictions, which t = 1 does not determine.
    seen = t < 0.999
    eps_cond = ((xt - alpha_t * x0_cond) / sigma_t)[seen]
    alpha_t, sigma_t, alpha_s, sigma_s, eps_null = (
      a[seen] for a in (alpha_t, sigma_t, alpha_s, sigma_s, eps_null)
    )
    eps = eps_null + scale * (eps_cond - eps_null)
    x0 = (xt[seen] - sigma_t * eps) / alpha_t
    np.testing.assert_allclose(xs[seen], alpha_s * x0 + sigma_s * eps_null, atol=1e-8)

  @parameterized.parameters(schedules.RectifiedFlow(), schedules.Cosine())
  def test_small_steps_in_float32(self, schedule):
    """1000 steps: what the sampler multiplies delta by is alpha_s l, to rounding."""
    times = sampling.time_grid(1000)
    s, t = times[1:], times[:-1]
    omega = guidance.cfg_plus_plus(0.6, schedule)(None, s, t)
    self.assertTrue(np.all(np.isfinite(omega)))
    coef_x0 = transitions.coefficients(schedule, s, t, 0.0).coef_x0
    np.testing.assert_allclose(
      coef_x0 * (1.0 + omega), 0.6 * np.float64(schedule.alpha(s)), rtol=1e-5
    )

  def test_ends(self):
    """Scale l where alpha_t or sigma_s is 0; l = 1 is the conditional model there."""
    s, t = jnp.asarray([0.0, 0.0, 0.6]), jnp.asarray([0.3, 1.0, 1.0])
    for schedule in (schedules.RectifiedFlow(), schedules.Cosine()):
      for scale in (0.0, 0.4, 1.0):
        omega = guidance.cfg_plus_plus(scale, schedule)(None, s, t)
        np.testing.assert_allclose(omega, scale - 1.0, atol=1e-7)

  @parameterized.parameters(10, 50)
  def test_mean_of_rectified_flow(self, num_steps):
    times = sampling.time_grid(num_steps)
    weight = guidance.cfg_plus_plus(0.6, schedules.RectifiedFlow())
    omega = guidance.tabulate(weight, jnp.zeros(1), times)
    mean = 0.6 * (num_steps + 1) * (num_steps + 2) / (6 * num_steps)
    np.testing.assert_allclose(
      1.0 + guidance.mean_in_time(omega, times), mean, rtol=1e-5
    )

  def test_the_papers_pairs_are_means(self):
    """50 of Stable Diffusion's 1000 noise levels: the mean of w is 12.0 l."""
    noise_rates = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    alpha = np.sqrt(np.cumprod(1.0 - noise_rates))

    class StableDiffusion:
      """Times are indices; what CFG++ asks of a schedule."""

      def alpha(self, t):
        return jnp.asarray(alpha)[t.astype(int)]

      def sigma(self, t):
        return jnp.sqrt(1.0 - self.alpha(t) ** 2)

    with jax.enable_x64(True):
      times = jnp.append(jnp.arange(980.0, -1.0, -20.0), 0.0).at[:-1].add(1.0)
      weight = guidance.cfg_plus_plus(1.0, StableDiffusion())
      omega = np.asarray(weight(None, times[1:], times[:-1]))
    self.assertLen(omega, 50)
    self.assertAlmostEqual(np.mean(1.0 + omega), 12.0, delta=0.05)


class ErrorsTest(parameterized.TestCase):
  @parameterized.parameters(
    (lambda: guidance.constant(math.nan), 'omega=nan'),
    (lambda: guidance.interval(math.inf, 0.2, 0.8), 'omega=inf'),
    (lambda: guidance.interval(1.0, 0.8, 0.2), r'lo=0.8, hi=0.2.*lo < hi'),
    (lambda: guidance.interval(1.0, 0.5, np.float32(0.5)), r'lo=0.5, hi=0.5'),
    (lambda: guidance.interval(2.0, 0.19, 1.61), r'hi=1.61: must be a time'),
    (lambda: guidance.interval(2.0, math.nan, 1.0), r'lo=nan'),
    (lambda: guidance.clamp_linear(-1.0), r'omega=-1.0.*>= 0'),
    (lambda: guidance.clamp_linear(1.0, -0.5), r'floor=-0.5.*>= 0'),
    (lambda: guidance.clamp_cosine(math.inf, 0.0), 'omega=inf'),
    (lambda: guidance.power_cosine(math.nan, 1.0), 'omega=nan'),
    (lambda: guidance.power_cosine(1.0, 0.0), r'power=0.0.*> 0'),
    (lambda: guidance.triangle(-math.inf), 'omega=-inf'),
    (lambda: guidance.beta_cfg(-1.0, 2.0, 2.0, TIMES), 'scale=-1.0'),
    (lambda: guidance.beta_cfg(1.0, 0.5, 2.0, TIMES), r'a=0.5.*>= 1'),
    (lambda: guidance.beta_cfg(1.0, 2.0, 0.5, TIMES), r'b=0.5.*>= 1'),
    (lambda: guidance.beta_cfg(1.0, 2.0, 2.0, TIMES[-2:]), r'times.shape=\(2,\)'),
    (lambda: guidance.cfg_plus_plus(-0.1, schedules.Cosine()), 'scale=-0.1'),
  )
  def test_constants(self, make, seen):
    with self.assertRaisesRegex(ValueError, seen):
      make()


if __name__ == '__main__':
  absltest.main()
