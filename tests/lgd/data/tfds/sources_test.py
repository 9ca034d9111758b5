"""Splits, labels and damage of image data sets, from files that the test writes."""

import os
import pathlib
import pickle
from unittest import mock

import numpy as np
import tensorflow_datasets as tfds
from absl.testing import absltest
from absl.testing import parameterized
from tensorflow_datasets.testing import mocking

from lgd import conditions
from lgd import errors
from lgd.data import images
from lgd.data.tfds import catalog
from lgd.data.tfds import prepared
from lgd.data.tfds import sources
from tests.lgd.data.tfds import tfds_files

IMAGENET = 'imagenet_resized/64x64'
# TFDS builds these by name only where TensorFlow is; `captions_test.py` reads them.
LABELLED = [name for name, d in catalog.DATA_SETS.items() if not d.is_captioned]


def _images(n, shape, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (n, *shape), np.uint8)


def _labelled(x, label):
  return [{'image': i, 'label': k} for i, k in zip(x, label, strict=True)]


class _RandomExamples:
  """20 of TFDS's own random examples; its mock knows no reading in batches."""

  def __init__(self, builder):
    self._examples = list(mocking.RandomFakeGenerator(builder.info.features, 20))

  def __len__(self):
    return len(self._examples)

  def __getitems__(self, keys):
    return [self._examples[key] for key in keys]


class CatalogTest(parameterized.TestCase):
  @parameterized.parameters(
    # Official sizes, and what the table in the module says of them.
    ('mnist', 60_000, 10_000, 10_000, (55_000, 5_000, 10_000), 'test'),
    ('cifar10', 50_000, 10_000, 10_000, (45_000, 5_000, 10_000), 'test'),
    (IMAGENET, 1_281_167, 50_000, 50_000, (1_271_167, 10_000, 50_000), 'validation'),
    ('imagenet2012', 1_281_167, 50_000, 50_000, (1_271_167, 10_000, 50_000),
     'validation'),
    ('celeb_a', 162_770, 19_867, 19_962, (162_770, 19_867, 19_962), 'test'),
  )  # fmt: skip
  def test_sizes(self, name, train, validation, test, expected, official_test):
    data_set = catalog.DATA_SETS[name]
    held = data_set.official('validation') == 'train'
    stored = (train, train if held else validation, test)
    rows = [data_set.rows(*pair) for pair in zip(catalog.SPLITS, stored, strict=True)]
    self.assertEqual(tuple(map(len, rows)), expected)
    self.assertEqual(data_set.official('test'), official_test)
    if held:  # Neither shared nor lost.
      self.assertEqual([*rows[0][-1:], *rows[1][:1]], [expected[0] - 1, expected[0]])
      self.assertEqual(rows[1][-1], train - 1)

  def test_an_excerpt_gives_a_tenth(self):
    data_set = catalog.DATA_SETS[IMAGENET]
    self.assertEqual(data_set.rows('train', 24_000), range(21_600))
    self.assertEqual(data_set.rows('validation', 24_000), range(21_600, 24_000))

  @parameterized.parameters(*LABELLED)
  def test_agrees_with_tfds(self, name):
    """Shapes, numbers of classes and attributes are those of TFDS's own code."""
    with tfds.testing.mock_data():
      features = tfds.builder(name, data_dir='/nowhere').info.features
    data_set = catalog.DATA_SETS[name]
    self.assertEqual(features['image'].shape, data_set.stored)
    if data_set.num_classes is None:
      self.assertCountEqual(features['attributes'], catalog.ATTRIBUTES)
      self.assertEqual(list(catalog.ATTRIBUTES), sorted(catalog.ATTRIBUTES))
    else:
      self.assertEqual(features['label'].num_classes, data_set.num_classes)

  @parameterized.parameters(*LABELLED)
  def test_mock_data(self, name):
    """Random data of TFDS's own making, at the shapes of the real."""
    data_dir = self.create_tempdir().full_path
    with tfds.testing.mock_data():
      features = tfds.builder(name, data_dir='/nowhere').info.features
    directory = tfds_files.write(
      data_dir, name, {s: [] for s in ('train', 'validation', 'test')}, features
    )
    with tfds.testing.mock_data(
      as_data_source_fn=lambda builder, split: _RandomExamples(builder),
      data_dir=str(directory),
    ):
      source = sources.source(name, 'train', data_dir)
      example = source[[0, 5, 17]]
    self.assertEqual(example.x.shape, (3, *catalog.DATA_SETS[name].shape))
    self.assertEqual(example.x.dtype, np.uint8)
    self.assertLen(example.label, 3)


