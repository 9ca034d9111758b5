"""Prompts as a transformer reads them: some vectors in order, and one for all.

Either from tokens, by a small encoder trained with the base model,

  (1)  h     = table[token] + position
  (2)  h    <- h + attention(norm(h));  h <- h + MLP(norm(h)),  over what is no padding

or from embeddings of published encoders: with a projection W of each, its tokens and
its pooled embedding scaled to a root mean square of 1, so that no encoder drowns
another,

  (3)  tokens = W_1 token_1, ..., W_2 token_2, ... one after the other in a row
  (4)  pooled = W (pooled_1, pooled_2, ...)

The null prompt is padding alone: it pools to a constant, and nobody attends to it.
"""

from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from lgd import types


class EncodedText(NamedTuple):
  """A batch of prompts."""

  pooled: jax.Array  # [batch, width]
  tokens: jax.Array  # [batch, length, width]
  mask: jax.Array  # [batch, length] bool, False at padding


class TokenEncoder(nn.Module):
  """`tokens [batch, length]` int32, 0 at padding -> `EncodedText`, by (1) and (2).

  Attributes:
    vocab_size: number of tokens.
    width: of the vectors, a multiple of head_dim.
    depth: of (2).
    head_dim: of the attention.
  """

  vocab_size: int
  width: int
  depth: int
  head_dim: int

  @nn.compact
  def __call__(self, tokens: jax.Array) -> EncodedText:
    mask = tokens != 0
    h = nn.Embed(self.vocab_size, self.width, name='table')(tokens)
    position = self.param(
      'position', nn.initializers.normal(0.02), (tokens.shape[1], self.width)
    )
    h = h + position
    for i in range(self.depth):
      attention = nn.MultiHeadDotProductAttention(
        self.width // self.head_dim, name=f'attention_{i}'
      )
      update = attention(nn.RMSNorm(name=f'norm_{i}')(h), mask=mask[:, None, None, :])
      h = h + update
      update = nn.Dense(4 * self.width, name=f'hidden_{i}')(
        nn.RMSNorm(name=f'mlp_norm_{i}')(h)
      )
      h = h + nn.Dense(self.width, name=f'out_{i}')(nn.silu(update))
    h = nn.RMSNorm(name='norm')(h)
    count = jnp.maximum(mask.sum(axis=1, keepdims=True), 1)
    pooled = jnp.sum(h * mask[..., None], axis=1) / count
    return EncodedText(pooled, h, mask)


class EmbeddingEncoder(nn.Module):
  """`conditions.Embeddings` -> `EncodedText`, by (3) and (4); encoders by their names.

  Attributes:
    width: of the vectors.
    dtype: of the activations.
  """

  width: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, cond: types.Cond) -> EncodedText:
    def scaled(key):
      norm = nn.RMSNorm(use_scale=False, dtype=jnp.float32)
      return {name: norm(cond[name][key].astype(jnp.float32)) for name in sorted(cond)}

    def project(h, name):
      return nn.Dense(self.width, dtype=self.dtype, name=name)(h)

    tokens = [project(h, f'{name}_tokens') for name, h in scaled('tokens').items()]
    pooled = jnp.concatenate(list(scaled('pooled').values()), axis=-1)
    mask = [cond[name]['mask'] for name in sorted(cond)]
    return EncodedText(
      project(pooled, 'pooled'),
      jnp.concatenate(tokens, axis=1),
      jnp.concatenate(mask, axis=1),
    )
