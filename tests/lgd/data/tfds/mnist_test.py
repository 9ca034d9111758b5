"""MNIST in memory, on a machine that has neither the data nor a network."""

from unittest import mock

import numpy as np
import tensorflow_datasets as tfds
from absl.testing import absltest

from configs import mnist as mnist_config
from experiments import builders
from lgd import errors
from lgd.data.tfds import sources
from tests.lgd.data.tfds import tfds_files

SIZES = {'train': 60_000, 'test': 10_000}


class _Source:
  """A split in which example i says that it is number i.

  Pixel (0, 0) is 255 and the next three are i in base 256; of the label, i modulo 10.
  """

  def __init__(self, split):
    self._split = split

  def __len__(self):
    return SIZES[self._split]

  def __getitems__(self, keys):
    return [self._example(i) for i in keys]

  def _example(self, i):
    image = np.zeros((28, 28, 1), np.uint8)
    image[0, :4, 0] = 255, i // 65536, i // 256 % 256, i % 256
    image[1, 0, 0] = self._split == 'test'
    return {'image': image, 'label': i % 10}


def _as_data_source(builder, split):
  del builder
  return _Source(split)


def _prepare(test_case, file_format):
  """A TFDS directory that says it holds MNIST, with no examples."""
  data_dir = test_case.create_tempdir().full_path
  directory = tfds_files.write(
    data_dir,
    'mnist',
    {split: [] for split in SIZES},
    tfds_files.labelled((28, 28, 1), 10),
    file_format=file_format,
  )
  return data_dir, str(directory)


def _number(x):
  """Undoes the scaling and reads the number of each example."""
  pixels = np.round((x[:, 0, 1:4, 0].astype(np.float64) + 1.0) * 127.5).astype(int)
  return pixels @ [65536, 256, 1]


class MnistTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    data_dir, directory = _prepare(cls(), 'array_record')
    with tfds.testing.mock_data(as_data_source_fn=_as_data_source, data_dir=directory):
      cls.data = sources.load('mnist', data_dir)

  def test_splits(self):
    """First 55,000 and last 5,000 of train, and test: nothing shuffled or shared."""
    for split, start, n, is_test in (
      (self.data.train, 0, 55_000, 0),
      (self.data.validation, 55_000, 5_000, 0),
      (self.data.test, 0, 10_000, 1),
    ):
      np.testing.assert_array_equal(_number(split.x), np.arange(start, start + n))
      np.testing.assert_array_equal(split.label, np.arange(start, start + n) % 10)
      np.testing.assert_allclose(split.x[:, 1, 0, 0], is_test / 127.5 - 1.0, atol=1e-7)

  def test_range_shape_and_types(self):
    self.assertEqual(self.data.shape, (28, 28, 1))
    self.assertEqual(self.data.num_classes, 10)
    for split in (self.data.train, self.data.validation, self.data.test):
      self.assertEqual(split.x.dtype, np.float32)
      self.assertEqual(split.label.dtype, np.int32)
      self.assertEqual((split.x.min(), split.x.max()), (-1.0, 1.0))


class NotPreparedTest(absltest.TestCase):
  def test_says_where_and_how(self):
    for data_dir in ('/nowhere', self.create_tempdir().full_path):
      pattern = (
        f'no mnist in {data_dir}/mnist; .* python -m experiments.prepare_data'
        f' --name=mnist --data_dir={data_dir}$'
      )
      with self.assertRaisesRegex(errors.NotPreparedError, pattern):
        sources.load('mnist', data_dir)

  def test_before_the_network(self):
    """TFDS is not even asked: on a machine without network that takes minutes."""

    def fail(*args, **kwargs):
      raise AssertionError('asked TFDS')

    with (
      mock.patch.object(tfds, 'data_source', fail),
      mock.patch.object(tfds, 'builder', fail),
      mock.patch.object(tfds, 'builder_from_directory', fail),
      self.assertRaises(errors.NotPreparedError),
    ):
      sources.load('mnist', '/nowhere')

  def test_prepared_as_tfrecord(self):
    """TFDS's own format, that only TensorFlow reads."""
    data_dir, directory = _prepare(self, 'tfrecord')
    pattern = (
      f'^{directory} is tfrecord, which only TensorFlow reads; .* --data_dir=DIR'
    )
    with self.assertRaisesRegex(errors.NotPreparedError, pattern):
      sources.load('mnist', data_dir)

  def test_the_key_is_named(self):
    config = mnist_config.get_config()
    config.data.dir = '/nowhere'
    with self.assertRaisesRegex(errors.InputError, "^data.dir='/nowhere': no mnist"):
      builders.data.load(config)


if __name__ == '__main__':
  absltest.main()
