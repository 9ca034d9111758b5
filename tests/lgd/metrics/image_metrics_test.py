"""Metrics of features of images, against loops, closed forms and scipy."""

import itertools
import math
import pathlib
from unittest import mock

import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized
from scipy import linalg

from lgd import errors
from lgd import metrics
from lgd.metrics import distances
from lgd.storage import files


def _resize_loop(image, size):
  """One channel `[h, w]`, pixel by pixel in float64."""
  out = np.zeros((size, size))
  height, width = image.shape
  for i, j in itertools.product(range(size), repeat=2):
    y, x = i * height / size, j * width / size
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    y, x = y - top, x - left
    out[i, j] = (1 - y) * ((1 - x) * image[top, left] + x * image[top, right])
    out[i, j] += y * ((1 - x) * image[bottom, left] + x * image[bottom, right])
  return out


class ResizeTest(parameterized.TestCase):
  @parameterized.parameters(
    (64, 64, 299), (48, 80, 299), (300, 301, 299), (26, 13, 299), (1, 5, 7), (9, 9, 9)
  )
  def test_matches_the_loop(self, height, width, size):
    """To 1e-4 of a level, where 299 and the side share factors too."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (1, height, width, 2), dtype=np.uint8)
    actual = metrics.resize(jnp.asarray(images), size)
    self.assertEqual((actual.shape, actual.dtype), ((1, size, size, 2), jnp.float32))
    for channel in range(2):
      expected = _resize_loop(np.float64(images[0, ..., channel]), size)
      np.testing.assert_allclose(actual[0, ..., channel], expected, rtol=0, atol=1e-4)

  def test_by_hand(self):
    """Doubling: pixels stay at even positions, the last one is repeated."""
    images = jnp.asarray([0, 100, 100, 0], jnp.uint8).reshape(1, 2, 2, 1)
    expected = [[0, 50, 100, 100], [50, 50, 50, 50], [100, 50, 0, 0], [100, 50, 0, 0]]
    np.testing.assert_array_equal(metrics.resize(images, 4)[0, ..., 0], expected)

  @parameterized.parameters(((1, 8, 8, 3), jnp.float32), ((8, 8, 3), jnp.uint8))
  def test_other_images_are_an_error(self, shape, dtype):
    with self.assertRaisesRegex(ValueError, 'must be uint8 .*to_uint8'):
      metrics.resize(jnp.zeros(shape, dtype), 4)

  def test_to_uint8(self):
    """All levels come back from float32; halves round to the nearest, rest clips."""
    level = np.arange(256)
    x = np.float32(level) / np.float32(127.5) - np.float32(1.0)
    np.testing.assert_array_equal(metrics.to_uint8(x), level)
    near = np.asarray([-1.5, 1.2, 10.4 / 127.5 - 1.0, 10.6 / 127.5 - 1.0])
    np.testing.assert_array_equal(metrics.to_uint8(near), [0, 255, 10, 11])
    self.assertEqual(metrics.to_uint8(x).dtype, np.uint8)
    half = metrics.to_uint8(jnp.asarray(x, jnp.bfloat16))
    np.testing.assert_allclose(half, level, atol=1)
    np.testing.assert_array_equal(metrics.to_uint8(np.uint8(level)), level)


class ExtractTest(absltest.TestCase):
  def test_batches(self):
    """Every image once and in order, whatever fills the last batch; one shape only."""
    shapes = []

    def apply(params, images):
      shapes.append(images.shape)
      images = np.float32(images)
      return params * images[:, 0, 0], images[:, 0, 0, :1] - 1.0

    extractor = metrics.Extractor('name', 2.0, apply)
    images = np.arange(7 * 12, dtype=np.uint8).reshape(7, 2, 2, 3)
    out = metrics.extract(extractor, images, batch_size=3)
    np.testing.assert_array_equal(out.features, 2.0 * np.float32(images[:, 0, 0]))
    np.testing.assert_array_equal(out.log_prob, np.arange(7)[:, None] * 12 - 1.0)
    self.assertEqual(shapes, [(3, 2, 2, 3)] * 3)

  def test_other_images_are_an_error(self):
    extractor = metrics.Extractor('name', None, None)
    for images in (np.zeros((2, 8, 8, 1), np.uint8), np.zeros((2, 8, 8, 3))):
      with self.assertRaisesRegex(ValueError, 'must be uint8 .*, 3.'):
        metrics.extract(extractor, images)


class MomentsTest(parameterized.TestCase):
  @parameterized.parameters(0, 10**8)
  def test_stream(self, offset):
    """Whole numbers, which float64 holds at any offset: NumPy's moments without it."""
    rng = np.random.default_rng(0)
    x = rng.integers(-50, 50, (1000, 6)) @ rng.integers(-2, 3, (6, 6))
    total = None
    for batch in np.split(x + offset, [1, 2, 40, 400, 990]):
      total = metrics.merge(total, metrics.moments(batch))
    self.assertEqual(total.count, 1000)
    mean, cov = metrics.gaussian(total)
    np.testing.assert_allclose(mean, np.mean(x, axis=0) + offset, rtol=1e-10)
    scale = np.max(np.cov(x, rowvar=False))
    expected = np.cov(x, rowvar=False)
    np.testing.assert_allclose(cov, expected, rtol=1e-10, atol=1e-10 * scale)

  def test_merge_is_symmetric_and_associative(self):
    x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32) + 5.0
    a, b, c = (metrics.moments(part) for part in np.split(x, [5, 20]))
    left = metrics.merge(metrics.merge(a, b), c)
    right = metrics.merge(metrics.merge(c, b), a)
    for one, other, whole in zip(left, right, metrics.moments(x), strict=True):
      np.testing.assert_allclose(one, other, rtol=1e-12)
      np.testing.assert_allclose(one, whole, rtol=1e-12)

  def test_a_single_point_is_an_error(self):
    with self.assertRaisesRegex(ValueError, 'n=1 points'):
      metrics.gaussian(metrics.moments(np.zeros((1, 3))))


class GaussianFileTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self._path = pathlib.Path(self.create_tempdir()) / 'statistics' / 'test.npz'

  def test_round_trip(self):
    """Bit for bit, under the usual names."""
    expected = metrics.fit_gaussian(np.random.default_rng(0).normal(size=(9, 4)))
    metrics.save_gaussian(self._path, expected)
    with np.load(self._path) as arrays:
      self.assertEqual(set(arrays), {'mu', 'sigma'})
    actual = metrics.load_gaussian(self._path)
    np.testing.assert_array_equal(actual.mean, expected.mean)
    np.testing.assert_array_equal(actual.cov, expected.cov)
    self.assertEqual([p.name for p in self._path.parent.iterdir()], ['test.npz'])

  @parameterized.parameters(
    ({'mu': np.zeros(3)}, 'has no array sigma'),
    ({'mu': np.zeros(3), 'sigma': np.eye(2)}, r'mu \(3,\) and sigma \(2, 2\)'),
    ({'mu': np.zeros((3, 1)), 'sigma': np.eye(3)}, r'must be \[dim\] and'),
    ({'mu': np.full(2, np.nan), 'sigma': np.eye(2)}, 'not finite'),
    ({'mu': np.zeros(2), 'sigma': np.asarray(None)}, 'damaged or no npz'),
  )
  def test_other_arrays_are_errors(self, arrays, message):
    files.write_npz(self._path, arrays)
    with self.assertRaisesRegex(errors.FileError, f'^{self._path}: .*{message}'):
      metrics.load_gaussian(self._path)

  def test_no_npz(self):
    with self.assertRaisesRegex(errors.FileError, 'no such file'):
      metrics.load_gaussian(self._path)
    self._path.parent.mkdir()
    self._path.write_text('mu, sigma')
    with self.assertRaisesRegex(errors.FileError, 'no npz'):
      metrics.load_gaussian(self._path)
    with self._path.open('wb') as f:
      np.save(f, np.zeros(3))
    with self.assertRaisesRegex(errors.FileError, 'holds no named arrays'):
      metrics.load_gaussian(self._path)

  @parameterized.parameters(np.savez, np.savez_compressed)
  def test_cut_short_or_changed_anywhere(self, save):
    """At every length below the whole; and with any byte of the arrays changed."""
    gaussian = metrics.fit_gaussian(np.random.default_rng(0).normal(size=(9, 3)))
    self._path.parent.mkdir()
    save(self._path, mu=gaussian.mean, sigma=gaussian.cov)
    whole = self._path.read_bytes()
    for length in range(0, len(whole), 7):
      self._path.write_bytes(whole[:length])
      with self.assertRaises(errors.FileError):
        metrics.load_gaussian(self._path)
    for i in range(0, len(whole), 3):
      changed = bytes([whole[i] ^ 0x5A])
      self._path.write_bytes(whole[:i] + changed + whole[i + 1 :])
      try:  # Some bytes, such as dates, do not matter: then the arrays are right.
        actual = metrics.load_gaussian(self._path)
      except errors.FileError:
        continue
      np.testing.assert_array_equal(actual.mean, gaussian.mean)
      np.testing.assert_array_equal(actual.cov, gaussian.cov)

  def test_sha256_of_nothing(self):
    """The empty file's is known to everyone: e3b0c442..."""
    path = self.create_tempfile('empty').full_path
    files.check_sha256(path, 'e3b0c442')
    files.check_sha256(path, 'E3B0C44298FC1C149AFBF4C8996FB924')
    with self.assertRaisesRegex(errors.FileError, 'e3b0c442, not e3b0c443'):
      files.check_sha256(path, 'e3b0c443')
    with self.assertRaisesRegex(ValueError, "'e3b0c4': must be 8 to 64"):
      files.check_sha256(path, 'e3b0c4')


