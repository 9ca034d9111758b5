"""A residual MLP for small data, modulated by time and condition.

  (1)  e      = MLP(fourier(t)) + embedding(c)
  (2)  h     <- h + gate(e) * MLP(norm(h) * (1 + scale(e)) + shift(e))

Adaptive layer norm whose modulation starts at zero (Peebles and Xie 2022): every
block starts as the identity and the network as the zero function.
"""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from lgd.networks.embedding import embed
from lgd.networks.embedding import fourier


class ResidualMLP(nn.Module):
  """`(xt [batch, *data], t [batch], cond [batch, ...]) -> [batch, *data]`.

  Attributes:
    num_classes: number of labels; label `num_classes` is the null label. None where
      conditions are vectors, `[batch, dim]`.
    width: of the residual stream.
    depth: residual blocks.
    num_frequencies: of the Fourier features of t, octaves from pi up.
  """

  num_classes: int | None
  width: int
  depth: int
  num_frequencies: int = 8

  @nn.compact
  def __call__(self, xt: jax.Array, t: jax.Array, cond: jax.Array) -> jax.Array:
    dim = math.prod(xt.shape[1:])
    e = fourier(t, self.num_frequencies)
    e = nn.Dense(self.width, name='time_hidden')(e)
    e = nn.Dense(self.width, name='time_out')(nn.silu(e))
    e = nn.silu(e + embed(cond, self.num_classes, self.width))

    def modulation(num, name):
      zeros = nn.initializers.zeros
      out = nn.Dense(num * self.width, kernel_init=zeros, name=name)(e)
      return jnp.split(out, num, axis=-1)

    def norm(h, shift, scale):
      h = nn.LayerNorm(use_bias=False, use_scale=False)(h)
      return h * (1.0 + scale) + shift

    h = nn.Dense(self.width, name='in')(xt.reshape(-1, dim))  # [batch, width]
    for i in range(self.depth):
      shift, scale, gate = modulation(3, f'modulation_{i}')
      update = nn.Dense(self.width, name=f'hidden_{i}')(norm(h, shift, scale))
      h = h + gate * nn.Dense(self.width, name=f'out_{i}')(nn.silu(update))
    shift, scale = modulation(2, 'modulation_out')
    out = nn.Dense(dim, kernel_init=nn.initializers.zeros, name='out')
    return out(norm(h, shift, scale)).reshape(xt.shape)
