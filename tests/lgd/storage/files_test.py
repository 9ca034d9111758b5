"""Writing: a disk that is full, failing or read-only leaves what was there."""

import os
import pathlib
import stat
import subprocess
import sys
from unittest import mock

import numpy as np
from absl.testing import absltest
from absl.testing import parameterized

from lgd import errors
from lgd.storage import files
from tests import helpers

ROOT = pathlib.Path(__file__).parents[3]
ARRAY = np.random.default_rng(0).normal(size=5000)

# Of 40 kB each.
WRITES = {
  'npz': lambda path: files.write_npz(path, {'a': ARRAY, 'b': ARRAY[:3]}),
  'npy': lambda path: files.write_whole(path, lambda f: np.save(f, ARRAY)),
  'text': lambda path: files.write_text(path, '0' * 40_000),
  'json': lambda path: files.write_json(path, ARRAY.tolist()),
}

# A command that writes beside what is there already, on a full disk.
BINARY = """
import resource, sys
from experiments import app
from lgd.storage import files
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
app.main(
  lambda f: files.write_text(sys.argv[0], '0' * 40_000),
  needs_config=False,
  needs_workdir=False,
)
"""


class WriteTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(self.create_tempdir().full_path)
    self.path = self.root / 'file'
    self.partial = self.root / 'file.partial'

  def assert_refused(self, write, reason, path=None):
    with self.assertRaisesRegex(errors.WriteError, reason) as caught:
      write(path or self.path)
    message = str(caught.exception)
    self.assertStartsWith(message, f'{path or self.path}: cannot be written (')
    self.assertIn('what was there before is intact. Free space', message)
    self.assertNotIn('\n', message)

  @parameterized.product(kind=tuple(WRITES), was_there=(True, False))
  def test_full_disk(self, kind, was_there):
    if was_there:
      self.path.write_bytes(b'before')
    with helpers.full_disk():
      self.assert_refused(WRITES[kind], 'File too large|requested and')
    expected = ['file'] if was_there else []
    self.assertEqual([p.name for p in self.root.iterdir()], expected)
    if was_there:
      self.assertEqual(self.path.read_bytes(), b'before')
    WRITES[kind](self.path)  # With space again.
    self.assertGreater(self.path.stat().st_size, 39_000)

  @parameterized.parameters('npz', 'text', 'json')
  def test_device_that_is_full(self, kind):
    """ENOSPC of the kernel, which here only the buffer's last bytes meet."""
    self.path.write_bytes(b'before')
    self.partial.symlink_to('/dev/full')
    self.assert_refused(WRITES[kind], 'No space left on device')
    self.assertEqual(self.path.read_bytes(), b'before')
    self.assertEqual(list(self.root.iterdir()), [self.path])

  @parameterized.parameters('/proc/none/file', '/sys/none/file', '{root}/file/below')
  def test_no_such_place(self, place):
    self.path.write_bytes(b'before')
    path = pathlib.Path(place.format(root=self.root))
    self.assert_refused(WRITES['text'], '', path)
    self.assertEqual(self.path.read_bytes(), b'before')

  def test_directory_of_that_name(self):
    self.path.mkdir()
    self.assert_refused(WRITES['text'], 'is a directory')
    self.assertEqual(list(self.root.iterdir()), [self.path])

  def test_what_is_on_the_disk_when_the_name_changes(self):
    """The bytes before, the directory after: whatever the moment, old or new."""
    self.path.write_bytes(b'before')
    seen = []

    def fsync(descriptor):
      status = os.fstat(descriptor)
      is_directory = stat.S_ISDIR(status.st_mode)
      same = os.path.samestat(status, os.stat(self.root if is_directory else self.path))
      seen.append((is_directory, same, status.st_size, self.path.read_bytes()))

    with mock.patch.object(os, 'fsync', fsync):
      files.write_text(self.path, 'after it')
    (of_file, is_path, size, content), (of_directory, is_root, _, then) = seen
    self.assertEqual((of_file, is_path, size, content), (False, False, 8, b'before'))
    self.assertEqual((of_directory, is_root, then), (True, True, b'after it'))

  def test_a_disk_that_fails_when_it_is_synchronised(self):
    self.path.write_bytes(b'before')
    error = OSError(5, 'Input/output error')
    with mock.patch.object(os, 'fsync', side_effect=error):
      self.assert_refused(WRITES['text'], 'Input/output error')
    self.assertEqual(self.path.read_bytes(), b'before')
    self.assertFalse(self.partial.exists())

  def test_text(self):
    files.write_text(self.root / 'new' / 'file', 'née\n')
    self.assertEqual((self.root / 'new' / 'file').read_bytes(), b'n\xc3\xa9e\n')

  def test_binary(self):
    """One line, exit code 1, and what was there."""
    self.path.write_bytes(b'before')
    done = subprocess.run(
      [sys.executable, '-c', BINARY.replace('sys.argv[0]', repr(str(self.path)))],
      cwd=ROOT,
      capture_output=True,
      text=True,
      check=False,
    )
    self.assertEqual(done.returncode, 1, done.stderr)
    self.assertNotIn('Traceback', done.stderr)
    errors = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
    self.assertLen(errors, 1)
    self.assertStartsWith(
      errors[0], f'error: {self.path}: cannot be written (File too large); what was'
    )
    self.assertEqual(self.path.read_bytes(), b'before')


class WritableTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(self.create_tempdir().full_path)

  @parameterized.parameters('', 'new', 'new/and/below')
  def test_leaves_nothing(self, name):
    (self.root / 'kept').touch()
    files.require_writable(self.root / name)
    self.assertEqual([p.name for p in self.root.rglob('*')], ['kept'])

  def test_relative(self):
    files.require_writable('')
    files.require_writable('surely/not/there')

  def test_buckets_are_left_to_their_writers(self):
    files.require_writable('gs://nowhere/at/all')

  @parameterized.parameters('/proc', '/proc/none', '/sys/none/below')
  def test_refused_by_the_kernel(self, directory):
    """Permission bits bind root nowhere; these do."""
    with self.assertRaisesRegex(errors.FileError, '; free space, make it w') as caught:
      files.require_writable(directory)
    self.assertStartsWith(str(caught.exception), f'{directory}: no file can be written')

  def test_file(self):
    (self.root / 'file').touch()
    for name in ('file', 'file/below'):
      with self.assertRaisesRegex(errors.FileError, 'file is a file; give a dir'):
        files.require_writable(self.root / name)

  def test_full_disk(self):
    with (
      helpers.full_disk(0),
      self.assertRaisesRegex(errors.FileError, r'\(File too large\)'),
    ):
      files.require_writable(self.root)
    self.assertEmpty(list(self.root.iterdir()))


class JsonTest(parameterized.TestCase):
  @parameterized.parameters(
    (b'', 'is cut short, damaged or no JSON'),
    (b'{"a": [1, 2', 'is cut short, damaged or no JSON'),
    (b'{"a": "\xff"}', "damaged or no JSON .'utf-8' codec"),
    ('{"a": 1}'.encode('utf-16'), 'damaged or no JSON'),
    (b'[' * 100_000, 'damaged or no JSON'),
  )
  def test_damaged(self, content, message):
    path = pathlib.Path(self.create_tempdir().full_path) / 'file.json'
    path.write_bytes(content)
    with self.assertRaisesRegex(errors.FileError, f'^{path}: .*{message}') as caught:
      files.read_json(path)
    self.assertNotIn('\n', str(caught.exception))

  def test_none(self):
    root = self.create_tempdir().full_path
    with self.assertRaisesRegex(errors.FileError, 'none.json: no such file'):
      files.read_json(f'{root}/none.json')
    with self.assertRaisesRegex(errors.FileError, f'{root}: .*Is a directory'):
      files.read_json(root)


if __name__ == '__main__':
  absltest.main()
