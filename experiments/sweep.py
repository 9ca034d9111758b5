"""Trains a grid of guidance settings side by side, from one set of statistics.

  python -m experiments.sweep --config=configs/digits.py --workdir=runs/digits

The denoiser is evaluated for the statistics (once, `collect_statistics`) and to sample
from the learned weights, never to train them: all combinations of `config.sweep` are
trained by one vmapped step. Each is then sampled, and the setting whose mean energy
distance to validation data over its seeds is smallest is chosen: a stated rule that
does not see test data. Writes sweep/results.json, results.md and a figure per axis.
What is trained and measured is kept until then: the same command resumes.
"""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import config_dict

from experiments import app
from experiments import builders
from experiments import learning
from experiments import report
from experiments import sampling
from experiments import validation
from experiments import workdirs
from lgd import arrays
from lgd import errors
from lgd import metrics
from lgd import objectives
from lgd import types
from lgd.data import splits


def run(config: config_dict.ConfigDict, workdir: str) -> list[dict[str, Any]]:
  """Trains and evaluates the grid, and returns its rows."""
  session = workdirs.open_to_learn(config, workdir)
  if config.guidance.weight != 'network':
    raise errors.InputError(
      f'guidance.weight={config.guidance.weight!r}: a sweep trains networks; use'
      ' --config.guidance.weight=network.'
    )
  session = workdirs.statistics.for_objective(session)
  config, spec = session.config, session.spec
  config.guidance.source = 'statistics'
  for key in ('num_steps', 'batch_size'):
    config.guidance[key] = config.sweep[key]
  grid = make_grid(config)
  for point in grid:  # Each must be a valid guidance config.
    config.guidance.update({axis: point[axis] for axis in report.sweep.AXES})
    validate_point(config)
  dataset = builders.data.load_classes(config, spec)
  store, num_evaluations = workdirs.statistics.load(session)
  t = np.asarray(store.t)
  for point in grid:
    reach = builders.models.overridden(config.guidance, point)
    workdirs.statistics.require_reach(t, reach, 'the statistics')
  params = workdirs.base_model.load_pair(session)
  identity = workdirs.identity.statistics_identity(session)
  pieces = workdirs.open_pieces(session, 'sweep', statistics=identity)
  tabulate = sampling.sampler.make_tabulate(
    config, builders.models.weight_model(config, spec)
  )
  tabulate = functools.partial(tabulate, label=np.arange(dataset.num_classes))
  tables = []
  for m in config.sweep.num_particles:  # The shapes of a training depend on it.
    group = [point for point in grid if point['num_particles'] == m]
    make = functools.partial(make_tables, session, store, group, tabulate)
    tables.append(pieces.get(['tables', group], make)['tables'])
  trained = pieces.seconds
  logging.info('sweep: %d trainings in %.0f s', len(grid), trained)
  of_rule = sampling.sampler.make_rule_sampler(config, spec, params)
  rows = evaluate(config, dataset, of_rule, grid, np.concatenate(tables), pieces)
  seconds = {'training': trained, 'all': pieces.seconds}
  if jax.process_index() == 0:
    report.sweep.write(session.workdir.path / 'sweep', rows, num_evaluations, seconds)
  pieces.remove()
  return rows


def validate_point(config: config_dict.ConfigDict) -> None:
  """Validates a point of the grid; a message names its axis."""
  try:
    validation.validate(config)
  except errors.InputError as error:
    for axis in report.sweep.AXES:
      if str(error).startswith(f'guidance.{axis}='):
        values = config.sweep[axis]
        raise errors.InputError(f'sweep.{axis}={values}: there {error}') from error
    raise


def make_grid(config: config_dict.ConfigDict) -> list[dict[str, float]]:
  """All combinations, with a seed each, `num_particles` outermost."""
  values = [config.sweep[axis] for axis in report.sweep.AXES]
  seeds = range(config.seed, config.seed + config.sweep.num_seeds)
  return [
    dict(zip((*report.sweep.AXES, 'seed'), point, strict=True))
    for point in itertools.product(*values, seeds)
  ]


def train(
  session: workdirs.Session,
  store: objectives.Store,
  group: list[dict[str, float]],
  *,
  num_particles: int,
) -> types.Params:
  """Averaged parameters of every point of `group`, along a leading axis."""
  config = session.config.copy_and_resolve_references()
  config.guidance.num_particles = num_particles

  def streams(name):
    return jnp.stack([arrays.stream(point['seed'], name) for point in group])

  states = learning.side_by_side.train(
    config,
    session.spec,
    store,
    group,
    traced=('beta', 'interaction', 'gap', 's_min', 'churn', 'learning_rate'),
    init_keys=streams('sweep/init'),
    keys=streams('sweep'),
    num_steps=config.sweep.num_steps,
    stage='sweep',
  )
  return states.ema_params


def make_tables(
  session: workdirs.Session,
  store: objectives.Store,
  group: list[dict[str, float]],
  tabulate: Callable[[types.Params], jax.Array],
) -> app.Piece:
  """The weights of points of one `num_particles`, `[points, classes, num_steps]`."""
  learned = train(session, store, group, num_particles=group[0]['num_particles'])
  return {'tables': np.asarray(jax.lax.map(tabulate, learned))}


def evaluate(
  config: config_dict.ConfigDict,
  dataset: splits.Dataset,
  of_rule: sampling.sampler.RuleSampler,
  grid: list[dict[str, float]],
  tables: np.ndarray,
  pieces: app.Pieces,
) -> list[dict[str, float]]:
  """Energy distances of samples to validation and test data, for every point.

  All tables are sampled from the same noise, so that their differences are paired.
  """
  label = sampling.sampler.balanced_labels(
    dataset.num_classes, config.sweep.samples_per_class
  )
  reference = {
    f'energy_{name}': metrics.class_sets(*getattr(dataset, name))
    for name in ('validation', 'test')
  }

  def measure(point, table):
    x = of_rule.draw(table[label], label, name=f'sweep, {point}', seed=config.seed)
    by_class = metrics.class_sets(x, label)
    return {
      'omega_mean': float(table.mean()),
      'omega_max': float(table.max()),
      **{
        name: metrics.class_conditional_energy(by_class, split)
        for name, split in reference.items()
      },
    }

  rows, progress = [], pieces.progress('sweep: sampled', len(tables))
  for i, (point, table) in enumerate(zip(grid, tables, strict=True)):
    measured = pieces.get([point, table], functools.partial(measure, point, table))
    rows.append(point | measured)
    if (i + 1) % max(1, len(tables) // 4) == 0:
      progress.log(i + 1)
  return rows


if __name__ == '__main__':
  app.main(lambda flags: run(flags.config, flags.workdir), needs_config=True)
