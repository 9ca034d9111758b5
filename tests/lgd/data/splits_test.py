"""Batches as a stream of permutations, and the digits' splits."""

import itertools

import numpy as np
from absl.testing import absltest
from absl.testing import parameterized
from sklearn import datasets

from lgd.data import digits
from lgd.data import splits


def _split(n):
  """Each datum is its own index; its label a function of it."""
  index = np.arange(n)
  return splits.Split(index[:, None].astype(np.float32), (index % 7).astype(np.int32))


def _take(split, batch_size, num, **kwargs):
  return list(itertools.islice(splits.batches(split, batch_size, **kwargs), num))


class BatchesTest(parameterized.TestCase):
  @parameterized.parameters((12, 4), (12, 12), (13, 4), (10, 1))
  def test_each_epoch_is_a_permutation(self, n, batch_size):
    """No datum twice in an epoch; all of them when the batch size divides n."""
    per_epoch = n // batch_size
    batches = _take(_split(n), batch_size, 3 * per_epoch, seed=0)
    orders = []
    for epoch in range(3):
      chunk = batches[epoch * per_epoch : (epoch + 1) * per_epoch]
      rows = np.concatenate([b.x[:, 0] for b in chunk])
      self.assertLen(rows, per_epoch * batch_size)
      self.assertLen(set(rows), per_epoch * batch_size)
      self.assertContainsSubset(set(rows), set(range(n)))
      orders.append(tuple(rows))
    self.assertLen(set(orders), 3)  # A new order each time.

  def test_every_datum_is_seen_though_the_last_of_an_epoch_are_dropped(self):
    batches = _take(_split(13), 4, 60, seed=0)
    counts = np.bincount(np.concatenate([b.x[:, 0] for b in batches]).astype(int))
    self.assertLen(counts, 13)
    # 20 epochs, each datum in 12 of 13 permutation places: 18.5 on average.
    self.assertGreaterEqual(np.min(counts), 12)

  def test_labels_travel_with_their_data(self):
    for batch in _take(_split(20), 6, 10, seed=1):
      np.testing.assert_array_equal(batch.label, batch.x[:, 0] % 7)
      self.assertEqual(batch.x.shape, (6, 1))

  @parameterized.parameters(0, 1, 2, 3, 4, 7, 11)
  def test_start_resumes_the_stream(self, start):
    """Batch k of a resumed stream is batch start + k of an uninterrupted one."""
    whole = _take(_split(13), 4, start + 5, seed=3)
    resumed = _take(_split(13), 4, 5, seed=3, start=start)
    for a, b in zip(whole[start:], resumed, strict=True):
      np.testing.assert_array_equal(a.x, b.x)
      np.testing.assert_array_equal(a.label, b.label)

  def test_seed_selects_the_stream(self):
    first, second = (_take(_split(50), 50, 1, seed=s)[0].x for s in (0, 1))
    self.assertFalse(np.array_equal(first, second))
    np.testing.assert_array_equal(first, _take(_split(50), 50, 1, seed=0)[0].x)

  def test_batch_larger_than_the_split(self):
    with self.assertRaisesRegex(ValueError, 'batch_size=14.*only 13'):
      next(splits.batches(_split(13), 14, seed=0))


class GroupsTest(parameterized.TestCase):
  @parameterized.product(n=(56, 61), group_size=(1, 2, 4), by_class=(False, True))
  def test_a_pass_has_every_datum_at_most_once(self, n, group_size, by_class):
    """And all but what fills no group."""
    label = _split(n).label
    groups = splits.group_rows(label, group_size, by_class=by_class, seed=0, epoch=3)
    self.assertEqual(groups.shape[1], group_size)
    rows = groups.ravel()
    self.assertLen(set(rows), len(rows))
    self.assertContainsSubset(set(rows), set(range(n)))
    pools = np.bincount(label) if by_class else [n]
    self.assertLen(rows, sum(pool - pool % group_size for pool in pools))

  def test_groups_share_a_label_only_if_asked_to(self):
    label = _split(140).label
    pure, mixed = (
      label[splits.group_rows(label, 5, by_class=b, seed=0, epoch=0)]
      for b in (True, False)
    )
    np.testing.assert_array_equal(pure.min(axis=1), pure.max(axis=1))
    self.assertEqual(set(pure[:, 0]), set(range(7)))
    self.assertGreater(np.mean(mixed.min(axis=1) < mixed.max(axis=1)), 0.9)
    # Classes come in no order, so that a batch holds several of them.
    self.assertFalse(np.all(np.diff(pure[:, 0]) >= 0))

  def test_groups_are_new_in_every_pass_and_for_every_seed(self):
    label = _split(60).label

    def members(seed, epoch):
      groups = splits.group_rows(label, 4, by_class=True, seed=seed, epoch=epoch)
      return {frozenset(group) for group in groups}

    self.assertEqual(members(0, 0), members(0, 0))
    self.assertNotEqual(members(0, 0), members(0, 1))
    self.assertNotEqual(members(0, 0), members(1, 0))

  def test_no_group_can_be_filled(self):
    label = np.array([0, 0, 0, 1, 1])
    for size, by_class, pool in (
      (6, False, '5 data.'),
      (3, True, '2 data of class 1.'),
    ):
      with self.assertRaisesRegex(ValueError, f'group_size={size}: .* only {pool}'):
        splits.group_rows(label, size, by_class=by_class, seed=0, epoch=0)
    with self.assertRaisesRegex(ValueError, 'only 0 data of class 2.'):
      splits.group_rows(label, 2, by_class=True, seed=0, epoch=0, num_classes=3)
    groups = splits.group_rows(label, 2, by_class=True, seed=0, epoch=0)
    self.assertLen(groups, 2)

  @parameterized.parameters(False, True)
  def test_batches_of_whole_groups(self, by_class):
    split = _split(97)
    settings = {'seed': 0, 'group_size': 4, 'by_class': by_class}
    batches = _take(split, 12, 30, **settings)
    per_epoch = 7 if by_class else 8  # 84 or 96 data are in groups.
    for epoch in range(3):
      of_epoch = batches[epoch * per_epoch : (epoch + 1) * per_epoch]
      rows = np.concatenate([b.x[:, 0] for b in of_epoch])
      self.assertLen(set(rows), 12 * per_epoch)
    for batch in batches:
      np.testing.assert_array_equal(batch.label, batch.x[:, 0] % 7)
      if by_class:
        label = batch.label.reshape(3, 4)
        np.testing.assert_array_equal(label.min(axis=1), label.max(axis=1))
    resumed = _take(split, 12, 10, start=20, **settings)
    for a, b in zip(batches[20:], resumed, strict=True):
      np.testing.assert_array_equal(a.x, b.x)

  def test_groups_of_one_are_the_plain_batches(self):
    """The stream that bases were trained with: one permutation an epoch."""
    for by_epoch, batch in enumerate(_take(_split(13), 4, 9, seed=5)):
      epoch, i = divmod(by_epoch, 3)
      order = np.random.default_rng((5, epoch)).permutation(13)
      np.testing.assert_array_equal(batch.x[:, 0], order[4 * i : 4 * i + 4])

  def test_batch_larger_than_the_groups(self):
    with self.assertRaisesRegex(ValueError, 'batch_size=60: .* only 56'):
      next(splits.batches(_split(61), 60, seed=0, group_size=4, by_class=True))


