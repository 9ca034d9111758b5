"""Rows in whole batches."""

import numpy as np
from absl.testing import absltest
from absl.testing import parameterized

from lgd import arrays


class WholeBatchesTest(parameterized.TestCase):
  @parameterized.parameters((10, 4), (8, 4), (3, 5), (1, 1))
  def test_joined_and_cut_they_are_the_rows(self, num, size):
    batches = arrays.whole_batches(num, size)
    self.assertEqual({len(rows) for rows in batches}, {size})
    joined = np.concatenate(batches)
    np.testing.assert_array_equal(joined[:num], np.arange(num))
    self.assertLess(len(joined) - num, size)
    self.assertBetween(joined.max(), 0, num - 1)


if __name__ == '__main__':
  absltest.main()
