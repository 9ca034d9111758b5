"""Round trips, what is refused, and that reading writes nothing."""

import os
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest

from lgd import checkpointing
from lgd import sharding
from lgd import training

CONFIG = {'a': [1, 2], 'b': {'c': 'x', 'd': 1.5}}


def make_state(width=3, step=0):
  tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1))
  params = {'layer': {'w': jnp.arange(2.0 * width).reshape(2, width)}}
  state = training.init_state(params, tx)
  ema_params = jax.tree.map(lambda x: x + 1.0, params)
  return state._replace(step=jnp.int32(step), ema_params=ema_params)


def abstract(state):
  return checkpointing.abstract(state, sharding.fsdp(state, sharding.make_mesh()))


class CheckpointingTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.directory = pathlib.Path(self.create_tempdir().full_path) / 'run'

  def save(self, *states):
    with checkpointing.Checkpointer(self.directory, config=CONFIG, keep=2) as c:
      for state in states:
        c.save(state)

  def restore(self, state):
    with checkpointing.Checkpointer(self.directory, config={}, keep=2) as c:
      return c.restore(abstract(state))

  def test_round_trip(self):
    state = make_state(step=7)
    self.save(state)
    restored = self.restore(state)
    self.assertEqual(jax.tree.structure(restored), jax.tree.structure(state))
    jax.tree.map(np.testing.assert_array_equal, restored, state)
    self.assertLen(restored.params['layer']['w'].sharding.device_set, 8)
    self.assertEqual(checkpointing.load_config(self.directory), CONFIG)
    ema_params = checkpointing.load_ema_params(
      self.directory, abstract(state).ema_params
    )
    np.testing.assert_array_equal(
      ema_params['layer']['w'], state.ema_params['layer']['w']
    )

  def test_relative_directory(self):
    self.addCleanup(os.chdir, pathlib.Path.cwd())
    os.chdir(self.directory.parent)
    self.directory = pathlib.Path('run')
    state = make_state(step=7)
    self.save(state)
    self.assertEqual(int(self.restore(state).step), 7)
    self.assertEqual(checkpointing.load_config('run'), CONFIG)

  def test_config_is_readable_json(self):
    self.save(make_state(step=1))
    files = list((self.directory / '1' / 'config').glob('*.json'))
    self.assertIn('"d": 1.5', files[0].read_text())

  def test_latest_and_keep(self):
    self.save(*(make_state(step=s) for s in (1, 2, 10)))
    self.assertEqual(checkpointing.latest_step(self.directory), 10)
    self.assertFalse((self.directory / '1').exists())
    self.assertEqual(int(self.restore(make_state()).step), 10)

  def test_unfinished_step_is_not_read(self):
    self.save(make_state(step=3))
    (self.directory / '5').mkdir()
    (self.directory / '6.orbax-checkpoint-tmp').mkdir()
    self.assertEqual(checkpointing.latest_step(self.directory), 3)

  def test_missing_directory_is_not_created(self):
    self.assertIsNone(checkpointing.latest_step(self.directory))
    with self.assertRaisesRegex(checkpointing.CheckpointError, 'no checkpoint'):
      checkpointing.load_config(self.directory)
    self.assertFalse(self.directory.exists())

  def test_other_shape_is_named(self):
    self.save(make_state(width=3, step=1))
    with self.assertRaisesRegex(
      checkpointing.CheckpointError,
      re.escape('layer/w is (2, 3) in the checkpoint but (2, 4) in this config'),
    ):
      checkpointing.load_ema_params(
        self.directory, abstract(make_state(width=4)).ema_params
      )
    with self.assertRaisesRegex(checkpointing.CheckpointError, r'\(2, 3\)'):
      self.restore(make_state(width=4))

  def test_other_structure_is_named(self):
    self.save(make_state(step=1))
    other = {'other': jax.ShapeDtypeStruct((1,), jnp.float32)}
    with self.assertRaisesRegex(checkpointing.CheckpointError, 'layer/w .* absent'):
      checkpointing.load_ema_params(self.directory, abstract(other))


if __name__ == '__main__':
  absltest.main()
