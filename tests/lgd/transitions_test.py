"""The transition against its two identities, DDIM and Gaussian conditioning."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized

from lgd import schedules
from lgd import transitions
from tests import paths

PAIRS = np.asarray(
  [(s, t) for s, t in itertools.product(np.linspace(0, 1, 21), repeat=2) if s < t]
  + [(0.0, 1e-3), (1e-3, 2e-3), (0.5, 0.501), (0.998, 0.999), (0.999, 1.0)],
  np.float32,
)
CHURNS = (0.0, 0.1, 0.3, 0.5, 0.8, 1.0)


def _coefficients(schedule, churn):
  return transitions.coefficients(
    schedule, jnp.asarray(PAIRS[:, 0]), jnp.asarray(PAIRS[:, 1]), churn
  )


class TransitionsTest(parameterized.TestCase):
  @parameterized.product(case=paths.CASES, churn=CHURNS)
  def test_preserves_forward_marginal(self, case, churn):
    """x_t ~ q(.|x0), then x_s ~ p(.|x_t, x0), must give q(x_s|x0) in float64.

    To 1e-6, of the variance too where that is up to 6400; alpha and sigma are what the
    schedule makes of float32 times.
    """
    schedule = case[1]
    coef_xt, coef_x0, std = np.float64(_coefficients(schedule, churn))
    alpha_s, alpha_t = np.float64(schedule.alpha(jnp.asarray(PAIRS.T)))
    sigma_s, sigma_t = np.float64(schedule.sigma(jnp.asarray(PAIRS.T)))
    np.testing.assert_allclose(coef_xt * alpha_t + coef_x0, alpha_s, atol=1e-6)
    variance = coef_xt**2 * sigma_t**2 + std**2
    error = np.abs(variance - sigma_s**2) / np.maximum(sigma_s**2, 1.0)
    self.assertLess(error.max(), 1e-6)

  @parameterized.named_parameters(*paths.CASES)
  def test_churn_0_is_ddim(self, schedule, reference):
    """Song et al. 2021: x_s = alpha_s x0 + sigma_s eps, eps solved from x_t."""
    coef_xt, coef_x0, std = _coefficients(schedule, 0.0)
    np.testing.assert_array_equal(std, np.zeros(len(PAIRS)))
    x0, xt = 0.7, -1.3
    for i, (s, t) in enumerate(PAIRS.tolist()):
      (alpha_s, sigma_s), (alpha_t, sigma_t) = reference(s), reference(t)
      expected = alpha_s * x0 + sigma_s * (xt - alpha_t * x0) / sigma_t
      self.assertAlmostEqual(
        float(coef_xt[i]) * xt + float(coef_x0[i]) * x0, expected, delta=2e-6
      )

  @parameterized.named_parameters(*paths.CASES)
  def test_churn_1_is_the_ddpm_posterior(self, schedule, reference):
    """Gaussian conditioning in float64, on the Markov chain x_0 -> x_s -> x_t.

    x_s ~ N(alpha_s x0, sigma_s^2) and x_t = a x_s + N(0, sigma_t^2 - a^2 sigma_s^2),
    a = alpha_t / alpha_s, have a joint Gaussian law; its conditional is compared.
    """
    coef_xt, coef_x0, std = _coefficients(schedule, 1.0)
    for i, (s, t) in enumerate(PAIRS.tolist()):
      (alpha_s, sigma_s), (alpha_t, sigma_t) = reference(s), reference(t)
      ratio = alpha_t / alpha_s
      gain = ratio * sigma_s**2 / sigma_t**2  # Cov(x_s, x_t) / Var(x_t).
      variance = sigma_s**2 - gain * ratio * sigma_s**2
      self.assertAlmostEqual(float(coef_xt[i]), gain, delta=1e-6)
      self.assertAlmostEqual(float(coef_x0[i]), alpha_s - gain * alpha_t, delta=1e-6)
      delta = 1e-6 * max(1.0, 2.0 * sigma_s**2)
      self.assertAlmostEqual(float(std[i]) ** 2, variance, delta=delta)

  @parameterized.named_parameters(*paths.CASES)
  def test_paper_form(self, schedule, reference):
    """Eq. (2) with r_ij = (alpha ratio)^i (sigma ratio)^j, in float64."""
    churn = 0.6
    coefficients = np.float64(_coefficients(schedule, churn))
    for i, (s, t) in enumerate(PAIRS.tolist()):
      (alpha_s, sigma_s), (alpha_t, sigma_t) = reference(s), reference(t)
      a, b, e = alpha_t / alpha_s, sigma_s / sigma_t, churn**2
      expected = (
        e * a * b**2 + (1.0 - e) * b,
        alpha_s * (1.0 - e * (a * b) ** 2 - (1.0 - e) * a * b),
        sigma_s * math.sqrt(max(1.0 - (e * a * b + 1.0 - e) ** 2, 0.0)),
      )
      error = np.abs(coefficients[:, i] - expected)
      np.testing.assert_array_less(error, 2e-6 * np.asarray([1, 1, max(1, sigma_s)]))

  @parameterized.named_parameters(*paths.CASES)
  def test_finite_everywhere(self, schedule, reference):
    """Also for steps of one float32 spacing, under jit, with a traced churn."""
    del reference
    fn = jax.jit(transitions.coefficients, static_argnums=0)
    t = np.linspace(1e-3, 1.0, 400, dtype=np.float32)
    s = np.concatenate([t - np.float32(1e-6), np.nextafter(t, np.float32(0.0))])
    for churn in CHURNS:
      for c in fn(schedule, s, np.concatenate([t, t]), churn):
        self.assertTrue(np.all(np.isfinite(c)))
      for c in fn(schedule, PAIRS[:, 0], PAIRS[:, 1], churn):
        self.assertTrue(np.all(np.isfinite(c)))

  @parameterized.product(churn=(0.0, 0.4, 1.0), jit=(False, True))
  def test_sample_moments(self, churn, jit):
    """The mean and the spread of (1), within 5 standard errors; per-datum times."""
    n, x0, xt = 20_000, 0.7, -0.4
    schedule = schedules.RectifiedFlow()
    s, t = np.asarray([0.2, 0.5]), np.asarray([0.6, 0.9])
    fn = (
      jax.jit(transitions.sample, static_argnums=(1, 6)) if jit else transitions.sample
    )
    xs = fn(
      jax.random.key(0),
      schedule,
      jnp.full((2, n), x0),
      jnp.full((2, n), xt),
      jnp.asarray(s),
      jnp.asarray(t),
      churn,
    )
    for i in range(2):
      # Float64 from (1)-(4), rectified flow.
      a, b, e = (1.0 - t[i]) / (1.0 - s[i]), s[i] / t[i], churn**2
      u = e * a * b + 1.0 - e
      mean = b * u * xt + (1.0 - s[i]) * (1.0 - a * b * u) * x0
      std = s[i] * math.sqrt(1.0 - u**2)
      self.assertLess(abs(np.mean(xs[i]) - mean), 5.0 * std / math.sqrt(n) + 1e-6)
      self.assertLess(abs(np.std(xs[i]) - std), 5.0 * std / math.sqrt(2 * n) + 1e-6)

  def test_marginal_by_sampling(self):
    """x_t drawn, stepped to s: mean alpha_s x0, deviation sigma_s, 5 std. errors."""
    n, x0 = 40_000, 1.2
    key_t, key_s = jax.random.split(jax.random.key(0))
    schedule = schedules.Cosine()
    xt = schedule.alpha(0.7) * x0 + schedule.sigma(0.7) * jax.random.normal(
      key_t, (n, 1)
    )
    clean = jnp.full((n, 1), x0)
    alpha_s, sigma_s = paths.PATHS['cosine'].scales(0.3)
    for churn in (0.0, 0.5, 1.0):
      xs = transitions.sample(key_s, schedule, clean, xt, 0.3, 0.7, churn)
      self.assertLess(abs(np.mean(xs) - alpha_s * x0), 5.0 * sigma_s / math.sqrt(n))
      self.assertLess(abs(np.std(xs) - sigma_s), 5.0 * sigma_s / math.sqrt(2 * n))

  def test_no_key_at_churn_0(self):
    x = jnp.ones((3, 2))
    schedule = schedules.RectifiedFlow()
    xs = transitions.sample(None, schedule, x, 2.0 * x, 0.0, 0.5, 0)
    np.testing.assert_array_equal(xs, x)  # At s = 0 DDIM returns the prediction.

  def test_traced_churn_0_adds_no_noise(self):
    x = jnp.ones((3, 2))
    fn = jax.jit(transitions.sample, static_argnums=1)
    xs = fn(jax.random.key(0), schedules.RectifiedFlow(), x, 2.0 * x, 0.25, 0.5, 0.0)
    # eps = (2 - .5) / .5 = 3, so x_s = .75 + .25 * 3.
    np.testing.assert_allclose(xs, np.full((3, 2), 1.5), rtol=1e-6)

  def test_one_key_per_sample(self):
    """A row's noise depends on its own key, not on the batch."""
    keys = jax.random.split(jax.random.key(0), 4)
    x = jax.random.normal(jax.random.key(1), (4, 3, 2))
    s, t = jnp.full(4, 0.3), jnp.full(4, 0.8)
    schedule = schedules.RectifiedFlow()
    whole = transitions.sample(keys, schedule, x, -x, s, t, 1.0)
    part = transitions.sample(keys[2:], schedule, x[2:], -x[2:], s[2:], t[2:], 1.0)
    np.testing.assert_array_equal(whole[2:], part)
    self.assertGreater(np.min(np.abs(np.diff(whole - x, axis=0))), 0.0)


if __name__ == '__main__':
  absltest.main()
