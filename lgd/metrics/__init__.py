"""Distances between samples and data, and judgements of a classifier."""

from lgd.metrics.classification import classification
from lgd.metrics.energy import class_conditional_energy
from lgd.metrics.energy import class_sets
from lgd.metrics.energy import ClassSets
from lgd.metrics.frechet import fit_gaussian
from lgd.metrics.frechet import frechet_distance
from lgd.metrics.frechet import Gaussian

__all__ = (
  'ClassSets',
  'Gaussian',
  'class_conditional_energy',
  'class_sets',
  'classification',
  'fit_gaussian',
  'frechet_distance',
)
