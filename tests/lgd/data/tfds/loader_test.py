"""Grain's batches as a function of (seed, step), whatever reads them."""

import contextlib
import itertools

import numpy as np
import pytest
from absl.testing import absltest
from absl.testing import parameterized

from lgd import errors
from lgd.data.tfds import loader
from lgd.data.tfds import sources
from tests.lgd.data.tfds import tfds_files

N, BATCH = 43, 8  # 5 batches an epoch; 3 images wait.


class LoaderTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    # Image i is i everywhere but for a mark at its left.
    x = np.zeros((N + 4, 32, 32, 3), np.uint8) + np.arange(N + 4)[:, None, None, None]
    cls.images = x.astype(np.uint8)
    cls.images[:, :, 0] = 255
    examples = [{'image': image, 'label': i % 10} for i, image in enumerate(cls.images)]
    cls.data_dir = cls().create_tempdir().full_path
    tfds_files.write(
      cls.data_dir,
      'cifar10',
      {'train': examples, 'test': examples[:3]},
      tfds_files.labelled((32, 32, 3), 10),
    )
    cls.source = sources.source('cifar10', 'train', cls.data_dir)
    assert len(cls.source) == N
    cls.whole = cls.take(17, augment=True)

  @classmethod
  def take(cls, num, *, seed=7, source=None, **kwargs):
    stream = loader.batches(source or cls.source, BATCH, seed=seed, **kwargs)
    with contextlib.closing(stream):
      return list(itertools.islice(stream, num))

  def test_each_epoch_is_a_permutation(self):
    orders = []
    for epoch in range(3):
      of_epoch = self.whole[5 * epoch : 5 * epoch + 5]
      rows = np.concatenate([_number(batch.x) for batch in of_epoch])
      self.assertLen(set(rows), 40)
      self.assertContainsSubset(set(rows), set(range(N)))
      orders.append(tuple(rows))
    self.assertLen(set(orders), 3)
    self.assertNotEqual(orders[0], tuple(sorted(orders[0])))

  def test_every_image_is_seen(self):
    rows = [_number(batch.x) for batch in self.take(50)]
    counts = np.bincount(np.concatenate(rows), minlength=N)
    self.assertLen(counts, N)  # Those that are held out are not.
    self.assertGreaterEqual(counts.min(), 5)  # Of 10 epochs, 9.3 on average.

  def test_images_and_labels(self):
    for batch in self.take(5):
      rows = _number(batch.x)
      np.testing.assert_array_equal(batch.cond, rows % 10)
      expected = self.images[rows].astype(np.float64) / 127.5 - 1.0
      np.testing.assert_allclose(batch.x, expected, atol=1e-6)
      self.assertEqual((batch.x.dtype, batch.cond.dtype), (np.float32, np.int32))
      self.assertEqual(type(batch.cond), np.ndarray)

  def test_flips(self):
    """Fair coins, new in each epoch; the order is that without them."""
    plain = self.take(80)
    flipped = self.take(80, augment=True)
    masks = []
    for a, b in zip(plain, flipped, strict=True):
      mask = b.x[:, 0, 0, 0] < 1.0  # The mark has gone to the right.
      np.testing.assert_array_equal(a.cond, b.cond)
      np.testing.assert_array_equal(a.x[~mask], b.x[~mask])
      np.testing.assert_array_equal(a.x[mask][:, :, ::-1], b.x[mask])
      masks.append(mask)
    self.assertLess(abs(np.mean(masks) - 0.5), 5 * 0.5 / np.sqrt(640))
    both = np.zeros((2, N), bool)
    for batch, mask in zip(plain, masks, strict=True):
      both[mask.astype(int), _number(batch.x)] = True
    self.assertGreater(both.all(axis=0).mean(), 0.9)

  @parameterized.product(process_count=(1, 2, 4), num_threads=(0, 1, 3))
  def test_any_number_of_processes(self, process_count, num_threads):
    """Process p has the p-th part of each batch, across epochs, from any start."""
    for start in (0, 3, 5, 11):
      parts = [
        self.take(
          6,
          start=start,
          augment=True,
          num_threads=num_threads,
          process_index=p,
          process_count=process_count,
        )
        for p in range(process_count)
      ]
      self._assert_same(parts, self.whole[start : start + 6])

  @pytest.mark.slow
  def test_workers(self):
    """Two processes of two workers each resume at batch 5, past an epoch's end."""
    for start, process_count in ((3, 1), (5, 2)):
      parts = [
        self.take(
          5,
          start=start,
          augment=True,
          num_workers=2,
          process_index=p,
          process_count=process_count,
        )
        for p in range(process_count)
      ]
      self._assert_same(parts, self.whole[start : start + 5])

  def _assert_same(self, parts, whole):
    for step, batch in enumerate(whole):
      for name in ('x', 'cond'):
        joined = np.concatenate([getattr(part[step], name) for part in parts])
        np.testing.assert_array_equal(joined, getattr(batch, name))

  def test_seed(self):
    rows = [_number(self.take(1, seed=seed)[0].x) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(rows[0], rows[1])
    self.assertFalse(np.array_equal(rows[0], rows[2]))

  def test_batches_that_cannot_be(self):
    with self.assertRaisesRegex(ValueError, 'batch_size=44: .* only 43'):
      loader.batches(self.source, 44, seed=0)
    with self.assertRaisesRegex(ValueError, 'batch_size=8: .* multiple of the 3'):
      loader.batches(self.source, 8, seed=0, process_count=3)

  @parameterized.parameters(0, 1)
  def test_damage_is_told_as_it_is(self, num_workers):
    """Across threads and processes."""
    data_dir = self.create_tempdir().full_path
    examples = [{'image': b'no image', 'label': 0}] * 20
    features = tfds_files.labelled((32, 32, 3), 10)
    tfds_files.write(data_dir, 'cifar10', {'train': examples, 'test': []}, features)
    source = sources.source('cifar10', 'train', data_dir)
    with self.assertRaisesRegex(errors.DataError, 'train.*: record .* cannot be read'):
      self.take(1, source=source, num_workers=num_workers)


def _number(x):
  """Undoes the scaling and reads the number of each image, flipped or not."""
  return np.round((x[:, 0, 1, 0].astype(np.float64) + 1.0) * 127.5).astype(int)


if __name__ == '__main__':
  absltest.main()
