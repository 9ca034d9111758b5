"""Distances between samples and data, and judgements of a classifier."""

from lgd.metrics.classification import classification
from lgd.metrics.energy import class_conditional_energy
from lgd.metrics.frechet import frechet_distance

__all__ = ('class_conditional_energy', 'classification', 'frechet_distance')
