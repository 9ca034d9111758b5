"""Shards whose arrays are of other kinds than a statistics pass writes."""

import pathlib

import numpy as np
from absl.testing import absltest
from absl.testing import parameterized

from experiments import workdirs
from lgd import errors
from lgd.storage import files

SHARD = {
  'gram': np.zeros((4, 6), np.float32),
  't': np.full(4, 0.5, np.float32),
  'label': np.arange(4, dtype=np.int32),
  'index': np.arange(4),
  'num_evaluations': np.int64(8),
}


class ReadShardTest(parameterized.TestCase):
  def read(self, **changes):
    path = pathlib.Path(self.create_tempdir().full_path) / 'shard-00000.npz'
    files.write_npz(path, {**SHARD, **changes})
    return workdirs.statistics.read_shard(path, num_vectors=3)

  def test_reads_what_was_written(self):
    np.testing.assert_array_equal(self.read().index, SHARD['index'])

  @parameterized.parameters(
    ({'gram': np.full((4, 6), 'a')}, 'other kinds'),
    ({'t': np.arange(4)}, 'other kinds'),
    ({'index': np.asarray(True)}, 'other kinds'),
    ({'index': np.asarray(3)}, r'not \(1, 6\)'),
    ({'t': np.float32(0.5)}, 'Gram matrices'),
  )
  def test_says_what_is_wrong(self, changes, message):
    with self.assertRaisesRegex(errors.InputError, f'shard-00000.npz: .*{message}'):
      self.read(**changes)


if __name__ == '__main__':
  absltest.main()
