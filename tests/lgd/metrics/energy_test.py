"""The jackknife of the energy distance: left out means left out, and errors hold."""

import numpy as np
from absl.testing import absltest

from lgd import jackknife
from lgd import metrics


def draw(rng, nums, shift=0.0):
  """Classes of some sizes, shuffled, in three dimensions."""
  label = rng.permutation(np.repeat(np.arange(len(nums)), nums))
  return rng.normal(label[:, None] + shift, 1.0, (len(label), 3)), label


class JackknifeTest(absltest.TestCase):
  def test_without_each_block(self):
    """By `class_conditional_energy` of what is left; classes of different sizes."""
    rng = np.random.default_rng(0)
    (x, label), (y, y_label) = draw(rng, (7, 12)), draw(rng, (5, 9), 0.3)
    values = metrics.jackknifed_energy(
      metrics.class_sets(x, label, num_blocks=4),
      metrics.class_sets(y, y_label, num_blocks=4),
    )
    self.assertEqual(values.shape, (5,))

    def left(x, label, block):
      number = np.array([np.sum(label[:i] == label[i]) for i in range(len(label))])
      keep = number % 4 != block
      return metrics.class_sets(x[keep], label[keep])

    for block in (None, 0, 1, 2, 3):
      sets = left(x, label, block), left(y, y_label, block)
      expected = metrics.class_conditional_energy(*sets)
      actual = values[0 if block is None else 1 + block]
      self.assertAlmostEqual(actual, expected, places=8)

  def test_error_of_a_paired_difference(self):
    """Over 200 draws, of samples and of data, the deviation of what it estimates."""
    differences, errors = [], []
    for seed in range(200):
      rng = np.random.default_rng(seed)
      (x, label), (y, y_label) = draw(rng, (40, 40)), draw(rng, (30, 30))
      data = metrics.class_sets(y, y_label, num_blocks=10)
      both = [
        metrics.jackknifed_energy(
          metrics.class_sets(x + shift, label, num_blocks=10), data
        )
        for shift in (0.0, 0.4)
      ]
      differences.append(both[1][0] - both[0][0])
      errors.append(jackknife.variance(both[1] - both[0]) ** 0.5)
    self.assertAlmostEqual(np.mean(errors) / np.std(differences), 1.0, delta=0.15)

  def test_groups_are_left_out_whole(self):
    """Samples in threes: rows 0-2, 6-8, ... are block 0 of 2."""
    rng = np.random.default_rng(0)
    (x, label), (y, y_label) = draw(rng, (12, 12)), draw(rng, (4, 6))
    x, label = x[np.argsort(label)], np.sort(label)
    sets = metrics.class_sets(x, label, group_size=3, num_blocks=2)
    data = metrics.class_sets(y, y_label, num_blocks=2)
    values = metrics.jackknifed_energy(sets, data)
    keep = np.arange(24) % 6 >= 3
    left = metrics.class_sets(x[keep], label[keep], group_size=3)
    number = np.array([np.sum(y_label[:i] == y_label[i]) for i in range(10)])
    rest = metrics.class_sets(y[number % 2 == 1], y_label[number % 2 == 1])
    expected = metrics.class_conditional_energy(left, rest)
    self.assertAlmostEqual(values[1], expected, places=8)

  def test_refuses(self):
    x, label = draw(np.random.default_rng(0), (4, 4))
    with self.assertRaisesRegex(ValueError, r'num_blocks=\[0, 2\]: must be the same'):
      metrics.jackknifed_energy(
        metrics.class_sets(x, label), metrics.class_sets(x, label, num_blocks=2)
      )
    with self.assertRaisesRegex(ValueError, 'n=2 data.* one of num_blocks=2 is left'):
      metrics.class_sets(x[:4], np.repeat([0, 1], 2), num_blocks=2)


if __name__ == '__main__':
  absltest.main()
