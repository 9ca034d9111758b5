"""Metrics of samples of every class, against real data."""

from typing import Any
from typing import NamedTuple

import numpy as np

from experiments import judges
from lgd import metrics
from lgd.data import splits


class Reference(NamedTuple):
  """Real data as the metrics need them, computed once for all rows."""

  splits: dict[str, metrics.ClassSets]  # name -> of the energy distances
  pixels: metrics.Gaussian  # Of test data, as is the next.
  features: metrics.Gaussian


def make_reference(
  dataset: splits.Dataset, judge: judges.classifiers.Judge, *, num_blocks: int = 0
) -> Reference:
  """The real data that every row is compared with, with blocks of a jackknife."""
  _, features = judge(dataset.test.x)
  return Reference(
    {
      name: metrics.class_sets(*split, num_blocks=num_blocks)
      for name, split in (
        ('test', dataset.test),
        ('validation', dataset.validation),
        ('train', dataset.train),
      )
    },
    pixels=metrics.fit_gaussian(dataset.test.x),
    features=metrics.fit_gaussian(features),
  )


def compute_metrics(
  x: np.ndarray,
  label: np.ndarray,
  by_class: metrics.ClassSets,
  judge: judges.classifiers.Judge,
  reference: Reference,
) -> dict[str, Any]:
  """All metrics of one set of samples; `by_class` holds the same ones.

  'energy_test_jackknife' is `metrics.jackknifed_energy`, the rest are numbers.
  """
  log_prob, features = judge(x)
  energies = {
    name: metrics.jackknifed_energy(by_class, split)
    for name, split in reference.splits.items()
  }
  return {
    **{f'energy_{name}': float(energy[0]) for name, energy in energies.items()},
    'energy_test_jackknife': energies['test'].tolist(),
    'frechet_pixels': metrics.frechet_distance(
      metrics.fit_gaussian(x), reference.pixels
    ),
    'frechet_features': metrics.frechet_distance(
      metrics.fit_gaussian(features), reference.features
    ),
    **metrics.classification(log_prob, label),
  }


def real_rows(
  dataset: splits.Dataset, judge: judges.classifiers.Judge, reference: Reference
) -> list[dict[str, Any]]:
  """The floor: how far real data are from real data."""
  splits_by_class = dict(reference.splits)
  train = splits_by_class.pop('train')
  real = compute_metrics(
    *dataset.train, train, judge, reference._replace(splits=splits_by_class)
  )
  # The training set is no distance from itself; real against real is symmetric.
  real['energy_train'] = real['energy_test']
  del real['energy_test_jackknife']  # Nothing is compared with it.
  return [
    {
      'method': 'real',
      'params': {'split': 'train'},
      'seed': 0,
      'num_samples': len(dataset.train.label),
      'num_steps': 0,
      'nfe': 0.0,
      'learning_evaluations': 0,
      'metrics': real,
    }
  ]
