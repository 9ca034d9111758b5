"""Metrics against closed forms, scipy and float64 loops."""

import math
from unittest import mock

import numpy as np
from absl.testing import absltest
from absl.testing import parameterized
from scipy import linalg

from lgd import metrics
from lgd.metrics import distances


def _exact_moments(rng, n, mean, cov_root):
  """A set whose sample mean and (n - 1) covariance are exactly the ones given."""
  z = rng.normal(size=(n, len(mean)))
  z -= z.mean(axis=0)
  z = z @ np.linalg.inv(np.linalg.cholesky(np.atleast_2d(np.cov(z, rowvar=False)))).T
  return mean + z @ np.asarray(cov_root).T


def _frechet(x, y):
  return metrics.frechet_distance(metrics.fit_gaussian(x), metrics.fit_gaussian(y))


class FrechetTest(parameterized.TestCase):
  def test_commuting_covariances(self):
    """Same eigenvectors: ||m_1 - m_2||^2 + sum_i (a_i - b_i)^2, deviations a, b."""
    rng = np.random.default_rng(0)
    basis = linalg.qr(rng.normal(size=(3, 3)))[0]
    a, b = np.asarray([1.0, 2.0, 0.5]), np.asarray([0.3, 2.5, 0.5])
    mean = np.asarray([1.0, -2.0, 0.0])
    x = _exact_moments(rng, 50, mean, basis * a)
    y = _exact_moments(rng, 80, np.zeros(3), basis * b)
    expected = 5.0 + np.sum((a - b) ** 2)
    self.assertAlmostEqual(_frechet(x, y), expected, places=9)

  def test_one_dimension(self):
    """(m_1 - m_2)^2 + (s_1 - s_2)^2."""
    x, y = np.asarray([[0.0], [2.0]]), np.asarray([[3.0], [4.0], [5.0]])
    expected = (1.0 - 4.0) ** 2 + (math.sqrt(2.0) - 1.0) ** 2
    self.assertAlmostEqual(_frechet(x, y), expected, places=12)

  @parameterized.parameters(2, 8)
  def test_sqrtm(self, dim):
    """tr(S_1 + S_2 - 2 sqrtm(S_1 S_2)) for covariances that do not commute."""
    rng = np.random.default_rng(dim)
    x = rng.normal(size=(40, dim)) @ rng.normal(size=(dim, dim))
    y = rng.normal(size=(60, dim)) @ rng.normal(size=(dim, dim)) + 1.0
    s_x, s_y = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = linalg.sqrtm(s_x @ s_y)
    expected = np.sum((x.mean(0) - y.mean(0)) ** 2)
    expected += np.trace(s_x + s_y - 2.0 * root.real)
    self.assertAlmostEqual(_frechet(x, y), expected, places=6)
    self.assertAlmostEqual(_frechet(y, x), expected, places=6)

  def test_singular_covariances(self):
    """Rank 1 on orthogonal axes: the root vanishes, the traces add up."""
    rng = np.random.default_rng(0)
    x, y = np.zeros((30, 4)), np.zeros((30, 4))
    x[:, 0] = _exact_moments(rng, 30, np.ones(1), [[2.0]])[:, 0]
    y[:, 1] = _exact_moments(rng, 30, np.zeros(1), [[3.0]])[:, 0]
    self.assertAlmostEqual(_frechet(x, y), 1.0 + 4.0 + 9.0, places=6)

  def test_fewer_points_than_dimensions(self):
    """A set against itself, and against its shift by d: 0 and ||d||^2."""
    x = np.random.default_rng(0).normal(size=(5, 20)).astype(np.float32)
    self.assertAlmostEqual(_frechet(x, x), 0.0, places=5)
    shift = np.full(20, 0.5, np.float32)
    self.assertAlmostEqual(_frechet(x, x + shift), 5.0, places=5)


def _energy_loop(x, y, beta):
  x, y = (np.float64(z).reshape(len(z), -1) for z in (x, y))
  n, m = len(x), len(y)
  cross = sum(math.dist(a, b) ** beta for a in x for b in y)
  within_x = sum(math.dist(a, b) ** beta for a in x for b in x)
  within_y = sum(math.dist(a, b) ** beta for a in y for b in y)
  return 2 * cross / (n * m) - within_x / (n * (n - 1)) - within_y / (m * (m - 1))


def _energy(x, label, reference, reference_label):
  return metrics.class_conditional_energy(
    metrics.class_sets(x, label), metrics.class_sets(reference, reference_label)
  )


