"""Conditions of a model: labels, vectors of binary attributes, or prompts.

An absent condition, the null that guidance needs, is a value beside the others: label
`num_classes`; 1/2 for every attribute, neither absent (0) nor present (1); a prompt of
padding alone; embeddings that are 0.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Labels:
  """`[batch]` int32 in 0..num_classes-1."""

  num_classes: int

  @property
  def null(self) -> np.ndarray:
    """`[]` int32."""
    return np.asarray(self.num_classes, np.int32)

  def zeros(self, batch: int) -> np.ndarray:
    """`batch` conditions that are 0, of the right shape and dtype."""
    return np.zeros(batch, np.int32)


@dataclasses.dataclass(frozen=True)
class Attributes:
  """`[batch, num_attributes]` float32 in {0, 1}: a vector each, and no classes."""

  num_attributes: int
  num_classes = None

  @property
  def null(self) -> np.ndarray:
    """`[num_attributes]` float32."""
    return np.full(self.num_attributes, 0.5, np.float32)

  def zeros(self, batch: int) -> np.ndarray:
    """`batch` conditions that are 0, of the right shape and dtype."""
    return np.zeros((batch, self.num_attributes), np.float32)


@dataclasses.dataclass(frozen=True)
class Tokens:
  """`[batch, length]` int32 in 0..vocab_size-1: a prompt each, then padding, 0."""

  length: int
  vocab_size: int
  num_classes = None

  @property
  def null(self) -> np.ndarray:
    """`[length]` int32."""
    return np.zeros(self.length, np.int32)

  def zeros(self, batch: int) -> np.ndarray:
    """`batch` conditions that are 0, of the right shape and dtype."""
    return np.zeros((batch, self.length), np.int32)


@dataclasses.dataclass(frozen=True)
class Embeddings:
  """Prompts as `{encoder: {'pooled', 'tokens', 'mask'}}`, numbers in float16.

  Pooled is `[batch, pooled_dim]`, tokens are `[batch, length, dim]`, and the mask
  `[batch, length]` is False at padding. Data are labelled by the numbers of their
  captions, which `data.prompts.embeddings.Lookup` makes these of.

  Attributes:
    encoders: name, pooled_dim and dim of each.
    length: of a row.
  """

  encoders: tuple[tuple[str, int, int], ...]
  length: int
  num_classes = None

  @property
  def null(self) -> dict[str, dict[str, np.ndarray]]:
    """0 everywhere, as in Esser et al. (2024), without the batch axis."""
    return self._zeros(())

  def zeros(self, batch: int) -> dict[str, dict[str, np.ndarray]]:
    """`batch` conditions that are 0, of the right shapes and dtypes."""
    return self._zeros((batch,))

  def _zeros(self, leading):
    return {
      name: {
        'pooled': np.zeros((*leading, pooled_dim), np.float16),
        'tokens': np.zeros((*leading, self.length, dim), np.float16),
        'mask': np.zeros((*leading, self.length), bool),
      }
      for name, pooled_dim, dim in self.encoders
    }


Conditions = Labels | Attributes | Tokens | Embeddings
