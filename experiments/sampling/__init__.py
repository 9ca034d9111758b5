"""Weights and noise in, samples out; methods by their names."""

from experiments.sampling import arena
from experiments.sampling import images
from experiments.sampling import resolve
from experiments.sampling import sampler
from experiments.sampling import strengths

__all__ = (
  'arena',
  'images',
  'resolve',
  'sampler',
  'strengths',
)
