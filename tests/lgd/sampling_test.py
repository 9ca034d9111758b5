"""The sampler against exact recursions, with exact denoisers."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized

from lgd import arrays
from lgd import denoiser as denoiser_lib
from lgd import guidance
from lgd import mmd
from lgd import sampling
from lgd import schedules
from lgd.data import mixtures
from tests import helpers

OPTIMIZED = True

SCHEDULE, COSINE = schedules.RectifiedFlow(), schedules.Cosine()
MEAN, VARIANCE = helpers.MEAN, helpers.VARIANCE


def _recursion(num_steps, churn):
  """Oracle in float64: the affine map x_init -> x_0, and the noise added on the way.

  Each step is x_s = a x_t + b + std z with the rectified-flow coefficients. Returns
  `(slope, intercept, variance)` of x_0 given x_init; with x_init ~ N(0, 1) x_0 is
  N(intercept, slope^2 + variance).
  """
  slope, intercept, variance, e = 1.0, 0.0, 0.0, churn**2
  for i in range(num_steps, 0, -1):
    t, s = i / num_steps, (i - 1) / num_steps
    gain = (1.0 - t) * VARIANCE / ((1.0 - t) ** 2 * VARIANCE + t**2)
    ratio = (1.0 - t) / (1.0 - s) * s / t
    u = e * ratio + 1.0 - e
    coef_xt, coef_x0 = s / t * u, (1.0 - s) * (1.0 - ratio * u)
    a = coef_xt + coef_x0 * gain
    b = coef_x0 * MEAN * (1.0 - gain * (1.0 - t))
    slope, intercept = a * slope, a * intercept + b
    variance = a**2 * variance + s**2 * (1.0 - u**2)
  return slope, intercept, variance


def _sample_gaussian(key, n, num_steps, churn, **settings):
  """`[n, 1]` samples with the exact denoiser of the 1-d Gaussian."""
  return sampling.sample(
    key,
    helpers.gaussian_denoiser,
    SCHEDULE,
    None,
    (n, 1),
    num_steps=num_steps,
    churn=churn,
    **settings,
  )


class TimeGridTest(parameterized.TestCase):
  def test_grid(self):
    np.testing.assert_allclose(sampling.time_grid(4), [1, 0.75, 0.5, 0.25, 0])
    np.testing.assert_allclose(
      sampling.time_grid(2, t_min=0.1, t_max=0.9), [0.9, 0.5, 0.1], rtol=1e-6
    )

  def test_errors(self):
    with self.assertRaisesRegex(ValueError, 'num_steps=0'):
      sampling.time_grid(0)
    with self.assertRaisesRegex(ValueError, r'times.shape=\(4,\)'):
      times = jnp.linspace(1.0, 0.0, 4)
      _sample_gaussian(jax.random.key(0), 2, 4, 0.0, times=times)


def _scales(schedule, t):
  """Alpha and sigma in float64."""
  if schedule is SCHEDULE:
    return 1.0 - t, t
  return math.sin(0.5 * math.pi * (1.0 - t)), math.sin(0.5 * math.pi * t)


class OrderTest(parameterized.TestCase):
  @parameterized.product(schedule=(SCHEDULE, COSINE), t_max=(1.0, 0.9))
  def test_second_order_is_dpm_solver_pp(self, schedule, t_max):
    """The update (2M) of the paper in float64, on an uneven grid, to t = 0 and not."""
    times = np.asarray([t_max, 0.85, 0.6, 0.5, 0.2, 0.0])
    shift = np.asarray([0.3, -1.0])

    def denoise(xt, s, t, cond):  # Not linear; of all its arguments.
      return jnp.tanh(xt + cond * shift) + (t - 0.5 * s)[:, None]

    trajectory = sampling.sample(
      jax.random.key(0),
      denoise,
      schedule,
      jnp.ones((3, 1)),
      (3, 2),
      num_steps=5,
      churn=0.0,
      solver='2m',
      times=jnp.asarray(times),
      return_trajectory=True,
    )
    x, previous = np.float64(trajectory[0]), None
    lam = [
      np.log(np.divide(*_scales(schedule, t))) if 0 < t < 1 else None for t in times
    ]
    for i in range(5):
      t, s = times[i], times[i + 1]
      (alpha_t, sigma_t), (alpha_s, sigma_s) = (_scales(schedule, r) for r in (t, s))
      prediction = combined = np.tanh(x + shift) + t - 0.5 * s
      ends = lam[i - 1] is None or lam[i + 1] is None  # Of a step from 1, or to 0.
      if i > 0 and not ends:
        h, h_previous = lam[i + 1] - lam[i], lam[i] - lam[i - 1]
        r = h_previous / h
        combined = (1.0 + 0.5 / r) * prediction - 0.5 / r * previous
      exp_minus_h = (alpha_t / sigma_t) * (sigma_s / alpha_s)
      x = sigma_s / sigma_t * x - alpha_s * (exp_minus_h - 1.0) * combined
      previous = prediction
      np.testing.assert_allclose(trajectory[i + 1], x, rtol=1e-4, atol=1e-4)

  def _errors(self, denoise, schedule, shape, cond, solution, solver, span, steps):
    """Root mean square distance to the solution of the probability-flow equation."""
    errors = []
    for num_steps in steps:
      trajectory = sampling.sample(
        jax.random.key(0),
        denoise,
        schedule,
        cond,
        shape,
        num_steps=num_steps,
        churn=0.0,
        solver=solver,
        times=sampling.time_grid(num_steps, t_max=span[0], t_min=span[1]),
        return_trajectory=True,
      )
      error = np.float64(trajectory[-1]) - solution(np.float64(trajectory[0]))
      errors.append(math.sqrt(np.mean(error**2)))
    return np.asarray(errors)

  @parameterized.product(schedule=(SCHEDULE, COSINE), to_data=(False, True))
  def test_error_for_a_gaussian(self, schedule, to_data):
    """Its flow in closed form: x_t keeps its quantile of p(x_t), a Gaussian.

    Twice the steps halve the error of first order and quarter that of second order.
    Down to t = 0 the last steps in lambda do not shrink, which costs second order a
    logarithm: there it is held to a ninth of the error of first order.
    """
    span = (1.0, 0.0) if to_data else (0.95, 0.05)

    def denoise(xt, s, t, cond):
      alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
      gain = alpha * VARIANCE / (alpha**2 * VARIANCE + sigma**2)
      return MEAN + gain * (xt - alpha * MEAN)

    def solution(x):
      (alpha, sigma), (alpha_end, sigma_end) = (_scales(schedule, t) for t in span)
      std = math.hypot(alpha * math.sqrt(VARIANCE), sigma)
      std_end = math.hypot(alpha_end * math.sqrt(VARIANCE), sigma_end)
      return alpha_end * MEAN + std_end / std * (x - alpha * MEAN)

    steps = (64, 128)
    first, second, heun = (
      self._errors(denoise, schedule, (16, 1), None, solution, solver, span, steps)
      for solver in sampling.SOLVERS
    )
    np.testing.assert_allclose(first[:-1] / first[1:], 2.0, atol=0.1)
    if to_data:
      self.assertLess(second[-1], first[-1] / 9.0)
      self.assertLess(heun[-1], first[-1] / 9.0)
    else:
      np.testing.assert_allclose(heun[:-1] / heun[1:], 4.0, atol=0.6)
      np.testing.assert_allclose(second[:-1] / second[1:], 4.0, atol=0.6)

  def test_error_for_a_guided_mixture(self):
    """Against Runge-Kutta (4) in float64 with 400 steps; omega depends on t."""
    mixture = mixtures.random(jax.random.key(3), 3, dim=2, components=2, std=0.4)
    means, label = np.float64(mixture.means), np.arange(12) % 3
    span, variance = (0.95, 0.05), 0.4**2

    def posterior_mean(x, t, mask):  # mask [12, 3]: the classes in the mixture.
      alpha, total = 1.0 - t, (1.0 - t) ** 2 * variance + t**2
      diff = x[:, None, None] - alpha * means  # [12, class, component, 2]
      weight = np.exp(-0.5 * np.sum(diff**2, -1) / total) * mask[..., None]
      weight /= np.sum(weight, (1, 2), keepdims=True)
      mean = means + alpha * variance / total * diff
      return np.sum(weight[..., None] * mean, (1, 2))

    def velocity(x, t):
      cond = posterior_mean(x, t, np.eye(3)[label])
      null = posterior_mean(x, t, np.ones((12, 3)))
      return (x - cond - 1.5 * math.sin(3.0 * t) * (cond - null)) / t

    def solution(x):
      h = (span[1] - span[0]) / 400
      for t in span[0] + h * np.arange(400):
        k1 = velocity(x, t)
        k2 = velocity(x + 0.5 * h * k1, t + 0.5 * h)
        k3 = velocity(x + 0.5 * h * k2, t + 0.5 * h)
        k4 = velocity(x + h * k3, t + h)
        x = x + h / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)
      return x

    pair = denoiser_lib.classifier_free(mixtures.denoiser(SCHEDULE), 3)
    denoise = guidance.guided(pair, mixture, lambda c, s, t: 1.5 * jnp.sin(3.0 * t))
    for solver, order in (('first_order', 1), ('2m', 2), ('heun', 2)):
      errors = self._errors(
        denoise, SCHEDULE, (12, 2), jnp.asarray(label), solution, solver, span, (32, 64)
      )
      np.testing.assert_allclose(errors[:-1] / errors[1:], 2.0**order, rtol=0.15)

  @parameterized.parameters(1, 2)
  def test_one_and_two_steps_are_finite(self, num_steps):
    """From t = 1 to t = 0, where every h is infinite: first order, and no inf / inf."""
    run = functools.partial(_sample_gaussian, jax.random.key(0), 8, num_steps, 0.0)
    with jax.debug_nans(True):
      second, heun = run(solver='2m'), run(solver='heun')
    np.testing.assert_array_equal(second, run(solver='first_order'))
    np.testing.assert_array_equal(heun, second)

  @parameterized.parameters(
    ('euler', 0.0, {}, "solver='euler'"),
    ('2m', 0.5, {}, "solver='2m' with churn=0.5"),
    ('heun', 0.0, {'memory': jnp.zeros(2)}, "solver='heun' with memory"),
    ('heun', 0.0, {'noise': jnp.zeros((2, 2))}, r'noise.shape=\(2, 2\)'),
  )
  def test_errors(self, solver, churn, settings, message):
    with self.assertRaisesRegex(ValueError, message):
      _sample_gaussian(jax.random.key(0), 2, 2, churn, solver=solver, **settings)


class KarrasTest(parameterized.TestCase):
  """A guided mixture on EDM's path, in its own form and rescaled."""

  @parameterized.product(data_std=(0.5, math.inf), solver=('first_order', '2m', 'heun'))
  def test_is_the_sampler_of_edm(self, data_std, solver):
    """Algorithm 1 of Karras et al. 2022 without churn, its Euler and 2M, in float64.

    On x + sigma eps from sigma 80 on, whatever form the path is written in.
    """
    karras = schedules.Karras(data_std=data_std)
    mixture = mixtures.random(jax.random.key(3), 3, dim=2, components=2, std=0.4)
    means, label, num_steps = np.float64(mixture.means), np.arange(6) % 3, 10
    sigmas = [
      (80 ** (1 / 7) + i / 9 * (0.002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
      for i in range(num_steps)
    ] + [0.0]
    omega = np.linspace(1.0, 0.1, num_steps)

    def mean(x, sigma, mask):  # mask [6, 3]: the classes in the mixture.
      total = 0.4**2 + sigma**2
      diff = x[:, None, None] - means  # [6, class, component, 2]
      log_weight = -0.5 * np.sum(diff**2, -1) / total + np.log(mask + 1e-300)[..., None]
      weight = np.exp(log_weight - log_weight.max((1, 2), keepdims=True))
      weight /= np.sum(weight, (1, 2), keepdims=True)
      return np.sum(weight[..., None] * (means + 0.4**2 / total * diff), (1, 2))

    def guided(x, i):
      cond, null = (mean(x, sigmas[i], m) for m in (np.eye(3)[label], np.ones((6, 3))))
      return cond + omega[i] * (cond - null)

    noise = np.float32(np.random.default_rng(0).normal(size=(6, 2)))
    x, previous = sigmas[0] * np.float64(noise), None
    for i in range(num_steps):
      prediction = guided(x, i)
      slope = (x - prediction) / sigmas[i]
      following = x + (sigmas[i + 1] - sigmas[i]) * slope
      if solver == 'heun' and i + 1 < num_steps:
        other = (following - guided(following, i + 1)) / sigmas[i + 1]
        following = x + (sigmas[i + 1] - sigmas[i]) * (slope + other) / 2.0
      if solver == '2m' and 0 < i < num_steps - 1:
        h, last_h = np.log(sigmas[i] / sigmas[i + 1]), np.log(sigmas[i - 1] / sigmas[i])
        combined = prediction + h / (2.0 * last_h) * (prediction - previous)
        ratio = sigmas[i + 1] / sigmas[i]
        following = ratio * x + (1.0 - ratio) * combined
      x, previous = following, prediction

    pair = denoiser_lib.classifier_free(mixtures.denoiser(karras), 3)
    times = karras.grid(num_steps)
    weight = guidance.table(np.tile(omega, (3, 1)), times)
    samples = sampling.sample(
      jax.random.key(0),
      guidance.guided(pair, mixture, weight),
      karras,
      jnp.asarray(label),
      (6, 2),
      num_steps=num_steps,
      churn=0.0,
      solver=solver,
      times=jnp.asarray(times, jnp.float32),
      noise=noise,
    )
    np.testing.assert_allclose(samples, x, atol=1e-4 * np.abs(x).max())

  @parameterized.parameters((1, 1), (8, 15))
  def test_evaluations_of_heun(self, num_steps, expected):
    """One for every time but the last, and one more for every step but the last."""
    counter = denoiser_lib.EvaluationCounter()
    denoise = counter.wrap(lambda params, xt, t, cond: xt)
    karras = schedules.Karras()
    sampling.sample(
      jax.random.key(0),
      lambda xt, s, t, cond: denoise(None, xt, t, cond),
      karras,
      None,
      (3, 1),
      num_steps=num_steps,
      churn=0.0,
      solver='heun',
      times=karras.grid(num_steps),
    )
    self.assertEqual(counter.count, 3 * expected)


class MemoryTest(parameterized.TestCase):
  @parameterized.parameters('first_order', '2m')
  def test_memory_is_carried_through_the_steps(self, solver):
    """A tree that counts calls and adds up predictions; x_s by float64, first order.

    In second order the memory is of the denoiser's own predictions, so only the last
    prediction, which is made from it, is looked at: the last step gives it back.
    """

    def denoise(xt, s, t, cond, step, memory):
      x0_hat = 0.5 * xt + memory['sum'] + memory['calls'] + step['shift'][:, None]
      return x0_hat, {'calls': memory['calls'] + 1.0, 'sum': memory['sum'] + x0_hat}

    shift = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
    trajectory = sampling.sample(
      jax.random.key(0),
      denoise,
      SCHEDULE,
      None,
      (3, 2),
      num_steps=4,
      churn=0.0,
      solver=solver,
      inputs={'shift': shift},
      memory={'calls': jnp.float32(7.0), 'sum': jnp.full((3, 2), 0.1)},
      return_trajectory=True,
    )
    total = 0.1
    for i in range(4):
      x, t, s = np.float64(trajectory[i]), 1.0 - i / 4.0, 0.75 - i / 4.0
      x0_hat = 0.5 * x + total + 7.0 + i + shift[i][:, None]
      total = total + x0_hat
      if solver == 'first_order' or i == 3:
        expected = (1.0 - s) * x0_hat + s / t * (x - (1.0 - t) * x0_hat)
        np.testing.assert_allclose(trajectory[i + 1], expected, rtol=1e-5)


class SampleTest(parameterized.TestCase):
  @parameterized.product(num_steps=(1, 5, 50), jit=(False, True))
  def test_ddim_is_the_affine_recursion(self, num_steps, jit):
    """Churn 0, 1-d Gaussian: each sample is slope * x_init + intercept."""

    def run(key):
      return _sample_gaussian(key, 64, num_steps, 0.0, return_trajectory=True)

    trajectory = (jax.jit(run) if jit else run)(jax.random.key(0))
    self.assertEqual(trajectory.shape, (num_steps + 1, 64, 1))
    slope, intercept, variance = _recursion(num_steps, 0.0)
    self.assertEqual(variance, 0.0)
    expected = slope * np.float64(trajectory[0]) + intercept
    np.testing.assert_allclose(trajectory[-1], expected, atol=1e-5)

  @parameterized.product(churn=(0.0, 0.5, 1.0), num_steps=(3, 30))
  def test_moments_follow_the_recursion(self, churn, num_steps):
    """Mean and deviation within 5 standard errors, at any churn; 40,000 samples."""
    n = 40_000
    x0 = _sample_gaussian(jax.random.key(1), n, num_steps, churn)
    slope, mean, variance = _recursion(num_steps, churn)
    std = math.sqrt(slope**2 + variance)
    self.assertLess(abs(np.mean(x0) - mean), 5.0 * std / math.sqrt(n))
    self.assertLess(abs(np.std(x0) - std), 5.0 * std / math.sqrt(2 * n))

  @parameterized.parameters(0.0, 1.0)
  def test_error_falls_with_the_number_of_steps(self, churn):
    """Towards N(1, .25): the exact bias of the variance shrinks about as 1/steps.

    The bias is the recursion's; the sampler's own variance is held to it within 5
    standard errors, and so falls too.
    """
    n, errors, sampled = 40_000, [], []
    for num_steps in (8, 32, 128):
      slope, mean, variance = _recursion(num_steps, churn)
      self.assertAlmostEqual(mean, MEAN, delta=1e-9)
      errors.append(abs(slope**2 + variance - VARIANCE))
      x0 = _sample_gaussian(jax.random.key(2), n, num_steps, churn)
      sampled.append(abs(np.var(x0) - VARIANCE))
      tolerance = 5.0 * (slope**2 + variance) * math.sqrt(2 / n)
      self.assertLess(abs(sampled[-1] - errors[-1]), tolerance)
    for coarse, fine in itertools.pairwise(errors):
      self.assertLess(fine, 0.4 * coarse)
    self.assertLess(sampled[2], 0.3 * sampled[0])

  @parameterized.parameters(0.0, 1.0)
  def test_mixture_recovers_the_class(self, churn):
    """Two components per class in 2-d: the energy distance to p(x_0 | c) vanishes.

    Unguided, exact denoiser. At 100 steps it is below 3 standard errors of exact
    draws against exact draws (sd over 20 replicas), at 2 steps far above.
    """
    mixture = mixtures.Mixture(
      means=jnp.asarray([[[-2.0, 0.0], [-1.0, 1.0]], [[2.0, 0.0], [1.0, -1.0]]]),
      variances=jnp.asarray([[0.1, 0.05], [0.02, 0.1]]),
      log_weights=jnp.log(jnp.asarray([[0.3, 0.7], [0.5, 0.5]])),
    )
    denoise = guidance.unguided(mixtures.denoiser(SCHEDULE), mixture)
    n, label = 1000, jnp.ones(1000, jnp.int32)
    exact = jax.vmap(lambda k: mixtures.sample(k, mixture, label))(
      jax.random.split(jax.random.key(0), 20)
    )
    distance = jax.jit(mmd.energy_mmd2)
    null = [distance(exact[i], exact[i + 1]) for i in range(1, 19)]

    def error(num_steps):
      x0 = sampling.sample(
        jax.random.key(3),
        denoise,
        SCHEDULE,
        label,
        (n, 2),
        num_steps=num_steps,
        churn=churn,
      )
      return float(distance(x0, exact[0]))

    self.assertLess(error(100), 3.0 * np.std(null))
    self.assertGreater(error(2), 20.0 * np.std(null))

  def test_denoiser_receives_both_ends_of_each_step(self):
    """churn 0 gives x_s = sigma_s/sigma_t x_t + coef x0_hat: solve for x0_hat.

    The stand-in prediction is 10 t + s, so a swapped or shifted grid shows.
    """
    times = np.asarray([0.9, 0.6, 0.2, 0.0])
    trajectory = sampling.sample(
      jax.random.key(0),
      lambda xt, s, t, cond: (10.0 * t + s)[:, None] + 0.0 * xt,
      SCHEDULE,
      None,
      (3, 1),
      num_steps=3,
      churn=0.0,
      times=jnp.asarray(times),
      return_trajectory=True,
    )
    for i in range(3):
      t, s = times[i], times[i + 1]
      eps = (np.float64(trajectory[i]) - (1.0 - t) * (10.0 * t + s)) / t
      expected = (1.0 - s) * (10.0 * t + s) + s * eps
      np.testing.assert_allclose(trajectory[i + 1], expected, rtol=1e-5)

  def test_starts_from_given_noise(self):
    """Samples of the noise that a key draws are those of the key."""
    key, shape = jax.random.key(0), (5, 1)
    noise = arrays.normal(arrays.fold_in(key, 0), shape)
    run = functools.partial(_sample_gaussian, key, 5, 4, 0.0)
    np.testing.assert_array_equal(run(noise=noise), run())
    self.assertGreater(np.abs(run(noise=noise[::-1]) - run()).max(), 0.1)

  def test_starts_from_noise_of_the_first_time(self):
    """Standard deviation sigma(t_max), within 5 standard errors."""
    times = sampling.time_grid(2, t_max=0.8)
    run = functools.partial(
      _sample_gaussian, jax.random.key(0), 20_000, 2, 1.0, times=times
    )
    trajectory = run(return_trajectory=True)
    error = 5.0 * 0.8 / math.sqrt(2 * 20_000)
    self.assertLess(abs(np.std(trajectory[0]) - 0.8), error)
    np.testing.assert_array_equal(run(), trajectory[-1])

  @parameterized.parameters(0.0, 1.0)
  def test_a_sample_does_not_depend_on_its_batch(self, churn):
    mixture = mixtures.ring(4)
    denoise = guidance.unguided(mixtures.denoiser(SCHEDULE), mixture)
    keys = jax.random.split(jax.random.key(0), 6)
    cond = jnp.asarray([0, 1, 2, 3, 0, 1])

    def run(rows):
      return sampling.sample(
        keys[rows],
        denoise,
        SCHEDULE,
        cond[rows],
        (len(rows), 2),
        num_steps=8,
        churn=churn,
      )

    whole = run(np.arange(6))
    np.testing.assert_allclose(run(np.asarray([4, 1])), whole[np.asarray([4, 1])], 1e-5)
    self.assertGreater(np.max(np.abs(whole[0] - whole[4])), 1e-3)  # Same class.

  @parameterized.parameters(0.0, 1.0)
  def test_omega_0_samples_the_conditional_model_bit_for_bit(self, churn):
    """Guided at 0 equals unguided; the denoiser is elementwise, hence exact."""

    def denoiser(params, xt, t, cond):
      return params * xt / (1.0 + t[:, None]) + cond[:, None]

    def run(denoise):
      return sampling.sample(
        jax.random.key(0),
        denoise,
        SCHEDULE,
        jnp.arange(5.0),
        (5, 3),
        num_steps=7,
        churn=churn,
      )

    params = jnp.float32(0.7)
    pair = denoiser_lib.classifier_free(denoiser, -1.0)
    zero = guidance.guided(pair, params, guidance.constant(0.0))
    one = guidance.guided(pair, params, guidance.constant(1.0))
    expected = run(guidance.unguided(denoiser, params))
    np.testing.assert_array_equal(run(zero), expected)
    self.assertGreater(np.min(np.abs(run(one) - expected)), 0.0)

  @parameterized.parameters((True, 2), (False, 1))
  def test_evaluations_are_counted_in_the_scan(self, is_guided, per_step):
    """Under jit: guided 2 per step and sample, unguided 1."""
    counter = denoiser_lib.EvaluationCounter()
    denoiser = counter.wrap(mixtures.denoiser(SCHEDULE))

    @jax.jit
    def run(key, mixture):
      if is_guided:
        pair = denoiser_lib.classifier_free(denoiser, 8)
        denoise = guidance.guided(pair, mixture, guidance.constant(0.5))
      else:
        denoise = guidance.unguided(denoiser, mixture)
      return sampling.sample(
        key, denoise, SCHEDULE, jnp.arange(3), (3, 2), num_steps=11, churn=0.0
      )

    run(jax.random.key(0), mixtures.ring(8))
    jax.effects_barrier()
    self.assertEqual(counter.count, per_step * 11 * 3)


class InverseProbabilityTest(absltest.TestCase):
  def test_guidance_lowers_it(self):
    """E[1 / p(c | x)] on an exact mixture whose classes overlap, by exact p(c | x).

    Unguided it is the number of classes: E_{p(x|c)}[p(x) / (p(x|c) p(c))] = 1 / p(c).
    """
    mixture, n = mixtures.ring(4, radius=1.0, std=0.8), 20_000
    label = jnp.arange(n) % 4
    pair = denoiser_lib.classifier_free(mixtures.denoiser(SCHEDULE), 4)

    @jax.jit
    def inverse(omega):
      weight = guidance.constant(omega)
      x = sampling.sample(
        jax.random.key(0),
        guidance.guided(pair, mixture, weight),
        SCHEDULE,
        label,
        (n, 2),
        num_steps=100,
        churn=0.0,
      )
      null, zero = jnp.full(n, 4), jnp.zeros(n)
      log_joint = mixtures.log_density(mixture, SCHEDULE, x, zero, label) - jnp.log(4.0)
      return jnp.exp(mixtures.log_density(mixture, SCHEDULE, x, zero, null) - log_joint)

    values = np.stack([inverse(omega) for omega in (0.0, 0.5, 1.0, 2.0)])
    error = values[0].std() / math.sqrt(n)
    self.assertLess(abs(values[0].mean() - 4.0), 5.0 * error)
    self.assertLess(error, 0.2)
    drop = -np.diff(values, axis=0)  # The same noise for every omega.
    t_statistic = drop.mean(axis=1) / (drop.std(axis=1) / math.sqrt(n))
    self.assertGreater(t_statistic.min(), 5.0)
    self.assertGreater(values[-1].min(), 1.0)


if __name__ == '__main__':
  absltest.main()
