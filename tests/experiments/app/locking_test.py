"""One run at a time in a work directory, and nothing left of refused ones."""

import pathlib
import signal
import subprocess
import sys

from absl.testing import absltest

from experiments import app
from lgd import errors

ROOT = pathlib.Path(__file__).parents[3]
HOLD = """
import sys, time
from experiments.app import locking
with locking.lock(sys.argv[1]):
  print('held', flush=True)
  time.sleep(60)
"""


class LockTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.top = pathlib.Path(self.create_tempdir().full_path)
    self.workdir = self.top / 'a' / 'b'

  def hold(self):
    """Another process that holds it."""
    process = subprocess.Popen(
      [sys.executable, '-c', HOLD, str(self.workdir)], cwd=ROOT, stdout=subprocess.PIPE
    )
    self.addCleanup(process.wait)
    self.addCleanup(process.kill)
    self.addCleanup(process.stdout.close)
    self.assertEqual(process.stdout.readline(), b'held\n')
    return process

  def test_second_is_refused_until_the_first_is_gone(self):
    process = self.hold()
    with self.assertRaisesRegex(
      errors.LockError, rf'^--workdir=\S+/a/b: another run .* process {process.pid} on'
    ):
      with app.locking.lock(self.workdir):
        self.fail()
    process.send_signal(signal.SIGKILL)
    process.wait()
    self.assertTrue((self.workdir / 'lock').exists())  # It could not clear up.
    with app.locking.lock(self.workdir):
      pass

  def test_nothing_is_left(self):
    with app.locking.lock(self.workdir):
      self.assertTrue((self.workdir / 'lock').exists())
    self.assertEmpty(list(self.top.iterdir()))

  def test_what_is_written_stays(self):
    with app.locking.lock(self.workdir):
      (self.workdir / 'x').touch()
    self.assertEqual([p.name for p in self.workdir.iterdir()], ['x'])

  def test_is_released_by_an_error(self):
    for _ in range(2):
      with self.assertRaisesRegex(ValueError, 'mine'):
        with app.locking.lock(self.workdir):
          raise ValueError('mine')

  def test_cannot_be_written(self):
    """The kernel makes no directories there, not even for root."""
    with self.assertRaisesRegex(
      errors.LockError, '^--workdir=/proc/self/x/y: cannot be written .*; give a'
    ):
      with app.locking.lock('/proc/self/x/y'):
        self.fail()

  def test_below_a_file(self):
    (self.top / 'a').touch()
    with self.assertRaisesRegex(errors.LockError, 'written .Not a directory'):
      with app.locking.lock(self.workdir):
        self.fail()


if __name__ == '__main__':
  absltest.main()
