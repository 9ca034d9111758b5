"""Crops, area averages and flips against loops over pixels."""

import numpy as np
from absl.testing import absltest
from absl.testing import parameterized

from lgd.data import images


def _image(height, width, channels=3, seed=0):
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (height, width, channels), np.uint8)


def _area_mean(image, size):
  """The mean over each new pixel, in float64, one overlap of pixels at a time."""
  height, width, channels = image.shape
  out = np.zeros((size, size, channels))
  tall, wide = height / size, width / size
  for i in range(size):
    for j in range(size):
      for row in range(int(i * tall), min(height, int((i + 1) * tall) + 1)):
        for column in range(int(j * wide), min(width, int((j + 1) * wide) + 1)):
          down = min(row + 1, (i + 1) * tall) - max(row, i * tall)
          across = min(column + 1, (j + 1) * wide) - max(column, j * wide)
          if down > 0 and across > 0:
            out[i, j] += down * across * image[row, column].astype(np.float64)
  return out / (tall * wide)


class AreaResizeTest(parameterized.TestCase):
  @parameterized.parameters(
    (140, 140, 64), (47, 61, 16), (32, 32, 16), (9, 9, 9), (5, 7, 12)
  )
  def test_is_the_mean_over_each_new_pixel(self, height, width, size):
    image = _image(height, width)
    resized = images.area_resize(image, size)
    self.assertEqual((resized.shape, resized.dtype), ((size, size, 3), np.uint8))
    # Half a level is the rounding; the rest float32.
    np.testing.assert_allclose(resized, _area_mean(image, size), rtol=0, atol=0.501)

  def test_keeps_constants_up_to_white(self):
    for value in (0, 1, 254, 255):
      image = np.full((375, 375, 3), value, np.uint8)
      np.testing.assert_array_equal(images.area_resize(image, 64), value)

  def test_halves_round_up(self):
    image = np.array([[0, 1], [1, 0]], np.uint8)[..., None]
    self.assertEqual(images.area_resize(image, 1), 1)


class CropTest(parameterized.TestCase):
  def test_faces(self):
    """178x218 to the middle 140x140: 39 rows above and below, 19 columns beside."""
    row, column = np.meshgrid(np.arange(218), np.arange(178), indexing='ij')
    image = np.stack([row, column, row], axis=-1).astype(np.uint8)
    crop = images.central_crop(image, 140)
    np.testing.assert_array_equal(crop[:, 0, 0], np.arange(39, 218 - 39))
    np.testing.assert_array_equal(crop[0, :, 1], np.arange(19, 178 - 19))

  def test_the_odd_row_is_cut_at_the_end(self):
    image = np.arange(5, dtype=np.uint8)[:, None, None]
    with self.assertRaisesRegex(ValueError, '5x1: smaller than its crop, 2'):
      images.central_crop(image, 2)
    image = np.repeat(image, 2, axis=1)
    np.testing.assert_array_equal(images.central_crop(image, 2)[:, 0, 0], [1, 2])


class MirrorTest(absltest.TestCase):
  def test_flips_those_of_the_mask(self):
    x = np.stack([_image(4, 5, seed=i) for i in range(3)])
    mirrored = images.mirror(x, np.array([True, False, True]))
    for i in (0, 2):
      for column in range(5):
        np.testing.assert_array_equal(mirrored[i, :, column], x[i, :, 4 - column])
    np.testing.assert_array_equal(mirrored[1], x[1])

  def test_range(self):
    x = images.to_float(np.arange(256, dtype=np.uint8))
    self.assertEqual(x.dtype, np.float32)
    np.testing.assert_allclose(x, np.linspace(-1.0, 1.0, 256), atol=1e-6)
    self.assertEqual((x[0], x[-1]), (-1.0, 1.0))
    with self.assertRaisesRegex(ValueError, 'dtype float16: must be uint8 or'):
      images.to_float(x.astype(np.float16))


if __name__ == '__main__':
  absltest.main()
