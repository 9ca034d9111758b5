"""Round trips, what is refused, and that reading writes nothing."""

import os
import pathlib
import re
import resource
import shutil
import threading

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest

from lgd import errors
from lgd import training
from lgd.training import checkpoints
from lgd.training import sharding

NUM_DEVICES = 8

CONFIG = {'a': [1, 2], 'b': {'c': 'x', 'd': 1.5}}


def make_state(width=3, step=0):
  tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.1))
  params = {'layer': {'w': jnp.arange(2.0 * width).reshape(2, width)}}
  state = training.init_state(params, tx)
  ema_params = jax.tree.map(lambda x: x + 1.0, params)
  return state._replace(step=jnp.int32(step), ema_params=ema_params)


def abstract(state):
  return checkpoints.abstract(state, sharding.fsdp(state, sharding.make_mesh()))


class CheckpointingTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.directory = pathlib.Path(self.create_tempdir().full_path) / 'run'

  def save(self, *states):
    with checkpoints.Checkpointer(self.directory, config=CONFIG, keep=2) as c:
      for state in states:
        c.save(state)

  def restore(self, state):
    with checkpoints.Checkpointer(self.directory, config={}, keep=2) as c:
      return c.restore(abstract(state))

  def test_round_trip(self):
    state = make_state(step=7)
    self.save(state)
    restored = self.restore(state)
    self.assertEqual(jax.tree.structure(restored), jax.tree.structure(state))
    chex.assert_trees_all_equal(restored, state)
    self.assertLen(restored.params['layer']['w'].sharding.device_set, 8)
    self.assertEqual(checkpoints.load_config(self.directory), CONFIG)
    ema_params = checkpoints.load_ema_params(self.directory, abstract(state).ema_params)
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
    self.assertEqual(checkpoints.load_config('run'), CONFIG)

  def test_config_is_readable_json(self):
    self.save(make_state(step=1))
    files = list((self.directory / '1' / 'config').glob('*.json'))
    self.assertIn('"d": 1.5', files[0].read_text())

  def test_latest_and_keep(self):
    self.save(*(make_state(step=s) for s in (1, 2, 10)))
    self.assertEqual(checkpoints.latest_step(self.directory), 10)
    self.assertFalse((self.directory / '1').exists())
    self.assertEqual(int(self.restore(make_state()).step), 10)

  def test_unfinished_step_is_not_read(self):
    self.save(make_state(step=3))
    (self.directory / '5').mkdir()
    (self.directory / '6.orbax-checkpoint-tmp').mkdir()
    self.assertEqual(checkpoints.latest_step(self.directory), 3)

  def test_missing_directory_is_not_created(self):
    self.assertIsNone(checkpoints.latest_step(self.directory))
    with self.assertRaisesRegex(errors.CheckpointError, 'no checkpoint'):
      checkpoints.load_config(self.directory)
    self.assertFalse(self.directory.exists())

  def test_other_shape_is_named(self):
    self.save(make_state(width=3, step=1))
    with self.assertRaisesRegex(
      errors.CheckpointError,
      re.escape('layer/w is (2, 3) in the checkpoint but (2, 4) in this config'),
    ):
      checkpoints.load_ema_params(
        self.directory, abstract(make_state(width=4)).ema_params
      )
    with self.assertRaisesRegex(errors.CheckpointError, r'\(2, 3\)'):
      self.restore(make_state(width=4))

  def test_other_structure_is_named(self):
    self.save(make_state(step=1))
    other = {'other': jax.ShapeDtypeStruct((1,), jnp.float32)}
    with self.assertRaisesRegex(errors.CheckpointError, 'layer/w .* absent'):
      checkpoints.load_ema_params(self.directory, abstract(other))

  def test_damage_is_refused_or_does_no_harm(self):
    """A bit flipped in, or a part cut off, every file: the saved values or one line."""
    states = make_state(step=3), make_state(step=5)
    self.save(*states)
    rng, refused = np.random.default_rng(0), 0
    for path in sorted(p for p in (self.directory / '5').rglob('*') if p.is_file()):
      saved = path.read_bytes()
      flipped, at = bytearray(saved), rng.integers(len(saved))
      flipped[at] ^= 1 << rng.integers(8)
      for damaged in (bytes(flipped), saved[: len(saved) // 2]):
        path.write_bytes(damaged)
        try:
          restored = self.restore(states[1])
          config = checkpoints.load_config(self.directory)
        except errors.CheckpointError as error:
          refused += 1
          self.assertRegex(str(error), r'^\S+/5: is damaged .* goes on from step 3\.$')
        else:
          chex.assert_trees_all_equal(restored, states[1])
          self.assertEqual(config, CONFIG)
      path.write_bytes(saved)
    self.assertGreater(refused, 10)

  def test_values_that_are_not_those_saved(self):
    """Files of another step are whole in themselves."""
    self.save(make_state(step=3))
    other = make_state(step=3)
    other = other._replace(params=jax.tree.map(lambda x: x + 1.0, other.params))
    elsewhere = self.directory.parent / 'other'
    with checkpoints.Checkpointer(elsewhere, config=CONFIG, keep=2) as c:
      c.save(other)
    shutil.rmtree(self.directory / '3' / 'train_state')
    shutil.copytree(elsewhere / '3' / 'train_state', self.directory / '3/train_state')
    with self.assertRaisesRegex(
      errors.CheckpointError,
      r'3: is damaged \(train_state is not what was saved\); remove it, and the command'
      r' that trained it starts again\.$',
    ):
      self.restore(other)

  def test_a_failed_save_is_named(self):
    """Files that may not grow are to a program what a full disk is."""
    self.save(make_state(step=3))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    self.addCleanup(resource.setrlimit, resource.RLIMIT_FSIZE, (soft, hard))
    with self.assertRaisesRegex(
      errors.SaveError, 'run: could not save .* step 3 is intact; .* again.$'
    ):
      with checkpoints.Checkpointer(self.directory, config=CONFIG, keep=2) as c:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
        c.save(make_state(width=1000, step=5))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    self.assertEqual(int(self.restore(make_state()).step), 3)
    self.save(make_state(step=5))  # What the failed one left is not in the way.
    self.assertEqual(int(self.restore(make_state()).step), 5)
    self.assertEmpty([p for p in self.directory.iterdir() if 'tmp' in p.name])

  def test_saves_leave_no_threads_or_files_open(self):
    """A response of Orbax's that is never asked for its result keeps both."""
    threads, files = [set(threading.enumerate())], []
    with checkpoints.Checkpointer(self.directory, config=CONFIG, keep=2) as c:
      for step in range(30):
        c.save(make_state(step=step))
        threads.append(set(threading.enumerate()))
        files.append(len(os.listdir('/proc/self/fd')))
    before, after_ten, after_all = threads[0], threads[10], threads[-1]
    self.assertEmpty((after_ten & after_all) - before)
    # One save in flight has some 20 open, or not yet; 25 that leave 3 each have 75.
    self.assertLess(min(files[-5:]), max(files[:5]) + 20)


if __name__ == '__main__':
  absltest.main()