class ClassConditionalEnergyTest(parameterized.TestCase):
  def test_groups_that_were_drawn_together(self):
    """Their own pairs are left out: by loops, classes interleaved."""
    rng = np.random.default_rng(0)
    label = np.tile([0, 1], 9)
    x = rng.normal(size=(18, 2)).astype(np.float32)
    sets = metrics.class_sets(x, label, group_size=3)
    for c in (0, 1):
      own = np.float64(x[label == c])
      pairs = [
        math.dist(own[i], own[j])
        for i in range(9)
        for j in range(9)
        if i // 3 != j // 3
      ]
      self.assertAlmostEqual(sets.within[c][0], np.mean(pairs), places=5)
    with self.assertRaisesRegex(ValueError, 'group_size=4 at least 2 whole ones'):
      metrics.class_sets(x, label, group_size=4)

  @parameterized.product(shape=((3,), (2, 2, 1)), chunk=(1, 7, 10_000))
  def test_matches_the_loops(self, shape, chunk):
    """Classes of unequal size, every class weighing the same; gaps in the labels."""
    rng = np.random.default_rng(0)
    label = np.asarray([0, 0, 2, 2, 2, 5, 5, 5, 5, 2])
    reference_label = np.asarray([5, 2, 0, 5, 2, 0, 0])
    x = rng.normal(size=(10, *shape)).astype(np.float32)
    reference = (rng.normal(size=(7, *shape)) + 0.5).astype(np.float32)
    order = rng.permutation(10)
    with mock.patch.object(distances, '_CHUNK', chunk):
      value = _energy(x, label, reference, reference_label)
      permuted = _energy(x[order], label[order], reference, reference_label)
      swapped = _energy(reference, reference_label, x, label)
    expected = np.mean(
      [
        _energy_loop(x[label == c], reference[reference_label == c], 1.0)
        for c in (0, 2, 5)
      ]
    )
    self.assertAlmostEqual(value, expected, places=7)
    self.assertAlmostEqual(permuted, expected, places=7)
    self.assertAlmostEqual(swapped, expected, places=7)

  @parameterized.parameters(0.0, 1e4)
  def test_close_points(self, offset):
    """Points 1e-3 apart, with all coordinates far from 0: cancellation is harmless."""
    rng = np.random.default_rng(0)
    x, y = (offset + 1e-3 * rng.normal(size=(8, 20)) for _ in range(2))
    label = np.zeros(8, int)
    expected = _energy_loop(x, y, 1.0)
    self.assertAlmostEqual(_energy(x, label, y, label), expected, places=10)

  def test_duplicates(self):
    """Four copies of one point against four of another: 2 ||x - y||."""
    x = np.full((4, 784), 0.3, np.float32)
    y = x + np.float32(0.5)
    label = np.zeros(4, int)
    distance = math.sqrt(784) * float(y[0, 0] - x[0, 0])
    self.assertAlmostEqual(_energy(x, label, y, label), 2.0 * distance, places=6)
    self.assertAlmostEqual(_energy(x, label, x, label), 0.0, places=6)

  def test_unbiased(self):
    """Mean 0 over 400 pairs of sets of one law, within 5 standard errors."""
    rng = np.random.default_rng(0)
    label = np.repeat([0, 1], [3, 4])

    def draw():
      return rng.normal(size=(7, 2)) + label[:, None], label

    values = [_energy(*draw(), *draw()) for _ in range(400)]
    self.assertLess(abs(np.mean(values)), 5.0 * np.std(values) / 20.0)

  def test_sees_swapped_classes(self):
    """Right marginal, wrong classes: two point-like classes at distance 4.

    Each class then has 2 * 4 - 0 - 0 = 8.
    """
    label = np.asarray([0] * 3 + [1] * 3)
    x = np.where(label == 0, 0.0, 4.0)[:, None].astype(np.float32)
    self.assertAlmostEqual(_energy(x, label, x, label), 0.0, places=6)
    self.assertAlmostEqual(_energy(x, 1 - label, x, label), 8.0, places=5)

  def test_a_class_without_samples_is_an_error(self):
    x = np.zeros((4, 2), np.float32)
    with self.assertRaisesRegex(ValueError, 'class 1 has n=1'):
      metrics.class_sets(x, np.asarray([0, 0, 0, 1]))
    one, two = (metrics.class_sets(x, np.asarray(v)) for v in ([0] * 4, [0, 0, 1, 1]))
    with self.assertRaisesRegex(ValueError, r'classes \[0\] and \[0, 1\]'):
      metrics.class_conditional_energy(one, two)


