"""Exact denoisers against quadrature, float64 loops and Tweedie's formula."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized

from lgd import schedules
from lgd.data import mixtures

OPTIMIZED = True

SCHEDULES = (
  ('rectified_flow', schedules.RectifiedFlow(), lambda t: (1.0 - t, t)),
  (
    'cosine',
    schedules.Cosine(),
    lambda t: (math.cos(0.5 * math.pi * t), math.sin(0.5 * math.pi * t)),
  ),
)


def _mixture(dim, num_classes=3, components=2):
  """Unequal means, variances and weights."""
  keys = jax.random.split(jax.random.key(dim), 3)
  logits = jax.random.normal(keys[2], (num_classes, components))
  return mixtures.Mixture(
    means=1.5 * jax.random.normal(keys[0], (num_classes, components, dim)),
    variances=jax.random.uniform(
      keys[1], (num_classes, components), minval=0.1, maxval=0.6
    ),
    log_weights=jax.nn.log_softmax(logits, axis=-1),
  )


def _class_components(mixture, label):
  """`(weight, mean, variance)` of a class, or of all classes pooled, in float64."""
  classes = range(mixture.num_classes) if label == mixture.num_classes else [label]
  return [
    (
      math.exp(float(mixture.log_weights[c, k])) / len(classes),
      np.float64(mixture.means[c, k]),
      float(mixture.variances[c, k]),
    )
    for c in classes
    for k in range(mixture.means.shape[1])
  ]


def _normal_pdf(x, mean, variance):
  square = np.sum((x - mean) ** 2, axis=-1)
  dim = np.shape(mean)[-1]
  return np.exp(-0.5 * square / variance) / (2.0 * np.pi * variance) ** (dim / 2)


class MixturesTest(parameterized.TestCase):
  @parameterized.product(case=SCHEDULES, t=(0.1, 0.5, 0.9), label=(0, 2, 3))
  def test_quadrature(self, case, t, label):
    """1-d: Bayes' rule on a grid of 20,001 x_0; posterior mean and log p(x_t)."""
    _, schedule, reference = case
    mixture = _mixture(1)
    alpha, sigma = reference(t)
    x0 = np.linspace(-12.0, 12.0, 20_001)[:, None]
    prior = sum(
      w * _normal_pdf(x0, m, v) for w, m, v in _class_components(mixture, label)
    )
    xt = np.linspace(-3.0, 3.0, 5).astype(np.float32)
    args = jnp.asarray(xt)[:, None], jnp.full(5, t), jnp.full(5, label)
    mean = mixtures.denoiser(schedule)(mixture, *args)
    log_density = mixtures.log_density(mixture, schedule, *args)
    for i in range(5):
      joint = prior * _normal_pdf(float(xt[i]), alpha * x0, sigma**2)
      expected = np.sum(joint * x0[:, 0]) / np.sum(joint)
      self.assertAlmostEqual(float(mean[i, 0]), expected, delta=2e-5)
      evidence = np.sum(joint) * (x0[1, 0] - x0[0, 0])
      self.assertAlmostEqual(float(log_density[i]), math.log(evidence), delta=2e-5)

  @parameterized.product(case=SCHEDULES, jit=(False, True))
  def test_posterior_mean_loop(self, case, jit):
    """4-d, by conditioning each component in float64; every label, mixed times."""
    _, schedule, reference = case
    mixture = _mixture(4)
    n = 12
    xt = jax.random.normal(jax.random.key(0), (n, 4))
    t = jnp.linspace(0.05, 0.95, n)
    label = jnp.arange(n) % 4  # 3 is null.
    fn = mixtures.denoiser(schedule)
    mean = (jax.jit(fn) if jit else fn)(mixture, xt, t, label)
    for i in range(n):
      alpha, sigma = reference(float(t[i]))
      x, total, weighted = np.float64(xt[i]), 0.0, np.zeros(4)
      for w, m, v in _class_components(mixture, int(label[i])):
        marginal = alpha**2 * v + sigma**2
        evidence = w * _normal_pdf(x, alpha * m, marginal)
        total += evidence
        weighted += evidence * (m + alpha * v / marginal * (x - alpha * m))
      np.testing.assert_allclose(mean[i], weighted / total, atol=1e-5)

  @parameterized.named_parameters(*SCHEDULES)
  def test_tweedie(self, schedule, reference):
    """Autodiff of log p(x_t | c) is (alpha E[x_0 | x_t, c] - x_t) / sigma^2."""
    mixture = _mixture(3)
    n = 16
    xt = jax.random.normal(jax.random.key(0), (n, 3))
    t, label = jnp.linspace(0.1, 1.0, n), jnp.arange(n) % 4
    score = jax.grad(
      lambda x: jnp.sum(mixtures.log_density(mixture, schedule, x, t, label))
    )(xt)
    x0_hat = mixtures.denoiser(schedule)(mixture, xt, t, label)
    for i in range(n):
      alpha, sigma = reference(float(t[i]))
      expected = (alpha * np.float64(x0_hat[i]) - np.float64(xt[i])) / sigma**2
      np.testing.assert_allclose(score[i], expected, rtol=1e-4, atol=2e-4)

  def test_null_pools_classes(self):
    """p(x_t | null) is the mean over classes of p(x_t | c)."""
    mixture, schedule = _mixture(2), schedules.RectifiedFlow()
    xt, t = jax.random.normal(jax.random.key(0), (6, 2)), jnp.linspace(0.1, 1.0, 6)
    null = mixtures.log_density(mixture, schedule, xt, t, jnp.full(6, 3))
    density = [
      np.exp(mixtures.log_density(mixture, schedule, xt, t, jnp.full(6, c)))
      for c in range(3)
    ]
    np.testing.assert_allclose(np.exp(null), np.mean(density, axis=0), rtol=1e-5)

  @parameterized.named_parameters(*SCHEDULES)
  def test_limits(self, schedule, reference):
    """t = 0 returns x_t; t = 1 the mean of the class, or of all: finite at both."""
    del reference
    mixture = _mixture(2)
    xt, label = jax.random.normal(jax.random.key(0), (4, 2)), jnp.arange(4)
    denoise = mixtures.denoiser(schedule)
    np.testing.assert_allclose(denoise(mixture, xt, jnp.zeros(4), label), xt, atol=1e-6)
    expected = [
      sum(w * m for w, m, _ in _class_components(mixture, c)) for c in range(4)
    ]
    np.testing.assert_allclose(
      denoise(mixture, xt, jnp.ones(4), label), expected, atol=1e-6
    )

  def test_far_states_do_not_underflow(self):
    """40 standard deviations away the nearest component takes all."""
    mixture = mixtures.Mixture(
      means=jnp.asarray([[[-1.0], [1.0]]]),
      variances=jnp.full((1, 2), 0.01),
      log_weights=jnp.log(jnp.full((1, 2), 0.5)),
    )
    x0_hat = mixtures.denoiser(schedules.RectifiedFlow())(
      mixture, jnp.asarray([[8.0]]), jnp.asarray([0.1]), jnp.asarray([0])
    )
    # 1 + .9 * .01 / (.81 * .01 + .01) * (8 - .9).
    np.testing.assert_allclose(x0_hat, [[1.0 + 0.009 / 0.0181 * 7.1]], rtol=1e-5)

  def test_sample(self):
    """Mean and second moment of each class, within 5 standard errors."""
    mixture, n = _mixture(2), 20_000
    for c in range(3):
      x0 = np.float64(mixtures.sample(jax.random.key(c), mixture, jnp.full(n, c)))
      self.assertEqual(x0.shape, (n, 2))
      parts = _class_components(mixture, c)
      mean = sum(w * m for w, m, _ in parts)
      second = sum(w * (m**2 + v) for w, m, v in parts)
      error = 5.0 * np.std(x0, axis=0) / math.sqrt(n)
      np.testing.assert_array_less(np.abs(np.mean(x0, axis=0) - mean), error)
      error = 5.0 * np.std(x0**2, axis=0) / math.sqrt(n)
      np.testing.assert_array_less(np.abs(np.mean(x0**2, axis=0) - second), error)

  def test_sample_uses_each_rows_label(self):
    ring = mixtures.ring(8, radius=5.0, std=0.1)
    label = np.asarray([3, 0, 7, 3])
    x0 = np.asarray(mixtures.sample(jax.random.key(0), ring, label))
    angle = 2.0 * np.pi * label / 8
    center = 5.0 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    self.assertLess(np.max(np.abs(x0 - center)), 0.6)
    self.assertGreater(np.max(np.abs(x0[0] - x0[3])), 0.0)

  def test_ring(self):
    """Centers at the given radius, 45 degrees apart; normalised weights."""
    ring = mixtures.ring(8, radius=2.0, std=0.3)
    self.assertEqual((ring.num_classes, ring.dim), (8, 2))
    np.testing.assert_allclose(
      np.hypot(*np.asarray(ring.means[:, 0]).T), [2.0] * 8, 1e-6
    )
    np.testing.assert_allclose(ring.means[2, 0], [0.0, 2.0], atol=1e-6)
    np.testing.assert_allclose(ring.variances, np.full((8, 1), 0.09), rtol=1e-6)
    np.testing.assert_allclose(np.exp(ring.log_weights).sum(axis=1), np.ones(8))

  def test_random(self):
    """Equal weights and variances; independent means of a given norm, uniformly.

    Of 1,200 independent directions the mean vanishes, and in 5 dimensions every
    squared coordinate is 1/5 on average: within 5 standard errors.
    """
    mixture = mixtures.random(
      jax.random.key(0), 400, dim=5, components=3, radius=2.0, std=0.3
    )
    self.assertEqual((mixture.num_classes, mixture.dim), (400, 5))
    means = np.float64(mixture.means)
    self.assertEqual(means.shape, (400, 3, 5))
    np.testing.assert_allclose(np.linalg.norm(means, axis=-1), 2.0, rtol=1e-6)
    direction = means.reshape(1200, 5) / 2.0
    error = 5.0 / math.sqrt(5 * 1200)
    np.testing.assert_array_less(np.abs(np.mean(direction, axis=0)), error)
    error = 5.0 * np.std(direction**2, axis=0) / math.sqrt(1200)
    np.testing.assert_array_less(np.abs(np.mean(direction**2, axis=0) - 0.2), error)
    np.testing.assert_allclose(mixture.variances, np.full((400, 3), 0.09), rtol=1e-6)
    np.testing.assert_allclose(
      np.exp(mixture.log_weights), np.full((400, 3), 1 / 3), rtol=1e-6
    )
    again, other = (
      mixtures.random(jax.random.key(k), 400, dim=5, components=3) for k in (0, 1)
    )
    np.testing.assert_allclose(2.0 * again.means, mixture.means, rtol=1e-6)
    self.assertGreater(np.abs(other.means - again.means).min(axis=(0, 1)).max(), 0.0)

  def test_dataset(self):
    """Three independent draws, balanced, reproducible from the key."""
    ring = mixtures.ring(4, radius=5.0, std=0.1)
    data = mixtures.dataset(jax.random.key(0), ring, num_per_class=25)
    self.assertEqual((data.num_classes, data.shape), (4, (2,)))
    splits = (data.train, data.validation, data.test)
    for split in splits:
      self.assertEqual(split.x.dtype, np.float32)
      np.testing.assert_array_equal(np.bincount(split.label), [25] * 4)
      center = np.asarray(ring.means)[split.label, 0]
      self.assertLess(np.max(np.abs(split.x - center)), 0.6)
    rows = np.concatenate([s.x for s in splits])
    self.assertLen(np.unique(rows, axis=0), 300)
    again = mixtures.dataset(jax.random.key(0), ring, num_per_class=25)
    np.testing.assert_array_equal(again.validation.x, data.validation.x)


class ExactNetworkTest(absltest.TestCase):
  def test_is_the_denoiser_and_does_not_learn(self):
    mixture, flow = _mixture(3), schedules.RectifiedFlow()
    net = mixtures.ExactNetwork(flow, lambda: mixture)
    key = jax.random.key(0)
    xt, t = jax.random.normal(key, (4, 3)), jnp.array([0.1, 0.4, 0.8, 1.0])
    label = jnp.array([0, 1, 2, 3])
    params = net.init(key, xt, t, label)
    x0 = net.apply(params, xt, t, label)
    np.testing.assert_array_equal(x0, mixtures.denoiser(flow)(mixture, xt, t, label))
    gradient = jax.grad(lambda p: jnp.sum(net.apply(p, xt, t, label) ** 2))(params)
    for leaf in jax.tree.leaves(gradient):
      np.testing.assert_array_equal(leaf, 0.0 * leaf)


if __name__ == '__main__':
  absltest.main()
