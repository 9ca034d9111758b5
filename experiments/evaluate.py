"""Compares every guidance weight on one base model, on equal terms.

  python -m experiments.evaluate --workdir=runs/digits

Reads the config from the checkpoint; with `--config=...`, its sections that say how to
sample and where data lie are used instead (docs/commands.md). All methods are tables of
one compiled sampler, drawn from the same seeds. Grids are chosen on validation data and
reported on test data. Writes results.json, results.md and plots/. What is measured is
kept until then: the same command resumes.
"""

import functools
import itertools
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import config_dict

from experiments import app
from experiments import builders
from experiments import judges
from experiments import report
from experiments import sampling
from experiments import workdirs
from lgd import guidance
from lgd import metrics
from lgd.data import splits


def run(config: config_dict.ConfigDict | None, workdir: str) -> list[dict[str, Any]]:
  """Evaluates, writes results and figures, and returns the rows."""
  session = workdirs.open_trained(config, workdir)
  workdir, config, spec = session
  dataset = builders.data.load_classes(config, spec)
  params = workdirs.base_model.load_denoiser(session)
  weights, classes = workdirs.weights.load_all(session), np.arange(dataset.num_classes)
  learned = [
    sampling.methods.learned_method(config, name, weight, classes, kappa=kappa)
    for name, weight in weights.items()
    for kappa in strengths(weight, config.evaluation.kappas)
  ]
  methods = grid_methods(config, dataset.num_classes) + learned

  pieces = workdirs.open_pieces(session, 'evaluate')
  judge = judges.classifiers.train_judge(config, dataset, pieces)
  reference = report.class_metrics.make_reference(
    dataset, judge, num_blocks=num_blocks(config, dataset)
  )
  sampler = sampling.methods.ClassSampler(session, dataset, params)
  rows, samples = evaluate_methods(sampler, methods, judge, reference, pieces)
  rows = report.class_metrics.real_rows(dataset, judge, reference) + rows
  if jax.process_index() == 0:
    report.classes.write(
      workdir.path,
      rows,
      samples={'real': real_samples(dataset), **samples},
      tables={m.name: np.asarray(m.table) for m in learned if not m.params},
      gammas=report.rows.gammas(weights),
      verdicts={name: w.kappa for name, w in weights.items() if w.verdict is not None},
      times=np.asarray(builders.models.time_grid(config))[:-1],
    )
  pieces.remove()
  return rows


def grid_methods(
  config: config_dict.ConfigDict, num_classes: int
) -> list[sampling.methods.Method]:
  """Unguided, constants, intervals and clamp-linear schedules."""
  section = config.evaluation
  methods = sampling.methods.grid_methods(config, num_classes)
  for omega, floor in itertools.product(
    section.clamp_linear_omegas, section.clamp_linear_floors
  ):
    weight = guidance.clamp_linear(omega, floor)
    methods.append(
      sampling.methods.given_method(
        config, num_classes, 'clamp_linear', weight, omega=omega, floor=floor
      )
    )
  return methods


def strengths(
  weight: workdirs.weights.LearnedWeight, kappas: Sequence[float]
) -> list[float | None]:
  """Strengths of a learned weight: that of its verdict, and of networks all `kappas`.

  Where the verdict is not strength 1, that is among them.
  """
  others = () if weight.is_table else kappas
  if weight.kappa != 1.0:
    others = (*others, 1.0)
  return [None, *others]


def evaluate_methods(
  sampler: sampling.methods.ClassSampler,
  methods: list[sampling.methods.Method],
  judge: judges.classifiers.Judge,
  reference: report.class_metrics.Reference,
  pieces: app.Pieces,
) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
  """A row for every method and seed, and samples of the first seed by method."""
  first, num_seeds = sampler.config.seed, sampler.config.evaluation.num_seeds
  rows, samples = [], {}
  progress = pieces.progress('evaluate', len(methods))
  for i, method in enumerate(methods):
    for seed in range(first, first + num_seeds):
      make = functools.partial(measure, sampler, method, seed, judge, reference)
      piece = pieces.get([method.identity, seed], make)
      rows.append(piece['row'])
      if seed == first:
        samples[method.key] = piece['x']
    energy = np.mean([row['metrics']['energy_test'] for row in rows[-num_seeds:]])
    progress.log(i + 1, f'{method.key}  energy_test {energy:.4f}')
  return rows, samples


def num_blocks(config: config_dict.ConfigDict, dataset: splits.Dataset) -> int:
  """Of the jackknife of every distance; 0 where a class is too small for one."""
  smallest = min(
    config.evaluation.samples_per_class,
    *(np.bincount(split.label).min() for split in dataset[:3]),
  )
  return config.verdict.num_blocks if smallest >= 3 else 0


def measure(
  sampler: sampling.methods.ClassSampler,
  method: sampling.methods.Method,
  seed: int,
  judge: judges.classifiers.Judge,
  reference: report.class_metrics.Reference,
) -> app.Piece:
  """The row of a method and seed, and with the first seed its samples by class."""
  config, label = sampler.config, sampler.label
  x, _ = sampler.sample(method, seed)
  blocks = reference.splits['test'].num_blocks
  by_class = metrics.class_sets(x, label, num_blocks=blocks)
  row = {
    'method': method.name,
    'params': method.params,
    'seed': seed,
    'num_samples': len(label),
    'num_steps': config.evaluation.num_steps,
    'nfe': sampler.count_nfe(method),
    'learning_evaluations': method.cost,
    'kappa': method.kappa,
    'omega': None if method.table is None else float(np.mean(method.table)),
    'metrics': report.class_metrics.compute_metrics(
      x, label, by_class, judge, reference
    ),
  }
  if seed != config.seed:
    return {'row': row}
  shape = (sampler.dataset.num_classes, -1, *sampler.dataset.shape)
  return {'row': row, 'x': x.reshape(shape)}


def real_samples(dataset: splits.Dataset) -> np.ndarray:
  """Test data by class, `[num_classes, n, *data]`, n of the smallest class."""
  x, label = dataset.test
  n = np.bincount(label).min()
  return np.stack([x[label == c][:n] for c in range(dataset.num_classes)])


if __name__ == '__main__':
  app.main(lambda flags: run(flags.config, flags.workdir), needs_config=False)
