"""Pairs of images and captions, from files that the test writes."""

import itertools
import pickle

import numpy as np
from absl.testing import absltest
from absl.testing import parameterized

from lgd import errors
from lgd.data import images
from lgd.data.prompts import captions
from lgd.data.tfds import loader
from tests.lgd.data.tfds import tfds_files

COCO = 'coco_captions/2014'
NUM = (3, 1, 2)  # Captions of images i, i + 3, ...


def _captions(split, n):
  return [[f'{split} {i} {j}' for j in range(NUM[i % 3])] for i in range(n)]


class CaptionsTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.data_dir = cls().create_tempdir().full_path
    official = {'train': _captions('train', 20), 'val': _captions('val', 5)}
    examples = {k: tfds_files.captioned(v)[0] for k, v in official.items()}
    features = tfds_files.captioned([])[1]
    tfds_files.write(cls.data_dir, COCO, examples, features, num_shards=2)
    cls.data = captions.read(COCO, cls.data_dir, size=8)

  def test_every_caption_once_with_its_image(self):
    data = self.data
    expected = [
      ('train', range(18), data.train),
      ('train', range(18, 20), data.validation),  # A tenth of the images.
      ('val', range(5), data.test),
    ]
    seen = []
    for split, numbers, pairs in expected:
      x, label = pairs[np.arange(len(pairs))]
      texts = [data.texts[k] for k in label]
      wanted = {f'{split} {i} {j}' for i in numbers for j in range(NUM[i % 3])}
      self.assertCountEqual(texts, wanted)
      for image, text, k in zip(x, texts, label, strict=True):
        number = int(text.split()[1])
        np.testing.assert_array_equal(image, np.full((8, 8, 3), 8 * number))
        self.assertEqual(data.images[k], f'{number:012d}.jpg')
      np.testing.assert_array_equal(label, pairs.labels())
      seen += list(label)
    self.assertEqual(seen, list(range(len(data.texts))))

  def test_first_pairs_have_different_images(self):
    image = self.data.train.image
    self.assertEqual(list(image[:18]), list(range(18)))
    second = [i for i in range(18) if NUM[i % 3] >= 2]
    self.assertEqual(list(image[18 : 18 + len(second)]), second)

  def test_grain_reads_pairs(self):
    """In worker processes too, hence what is pickled."""
    pairs = pickle.loads(pickle.dumps(self.data.train))
    for batch in itertools.islice(loader.batches(pairs, 6, seed=0), 9):
      for x, k in zip(batch.x, batch.cond, strict=True):
        value = np.uint8(8 * int(self.data.texts[k].split()[1]))
        np.testing.assert_array_equal(x, images.to_float(np.full((8, 8, 3), value)))

  @parameterized.parameters(
    (' \n', 'caption 1 is empty'), (b'\xff', 'a caption is no UTF-8')
  )
  def test_no_text(self, caption, message):
    data_dir = self.create_tempdir().full_path
    official = _captions('train', 20)
    official[7] = ['good', caption]
    examples, features = tfds_files.captioned(official)
    tfds_files.write(data_dir, COCO, {'train': examples, 'val': []}, features)
    message = f'record 7, 000000000007.jpg: {message}'
    with self.assertRaisesRegex(errors.DataError, message):
      captions.read(COCO, data_dir, size=8)


if __name__ == '__main__':
  absltest.main()