class SourceTest(parameterized.TestCase):
  def _write(self, n=40, *, num_shards=3, **kwargs):
    data_dir = self.create_tempdir().full_path
    x = _images(n, (64, 64, 3))
    label = np.random.default_rng(2).integers(0, 1000, n)
    directory = tfds_files.write(
      data_dir,
      IMAGENET,
      {'train': _labelled(x, label), 'validation': _labelled(x[:7], label[:7])},
      tfds_files.labelled((64, 64, 3), 1000),
      num_shards=num_shards,
      **kwargs,
    )
    return data_dir, directory, x, label

  def test_random_access_across_files(self):
    data_dir, _, x, label = self._write()
    train, validation, test = (
      sources.source(IMAGENET, split, data_dir) for split in catalog.SPLITS
    )
    self.assertEqual([len(train), len(validation), len(test)], [36, 4, 7])
    rows = np.array([35, 0, 13, 14, 13])
    example = train[rows]
    np.testing.assert_array_equal(example.x, x[rows])
    np.testing.assert_array_equal(example.label, label[rows])
    self.assertEqual(example.label.dtype, np.int32)
    np.testing.assert_array_equal(validation[range(4)].x, x[36:])
    np.testing.assert_array_equal(test[range(7)].x, x[:7])
    self.assertEqual(train[[]].x.shape, (0, 64, 64, 3))
    self.assertEqual(train.shape, (64, 64, 3))
    self.assertEqual(train.conditions, conditions.Labels(1000))
    for rows in ([36], [-37]):  # Not even where the official split goes on.
      with self.assertRaises(IndexError):
        train[rows]

  def test_decodes_only_what_is_asked_for(self):
    data_dir, _, _, label = self._write()
    image = tfds.features.Image
    with mock.patch.object(
      image, 'decode_example_np', autospec=True, side_effect=image.decode_example_np
    ) as decode:
      train = sources.source(IMAGENET, 'train', data_dir)
      np.testing.assert_array_equal(train.labels(), label[:36])
      self.assertEqual(decode.call_count, 0)
      train[[3, 30]]
      self.assertEqual(decode.call_count, 2)

  def test_labels_of_many_chunks(self):
    data_dir, _, _, label = self._write()
    with mock.patch.object(sources, '_CHUNK', 5):
      validation = sources.source(IMAGENET, 'validation', data_dir)
      train = sources.source(IMAGENET, 'train', data_dir)
      np.testing.assert_array_equal(train.labels(), label[:36])
      np.testing.assert_array_equal(validation.labels(), label[36:])
      np.testing.assert_array_equal(train[range(36)].label, label[:36])

  def test_survives_pickling(self):
    data_dir, _, x, _ = self._write()
    source = sources.source(IMAGENET, 'train', data_dir)
    source[[0]]  # With files open.
    copy = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(copy[[20]].x, x[[20]])

  def test_newest_version(self):
    data_dir, *_ = self._write()
    x = _images(1, (64, 64, 3), seed=9)
    official = {'train': _labelled(x, [1]), 'validation': []}
    features = tfds_files.labelled((64, 64, 3), 1000)
    tfds_files.write(data_dir, IMAGENET, official, features, version='1.10.0')
    tfds_files.write(data_dir, IMAGENET, official, features, version='1.9.0')
    pathlib.Path(data_dir, IMAGENET, '2.0.0.incompleteABC').mkdir()
    builder = prepared.builder(IMAGENET, data_dir)
    self.assertEqual(str(builder.version), '1.10.0')
    np.testing.assert_array_equal(sources.source(IMAGENET, 'train', data_dir)[[0]].x, x)

  def test_original_imagenet(self):
    """Any size and shape: its central square, averaged by area to 64x64."""
    data_dir = self.create_tempdir().full_path
    stored = [_images(1, shape, seed=4)[0] for shape in ((80, 131, 3), (64, 64, 3))]
    official = {'train': _labelled(stored, [3, 999]), 'validation': []}
    features = tfds_files.labelled((None, None, 3), 1000)
    tfds_files.write(data_dir, 'imagenet2012', official, features)
    example = sources.source('imagenet2012', 'train', data_dir)[[0, 1]]
    square = stored[0][:, 25:105]  # 131 - 80 = 25 + 26
    np.testing.assert_array_equal(example.x[0], images.area_resize(square, 64))
    np.testing.assert_array_equal(example.x[1], stored[1])
    np.testing.assert_array_equal(example.label, [3, 999])


class AttributesTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.x, cls.bits, examples, features = tfds_files.faces(6)
    cls.data_dir = cls().create_tempdir().full_path
    official = {'train': examples, 'validation': examples[:2], 'test': examples[:1]}
    tfds_files.write(cls.data_dir, 'celeb_a', official, features)

  def test_all_as_a_vector(self):
    source = sources.source('celeb_a', 'train', self.data_dir)
    self.assertLen(source, 6)  # Nothing is held out: there is an official split.
    self.assertEqual(source.conditions, conditions.Attributes(40))
    example = source[[4, 1]]
    np.testing.assert_array_equal(example.label, self.bits[[4, 1]])
    self.assertEqual(example.label.dtype, np.float32)
    np.testing.assert_array_equal(source.labels(), self.bits)
    for x, stored in zip(example.x, self.x[[4, 1]], strict=True):
      expected = images.area_resize(stored[39:179, 19:159], 64)
      np.testing.assert_array_equal(x, expected)

  def test_some_as_a_class(self):
    names = ('Smiling', 'Male', 'Young')
    source = sources.source('celeb_a', 'train', self.data_dir, attributes=names)
    self.assertEqual(source.conditions, conditions.Labels(8))
    smiling, male, young = (self.bits[:, catalog.ATTRIBUTES.index(n)] for n in names)
    np.testing.assert_array_equal(source.labels(), smiling + 2 * male + 4 * young)
    np.testing.assert_array_equal(source[range(6)].label, source.labels())
    self.assertEqual(source.labels().dtype, np.int32)

  def test_wrong_ones(self):
    for names in (('Smiling', 'Rich'), ('Male', 'Male')):
      with self.assertRaisesRegex(ValueError, f"attributes=.*'{names[1]}'.* celeb_a"):
        sources.source('celeb_a', 'train', self.data_dir, attributes=names)
    with self.assertRaisesRegex(ValueError, r"attributes=\('Male',\).* of mnist"):
      sources.source('mnist', 'train', self.data_dir, attributes=('Male',))


