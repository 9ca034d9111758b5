"""Weights and noise in, samples out; methods by their names."""

from experiments.sampling import images
from experiments.sampling import methods
from experiments.sampling import resolve
from experiments.sampling import sampler
from experiments.sampling import strengths

__all__ = (
  'images',
  'methods',
  'resolve',
  'sampler',
  'strengths',
)
