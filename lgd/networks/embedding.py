"""The condition and the time as the base networks see them."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from lgd import arrays


def fourier(t: jax.Array, num_frequencies: int) -> jax.Array:
  """Cosines and sines of t in octaves from pi up: `[batch]` -> `[batch, 2 num]`."""
  angle = jnp.pi * t[:, None] * 2.0 ** jnp.arange(num_frequencies)
  return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


def embed(
  cond: jax.Array, num_classes: int | None, width: int, *, dtype: Any = jnp.float32
) -> jax.Array:
  """Rows of a table for labels, a projection of vectors; `[batch, width]`.

  Call it in a network's compact method: it makes a layer there.

  Args:
    cond: labels `[batch]` in 0..num_classes, the last of them the null label (others
      give NaN); or, if `num_classes` is None, vectors `[batch, dim]`.
    num_classes: number of labels, or None.
    width: of the embedding.
    dtype: of the embedding.
  """
  if num_classes is None:
    return nn.Dense(width, dtype=dtype, name='attributes')(cond)
  table = nn.Embed(num_classes + 1, width, dtype=dtype, name='label')
  return table(arrays.index_or_nan(cond, num_classes + 1))