class FrechetOfFeaturesTest(parameterized.TestCase):
  @parameterized.parameters((200, 150, 48), (20, 30, 48))
  def test_streamed_stored_and_compared(self, n, m, dim):
    """1e-6 relative: sqrtm where it is sound, and always by singular values.

    With S_1 = A A^T and S_2 = B B^T the trace of the root is the sum of the singular
    values of A^T B, for fewer points than dimensions too.
    """
    rng = np.random.default_rng(n)
    x = rng.normal(size=(n, dim)) @ rng.normal(size=(dim, dim)) + 3.0
    y = np.abs(rng.normal(size=(m, dim)) @ rng.normal(size=(dim, dim)))
    path = pathlib.Path(self.create_tempdir()) / 'reference.npz'
    metrics.save_gaussian(path, metrics.fit_gaussian(y))
    total = None
    for batch in np.array_split(x, 4):
      total = metrics.merge(total, metrics.moments(batch))
    actual = metrics.frechet_distance(
      metrics.gaussian(total), metrics.load_gaussian(path)
    )
    cov_x, cov_y = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    rest = np.sum((x.mean(0) - y.mean(0)) ** 2) + np.trace(cov_x) + np.trace(cov_y)
    root_x, root_y = ((z - z.mean(0)).T / math.sqrt(len(z) - 1) for z in (x, y))
    nuclear = np.sum(linalg.svdvals(root_x.T @ root_y))
    np.testing.assert_allclose(actual, rest - 2.0 * nuclear, rtol=1e-6)
    if n > dim:
      trace = np.trace(linalg.sqrtm(cov_x @ cov_y)).real
      np.testing.assert_allclose(actual, rest - 2.0 * trace, rtol=1e-6)

  def test_other_features_are_an_error(self):
    one, two = (metrics.fit_gaussian(np.eye(4, dim)) for dim in (2, 3))
    with self.assertRaisesRegex(ValueError, 'dimensions 2 and 3'):
      metrics.frechet_distance(one, two)


