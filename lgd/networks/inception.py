"""InceptionV3 as FID uses it: the TensorFlow graph of 2015-12-05 (Szegedy et al. 2015).

Every convolution has no bias and is followed by the normalisation of inference,

  (1)  h = relu(scale (conv(x) - mean) / sqrt(var + 1e-3) + bias)

The graph differs from later InceptionV3s in its pools: the averages do not count
padding, and the last block (`mixed_7c`) takes a maximum in place of the average of
`mixed_7b`. Modules are named as in the PyTorch ports (pytorch-fid, torch-fidelity), in
lower case.

Stages, for inputs of 299: 149, 147, 147, 73, 73, 71, 35x35x192 before `mixed_5b`;
35x35x288 after `mixed_5d`, 17x17x768 after `mixed_6a`, 8x8x2048 after `mixed_7c`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

NUM_FEATURES = 2048
NUM_LOGITS = 1008  # 1000 classes of ImageNet and 8 unused ones.
SIZE = 299  # Of the images.
_NORM_EPS = 1e-3


class InceptionV3(nn.Module):
  """`x [batch, 299, 299, 3] in [-1, 1] -> (features [batch, 2048], logits [b, 1008])`.

  Features are the mean over positions after `mixed_7c`, the 'pool_3' of FID. Logits are
  features times the matrix of the last layer *without its bias*: the graph's
  'softmax/logits/MatMul' that the Inception Score is defined with, torch-fidelity's
  'logits_unbiased'. So the published bias is no parameter here.

  Sizes from 75 up run as well. All products are at the highest precision: the
  accelerators' default would move FID.
  """

  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    conv = ConvNormRelu
    h = conv(32, (3, 3), 2, 'VALID', name='conv2d_1a_3x3')(x)  # [b, 149, 149, 32]
    h = conv(32, (3, 3), 1, 'VALID', name='conv2d_2a_3x3')(h)  # [b, 147, 147, 32]
    h = conv(64, (3, 3), name='conv2d_2b_3x3')(h)  # [b, 147, 147, 64]
    h = _max_pool(h, 2)  # [b, 73, 73, 64]
    h = conv(80, (1, 1), name='conv2d_3b_1x1')(h)  # [b, 73, 73, 80]
    h = conv(192, (3, 3), 1, 'VALID', name='conv2d_4a_3x3')(h)  # [b, 71, 71, 192]
    h = _max_pool(h, 2)  # [b, 35, 35, 192]
    h = MixedA(32, name='mixed_5b')(h)  # [b, 35, 35, 256]
    h = MixedA(64, name='mixed_5c')(h)  # [b, 35, 35, 288]
    h = MixedA(64, name='mixed_5d')(h)
    h = MixedB(name='mixed_6a')(h)  # [b, 17, 17, 768]
    h = MixedC(128, name='mixed_6b')(h)
    h = MixedC(160, name='mixed_6c')(h)
    h = MixedC(160, name='mixed_6d')(h)
    h = MixedC(192, name='mixed_6e')(h)
    h = MixedD(name='mixed_7a')(h)  # [b, 8, 8, 1280]
    h = MixedE(_average_pool, name='mixed_7b')(h)  # [b, 8, 8, 2048]
    h = MixedE(_max_pool, name='mixed_7c')(h)
    features = jnp.mean(h, axis=(1, 2))
    dense = nn.Dense(
      NUM_LOGITS, use_bias=False, precision=jax.lax.Precision.HIGHEST, name='fc'
    )
    return features, dense(features)


class ConvNormRelu(nn.Module):
  """(1), for `[batch, height, width, channels]`."""

  channels: int
  size: tuple[int, int]
  stride: int = 1
  padding: str = 'SAME'

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    channels = (self.channels,)
    kernel = self.param(
      'kernel', nn.initializers.he_normal(), (*self.size, x.shape[-1], *channels)
    )
    scale = self.param('scale', nn.initializers.ones, channels)
    bias = self.param('bias', nn.initializers.zeros, channels)
    mean = self.param('mean', nn.initializers.zeros, channels)
    var = self.param('var', nn.initializers.ones, channels)
    h = jax.lax.conv_general_dilated(
      x,
      kernel,
      (self.stride, self.stride),
      self.padding,
      dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
      precision=jax.lax.Precision.HIGHEST,
    )
    return nn.relu((h - mean) * (scale * jax.lax.rsqrt(var + _NORM_EPS)) + bias)


class MixedA(nn.Module):
  """1x1, 5x5 and two 3x3 convolutions, and `pool_channels` of the average."""

  pool_channels: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    conv = ConvNormRelu
    a = conv(64, (1, 1), name='branch1x1')(x)
    b = conv(48, (1, 1), name='branch5x5_1')(x)
    b = conv(64, (5, 5), name='branch5x5_2')(b)
    c = conv(64, (1, 1), name='branch3x3dbl_1')(x)
    c = conv(96, (3, 3), name='branch3x3dbl_2')(c)
    c = conv(96, (3, 3), name='branch3x3dbl_3')(c)
    d = conv(self.pool_channels, (1, 1), name='branch_pool')(_average_pool(x))
    return jnp.concatenate([a, b, c, d], axis=-1)


class MixedB(nn.Module):
  """Halves the resolution, from 35 to 17."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    conv = ConvNormRelu
    a = conv(384, (3, 3), 2, 'VALID', name='branch3x3')(x)
    b = conv(64, (1, 1), name='branch3x3dbl_1')(x)
    b = conv(96, (3, 3), name='branch3x3dbl_2')(b)
    b = conv(96, (3, 3), 2, 'VALID', name='branch3x3dbl_3')(b)
    return jnp.concatenate([a, b, _max_pool(x, 2)], axis=-1)


