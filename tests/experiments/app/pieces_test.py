"""Pieces: kept as they were made, for what decides them alone, or made anew."""

import time

import numpy as np
from absl.testing import absltest
from absl.testing import parameterized
from etils import epath

from experiments import app
from tests import helpers

IDENTITY = {'config': {'seed': 0, 'omegas': (0.5, 1.0)}, 'step': 10}


def make_piece(i):
  """Values that a careless format would change."""
  x = np.random.default_rng(i).normal(size=(3, 2)).astype(np.float32)
  x[0, 0] = np.nan
  return {'x': x, 'label': np.arange(i), 'row': {'energy': 0.1 * i, 'none': None}}


class Counted:
  """Makes pieces, counts them, and dies before number `dies_at`."""

  def __init__(self, dies_at=None):
    self.made, self._dies_at = [], dies_at

  def __call__(self, i):
    if len(self.made) == self._dies_at:
      raise KeyboardInterrupt
    self.made.append(i)
    return make_piece(i)


class PiecesTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.directory = epath.Path(self.create_tempdir().full_path) / 'command'

  def pieces(self, identity=IDENTITY):
    return app.Pieces(self.directory, identity)

  def assert_piece(self, piece, i):
    expected = make_piece(i)
    self.assertEqual(piece.keys(), expected.keys())
    self.assertEqual(piece['row'], expected['row'])
    for name in ('x', 'label'):
      np.testing.assert_array_equal(piece[name], expected[name])
      self.assertEqual(piece[name].dtype, expected[name].dtype)

  def run_all(self, counted, num=5, identity=IDENTITY):
    kept = self.pieces(identity)
    for i in range(num):
      self.assert_piece(kept.get(['piece', i], lambda i=i: counted(i)), i)
    return kept

  @parameterized.parameters(0, 1, 3, 4)
  def test_what_was_made_is_not_made_again(self, num):
    with self.assertRaises(KeyboardInterrupt):
      self.run_all(Counted(dies_at=num))
    rest = Counted()
    self.run_all(rest)
    self.assertEqual(rest.made, [*range(num, 5)])

  @parameterized.parameters(
    {'config': {'seed': 1, 'omegas': (0.5, 1.0)}, 'step': 10},
    {'config': {'seed': 0, 'omegas': (0.5,)}, 'step': 10},
    {'config': {'seed': 0, 'omegas': (0.5, 1.0)}, 'step': 11},
  )
  def test_pieces_of_another_identity_are_not_used(self, **identity):
    self.run_all(Counted())
    other = Counted()
    self.run_all(other, identity=identity)
    self.assertLen(other.made, 5)
    again = Counted()  # And those of the first are still there.
    self.run_all(again)
    self.assertEmpty(again.made)

  def test_keys_that_hold_arrays(self):
    """Their values, shape and dtype tell pieces apart, to the last bit."""
    table = np.float32([[0.5, 1.0], [2.0, 3.0]])
    tables = [
      table,
      np.nextafter(table, np.float32(9.0)),
      table.ravel(),
      table.view(np.int32),
    ]
    kept = self.pieces()
    for again in (False, True):
      for i, x in enumerate(tables):
        piece = kept.get([x.copy(), 'a'], lambda i=i: {'i': i})
        self.assertEqual(piece, {'i': i}, again)
    with self.assertRaisesRegex(TypeError, 'object: neither JSON nor an array'):
      kept.get([object()], dict)

  def test_damaged(self):
    """Cut anywhere or with any bit changed, a piece is made anew."""
    self.run_all(Counted(), num=1)
    (path,) = self.directory.iterdir()
    whole = path.read_bytes()
    damaged = [whole[:length] for length in (0, 1, 40, len(whole) // 2, -1)]
    for i in range(0, len(whole), 11):
      flipped = bytes([whole[i] ^ (1 << (i % 8))])
      damaged.append(whole[:i] + flipped + whole[i + 1 :])
    for content in damaged:
      path.write_bytes(content)
      counted = Counted()
      with self.assertLogs(level='WARNING') as logged:
        self.run_all(counted, num=1)
      self.assertEqual(counted.made, [0])
      self.assertRegex(logged.output[0], 'is cut short or damaged; it is made anew')

  def test_half_a_piece_is_none(self):
    """What a kill leaves of a write is no piece, and in nobody's way."""
    self.run_all(Counted(), num=1)
    (path,) = self.directory.iterdir()
    path.rename(f'{path}.partial')
    counted = Counted()
    self.run_all(counted, num=1)
    self.assertEqual(counted.made, [0])

  def test_seconds_count_what_was_made_before(self):
    def slow():
      time.sleep(0.2)
      return {}

    first = self.pieces()
    first.get(0, slow)
    self.assertBetween(first.seconds, 0.2, 10.0)
    second = self.pieces()
    second.get(0, slow)
    self.assertEqual(second.seconds, first.seconds)
    second.get(1, slow)
    self.assertGreaterEqual(second.seconds, first.seconds + 0.2)

  def test_remove(self):
    """Pieces of the command under any identity, and of no other command."""
    other = app.Pieces(self.directory.parent / 'other', IDENTITY)
    other.get(0, dict)
    self.run_all(Counted(), identity={})
    self.run_all(Counted()).remove()
    self.assertEqual([p.name for p in self.directory.parent.iterdir()], ['other'])
    self.pieces().remove()  # Nothing is there.
    other.remove()
    self.assertFalse(self.directory.parent.exists())


# Every process has a directory of its own, and makes another value.
PROGRAM = """
import sys
import jax
address, index, directory = sys.argv[1:]
jax.distributed.initialize(address, 2, int(index))
import numpy as np
from etils import epath
from experiments.app import pieces

kept = pieces.Pieces(epath.Path(directory), {})
made = []
def make(i):
  made.append(i)
  return {'x': np.full(3 + int(index), i + 0.5 * int(index)), 'name': 'ab'[int(index)]}
for i in range(3):
  piece = kept.get(i, lambda: make(i))
  assert piece['name'] == 'a', piece
  np.testing.assert_array_equal(piece['x'], np.full(3, float(i)))
assert made == [1], made
kept.remove()
"""


class ProcessesTest(absltest.TestCase):
  def test_process_0_decides(self):
    """What is kept, and what it is: here pieces 0 and 2 of three."""
    directories = [epath.Path(self.create_tempdir().full_path) / '0' for _ in range(2)]
    kept = app.Pieces(directories[0], {})
    for i in (0, 2):
      kept.get(i, lambda i=i: {'x': np.full(3, float(i)), 'name': 'a'})
    address = helpers.free_address()
    processes = [
      helpers.start(PROGRAM, address, i, directory)
      for i, directory in enumerate(directories)
    ]
    for process in processes:
      _, errors = process.communicate(timeout=120)
      self.assertEqual(process.returncode, 0, errors[-3000:])
    self.assertFalse(directories[0].exists())
    self.assertFalse(directories[1].exists())  # Only process 0 writes.


if __name__ == '__main__':
  absltest.main()
