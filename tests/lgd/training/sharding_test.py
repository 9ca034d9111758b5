"""The mesh and the rule for parameters, on eight virtual devices."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized
from jax.sharding import PartitionSpec

from lgd.training import sharding

NUM_DEVICES = 8


class MeshTest(parameterized.TestCase):
  @parameterized.parameters((1, (8, 1)), (2, (4, 2)), (4, (2, 4)), (8, (1, 8)))
  def test_shape(self, fsdp, shape):
    mesh = sharding.make_mesh(fsdp=fsdp)
    self.assertEqual(mesh.axis_names, ('data', 'fsdp'))
    self.assertEqual(mesh.devices.shape, shape)
    self.assertEqual(set(mesh.devices.ravel()), set(jax.devices()))

  def test_refused(self):
    with self.assertRaisesRegex(ValueError, 'fsdp=3: must divide the 8 devices'):
      sharding.make_mesh(fsdp=3)

  @parameterized.parameters(1, 2, 8)
  def test_batches_are_split_over_all_devices_in_order(self, fsdp):
    mesh = sharding.make_mesh(fsdp=fsdp)
    batch = {'x': np.arange(32.0).reshape(16, 2), 'label': np.arange(16)}
    placed = sharding.global_batch(batch, mesh)
    for name, x in placed.items():
      np.testing.assert_array_equal(x, batch[name])
      rows = {s.device: np.asarray(s.data) for s in x.addressable_shards}
      for i, device in enumerate(mesh.devices.ravel()):
        np.testing.assert_array_equal(rows[device], batch[name][2 * i : 2 * i + 2])


class FsdpTest(parameterized.TestCase):
  @parameterized.parameters(
    ((128, 512), (None, 'fsdp')),  # The longest axis.
    ((512, 128), ('fsdp',)),
    ((256, 256), ('fsdp',)),  # The first of equals.
    ((3, 3, 64, 513), (None, None, 'fsdp')),  # 513 is not divided by 4.
    ((129, 513), ()),  # Nothing is.
    ((16_384,), ('fsdp',)),
    ((16_380,), ()),  # Too small.
    ((), ()),
  )
  def test_rule(self, shape, spec):
    mesh = sharding.make_mesh(fsdp=4)
    tree = {'a': jax.ShapeDtypeStruct(shape, jnp.float32)}
    self.assertEqual(sharding.fsdp(tree, mesh)['a'].spec, PartitionSpec(*spec))
    whole = sharding.fsdp(tree, sharding.make_mesh())
    self.assertTrue(whole['a'].is_fully_replicated)


if __name__ == '__main__':
  absltest.main()
