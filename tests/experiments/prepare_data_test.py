"""The two binaries of data, on a machine without TensorFlow or a network."""

import importlib.util
import pathlib
from unittest import mock

import numpy as np
import tensorflow_datasets as tfds
from absl.testing import absltest
from absl.testing import parameterized

from experiments import benchmark_data
from experiments import prepare_data
from lgd import errors
from lgd.data.tfds import sources
from tests.lgd.data.tfds import tfds_files

FEATURES = tfds_files.labelled((32, 32, 3), 10)


def _examples(n):
  rng = np.random.default_rng(0)
  x = rng.integers(0, 256, (n, 32, 32, 3), np.uint8)
  return [{'image': image, 'label': i % 10} for i, image in enumerate(x)]


def _installed(*packages):
  """All that is needed is there, but for what is not in `packages`."""
  return mock.patch.object(
    importlib.util, 'find_spec', lambda name: name in packages or None
  )


class PrepareDataTest(parameterized.TestCase):
  def _builder(self, prepare):
    """TFDS's builder, whose work is `prepare(data_dir, file_format)`."""

    def builder(name, data_dir):
      self.assertEqual(name, 'cifar10')
      return mock.Mock(
        download_and_prepare=lambda file_format: prepare(data_dir, file_format)
      )

    return mock.patch.object(tfds, 'builder', builder)

  def test_prepares_what_can_then_be_read(self):
    data_dir = self.create_tempdir().full_path

    def prepare(data_dir, file_format):
      official = {'train': _examples(20), 'test': _examples(3)}
      tfds_files.write(data_dir, 'cifar10', official, FEATURES, file_format=file_format)

    with self._builder(prepare), _installed(*prepare_data.NEEDED):
      prepare_data.run('cifar10', data_dir)
      self.assertLen(sources.source('cifar10', 'train', data_dir), 18)
      prepare_data.run('cifar10', data_dir)  # It would fail to write again.

  @parameterized.parameters(((), 'tensorflow and importlib_resources'),
                            (('tensorflow',), 'needs importlib_resources'))  # fmt: skip
  def test_packages_are_missing(self, installed, pattern):
    def prepare(*args):
      raise AssertionError('went on')

    with self._builder(prepare), _installed(*installed):
      with self.assertRaisesRegex(errors.InputError, f'{pattern}; .*-data.txt'):
        prepare_data.run('cifar10', self.create_tempdir().full_path)

  def test_unknown_name(self):
    with self.assertRaisesRegex(errors.InputError, '--name=cifar: .*cifar10'):
      prepare_data.run('cifar', '')

  @parameterized.parameters(AssertionError, ConnectionError)
  def test_what_tfds_says(self, kind):
    def prepare(*args):
      raise kind('Manual directory does not exist:\n put it there')

    with self._builder(prepare), _installed(*prepare_data.NEEDED):
      with self.assertRaisesRegex(errors.InputError, '--name=cifar10: Manual'):
        prepare_data.run('cifar10', self.create_tempdir().full_path)

  def test_another_format_is_there(self):
    """TFDS would reuse it, and leave it as it is."""
    data_dir = self.create_tempdir().full_path
    official = {'train': _examples(3)}
    tfds_files.write(data_dir, 'cifar10', official, FEATURES, file_format='tfrecord')
    with self._builder(lambda *args: None), _installed(*prepare_data.NEEDED):
      with self.assertRaisesRegex(errors.InputError, f'--data_dir={data_dir}: .*tfrec'):
        prepare_data.run('cifar10', data_dir)

  def test_requirements_name_what_is_asked_for(self):
    root = pathlib.Path(__file__).parents[2]
    text = (root / 'requirements-data.txt').read_text()
    for package in prepare_data.NEEDED:
      self.assertIn(package, text)


class BenchmarkDataTest(absltest.TestCase):
  def test_every_setting_has_a_rate(self):
    data_dir = self.create_tempdir().full_path
    official = {'train': _examples(50), 'test': _examples(3)}
    tfds_files.write(data_dir, 'cifar10', official, FEATURES)
    with (
      mock.patch.object(benchmark_data, 'WORKERS', (0,)),
      mock.patch.object(benchmark_data, 'THREADS', (0, 2)),
    ):
      results = benchmark_data.run('cifar10', data_dir, 8, 0.01)
    self.assertLen(results, 6)
    self.assertGreater(min(results.values()), 0.0)

  def test_errors(self):
    data_dir = self.create_tempdir().full_path
    with self.assertRaisesRegex(errors.InputError, 'prepare_data --name=cifar10'):
      benchmark_data.run('cifar10', data_dir, 8, 0.01)
    official = {'train': _examples(5), 'test': _examples(3)}
    tfds_files.write(data_dir, 'cifar10', official, FEATURES)
    with self.assertRaisesRegex(errors.InputError, 'batch_size=8: .* only 5'):
      benchmark_data.run('cifar10', data_dir, 8, 0.01)


if __name__ == '__main__':
  absltest.main()
