"""SqueezeNet v1.1 without its classifier (Iandola et al. 2016): 512 features.

A fire module squeezes to few channels and expands them with 1x1 and 3x3 kernels side by
side. No stride but that of the first convolution and of the pools is above 1, and those
do not pad, as in the published Keras weights.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

NUM_FEATURES = 512


class SqueezeNet(nn.Module):
  """`x [batch, height, width, 3] -> features [batch, 512]`, means over positions.

  x is of the order B, G, R, from 0 to 255 less the mean (103.939, 116.779, 123.68).
  Sides from 31 up. Products are at the highest precision.
  """

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    h = _max_pool(_conv(64, 3, 'conv1', strides=2, padding='VALID')(x))
    h = Fire(16, 64, name='fire2')(h)
    h = _max_pool(Fire(16, 64, name='fire3')(h))
    h = Fire(32, 128, name='fire4')(h)
    h = _max_pool(Fire(32, 128, name='fire5')(h))
    h = Fire(48, 192, name='fire6')(h)
    h = Fire(48, 192, name='fire7')(h)
    h = Fire(64, 256, name='fire8')(h)
    h = Fire(64, 256, name='fire9')(h)
    return jnp.mean(h, axis=(1, 2))


class Fire(nn.Module):
  """`[batch, height, width, channels] -> [batch, height, width, 2 expanded]`."""

  squeezed: int
  expanded: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    h = _conv(self.squeezed, 1, 'squeeze1x1')(x)
    one = _conv(self.expanded, 1, 'expand1x1')(h)
    three = _conv(self.expanded, 3, 'expand3x3')(h)
    return jnp.concatenate([one, three], axis=-1)


def _conv(channels: int, size: int, name: str, **kwargs):
  """A convolution with bias and the ReLU that follows every one."""
  conv = nn.Conv(
    channels, (size, size), precision=jax.lax.Precision.HIGHEST, name=name, **kwargs
  )
  return lambda x: nn.relu(conv(x))


def _max_pool(x: jax.Array) -> jax.Array:
  return nn.max_pool(x, (3, 3), (2, 2), 'VALID')
