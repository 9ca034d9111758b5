"""Images as arrays: crops, area averages, mirroring, and the range of the networks.

  (1)  y_i = 1/s sum_j |[j, j+1] ^ [i s, (i+1) s]| x_j,  s = size / new size

is the area filter along one axis: the mean of the image, taken as constant on every
pixel, over each new pixel. It is applied along both axes, and is exact for every s,
which PIL's BOX is not: that counts a pixel wholly or not at all.
"""

import functools

import numpy as np


def central_crop(image: np.ndarray, size: int) -> np.ndarray:
  """The `[size, size, c]` in the middle of `[height, width, c]`.

  Where a margin is odd, the extra row or column is cut at the bottom or right.

  Raises:
    ValueError: an image smaller than the crop.
  """
  height, width = image.shape[:2]
  if min(height, width) < size:
    raise ValueError(f'image of {height}x{width}: smaller than its crop, {size}.')
  top, left = (height - size) // 2, (width - size) // 2
  return image[top : top + size, left : left + size]


def area_resize(image: np.ndarray, size: int) -> np.ndarray:
  """(1) along both axes, rounded: uint8 `[h, w, c]` -> uint8 `[size, size, c]`."""
  height, width, channels = image.shape
  rows = _area_weights(height, size) @ image.reshape(height, -1).astype(np.float32)
  rows = rows.reshape(size, width, channels)
  mean = _area_weights(width, size) @ rows  # [size, size, c]
  return np.floor(mean + np.float32(0.5)).astype(np.uint8)


def area_square(image: np.ndarray, size: int) -> np.ndarray:
  """The largest central square, averaged by (1) to `[size, size, c]`."""
  return area_resize(central_crop(image, min(image.shape[:2])), size)


def mirror(x: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """`[n, height, width, c]` with the images of `mask [n]` flipped left to right."""
  mirrored = x.copy()
  mirrored[mask] = x[mask, :, ::-1]
  return mirrored


def to_float(x: np.ndarray) -> np.ndarray:
  """uint8 -> float32 in [-1, 1]; what is float32, latents, stays.

  Raises:
    ValueError: of any other type, whose scale nobody knows.
  """
  if x.dtype == np.float32:
    return x
  if x.dtype != np.uint8:
    raise ValueError(f'images of dtype {x.dtype}: must be uint8 or float32.')
  return x / np.float32(127.5) - np.float32(1.0)


@functools.lru_cache(maxsize=256)  # ImageNet's sides take a few hundred values.
def _area_weights(size: int, new_size: int) -> np.ndarray:
  """The matrix of (1): `[new_size, size]`, rows sum to 1."""
  edge = np.arange(new_size + 1) * (size / new_size)
  pixel = np.arange(size)
  low = np.maximum(edge[:-1, None], pixel)
  high = np.minimum(edge[1:, None], pixel + 1)
  overlap = np.maximum(high - low, 0.0)
  return (overlap * (new_size / size)).astype(np.float32)