class InceptionScoreTest(parameterized.TestCase):
  @parameterized.parameters(1, 10)
  def test_limits(self, num_splits):
    """1 if all are alike; the number of classes if certain and balanced."""
    alike = np.tile(np.log([0.7, 0.2, 0.1]), (50, 1))
    np.testing.assert_allclose(
      metrics.inception_score(alike, num_splits), (1.0, 0.0), atol=1e-12
    )
    with np.errstate(divide='ignore'):
      certain = np.log(np.tile(np.eye(2), (5000, 1)))
    mean, _ = metrics.inception_score(certain, num_splits)
    np.testing.assert_allclose(mean, 2.0, rtol=1e-3)

  def test_samples_sorted_by_class(self):
    """In ten splits of their order each would see one class, and score 1."""
    with np.errstate(divide='ignore'):
      certain = np.log(np.repeat(np.eye(10), 500, axis=0))
    mean, std = metrics.inception_score(certain)
    self.assertBetween(mean, 9.5, 10.0)
    self.assertBetween(std, 1e-6, 0.3)

  def test_matches_the_loop(self):
    """One split of 30 samples, and 30 splits of one, which score exactly 1."""
    prob = np.random.default_rng(0).dirichlet(np.ones(5), size=30)
    marginal = [sum(prob[:, k]) / 30 for k in range(5)]
    total = sum(p[k] * math.log(p[k] / marginal[k]) for p in prob for k in range(5))
    actual = metrics.inception_score(np.log(prob), 1)
    np.testing.assert_allclose(actual, (math.exp(total / 30), 0.0), rtol=1e-12)
    ones = metrics.inception_score(np.log(prob), 30)
    np.testing.assert_allclose(ones, (1.0, 0.0), atol=1e-12)

  def test_parts_are_those_of_the_published_code(self):
    """Improved-GAN's preds[i * n // splits : (i + 1) * n // splits], in our order."""
    prob = np.random.default_rng(0).dirichlet(np.ones(4), size=23)
    order, scores = np.random.default_rng(0).permutation(23), []
    for i in range(10):
      part = prob[order][i * 23 // 10 : (i + 1) * 23 // 10]
      divergence = part * (np.log(part) - np.log(part.mean(axis=0, keepdims=True)))
      scores.append(np.exp(np.mean(np.sum(divergence, axis=1))))
    actual = metrics.inception_score(np.log(prob))
    np.testing.assert_allclose(actual, (np.mean(scores), np.std(scores)), rtol=1e-12)

  def test_spread(self):
    """Two splits of two: from the three pairings of four samples, one is drawn."""
    prob = np.asarray([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.1, 0.9]])

    def score(rows):
      marginal = prob[rows].mean(axis=0)
      divergence = [sum(p * np.log(p / marginal)) for p in prob[rows]]
      return math.exp(np.mean(divergence))

    pairings = [([0, 1], [2, 3]), ([0, 2], [1, 3]), ([0, 3], [1, 2])]
    expected = []
    for a, b in pairings:
      low, high = sorted((score(a), score(b)))
      expected.append(((low + high) / 2, (high - low) / 2))
    seen = set()
    for seed in range(30):
      actual = metrics.inception_score(np.log(prob), 2, seed=seed)
      close = [np.allclose(actual, pair, rtol=1e-10) for pair in expected]
      self.assertTrue(any(close), actual)
      seen.add(close.index(True))
    self.assertEqual(seen, {0, 1, 2})

  @parameterized.parameters(0, 4)
  def test_number_of_splits(self, num_splits):
    with self.assertRaisesRegex(ValueError, f'num_splits={num_splits}: must be in 1'):
      metrics.inception_score(np.zeros((3, 2)), num_splits)


