"""(1) against a loop over Python's integers; every single bit; any sharding."""

import jax
import ml_dtypes
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec

from lgd.training import fingerprints
from lgd.training import sharding

NUM_DEVICES = 8

RNG = np.random.default_rng(0)


def by_hand(x):
  unsigned = x.reshape(-1).view(f'u{x.dtype.itemsize}')
  return (
    sum(int(b) * (i * 0x9E3779B1 % 2**32 | 1) for i, b in enumerate(unsigned)) % 2**32
  )


class FingerprintsTest(parameterized.TestCase):
  @parameterized.parameters(
    np.float32, np.int32, np.uint8, np.float16, ml_dtypes.bfloat16, np.bool
  )
  def test_sum(self, dtype):
    x = RNG.normal(0.0, 9.0, (3, 4, 5)).astype(dtype)
    self.assertEqual(fingerprints.of_arrays({'x': x}), {'x': by_hand(x)})

  def test_names_and_scalars(self):
    tree = {'a': (np.float32(1.5), {'b': np.int32(3)})}
    expected = {'a/0': by_hand(np.full(1, 1.5, np.float32)), 'a/1/b': 3}
    self.assertEqual(fingerprints.of_arrays(tree), expected)

  def test_every_bit_counts(self):
    x = RNG.normal(size=(2, 3)).astype(np.float32)
    whole = fingerprints.of_arrays(x)
    for i in range(x.size):
      for bit in range(32):
        other = x.copy()
        other.view(np.uint32).reshape(-1)[i] ^= np.uint32(1) << np.uint32(bit)
        self.assertNotEqual(fingerprints.of_arrays(other), whole, (i, bit))

  def test_order_counts(self):
    x = np.arange(6, dtype=np.float32)
    self.assertNotEqual(
      fingerprints.of_arrays(x), fingerprints.of_arrays(x[::-1].copy())
    )

  def test_any_sharding(self):
    x = RNG.normal(size=(16, 8)).astype(np.float32)
    mesh = sharding.make_mesh(fsdp=4)
    for spec in (PartitionSpec(), PartitionSpec('data'), PartitionSpec(None, 'fsdp')):
      placed = jax.device_put(x, NamedSharding(mesh, spec))
      self.assertEqual(fingerprints.of_arrays(placed), {'': by_hand(x)})


if __name__ == '__main__':
  absltest.main()
