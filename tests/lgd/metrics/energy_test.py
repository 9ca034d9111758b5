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
    values = metrics.jackknifed_energy(x, label, y, y_label, num_blocks=4)
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
      both = [
        metrics.jackknifed_energy(x + shift, label, y, y_label, num_blocks=10)
        for shift in (0.0, 0.4)
      ]
      differences.append(both[1][0] - both[0][0])
      errors.append(jackknife.variance(both[1] - both[0]) ** 0.5)
    self.assertAlmostEqual(np.mean(errors) / np.std(differences), 1.0, delta=0.15)

  def test_refuses(self):
    x, label = draw(np.random.default_rng(0), (4, 4))
    with self.assertRaisesRegex(ValueError, 'num_blocks=1: must be at least 2'):
      metrics.jackknifed_energy(x, label, x, label, num_blocks=1)
    with self.assertRaisesRegex(ValueError, r'classes \[0 1\] and \[0\]'):
      metrics.jackknifed_energy(x, label, x, 0 * label, num_blocks=2)
    with self.assertRaisesRegex(ValueError, 'class 0 has 2 samples and 4 data'):
      few = np.repeat([0, 1], 2)
      metrics.jackknifed_energy(x[:4], few, x, label, num_blocks=2)


if __name__ == '__main__':
  absltest.main()
