"""A transformer for images and prompts: two streams that attend to each other.

With image tokens x, one of every patch, and text tokens y (Esser et al. 2024, MMDiT):

  (1)  e        = silu(MLP(fourier(t)) + MLP(pooled text))
  (2)  q, k, v  = rows of x and of y, by weights of either stream, q and k normalised
  (3)  a        = softmax(q k^T / sqrt(d)) v  over both streams together
  (4)  x       <- x + gate(e) * W a_x;  x <- x + gate(e) * MLP(modulate(norm(x), e))

and y likewise, with modulate(h, e) = h (1 + scale(e)) + shift(e) before (2) as well.
Gates start at zero, every block as the identity, and the network as 0. After the last
block the text is not needed, and only gives keys and values there.

Parameters are float32 whatever `dtype` is; norms and the softmax run in float32 too.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from lgd import types
from lgd.networks.embedding import fourier


class MMDiT(nn.Module):
  """`(xt [batch, size, size, c], t [batch], cond) -> like xt`, for pixels or latents.

  Attributes:
    encode: a module from `cond` to `text.EncodedText`.
    patch_size: side of a patch; it divides the image's.
    width: of both streams, a multiple of head_dim.
    depth: number of blocks.
    head_dim: of the attention.
    num_frequencies: of the Fourier features of t, octaves from pi up.
    dtype: of the activations, such as jnp.bfloat16; the output is float32.
    remat: whether the backward pass computes each block again instead of keeping its
      activations; changes memory and time, not the result.
  """

  encode: nn.Module
  patch_size: int
  width: int
  depth: int
  head_dim: int = 64
  num_frequencies: int = 8
  dtype: Any = jnp.float32
  remat: bool = False

  @nn.compact
  def __call__(self, xt: jax.Array, t: jax.Array, cond: types.Cond) -> jax.Array:
    text = self.encode(cond)

    def mlp(h, name):
      h = nn.Dense(self.width, dtype=self.dtype, name=f'{name}_hidden')(h)
      return nn.Dense(self.width, dtype=self.dtype, name=f'{name}_out')(nn.silu(h))

    e = nn.silu(
      mlp(fourier(t, self.num_frequencies), 'time') + mlp(text.pooled, 'pooled')
    )
    x = patches(xt, self.patch_size)
    x = nn.Dense(self.width, dtype=self.dtype, name='in')(x)
    rows, columns = (side // self.patch_size for side in xt.shape[1:3])
    x = x + positions(rows, columns, self.width).astype(self.dtype)
    y = nn.Dense(self.width, dtype=self.dtype, name='text_in')(text.tokens)

    block = nn.remat(JointBlock) if self.remat else JointBlock
    for i in range(self.depth):
      x, y = block(
        self.head_dim, self.dtype, ends_text=i == self.depth - 1, name=f'block_{i}'
      )(x, y, e, text.mask)

    shift, scale = _modulation(e, 2, self.width, self.dtype, 'out_modulation')
    x = _modulate(x, shift, scale, self.dtype)
    zeros = nn.initializers.zeros
    dim = self.patch_size**2 * xt.shape[-1]
    x = nn.Dense(dim, dtype=self.dtype, kernel_init=zeros, name='out')(x)
    return unpatches(x, xt.shape, self.patch_size).astype(jnp.float32)


class JointBlock(nn.Module):
  """(2)-(4), for x `[batch, n, width]`, y `[batch, length, width]`, e `[batch, width]`.

  Padding, where `mask [batch, length]` is False, is attended to by nobody.

  Attributes:
    head_dim: of the attention.
    dtype: of the activations.
    ends_text: whether y is returned as it came.
  """

  head_dim: int
  dtype: Any
  ends_text: bool

  @nn.compact
  def __call__(
    self, x: jax.Array, y: jax.Array, e: jax.Array, mask: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    num_image, width = x.shape[1:]
    x_modulation = _modulation(e, 6, width, self.dtype, 'image_modulation')
    num = 2 if self.ends_text else 6
    y_modulation = _modulation(e, num, width, self.dtype, 'text_modulation')
    image = self._project(x, x_modulation, 'image', 'kvq')
    text = self._project(y, y_modulation, 'text', 'kv' if self.ends_text else 'kvq')
    k, v = (
      jnp.concatenate(both, axis=1) for both in zip(image[:2], text[:2], strict=True)
    )
    q = jnp.concatenate([image[2], *text[2:]], axis=1)
    seen = jnp.concatenate([jnp.ones(x.shape[:2], bool), mask], axis=1)
    a = jax.nn.dot_product_attention(q, k, v, mask=seen[:, None, None, :])
    x = self._update(x, a[:, :num_image], x_modulation, 'image')
    if not self.ends_text:
      y = self._update(y, a[:, num_image:], y_modulation, 'text')
    return x, y

  def _project(self, h, modulation, name, parts):
    """(2) of a stream: `[batch, n, heads, head_dim]` for each of `parts`."""
    h = _modulate(h, *modulation[:2], self.dtype)
    heads = (h.shape[-1] // self.head_dim, self.head_dim)
    projected = []
    for part in parts:
      z = nn.DenseGeneral(heads, dtype=self.dtype, name=f'{name}_{part}')(h)
      if part != 'v':
        z = nn.RMSNorm(dtype=self.dtype, name=f'{name}_{part}_norm')(z)
      projected.append(z)
    return projected

  def _update(self, h, a, modulation, name):
    """(4) of a stream."""
    gate, shift, scale, mlp_gate = modulation[2:]
    width = h.shape[-1]
    h = h + gate * nn.DenseGeneral(
      width, axis=(-2, -1), dtype=self.dtype, name=f'{name}_attention_out'
    )(a)
    update = _modulate(h, shift, scale, self.dtype)
    update = nn.Dense(4 * width, dtype=self.dtype, name=f'{name}_hidden')(update)
    update = nn.Dense(width, dtype=self.dtype, name=f'{name}_out')(nn.gelu(update))
    return h + mlp_gate * update


def patches(x: jax.Array, size: int) -> jax.Array:
  """`[batch, height, width, c]` -> `[batch, n, size * size * c]`, row after row."""
  batch, height, width, channels = x.shape
  x = x.reshape(batch, height // size, size, width // size, size, channels)
  return x.swapaxes(2, 3).reshape(batch, -1, size * size * channels)


def unpatches(x: jax.Array, shape: tuple[int, ...], size: int) -> jax.Array:
  """The inverse of `patches`, to `shape`."""
  batch, height, width, channels = shape
  x = x.reshape(batch, height // size, width // size, size, size, channels)
  return x.swapaxes(2, 3).reshape(shape)


def positions(rows: int, columns: int, width: int) -> jax.Array:
  """Sines and cosines of row and column: `[rows * columns, width]`.

  Width is a multiple of 4; frequencies fall geometrically from 1 to 1/10,000.
  """
  frequency = 1e4 ** -jnp.linspace(0.0, 1.0, width // 4)
  row, column = jnp.divmod(jnp.arange(rows * columns), columns)
  angle = jnp.concatenate(
    [row[:, None] * frequency, column[:, None] * frequency], axis=-1
  )
  return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


def _modulation(e, num, width, dtype, name):
  """`num` of `[batch, 1, width]`, 0 at the start."""
  zeros = nn.initializers.zeros
  out = nn.Dense(num * width, dtype=dtype, kernel_init=zeros, name=name)(e)
  return jnp.split(out[:, None], num, axis=-1)


def _modulate(h, shift, scale, dtype):
  norm = nn.LayerNorm(use_bias=False, use_scale=False, dtype=dtype)
  return norm(h) * (1.0 + scale) + shift
