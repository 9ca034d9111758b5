"""Encoding by two processes: SIGTERM to one of them, and what is left to be made."""

import pathlib
import signal
import time

import numpy as np
from absl.testing import absltest

from experiments import app
from lgd.storage import shards
from tests import helpers

NAMES = ('x',)
LAYOUT = shards.Layout(num_rows=1599, shard_size=4)  # 400, of which the last has 3.
PROGRAM = """
import sys
import time
import jax
address, index, directory = sys.argv[1:]
jax.distributed.initialize(address, 2, int(index))
from etils import epath
from experiments.app import preemption
from tests.experiments.app import encode_shards_test
def wait(shard):
  time.sleep(0.1 + 0.05 * int(index))  # One falls behind.
try:
  encode_shards_test.encode(epath.Path(directory), wait)
except preemption.Preempted:
  sys.exit(preemption.EXIT_CODE)
"""


def encode(directory, before):
  """Makes what is missing; `before` is called with the number of every shard."""

  def make(shard):
    before(shard)
    rows = np.array(LAYOUT.rows(shard))
    shards.write(directory, shard, {'x': np.repeat(rows[:, None], 2, axis=1)})
    return len(rows)

  missing = shards.missing(directory, NAMES, LAYOUT)
  app.shard_loop.run(
    directory, missing, LAYOUT.num_shards, make, unit='rows', split=True
  )


class EncodeShardsTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.directory = pathlib.Path(self.create_tempdir().full_path)

  def missing(self):
    return shards.missing(self.directory, NAMES, LAYOUT)

  def encode(self):
    """What is missing, on this process."""
    made = []
    encode(self.directory, made.append)
    return made

  def test_one_of_two_processes_is_asked_to_stop(self):
    address = helpers.free_address()
    processes = [helpers.start(PROGRAM, address, i, self.directory) for i in range(2)]
    for process in processes:
      self.addCleanup(process.kill)
    while len(self.missing()) == LAYOUT.num_shards:
      self.assertIsNone(processes[1].poll())
      time.sleep(0.05)
    processes[1].send_signal(signal.SIGTERM)
    for process in processes:
      _, errors = process.communicate(timeout=60)
      self.assertEqual(process.returncode, app.preemption.EXIT_CODE, errors[-3000:])
    left = self.missing()
    num_made = LAYOUT.num_shards - len(left)
    self.assertBetween(num_made, 1, LAYOUT.num_shards - 1)
    self.assertEqual(num_made % 2, 0)  # Each as many as the other.
    self.assertEqual(left, list(range(num_made, LAYOUT.num_shards)))
    self.assertEqual(self.encode(), left)
    self.assertEmpty(self.missing())
    self.assertEmpty(self.encode())

  def test_stops_between_shards(self):
    asked = absltest.mock.patch.object(
      app.preemption, 'requested', side_effect=[False, False, True]
    )
    with asked, self.assertRaisesRegex(app.preemption.Preempted, '3 more shards are'):
      self.encode()
    self.assertEqual(self.missing(), list(range(3, LAYOUT.num_shards)))


if __name__ == '__main__':
  absltest.main()
