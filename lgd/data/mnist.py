"""MNIST: 70,000 handwritten digits of 28x28, in memory."""

from lgd.data import prepared
from lgd.data import sources
from lgd.data import splits

NotPreparedError = prepared.NotPreparedError


def load(data_dir: str = '') -> splits.Dataset:
  """Handwritten digits `[n, 28, 28, 1]` in [-1, 1], split 55,000/5,000/10,000.

  Args:
    data_dir: the TFDS directory, as in `prepared.builder`.

  Raises:
    NotPreparedError: nothing there that can be read; says how to prepare it.
  """
  return sources.load('mnist', data_dir)