def _kernel_loop(x, y):
  """The U-statistic in float64, sets of any sizes."""

  def kernel(a, b):
    return (sum(p * q for p, q in zip(a, b, strict=True)) / len(a) + 1.0) ** 3

  n, m = len(x), len(y)
  within = sum(kernel(a, b) for a, b in itertools.permutations(x, 2)) / (n * (n - 1))
  within += sum(kernel(a, b) for a, b in itertools.permutations(y, 2)) / (m * (m - 1))
  return within - 2.0 * sum(kernel(a, b) for a in x for b in y) / (n * m)


class KernelDistanceTest(parameterized.TestCase):
  def test_matches_the_loop(self):
    """With subsets of everything, their order does not matter: no spread."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(8, 3)), rng.normal(size=(8, 3)) + 0.5
    mean, std = metrics.kernel_distance(
      x.astype(np.float32), np.float32(y), subset_size=8, num_subsets=3
    )
    expected = _kernel_loop(np.float64(np.float32(x)), np.float64(np.float32(y)))
    self.assertAlmostEqual(mean, expected, places=10)
    self.assertAlmostEqual(std, 0.0, places=10)

  def test_subsets(self):
    """Their mean is the statistic of everything, within 5 standard errors."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(9, 2)), rng.normal(size=(7, 2)) + 0.5
    mean, std = metrics.kernel_distance(x, y, subset_size=3, num_subsets=4000)
    self.assertGreater(std, 0.1)
    self.assertLess(abs(mean - _kernel_loop(x, y)), 5.0 * std / math.sqrt(4000))

  def test_points(self):
    """Copies of a against copies of b, 2-d: k(a, a) + k(b, b) - 2 k(a, b)."""
    x, y = np.tile([1.0, 2.0], (4, 1)), np.tile([0.0, 3.0], (5, 1))
    expected = (5 / 2 + 1) ** 3 + (9 / 2 + 1) ** 3 - 2 * (6 / 2 + 1) ** 3
    mean, std = metrics.kernel_distance(x, y, subset_size=4, num_subsets=2)
    self.assertAlmostEqual(mean, expected, places=9)
    self.assertAlmostEqual(std, 0.0, places=9)

  def test_unbiased(self):
    """Mean 0 over 400 pairs of sets of one law, within 5 standard errors."""
    rng = np.random.default_rng(0)
    values = [
      metrics.kernel_distance(
        *rng.normal(size=(2, 6, 3)), subset_size=6, num_subsets=1
      ).mean
      for _ in range(400)
    ]
    self.assertLess(abs(np.mean(values)), 5.0 * np.std(values) / 20.0)
    self.assertLess(min(values), 0.0)

  def test_seed(self):
    x = np.random.default_rng(0).normal(size=(2, 20, 3))
    first, again, other = (
      metrics.kernel_distance(*x, subset_size=5, num_subsets=4, seed=seed)
      for seed in (0, 0, 1)
    )
    self.assertEqual(first, again)
    self.assertNotEqual(first, other)

  def test_sizes(self):
    x, y = np.zeros((5, 2)), np.zeros((9, 2))
    for size in (1, 6):
      with self.assertRaisesRegex(ValueError, f'subset_size={size}: must be in 2..5'):
        metrics.kernel_distance(x, y, subset_size=size)
    with self.assertRaisesRegex(ValueError, 'num_subsets=0'):
      metrics.kernel_distance(x, y, subset_size=2, num_subsets=0)


def _covered_loop(x, centers, k):
  """Share of x in a ball around a center that reaches its k-th nearest other one."""
  radius = [
    sorted(math.dist(a, b) for j, b in enumerate(centers) if j != i)[k - 1]
    for i, a in enumerate(centers)
  ]
  return np.mean(
    [any(math.dist(a, b) <= r for b, r in zip(centers, radius, strict=True)) for a in x]
  )


