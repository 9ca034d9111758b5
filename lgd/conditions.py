"""What a model is conditioned on: labels, vectors of binary attributes, or prompts.

An absent condition, the null that guidance needs, is a value beside the others: label
`num_classes`; 1/2 for every attribute, neither absent (0) nor present (1); a prompt of
padding alone.
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
    """Of the shape and dtype of conditions."""
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
    """Of the shape and dtype of conditions."""
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
    """Of the shape and dtype of conditions."""
    return np.zeros((batch, self.length), np.int32)


Conditions = Labels | Attributes | Tokens
