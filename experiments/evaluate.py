"""Compares every guidance weight on one base model, on equal terms.

  python -m experiments.evaluate --workdir=runs/digits

Reads the config from the checkpoint; `--config=...` replaces its `evaluation`
section. All methods are tables of one compiled sampler, drawn from the same seeds.
Grids are chosen on validation data and reported on test data. Writes results.json,
results.md and plots/. What is measured is kept until then: the same command resumes.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import jax
import numpy as np
from absl import logging
from ml_collections import config_dict

from experiments import arena as arena_lib
from experiments import builders
from experiments import datasets
from experiments import evaluation_results
from experiments import identities
from experiments import judge as judge_lib
from experiments import launch
from experiments import pieces as pieces_lib
from experiments import restoring
from experiments import reward_frontiers
from experiments import stored_configs
from experiments import workdir as workdir_lib
from lgd import guidance
from lgd import metrics
from lgd import reporting
from lgd.data import splits


class Reference(NamedTuple):
  """Real data as the metrics need them, computed once for all rows."""

  splits: dict[str, metrics.ClassSets]  # name -> of the energy distances
  pixels: metrics.Gaussian  # Of test data, as is the next.
  features: metrics.Gaussian


def run(config: config_dict.ConfigDict | None, workdir: str) -> list[dict[str, Any]]:
  """Evaluates, writes results and figures, and returns the rows."""
  workdir = workdir_lib.Workdir(workdir)
  config = restoring.resolve_config(workdir, config)
  dataset = datasets.load_classes(config)
  params, step = restoring.load_denoiser(workdir, dataset.spec, builders.mesh(config))
  weights = arena_lib.load_learned(workdir, config, dataset.spec)
  learned = [
    arena_lib.learned_method(config, dataset.spec, name, weight)
    for name, weight in weights.items()
  ]
  learned = at_strengths(learned, config.evaluation.kappas)
  methods = grid_methods(config, dataset.num_classes) + learned
  logging.info('base model at step %d; %d methods', step, len(methods))

  identity = identities.run_identity(workdir, config)
  pieces = pieces_lib.Pieces(workdir.unfinished('evaluate'), identity)
  stored_configs.record(workdir.path, 'evaluate', config)
  judge = judge_lib.train_judge(config, dataset, pieces)
  reference = make_reference(dataset, judge)
  arena = arena_lib.Arena(config, dataset, params)
  rows, samples = evaluate_methods(arena, methods, judge, reference, pieces)
  rows = real_rows(dataset, judge, reference) + rows
  if jax.process_index() == 0:
    evaluation_results.write(
      workdir.path,
      rows,
      samples={'real': real_samples(dataset), **samples},
      tables={m.name: np.asarray(m.table) for m in learned if not m.params},
      gammas=reward_frontiers.gammas(weights),
      times=np.asarray(builders.time_grid(config))[:-1],
    )
  pieces.remove()
  return rows


def grid_methods(
  config: config_dict.ConfigDict, num_classes: int
) -> list[arena_lib.Method]:
  """Unguided, constants, intervals and clamp-linear schedules."""
  section = config.evaluation
  methods = arena_lib.grid_methods(config, num_classes)
  for omega, floor in itertools.product(
    section.clamp_linear_omegas, section.clamp_linear_floors
  ):
    weight = guidance.clamp_linear(omega, floor)
    methods.append(
      arena_lib.given_method(
        config, num_classes, 'clamp_linear', weight, omega=omega, floor=floor
      )
    )
  return methods


def at_strengths(
  learned: list[arena_lib.Method], kappas: Sequence[float]
) -> list[arena_lib.Method]:
  """Learned weights, networks at every strength kappa as well."""
  methods = []
  for method in learned:
    methods.append(method)
    if not method.name.endswith('_table'):
      methods += [
        method._replace(params={'kappa': kappa}, table=kappa * method.table)
        for kappa in kappas
      ]
  return methods


def evaluate_methods(
  arena: arena_lib.Arena,
  methods: list[arena_lib.Method],
  judge: judge_lib.Judge,
  reference: Reference,
  pieces: pieces_lib.Pieces,
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
  """A row for every method and seed, and samples of the first seed by method."""
  first, num_seeds = arena.config.seed, arena.config.evaluation.num_seeds
  rows, samples, start = [], {}, pieces.seconds
  for i, method in enumerate(methods):
    for seed in range(first, first + num_seeds):
      make = functools.partial(measure, arena, method, seed, judge, reference)
      piece = pieces.get([method.identity, seed], make)
      rows.append(piece['row'])
      if seed == first:
        samples[method.key] = piece['x']
    logging.info(
      'evaluate %d/%d  %s %s  energy_test %.4f  ETA %s',
      i + 1,
      len(methods),
      method.name,
      method.params or '',
      np.mean([row['metrics']['energy_test'] for row in rows[-num_seeds:]]),
      reporting.eta(pieces.seconds - start, i + 1, len(methods)),
    )
  return rows, samples


def measure(
  arena: arena_lib.Arena,
  method: arena_lib.Method,
  seed: int,
  judge: judge_lib.Judge,
  reference: Reference,
) -> pieces_lib.Piece:
  """The row of a method and seed, and with the first seed its samples by class."""
  config, label = arena.config, arena.label
  x, _ = arena.sample(method, seed)
  row = {
    'method': method.name,
    'params': method.params,
    'seed': seed,
    'num_samples': len(label),
    'num_steps': config.evaluation.num_steps,
    'nfe': arena.count_nfe(method),
    'learning_evaluations': method.cost,
    'metrics': compute_metrics(
      x, label, metrics.class_sets(x, label), judge, reference
    ),
  }
  if seed != config.seed:
    return {'row': row}
  by_class = x.reshape(arena.dataset.num_classes, -1, *arena.dataset.shape)
  return {'row': row, 'x': by_class}


def make_reference(dataset: splits.Dataset, judge: judge_lib.Judge) -> Reference:
  """What every row is compared with."""
  _, features = judge(dataset.test.x)
  return Reference(
    {
      name: metrics.class_sets(*split)
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
  judge: judge_lib.Judge,
  reference: Reference,
) -> dict[str, float]:
  """All metrics of one set of samples; `by_class` holds the same ones."""
  log_prob, features = judge(x)
  return {
    **{
      f'energy_{name}': metrics.class_conditional_energy(by_class, split)
      for name, split in reference.splits.items()
    },
    'frechet_pixels': metrics.frechet_distance(
      metrics.fit_gaussian(x), reference.pixels
    ),
    'frechet_features': metrics.frechet_distance(
      metrics.fit_gaussian(features), reference.features
    ),
    **metrics.classification(log_prob, label),
  }


def real_rows(
  dataset: splits.Dataset, judge: judge_lib.Judge, reference: Reference
) -> list[dict[str, Any]]:
  """The floor: how far real data are from real data."""
  splits_by_class = dict(reference.splits)
  train = splits_by_class.pop('train')
  real = compute_metrics(
    *dataset.train, train, judge, reference._replace(splits=splits_by_class)
  )
  # The training set is no distance from itself; real against real is symmetric.
  real['energy_train'] = real['energy_test']
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


def real_samples(dataset: splits.Dataset) -> np.ndarray:
  """Test data by class, `[num_classes, n, *data]`, n of the smallest class."""
  x, label = dataset.test
  n = np.bincount(label).min()
  return np.stack([x[label == c][:n] for c in range(dataset.num_classes)])


if __name__ == '__main__':
  launch.main(lambda flags: run(flags.config, flags.workdir), needs_config=False)
