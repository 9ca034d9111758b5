"""8-bit images, and the bilinear resize of TensorFlow 1, which FID is defined with.

Without aligned corners and without half-pixel centres: position i of `out` reads

  (1)  i n / out = lo + w,  (1 - w) x[lo] + w x[min(lo + 1, n - 1)],  0 <= w < 1

along either axis, with no smoothing when it shrinks. `jax.image.resize` has half-pixel
centres, and is off by up to half of the range of a pixel.
"""

import jax
import jax.numpy as jnp
import numpy as np

from lgd import checks


def resize(images: jax.Array, size: int) -> jax.Array:
  """`images`, resized by (1) to `size` x `size`.

  Args:
    images: `[batch, height, width, channels]` uint8.
    size: of both sides of the result.

  Returns:
    `[batch, size, size, channels]` float32, in [0, 255]: not rounded, as in the graph
    of FID. Within 1e-4 of (1) in exact arithmetic.

  Raises:
    ValueError: images that are not uint8, or not of rank 4.
  """
  if images.dtype != jnp.uint8 or images.ndim != 4:
    raise ValueError(
      f'images of dtype {images.dtype} and shape {images.shape}: must be uint8'
      ' [batch, height, width, channels]; metrics.to_uint8 makes them from [-1, 1].'
    )
  x = images.astype(jnp.float32)
  for axis in (1, 2):
    n = x.shape[axis]
    # In integers: float32 positions would move a pixel by 1e-3 of a level.
    low, rest = np.divmod(np.arange(size) * n, size)
    weight = (rest / size).astype(np.float32)
    weight = weight[:, None, None] if axis == 1 else weight[:, None]
    below = jnp.take(x, low, axis=axis)
    above = jnp.take(x, np.minimum(low + 1, n - 1), axis=axis)
    x = below + (above - below) * weight
  return x


def to_uint8(x: np.ndarray) -> np.ndarray:
  """The nearest of 256 levels for `x`, where -1 is 0 and 1 is 255; beyond, clipped.

  FID is defined on 8-bit images: samples are rounded as files would round them.

  uint8 images are returned as they are.

  Raises:
    ValueError: other integers, or images that are not finite.
  """
  x = np.asarray(x)
  if x.dtype == np.uint8:
    return x
  if not jnp.issubdtype(x.dtype, jnp.floating):
    raise ValueError(f'images of {x.dtype}: must be floats in [-1, 1], or uint8.')
  checks.finite('look at the sampler, or the base model.', images=x)
  x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  return np.rint(np.clip((x + 1.0) * 127.5, 0.0, 255.0)).astype(np.uint8)
