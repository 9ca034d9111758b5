"""Images with captions from one file."""

import numpy as np
from absl.testing import absltest
from absl.testing import parameterized

from lgd import errors
from lgd.data.prompts import pairs

ITEMS = [f'item {i}' for i in range(30)]
SETTINGS = {'size': 4, 'vocab_size': 280, 'length': 12}


def _arrays():
  image = np.random.default_rng(0).integers(0, 256, (30, 8, 8, 3), np.uint8)
  return {'image': image, 'caption': np.array(ITEMS)}


class PairsTest(parameterized.TestCase):
  def _write(self, arrays):
    path = f'{self.create_tempdir().full_path}/pairs.npz'
    np.savez(path, **arrays)
    return path

  def _load(self, arrays):
    return pairs.load(self._write(arrays), **SETTINGS)

  def test_every_pair_is_in_one_split_with_its_own_caption(self):
    arrays = _arrays()
    dataset, tokenizer, _ = self._load(arrays)
    mean = arrays['image'].reshape(30, 4, 2, 4, 2, 3).astype(float).mean((2, 4))
    expected = np.floor(mean + 0.5) / 127.5 - 1.0
    seen = []
    for split in (dataset.train, dataset.validation, dataset.test):
      for x, caption in zip(split.x, tokenizer.decode(split.label), strict=True):
        number = int(caption.removeprefix('item '))
        np.testing.assert_allclose(x, expected[number], atol=1e-6)
        seen.append(number)
    self.assertEqual(sorted(seen), list(range(30)))
    self.assertLen(dataset.validation.x, 3)
    self.assertLen(dataset.test.x, 3)

  def test_images_of_one_caption_are_of_one_split(self):
    """Also where it is written in another way; ten are those of two images."""
    arrays = _arrays()
    arrays['caption'] = np.array([*ITEMS[:20], *(f' ITEM {i} ' for i in range(10))])
    dataset, tokenizer, _ = self._load(arrays)
    splits = (dataset.train, dataset.validation, dataset.test)
    prompts = [tokenizer.decode(split.label) for split in splits]
    self.assertEqual([len(set(p)) for p in prompts], [16, 2, 2])
    self.assertCountEqual([c for p in prompts for c in p], ITEMS[:20] + ITEMS[:10])
    for i, of_split in enumerate(prompts):
      others = {c for j, p in enumerate(prompts) if j != i for c in p}
      self.assertEmpty(others & set(of_split))

  def test_tokens_are_those_of_training_captions(self):
    arrays = _arrays()
    dataset, tokenizer, _ = self._load(arrays)
    held_out = tokenizer.decode(dataset.test.label)
    arrays['caption'] = np.array(
      ['zebra ' * 2 + c if c in held_out else c for c in arrays['caption']]
    )
    _, other, _ = pairs.load(self._write(arrays), **{**SETTINGS, 'length': 40})
    self.assertEqual(other.encoding.to_str(), tokenizer.encoding.to_str())

  @parameterized.parameters(
    ({'caption': np.array(ITEMS[1:])}, '29 captions of 30 images'),
    ({'caption': np.array(['', *ITEMS[1:]])}, 'caption 0 is .*no text'),
    (
      {'caption': np.array([*ITEMS[1:], 'abcdefghijklmnopqrstuvwxyz0123456789'])},
      'caption 29 .* 10 fit',
    ),
    ({'caption': np.array(ITEMS[:8] + ['A', 'a '] * 11)}, 'has 9 different captions'),
    ({'caption': np.array([c.encode() for c in ITEMS])}, 'caption is .S7 .*strings'),
    ({'caption': np.array([[c] for c in ITEMS])}, r'caption is <U7 \(30, 1\)'),
    ({'image': np.zeros((30, 8, 8, 3))}, 'image is float64'),
    ({'image': np.zeros((30, 8, 8, 1), np.uint8)}, r'\(30, 8, 8, 1\)'),
    ({'image': np.zeros((30, 2, 8, 3), np.uint8)}, 'asked for 4'),
  )
  def test_wrong_files_are_refused(self, change, message):
    with self.assertRaisesRegex(errors.DataError, message):
      self._load(_arrays() | change)

  def test_a_file_without_captions_is_refused(self):
    with self.assertRaisesRegex(errors.DataError, 'must be an npz with image'):
      self._load({'image': _arrays()['image']})
    with self.assertRaisesRegex(errors.DataError, 'no such file'):
      pairs.load('/nowhere/pairs.npz', **SETTINGS)


if __name__ == '__main__':
  absltest.main()
