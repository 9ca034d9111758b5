"""Distances between samples and data, and judgements of a classifier or of CLIP."""

from lgd.metrics.alignment import alignment
from lgd.metrics.classification import classification
from lgd.metrics.energy import class_conditional_energy
from lgd.metrics.energy import class_sets
from lgd.metrics.energy import ClassSets
from lgd.metrics.energy import jackknifed_energy
from lgd.metrics.estimate import Estimate
from lgd.metrics.features import clip
from lgd.metrics.features import extract
from lgd.metrics.features import Extractor
from lgd.metrics.features import Features
from lgd.metrics.features import inception
from lgd.metrics.features import squeezenet
from lgd.metrics.frechet import frechet_distance
from lgd.metrics.inception_score import inception_score
from lgd.metrics.kernel_distance import kernel_distance
from lgd.metrics.moments import fit_gaussian
from lgd.metrics.moments import Gaussian
from lgd.metrics.moments import gaussian
from lgd.metrics.moments import load_gaussian
from lgd.metrics.moments import merge
from lgd.metrics.moments import Moments
from lgd.metrics.moments import moments
from lgd.metrics.moments import save_gaussian
from lgd.metrics.precision_recall import precision_recall
from lgd.metrics.precision_recall import PrecisionRecall
from lgd.metrics.resize import resize
from lgd.metrics.resize import to_uint8

__all__ = (
  'ClassSets',
  'Estimate',
  'Extractor',
  'Features',
  'Gaussian',
  'Moments',
  'PrecisionRecall',
  'alignment',
  'class_conditional_energy',
  'class_sets',
  'classification',
  'clip',
  'extract',
  'fit_gaussian',
  'frechet_distance',
  'gaussian',
  'inception',
  'inception_score',
  'jackknifed_energy',
  'kernel_distance',
  'load_gaussian',
  'merge',
  'moments',
  'precision_recall',
  'resize',
  'save_gaussian',
  'squeezenet',
  'to_uint8',
)
