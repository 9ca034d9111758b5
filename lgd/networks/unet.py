"""A U-Net for images, modulated by time and class.

  (1)  e  = MLP(fourier(t)) + table[label]
  (2)  h   <- h + conv(silu(norm(conv(silu(norm(h)))) (1 + scale(e)) + shift(e)))
  (3)  attention on the coarse levels, queries and keys normalised

Levels halve the resolution; the way up meets every activation of the way down. The last
layer of every block starts at zero: each starts as the identity, the network as 0.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn


class UNet(nn.Module):
  """`(xt [batch, size, size, c], t [batch], label [batch]) -> [batch, size, size, c]`.

  Attributes:
    num_classes: number of labels; label `num_classes` is the null label.
    channels: of the finest level.
    multipliers: of `channels`, one per level; size must be divisible by 2^(levels-1).
    num_blocks: residual blocks of a level on the way down; one more on the way up.
    attention_sizes: resolutions at which every block is followed by attention.
    head_dim: of the attention.
    num_frequencies: of the Fourier features of t, octaves from pi up.
  """

  num_classes: int
  channels: int
  multipliers: tuple[int, ...]
  num_blocks: int
  attention_sizes: tuple[int, ...] = ()
  head_dim: int = 64
  num_frequencies: int = 8

  @nn.compact
  def __call__(self, xt: jax.Array, t: jax.Array, label: jax.Array) -> jax.Array:
    width = 4 * self.channels
    angle = jnp.pi * t[:, None] * 2.0 ** jnp.arange(self.num_frequencies)
    e = jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)
    e = nn.Dense(width, name='time_out')(
      nn.silu(nn.Dense(width, name='time_hidden')(e))
    )
    e = nn.silu(e + nn.Embed(self.num_classes + 1, width, name='label')(label))

    def block(h, channels, name):
      h = ResidualBlock(channels, name=name)(h, e)
      if h.shape[1] in self.attention_sizes:
        h = SelfAttention(self.head_dim, name=f'{name}_attention')(h)
      return h

    h = nn.Conv(self.channels, (3, 3), name='in')(xt)
    skips = [h]
    for level, multiplier in enumerate(self.multipliers):
      if level > 0:
        h = nn.Conv(h.shape[-1], (3, 3), strides=2, name=f'down_{level}')(h)
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
        h = nn.Conv(h.shape[-1], (3, 3), name=f'up_{level}')(h)
    h = nn.silu(nn.RMSNorm(name='out_norm')(h))
    zeros = nn.initializers.zeros
    return nn.Conv(xt.shape[-1], (3, 3), kernel_init=zeros, name='out')(h)


class ResidualBlock(nn.Module):
  """(2), for h `[batch, size, size, c]` and e `[batch, width]`."""

  channels: int

  @nn.compact
  def __call__(self, h: jax.Array, e: jax.Array) -> jax.Array:
    update = nn.silu(nn.RMSNorm(name='norm_in')(h))
    update = nn.Conv(self.channels, (3, 3), name='conv_in')(update)
    modulation = nn.Dense(2 * self.channels, name='modulation')(e)[:, None, None]
    scale, shift = jnp.split(modulation, 2, axis=-1)
    update = nn.RMSNorm(name='norm_out')(update) * (1.0 + scale) + shift
    zeros = nn.initializers.zeros
    update = nn.Conv(self.channels, (3, 3), kernel_init=zeros, name='conv_out')(
      nn.silu(update)
    )
    if h.shape[-1] != self.channels:
      h = nn.Conv(self.channels, (1, 1), name='skip')(h)
    return h + update


class SelfAttention(nn.Module):
  """(3), over the positions of `[batch, size, size, c]`; c a multiple of head_dim."""

  head_dim: int

  @nn.compact
  def __call__(self, h: jax.Array) -> jax.Array:
    batch, height, width, channels = h.shape
    flat = nn.RMSNorm(name='norm')(h).reshape(batch, height * width, channels)
    heads = (channels // self.head_dim, self.head_dim)
    q, k, v = (nn.DenseGeneral(heads, name=name)(flat) for name in 'qkv')
    q, k = nn.RMSNorm(name='q_norm')(q), nn.RMSNorm(name='k_norm')(k)
    out = jax.nn.dot_product_attention(q, k, v)
    zeros = nn.initializers.zeros
    update = nn.DenseGeneral(channels, axis=(-2, -1), kernel_init=zeros, name='out')(
      out
    )
    return h + update.reshape(h.shape)