class ClassificationTest(parameterized.TestCase):
  def test_by_hand(self):
    """p(c | x) = 1/2, 1/4, 1/2 and 1/200: right, wrong, right, wrong."""
    prob = np.asarray(
      [[0.5, 0.3, 0.2], [0.25, 0.7, 0.05], [0.1, 0.4, 0.5], [0.005, 0.9, 0.095]]
    )
    out = metrics.classification(np.log(prob), np.asarray([0, 0, 2, 0]), clip=100.0)
    self.assertEqual(out['accuracy'], 0.5)
    self.assertAlmostEqual(out['inverse_prob'], (2 + 4 + 2 + 200) / 4)
    self.assertAlmostEqual(out['log_inverse_prob'], math.log(52.0))
    self.assertAlmostEqual(out['clipped_inverse_prob'], (2 + 4 + 2 + 100) / 4)

  def test_interval_covers(self):
    """300 sets of 1/p = 1 + Exp(1), mean 2: the 95% interval covers about 95%.

    Percentile intervals of a skewed mean cover a little less; 5 standard errors of
    the count below .93, never above 1.
    """
    rng, num, covered = np.random.default_rng(0), 300, 0
    for i in range(num):
      inverse = 1.0 + rng.exponential(size=200)
      log_prob = np.log(np.stack([1.0 / inverse, 1.0 - 1.0 / inverse], axis=1))
      out = metrics.classification(
        log_prob, np.zeros(200, int), num_bootstrap=400, seed=i
      )
      low, high = out['log_inverse_prob_low'], out['log_inverse_prob_high']
      covered += low <= math.log(2.0) <= high
    error = math.sqrt(0.93 * 0.07 / num)
    self.assertGreater(covered / num, 0.93 - 5.0 * error)
    self.assertLess(covered, num)

  def test_interval_width(self):
    """About 2 * 1.96 standard errors of the mean, for 4,000 light-tailed values."""
    rng = np.random.default_rng(0)
    inverse = rng.uniform(1.0, 3.0, size=4000)
    log_prob = np.log(np.stack([1.0 / inverse, 1.0 - 1.0 / inverse], axis=1))
    out = metrics.classification(log_prob, np.zeros(4000, int))
    low, high = (math.exp(out[f'log_inverse_prob_{k}']) for k in ('low', 'high'))
    width = high - low
    expected = 2.0 * 1.96 * math.sqrt(4.0 / 12.0) / math.sqrt(4000)
    self.assertAlmostEqual(width / expected, 1.0, delta=0.1)
    self.assertBetween(out['inverse_prob'], low, high)

  def test_reproducible(self):
    log_prob = np.log(np.random.default_rng(0).dirichlet(np.ones(3), size=20))
    label = np.arange(20) % 3
    self.assertEqual(
      metrics.classification(log_prob, label), metrics.classification(log_prob, label)
    )

  def test_impossible_mistakes(self):
    """p = 0: the mean is infinite, and its interval is where resamples leave it out."""
    with np.errstate(divide='ignore'):
      log_prob = np.log(np.asarray([[0.5, 0.5], [1.0, 0.0], [0.2, 0.8]]))
    out = metrics.classification(log_prob, np.asarray([0, 1, 1]))
    self.assertEqual(out['log_inverse_prob_high'], math.inf)
    self.assertAlmostEqual(out['log_inverse_prob_low'], math.log(1.25), places=6)

  def test_certain_mistakes(self):
    """p = e^-900, whose inverse float64 cannot hold: only the mean itself saturates."""
    log_prob = np.asarray([[-900.0, 0.0], [-900.0, 0.0]], np.float32)
    out = metrics.classification(log_prob, np.asarray([0, 1]), clip=50.0)
    self.assertAlmostEqual(out['log_inverse_prob'], 900.0 - math.log(2.0), places=4)
    self.assertAlmostEqual(out['clipped_inverse_prob'], 25.5)
    self.assertTrue(all(math.isfinite(v) for v in out.values()), out)
    # Of two samples none, one or both are the mistake.
    self.assertEqual(out['log_inverse_prob_low'], 0.0)
    self.assertAlmostEqual(out['log_inverse_prob_high'], 900.0, places=4)


if __name__ == '__main__':
  absltest.main()
