"""Trains a grid of guidance settings side by side, from one set of statistics.

  python -m experiments.sweep --config=configs/digits.py --workdir=runs/digits

The denoiser is evaluated for the statistics (once, `collect_statistics`) and to sample
from the learned weights, never to train them: all combinations of `config.sweep` are
trained by one vmapped step. Each is then sampled, and the setting whose mean energy
distance to validation data over its seeds is smallest is chosen: a stated rule that
does not see test data. Writes sweep/results.json, results.md and a figure per axis.
"""

import itertools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from etils import epath
from ml_collections import config_dict

from experiments import builders
from experiments import datasets
from experiments import launch
from experiments import restoring
from experiments import results as results_lib
from experiments import sampler
from experiments import side_by_side
from experiments import stores
from experiments import train_guidance
from experiments import validation
from experiments import workdir as workdir_lib
from lgd import arrays
from lgd import files
from lgd import metrics
from lgd import objectives
from lgd import plots
from lgd import reporting
from lgd import types
from lgd.data import splits

AXES = (
  'num_particles', 'beta', 'interaction', 'gap', 's_min', 'churn', 'learning_rate'
)  # fmt: skip


def run(config: config_dict.ConfigDict, workdir: str) -> list[dict[str, Any]]:
  """Trains and evaluates the grid, and returns its rows."""
  validation.validate(config)
  validation.require_learnable(config)
  workdir = workdir_lib.Workdir(workdir)
  train_guidance.require_finished_base(workdir, config)
  if config.guidance.weight != 'network':
    raise launch.UserError(
      f'guidance.weight={config.guidance.weight!r}: a sweep trains networks; use'
      ' --config.guidance.weight=network.'
    )
  config = stores.with_kind_of_objective(config)
  config.guidance.source = 'statistics'
  for key in ('num_steps', 'batch_size'):
    config.guidance[key] = config.sweep[key]
  grid = make_grid(config)
  for point in grid:  # Each must be a valid guidance config.
    config.guidance.update({axis: point[axis] for axis in AXES})
    validation.validate(config)
  builders.log_config(config)
  dataset = datasets.load_classes(config)
  store, num_evaluations = stores.load(config, workdir)
  t = np.asarray(store.t)
  for point in grid:
    reach = builders.overridden(config.guidance, point)
    stores.require_reach(t, reach, 'the statistics')
  params = restoring.load_pair(workdir, config, dataset.spec)

  tabulate = sampler.make_tabulate(config, builders.weight_model(config, dataset.spec))
  classes = np.arange(dataset.num_classes)
  start, tables = time.perf_counter(), []
  for m in config.sweep.num_particles:  # The shapes of a training depend on it.
    group = [point for point in grid if point['num_particles'] == m]
    learned = train(config, store, group, num_particles=m)
    tables.append(jax.lax.map(lambda params: tabulate(params, classes), learned))
  trained = time.perf_counter() - start
  logging.info('sweep: %d trainings in %.0f s', len(grid), trained)
  distances = evaluate(config, dataset, params, np.concatenate(tables))
  rows = [
    {**point, **measured} for point, measured in zip(grid, distances, strict=True)
  ]
  seconds = {'training': trained, 'all': time.perf_counter() - start}
  if jax.process_index() == 0:
    write(workdir.path / 'sweep', rows, num_evaluations, seconds)
  return rows


def make_grid(config: config_dict.ConfigDict) -> list[dict[str, float]]:
  """All combinations, with a seed each, `num_particles` outermost."""
  values = [config.sweep[axis] for axis in AXES]
  seeds = range(config.seed, config.seed + config.sweep.num_seeds)
  return [
    dict(zip((*AXES, 'seed'), point, strict=True))
    for point in itertools.product(*values, seeds)
  ]


def train(
  config: config_dict.ConfigDict,
  store: objectives.Store,
  group: list[dict[str, float]],
  *,
  num_particles: int,
) -> types.Params:
  """Averaged parameters of every point of `group`, along a leading axis."""
  config = config.copy_and_resolve_references()
  config.guidance.num_particles = num_particles

  def streams(name):
    return jnp.stack([arrays.stream(point['seed'], name) for point in group])

  states = side_by_side.train(
    config,
    store,
    group,
    traced=('beta', 'interaction', 'gap', 's_min', 'churn', 'learning_rate'),
    init_keys=streams('sweep/init'),
    keys=streams('sweep'),
    num_steps=config.sweep.num_steps,
    stage='sweep',
  )
  return states.ema_params