class FlipsTest(absltest.TestCase):
  """Images of one row whose columns are 2 i and 2 i + 1, for image number i."""

  def setUp(self):
    super().setUp()
    x = np.arange(26, dtype=np.float32).reshape(13, 1, 2, 1)
    self.split = splits.Split(x, np.arange(13, dtype=np.int32))

  def test_half_of_the_images_and_nothing_else(self):
    plain = _take(self.split, 4, 300, seed=0)
    flipped = _take(self.split, 4, 300, seed=0, augment=True)
    masks = []
    for a, b in zip(plain, flipped, strict=True):
      np.testing.assert_array_equal(a.label, b.label)
      np.testing.assert_array_equal(np.sort(b.x, axis=2), a.x)
      masks.append(b.x[:, 0, 0, 0] > b.x[:, 0, 1, 0])
    # 1,200 fair coins: the mean is within 5 standard errors of one half.
    self.assertLess(abs(np.mean(masks) - 0.5), 5 * 0.5 / np.sqrt(1200))
    # Of 100 epochs, the first batches: nearly all of the 16 patterns of 4 coins.
    self.assertGreater(len({tuple(mask) for mask in masks[::3]}), 10)
    # The data themselves are left alone.
    np.testing.assert_array_equal(self.split.x.ravel(), np.arange(26))

  def test_resumes(self):
    settings = {'seed': 3, 'augment': True}
    whole = _take(self.split, 4, 12, **settings)
    resumed = _take(self.split, 4, 5, start=7, **settings)
    for a, b in zip(whole[7:], resumed, strict=True):
      np.testing.assert_array_equal(a.x, b.x)


class DigitsTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.data = digits.load()

  def test_splits_partition_the_data(self):
    """The three splits together are scikit-learn's 1,797 rows, each once."""
    images, label = datasets.load_digits(return_X_y=True)
    parts = (self.data.train, self.data.validation, self.data.test)
    rows = np.concatenate(
      [np.c_[(p.x.reshape(len(p.x), 64) + 1.0) * 8.0, p.label] for p in parts]
    )
    self.assertEqual(rows.shape, (1797, 65))
    original = np.c_[images, label]
    np.testing.assert_array_equal(
      rows[np.lexsort(rows.T)], original[np.lexsort(original.T)]
    )
    self.assertLen(np.unique(images, axis=0), 1797)  # So equal rows are equal images.

  def test_fractions(self):
    sizes = [len(getattr(self.data, k).label) for k in ('train', 'validation', 'test')]
    np.testing.assert_allclose(np.asarray(sizes) / 1797, [0.6, 0.2, 0.2], atol=1e-3)

  def test_stratified(self):
    """The share of every class differs by less than one image from the whole's."""
    _, label = datasets.load_digits(return_X_y=True)
    whole = np.bincount(label)
    for split in (self.data.train, self.data.validation, self.data.test):
      expected = whole * len(split.label) / 1797
      # Two nested splits, each rounded to whole images.
      np.testing.assert_array_less(np.abs(np.bincount(split.label) - expected), 2.0)

  def test_range_shape_and_types(self):
    self.assertEqual(self.data.shape, (8, 8, 1))
    self.assertEqual(self.data.num_classes, 10)
    for split in (self.data.train, self.data.validation, self.data.test):
      self.assertEqual(split.x.dtype, np.float32)
      self.assertEqual(split.label.dtype, np.int32)
      self.assertEqual((split.x.min(), split.x.max()), (-1.0, 1.0))
      self.assertEqual(set(split.label), set(range(10)))

  def test_the_same_every_time(self):
    again = digits.load()
    np.testing.assert_array_equal(again.test.x, self.data.test.x)


if __name__ == '__main__':
  absltest.main()
