"""Images as CLIP's image tower takes them, differentiable.

  (1)  x in [-1, 1] -> (x + 1) / 2
  (2)  resize until the short side is `size`: columns, then rows, each pass by a cubic
       kernel (a = -1/2) that widens with the reduction, and clipped to [0, 1]
  (3)  the `size` x `size` in the centre
  (4)  (x - mean) / std, per channel

as torchvision's Resize and CenterCrop do it through PIL, in OpenAI's code. Where the
margins of (3) differ by a pixel, torchvision rounds half of them to the even number;
transformers rounds down, and its crop may be a pixel higher or further left. PIL rounds
to 8 bits after each pass of (2): its pixels differ from these by at most 1.13 of 255
levels, half a level of the first pass times the 1.25 that the magnitudes of the second
one's weights sum to, and half a level of the second.
"""

import jax
import jax.numpy as jnp

from lgd.networks.clip_config import ClipConfig

# Of the training images, as published with the weights: red, green, blue.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


def preprocess(images: jax.Array, config: ClipConfig) -> jax.Array:
  """(1)-(4).

  Args:
    images: `[batch, height, width, 3]` in [-1, 1]; beyond, clipped.
    config: whose `size` it is.

  Returns:
    `[batch, size, size, 3]` float32; float64 of such.

  Gradient: that of (1)-(4), none where a value is clipped.

  Raises:
    ValueError: images of another shape, or of integers.
  """
  is_float = jnp.issubdtype(images.dtype, jnp.floating)
  if images.ndim != 4 or images.shape[-1] != 3 or not is_float:
    raise ValueError(
      f'images of dtype {images.dtype} and shape {images.shape}: must be floats in'
      ' [-1, 1], [batch, height, width, 3].'
    )
  x = images.astype(jnp.promote_types(images.dtype, jnp.float32))
  x = jnp.clip((x + 1.0) / 2.0, 0.0, 1.0)
  short = min(x.shape[1:3])
  height, width = (config.size * side // short for side in x.shape[1:3])
  for axis, side in ((2, width), (1, height)):
    shape = (*x.shape[:axis], side, *x.shape[axis + 1 :])
    x = jnp.clip(jax.image.resize(x, shape, 'cubic', antialias=True), 0.0, 1.0)
  top, left = (round((side - config.size) / 2) for side in (height, width))
  x = x[:, top : top + config.size, left : left + config.size]
  return (x - jnp.asarray(MEAN, x.dtype)) / jnp.asarray(STD, x.dtype)