def evaluate(
  config: config_dict.ConfigDict,
  dataset: splits.Dataset,
  params: types.Params,
  tables: np.ndarray,
) -> list[dict[str, float]]:
  """Energy distances of samples to validation and test data, for every table.

  All tables are sampled from the same noise, so that their differences are paired.
  """
  label = sampler.balanced_labels(dataset.num_classes, config.sweep.samples_per_class)
  sample_fn = sampler.make_sample_fn(config, dataset.spec)
  keys = sampler.sample_keys(config.seed, np.arange(len(label)))
  reference = {
    f'energy_{name}': metrics.class_sets(*getattr(dataset, name))
    for name in ('validation', 'test')
  }
  rows, start = [], time.perf_counter()
  for i, table in enumerate(tables):
    x = sample_fn(params, table[label], keys, label)
    by_class = metrics.class_sets(x, label)
    rows.append(
      {
        'omega_mean': float(table.mean()),
        'omega_max': float(table.max()),
        **{
          name: metrics.class_conditional_energy(by_class, split)
          for name, split in reference.items()
        },
      }
    )
    if (i + 1) % max(1, len(tables) // 4) == 0:
      elapsed = time.perf_counter() - start
      logging.info(
        'sweep: sampled %d/%d  ETA %s',
        i + 1,
        len(tables),
        reporting.eta(elapsed, i + 1, len(tables)),
      )
  return rows


def average_seeds(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
  """One row per setting: means over its seeds, best validation energy first."""
  groups: dict[tuple, list[dict[str, Any]]] = {}
  for row in rows:
    groups.setdefault(tuple(row[axis] for axis in AXES), []).append(row)
  averaged = []
  for group in groups.values():
    measured = group[0].keys() - {*AXES, 'seed'}
    means = {name: float(np.mean([r[name] for r in group])) for name in measured}
    std = float(np.std([r['energy_validation'] for r in group]))
    averaged.append(
      {**{a: group[0][a] for a in AXES}, **means, 'energy_validation_std': std}
    )
  return sorted(averaged, key=lambda row: row['energy_validation'])


def write(
  path: epath.Path,
  rows: list[dict[str, Any]],
  num_evaluations: int,
  seconds: dict[str, float],
) -> None:
  """results.json, results.md and a figure per axis that has several values."""
  path.mkdir(parents=True, exist_ok=True)
  for old in path.glob('*.png'):  # Of another grid.
    old.unlink()
  files.write_json(path / 'results.json', rows)
  settings = average_seeds(rows)
  axes = [axis for axis in AXES if len({row[axis] for row in settings}) > 1]
  text = to_markdown(settings, axes, len(rows), num_evaluations, seconds)
  (path / 'results.md').write_text(text)
  print(text)
  for axis in axes:
    plots.sweep_axis(
      path / f'{axis}.png',
      axis,
      np.array([row[axis] for row in settings]),
      np.array([row['energy_validation'] for row in settings]),
      np.array([row['energy_test'] for row in settings]),
    )


def to_markdown(
  settings: list[dict[str, Any]],
  axes: list[str],
  num_trainings: int,
  num_evaluations: int,
  seconds: dict[str, float],
) -> str:
  """The chosen setting, what each axis does, and every setting."""
  best = settings[0]
  chosen = ', '.join(f'{axis} {best[axis]:g}' for axis in AXES)
  lines = [
    '# Sweep',
    '',
    f'{num_trainings} trainings in {seconds["training"]:.0f} s, with their evaluation'
    f' {seconds["all"]:.0f} s, from one set of statistics of {num_evaluations:,}'
    ' denoiser evaluations. Energy distances are means over training seeds.',
    '',
    f'Chosen, by the smallest energy distance to validation data: {chosen}; validation'
    f' {best["energy_validation"]:.4f} (+- {best["energy_validation_std"]:.4f} over'
    f' seeds), test {best["energy_test"]:.4f}.',
    '',
  ]
  for axis in axes:
    by_value = {}
    for row in settings:
      by_value.setdefault(row[axis], []).append(row)
    lines += [
      f'## {axis}',
      '',
      *results_lib.table(
        (axis, 'validation, mean', 'validation, best', 'test, mean', 'omega, mean'),
        [
          (
            f'{value:g}',
            f'{np.mean([r["energy_validation"] for r in group]):.4f}',
            f'{min(r["energy_validation"] for r in group):.4f}',
            f'{np.mean([r["energy_test"] for r in group]):.4f}',
            f'{np.mean([r["omega_mean"] for r in group]):.3f}',
          )
          for value, group in sorted(by_value.items())
        ],
      ),
      '',
    ]
  lines += [
    '## All settings',
    '',
    *results_lib.table(
      (*axes, 'validation', '+- over seeds', 'test', 'omega, mean', 'omega, max'),
      [
        (
          *(f'{row[axis]:g}' for axis in axes),
          f'{row["energy_validation"]:.4f}',
          f'{row["energy_validation_std"]:.4f}',
          f'{row["energy_test"]:.4f}',
          f'{row["omega_mean"]:.3f}',
          f'{row["omega_max"]:.3f}',
        )
        for row in settings
      ],
    ),
  ]
  return '\n'.join(lines) + '\n'


if __name__ == '__main__':
  launch.main(lambda flags: run(flags.config, flags.workdir), needs_config=True)
