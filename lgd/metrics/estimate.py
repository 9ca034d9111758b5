"""A mean with its spread."""

from typing import NamedTuple


class Estimate(NamedTuple):
  """Mean and spread of values from several parts of the samples."""

  mean: float
  std: float  # Of single values, with n.
