"""A U-Net for images, modulated by time and condition.

  (1)  e  = MLP(fourier(t)) + embedding(c)
  (2)  h   <- h + conv(silu(norm(conv(silu(norm(h)))) (1 + scale(e)) + shift(e)))
  (3)  h   <- h + softmax(q k^T / sqrt(d)) v on the coarse levels; q and k are
       normalised, then rotated by the position

(3) turns pair i of the head's features at row y and column x by the angle y f_i, or
x f_i, every other pair: rotary embedding (Su et al. 2021) along both axes. Levels halve
the resolution; the way up meets every activation of the way down. The last layer of
every block starts at zero: each starts as the identity, the network as 0.

Parameters are float32 whatever `dtype` is; sums of norms and the softmax run in float32
too.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from lgd.networks.embedding import embed
from lgd.networks.embedding import fourier


class UNet(nn.Module):
  """`(xt [batch, size, size, c], t [batch], cond [batch, ...]) -> like xt`.

  Attributes:
    num_classes: number of labels; label `num_classes` is the null label. None where
      conditions are vectors, `[batch, dim]`.
    channels: of the finest level.
    multipliers: of `channels`, one per level; size must be divisible by 2^(levels-1).
    num_blocks: residual blocks of a level on the way down; one more on the way up.
    attention_sizes: resolutions at which every block is followed by attention.
    head_dim: of the attention, a multiple of 4.
    num_frequencies: of the Fourier features of t, octaves from pi up.
    dtype: of the activations, such as jnp.bfloat16; the output is float32.
    remat: whether the backward pass computes each block again instead of keeping its
      activations; changes memory and time, not the result.
  """

  num_classes: int | None
  channels: int
  multipliers: tuple[int, ...]
  num_blocks: int
  attention_sizes: tuple[int, ...] = ()
  head_dim: int = 64
  num_frequencies: int = 8
  dtype: Any = jnp.float32
  remat: bool = False

  @nn.compact
  def __call__(self, xt: jax.Array, t: jax.Array, cond: jax.Array) -> jax.Array:
    width = 4 * self.channels
    e = fourier(t, self.num_frequencies)
    dense = functools.partial(nn.Dense, width, dtype=self.dtype)
    e = dense(name='time_out')(nn.silu(dense(name='time_hidden')(e)))
    e = nn.silu(e + embed(cond, self.num_classes, width, dtype=self.dtype))
    conv = functools.partial(nn.Conv, kernel_size=(3, 3), dtype=self.dtype)
    wrap = nn.remat if self.remat else lambda module: module
    residual, attention = wrap(ResidualBlock), wrap(SelfAttention)

    def block(h, channels, name):
      h = residual(channels, self.dtype, name=name)(h, e)
      if h.shape[1] in self.attention_sizes:
        h = attention(self.head_dim, self.dtype, name=f'{name}_attention')(h)
      return h

    h = conv(self.channels, name='in')(xt)
    skips = [h]
    for level, multiplier in enumerate(self.multipliers):
      if level > 0:
        h = conv(h.shape[-1], strides=2, name=f'down_{level}')(h)
        skips.append(h)
      for i in range(self.num_blocks):
        h = block(h, multiplier * self.channels, f'down_{level}_{i}')
        skips.append(h)
    h = block(h, h.shape[-1], 'middle')
    for level, multiplier in reversed(list(enumerate(self.multipliers))):
      for i in range(self.num_blocks + 1):
        h = jnp.concatenate([h, skips.pop()], axis=-1)
        h = block(h, multiplier * self.channels, f'up_{level}_{i}')
      if level > 0:
        h = jnp.repeat(jnp.repeat(h, 2, axis=1), 2, axis=2)
        h = conv(h.shape[-1], name=f'up_{level}')(h)
    h = nn.silu(nn.RMSNorm(dtype=self.dtype, name='out_norm')(h))
    zeros = nn.initializers.zeros
    out = conv(xt.shape[-1], kernel_init=zeros, name='out')(h)
    return out.astype(jnp.float32)


class ResidualBlock(nn.Module):
  """(2), for h `[batch, size, size, c]` and e `[batch, width]`."""

  channels: int
  dtype: Any

  @nn.compact
  def __call__(self, h: jax.Array, e: jax.Array) -> jax.Array:
    conv = functools.partial(nn.Conv, self.channels, dtype=self.dtype)
    norm = functools.partial(nn.RMSNorm, dtype=self.dtype)
    update = conv((3, 3), name='conv_in')(nn.silu(norm(name='norm_in')(h)))
    modulation = nn.Dense(2 * self.channels, dtype=self.dtype, name='modulation')(e)
    scale, shift = jnp.split(modulation[:, None, None], 2, axis=-1)
    update = norm(name='norm_out')(update) * (1.0 + scale) + shift
    zeros = nn.initializers.zeros
    update = conv((3, 3), kernel_init=zeros, name='conv_out')(nn.silu(update))
    if h.shape[-1] != self.channels:
      h = conv((1, 1), name='skip')(h)
    return h + update


class SelfAttention(nn.Module):
  """(3), over the positions of `[batch, size, size, c]`; c a multiple of head_dim."""

  head_dim: int
  dtype: Any

  @nn.compact
  def __call__(self, h: jax.Array) -> jax.Array:
    batch, height, width, channels = h.shape
    norm = functools.partial(nn.RMSNorm, dtype=self.dtype)
    flat = norm(name='norm')(h).reshape(batch, height * width, channels)
    heads = (channels // self.head_dim, self.head_dim)
    q, k, v = (
      nn.DenseGeneral(heads, dtype=self.dtype, name=name)(flat) for name in 'qkv'
    )
    q = rotate(norm(name='q_norm')(q), height, width)
    k = rotate(norm(name='k_norm')(k), height, width)
    out = jax.nn.dot_product_attention(q, k, v)
    zeros = nn.initializers.zeros
    update = nn.DenseGeneral(
      channels, axis=(-2, -1), dtype=self.dtype, kernel_init=zeros, name='out'
    )(out)
    return h + update.reshape(h.shape)


def rotate(x: jax.Array, height: int, width: int) -> jax.Array:
  """Turns features by their position, so that <q, k> depends on its difference.

  Args:
    x: `[batch, height * width, heads, d]`, d a multiple of 4. Features i and d/2 + i
      are a pair; the first d/4 pairs turn with the row, the others with the column.
    height: rows.
    width: columns.

  Returns:
    The same shape and dtype. Frequencies fall geometrically from 1 to 1/100: the
    slowest turns by a sixth of a radian over the 16 positions of an axis.
  """
  half = x.shape[-1] // 2
  frequency = 100.0 ** -jnp.linspace(0.0, 1.0, half // 2)
  row, column = jnp.divmod(jnp.arange(height * width), width)
  angle = jnp.concatenate(
    [row[:, None] * frequency, column[:, None] * frequency], axis=-1
  )[:, None]  # [height * width, 1, d/2]
  a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  return jnp.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1).astype(
    x.dtype
  )