class DamageTest(absltest.TestCase):
  """Every error is one line that says where."""

  def _write(self, examples, name='cifar10', shape=(32, 32, 3)):
    data_dir = self.create_tempdir().full_path
    features = tfds_files.labelled(shape, 10)
    official = {'train': examples, 'test': examples}
    return data_dir, tfds_files.write(data_dir, name, official, features, num_shards=2)

  def _fails(self, data_dir, pattern, rows, name='cifar10'):
    with self.assertRaisesRegex(errors.DataError, pattern) as caught:
      sources.source(name, 'test', data_dir)[rows]
    self.assertNotIn('\n', str(caught.exception))

  def test_truncated_file(self):
    x = _images(100, (32, 32, 3))
    data_dir, directory = self._write(_labelled(x, np.zeros(100, int)))
    path = directory / 'cifar10-test.array_record-00001-of-00002'
    os.truncate(path, path.stat().st_size - 10_000)
    source = sources.source('cifar10', 'test', data_dir)
    np.testing.assert_array_equal(source[range(50)].x, x[:50])  # The whole file.
    self._fails(data_dir, 'test.array_record-00001-of-00002: record 3: .*read', [2, 53])
    with self.assertRaisesRegex(errors.DataError, '00001-of-00002: record 0: '):
      source.labels()

  def test_missing_file(self):
    data_dir, directory = self._write(
      _labelled(_images(4, (32, 32, 3)), np.zeros(4, int))
    )
    (directory / 'cifar10-test.array_record-00001-of-00002').unlink()
    self._fails(data_dir, 'cifar10-test.array_record-00001-of-00002 is missing', [0])
    sources.source('cifar10', 'train', data_dir)  # Whole.

  def test_damaged_image(self):
    examples = _labelled(_images(4, (32, 32, 3)), np.zeros(4, int))
    examples[3]['image'] = tfds_files.png(examples[3]['image'])[:200]
    examples[2]['image'] = b'no image'
    data_dir, _ = self._write(examples)
    self._fails(data_dir, '00001-of-00002: record 0: .*UnidentifiedImageError', [0, 2])
    self._fails(data_dir, '00001-of-00002: record 1: cannot be read, ', [0, 3])

  def test_another_size(self):
    examples = _labelled(_images(3, (32, 32, 3)), np.zeros(3, int))
    examples.append({'image': _images(1, (32, 31, 3))[0], 'label': 0})
    data_dir, _ = self._write(examples)
    pattern = r'record 1: image of shape \(32, 31, 3\), must be \(32, 32, 3\)'
    self._fails(data_dir, pattern, [3])

  def test_label_out_of_range(self):
    for label in (10, -1):
      examples = _labelled(_images(4, (32, 32, 3)), [0, 9, label, 0])
      data_dir, _ = self._write(examples)
      pattern = f'00001-of-00002: record 0: label {label}, must be in 0..9'
      self._fails(data_dir, pattern, [0, 1, 2])
      with self.assertRaisesRegex(errors.DataError, pattern):
        sources.source('cifar10', 'test', data_dir).labels()

  def test_unknown_names(self):
    with self.assertRaisesRegex(ValueError, "name='cifar': .*'cifar10'"):
      sources.source('cifar', 'train')
    with self.assertRaisesRegex(ValueError, "split='valid': .*'validation'"):
      sources.source('cifar10', 'valid')


class InMemoryTest(absltest.TestCase):
  def test_all_three(self):
    data_dir = self.create_tempdir().full_path
    x, label = _images(30, (32, 32, 3)), np.arange(30) % 10
    official = {'train': _labelled(x, label), 'test': _labelled(x[:5], label[:5])}
    tfds_files.write(
      data_dir, 'cifar10', official, tfds_files.labelled((32, 32, 3), 10)
    )
    data = sources.load('cifar10', data_dir)
    self.assertEqual((data.num_classes, data.shape), (10, (32, 32, 3)))
    for part, rows in zip(data[:3], (range(27), range(27, 30), range(5)), strict=True):
      self.assertEqual((part.x.dtype, part.label.dtype), (np.float32, np.int32))
      np.testing.assert_allclose((part.x + 1.0) * 127.5, x[rows], atol=1e-4)
      np.testing.assert_array_equal(part.label, label[rows])


if __name__ == '__main__':
  absltest.main()