class PrecisionRecallTest(parameterized.TestCase):
  @parameterized.product(chunk=(1, 50, 10_000), k=(1, 3))
  def test_matches_the_loops(self, chunk, k):
    rng = np.random.default_rng(k)
    x = np.float32(0.7 * rng.normal(size=(40, 2)) + 1001.0)
    y = np.float32(rng.normal(size=(30, 2)) + 1000.3)
    with mock.patch.object(distances, '_CHUNK', chunk):
      actual = metrics.precision_recall(x, y, num_neighbors=k)
    expected = _covered_loop(x, y, k), _covered_loop(y, x, k)
    np.testing.assert_allclose(actual, expected, atol=1e-12)
    self.assertNotEqual(*expected)

  @parameterized.parameters('repeated', 'integers', 'shifted')
  def test_ties_are_in_the_balls(self, kind):
    """100 random sets with points that repeat, or integers: no case is off.

    Squares are exact in float64 for integers; of repeated points both sides have the
    same number. The product of matrices alone fails a tenth to half of these.
    """
    for seed in range(100):
      rng = np.random.default_rng(seed)
      n, m, k = (int(rng.integers(*ends)) for ends in ((5, 40), (5, 40), (1, 4)))
      if kind == 'integers':
        x, y = (rng.integers(0, 3, size=(size, 4)) for size in (n, m))
      else:
        points = np.float32(np.abs(rng.normal(size=(12, 256))))
        points += 1000.0 * (kind == 'shifted')
        x, y = (points[rng.integers(12, size=size)] for size in (n, m))
      actual = metrics.precision_recall(x, y, num_neighbors=k)
      x, y = np.float64(x), np.float64(y)

      def radius(z, k=k):
        sq_dist = np.square(z[:, None] - z).sum(axis=-1)
        np.fill_diagonal(sq_dist, np.inf)
        return np.sort(sq_dist, axis=1)[:, k - 1]

      between = np.square(x[:, None] - y).sum(axis=-1)
      precision = np.mean(np.any(between <= radius(y), axis=1))
      recall = np.mean(np.any(between.T <= radius(x), axis=1))
      self.assertEqual(actual, (precision, recall), seed)

  def test_limits(self):
    """Itself, far from it, and one mode of two: precise, with half of the recall."""
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 50, 3))
    both = np.concatenate([one, other + 100.0])
    self.assertEqual(metrics.precision_recall(both, both), (1.0, 1.0))
    self.assertEqual(metrics.precision_recall(one, other + 100.0), (0.0, 0.0))
    self.assertEqual(metrics.precision_recall(one, both), (1.0, 0.5))

  def test_by_hand(self):
    """On a line, k = 1: balls of radius 1, 1, 3 around 0, 1, 4."""
    reference = np.asarray([[0.0], [1.0], [4.0]])
    x = np.asarray([[-0.75], [6.5], [7.5], [-2.0]])  # Balls of 1.25, 1, 1, 1.25.
    precision, recall = metrics.precision_recall(x, reference, num_neighbors=1)
    self.assertEqual((precision, recall), (2 / 4, 1 / 3))

  @parameterized.parameters(0, 5)
  def test_number_of_neighbors(self, k):
    with self.assertRaisesRegex(ValueError, f'num_neighbors={k}: .* 9 and 5'):
      metrics.precision_recall(np.zeros((9, 2)), np.zeros((5, 2)), num_neighbors=k)

  @parameterized.parameters(1, 50, 1000)
  def test_memory_is_bounded(self, chunk):
    """Blocks hold at most `chunk` distances, or those of one row; all rows once."""
    x, y = np.zeros((30, 2)), np.zeros((20, 2))
    with mock.patch.object(distances, '_CHUNK', chunk):
      blocks = list(distances.squared(x, y))
    starts = np.cumsum([0] + [len(block) for _, block in blocks])
    self.assertEqual([i for i, _ in blocks], starts[:-1].tolist())
    self.assertEqual(starts[-1], 30)
    self.assertLessEqual(max(block.size for _, block in blocks), max(chunk, 20))


if __name__ == '__main__':
  absltest.main()