class MixedC(nn.Module):
  """7x7 convolutions as pairs of 1x7 and 7x1, `channels` wide between them."""

  channels: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    conv, width = ConvNormRelu, self.channels
    a = conv(192, (1, 1), name='branch1x1')(x)
    b = conv(width, (1, 1), name='branch7x7_1')(x)
    b = conv(width, (1, 7), name='branch7x7_2')(b)
    b = conv(192, (7, 1), name='branch7x7_3')(b)
    c = conv(width, (1, 1), name='branch7x7dbl_1')(x)
    c = conv(width, (7, 1), name='branch7x7dbl_2')(c)
    c = conv(width, (1, 7), name='branch7x7dbl_3')(c)
    c = conv(width, (7, 1), name='branch7x7dbl_4')(c)
    c = conv(192, (1, 7), name='branch7x7dbl_5')(c)
    d = conv(192, (1, 1), name='branch_pool')(_average_pool(x))
    return jnp.concatenate([a, b, c, d], axis=-1)


class MixedD(nn.Module):
  """Halves the resolution, from 17 to 8."""

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    conv = ConvNormRelu
    a = conv(192, (1, 1), name='branch3x3_1')(x)
    a = conv(320, (3, 3), 2, 'VALID', name='branch3x3_2')(a)
    b = conv(192, (1, 1), name='branch7x7x3_1')(x)
    b = conv(192, (1, 7), name='branch7x7x3_2')(b)
    b = conv(192, (7, 1), name='branch7x7x3_3')(b)
    b = conv(192, (3, 3), 2, 'VALID', name='branch7x7x3_4')(b)
    return jnp.concatenate([a, b, _max_pool(x, 2)], axis=-1)


class MixedE(nn.Module):
  """1x3 and 3x1 convolutions side by side; `pool` is the only difference of two."""

  pool: Callable[[jax.Array], jax.Array]

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    conv = ConvNormRelu
    a = conv(320, (1, 1), name='branch1x1')(x)
    b = conv(384, (1, 1), name='branch3x3_1')(x)
    b_row = conv(384, (1, 3), name='branch3x3_2a')(b)
    b_column = conv(384, (3, 1), name='branch3x3_2b')(b)
    c = conv(448, (1, 1), name='branch3x3dbl_1')(x)
    c = conv(384, (3, 3), name='branch3x3dbl_2')(c)
    c_row = conv(384, (1, 3), name='branch3x3dbl_3a')(c)
    c_column = conv(384, (3, 1), name='branch3x3dbl_3b')(c)
    d = conv(192, (1, 1), name='branch_pool')(self.pool(x))
    return jnp.concatenate([a, b_row, b_column, c_row, c_column, d], axis=-1)


def _average_pool(x: jax.Array) -> jax.Array:
  """3x3 means of what lies inside: at a corner, of 4 values."""
  return nn.avg_pool(x, (3, 3), (1, 1), 'SAME', count_include_pad=False)


def _max_pool(x: jax.Array, stride: int = 1) -> jax.Array:
  """3x3 maxima; at stride 1 of every position, at stride 2 of whole windows."""
  padding = 'SAME' if stride == 1 else 'VALID'
  return nn.max_pool(x, (3, 3), (stride, stride), padding)
