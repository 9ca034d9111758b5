r"""Every rule and schedule against the learned weights, at several step counts.

  python -m experiments.compare --config=configs/digits.py --workdir=runs/digits
  ... --config.compare.match=mean     # Schedules of the learned weights' mean instead.
  ... --config.compare.match=nfe      # As many steps as 2 num_steps evaluations pay.

One base model, one set of seeds. The strength of every hand-made method is searched on
validation data with one seed, over `config.compare.omegas`, and reported on test data;
the evaluations of the search stand beside those that learning took. Writes
compare/results.json, results.md and nfe.png.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import logging
from ml_collections import config_dict

from experiments import arena as arena_lib
from experiments import builders
from experiments import datasets
from experiments import evaluate
from experiments import judge as judge_lib
from experiments import launch
from experiments import learned_weights
from experiments import methods as methods_lib
from experiments import restoring
from experiments import results as results_lib
from experiments import workdir as workdir_lib
from lgd import files
from lgd import guidance
from lgd import metrics
from lgd import plots
from lgd import reporting
from lgd.data import splits

COLUMNS = (
  ('energy_test', 'energy, test'),
  ('frechet_features', 'Frechet, features'),
  ('accuracy', 'accuracy'),
  ('log_inverse_prob', 'log mean 1/p(c given x)'),
)


def run(config: config_dict.ConfigDict | None, workdir: str) -> list[dict[str, Any]]:
  """Compares, writes and returns the rows."""
  workdir = workdir_lib.Workdir(workdir)
  config = restoring.resolve_config(workdir, config)
  builders.log_config(config)
  dataset = datasets.load_classes(config)
  learned = arena_lib.load_learned(workdir, config, dataset.spec)
  require_comparable(config, dataset.spec, learned)
  params, _ = restoring.load_denoiser(workdir, dataset.spec, builders.mesh(config))
  judge = judge_lib.train_judge(config, dataset)
  classifier = None
  if not set(methods_lib.REWARDED).isdisjoint(families(config)):
    classifier = judge_lib.train_reward(config, dataset)
  reference = evaluate.make_reference(dataset, judge)
  rows = evaluate.real_rows(dataset, judge, reference)

  @functools.cache  # What an arena has compiled serves all methods.
  def arena_at(num_steps):
    at_steps = with_steps(config, num_steps)
    return arena_lib.Arena(at_steps, dataset, params, classifier)

  for num_steps in config.compare.num_steps:
    entries = gather(arena_at, num_steps, learned)
    for i, (arena, method) in enumerate(entries):
      new = measure(arena, num_steps, method, judge, reference)
      rows += new
      logging.info(
        'compare %d steps, %d/%d  %s  energy_test %.4f  nfe %g',
        num_steps,
        i + 1,
        len(entries),
        results_lib.key(method.name, method.params),
        np.mean([row['metrics']['energy_test'] for row in new]),
        new[0]['nfe'],
      )
    if jax.process_index() == 0:
      write(workdir.path / 'compare', rows)
  return rows


def require_comparable(
  config: config_dict.ConfigDict,
  spec: splits.Spec,
  learned: dict[str, learned_weights.LearnedWeight],
) -> None:
  """Refuses what would fail later.

  Raises:
    launch.UserError: a reference that is not there, or a family that cannot be used.
  """
  section = config.compare
  if section.match == 'mean' and section.reference not in learned:
    raise launch.UserError(
      f'compare.reference={section.reference!r}: must be one of the learned weights'
      f' here, {list(learned)}.'
    )
  for name in families(config):
    methods_lib.require_usable(name, config)
    if section.match == 'mean' and name in methods_lib.REWARDED:
      raise launch.UserError(
        f"compare.match='mean': {name} has a rate and no weight; leave it out of"
        ' --config.compare.methods.'
      )
  if 'autoguidance' in families(config):
    rule = methods_lib.rule_of('autoguidance', config)
    restoring.load_weak(methods_lib.with_rule(config, rule), spec)


def with_steps(config: config_dict.ConfigDict, num_steps: int):
  """The config with another number of sampling steps."""
  config = config.copy_and_resolve_references()
  config.evaluation.num_steps = num_steps
  return config


def families(config: config_dict.ConfigDict) -> tuple[str, ...]:
  """The hand-made methods to compare; if none is named, all that `config` allows."""
  if config.compare.methods:
    return config.compare.methods
  names = methods_lib.usable(config)
  if config.compare.match == 'mean':
    names = tuple(name for name in names if name not in methods_lib.REWARDED)
  return names


def gather(
  arena_at: Callable[[int], arena_lib.Arena],
  num_steps: int,
  learned: dict[str, learned_weights.LearnedWeight],
) -> list[tuple[arena_lib.Arena, arena_lib.Method]]:
  """Unguided, all learned weights, and every family, searched or matched.

  Each comes with the arena that it is measured in: at the steps asked for, or at as
  many as 2 evaluations each would pay.
  """
  here = arena_at(num_steps)
  config, dataset = here.config, here.dataset

  def arena_for(method):
    if config.compare.match != 'nfe':
      return here
    return arena_at(round(2 * num_steps * num_steps / here.count_nfe(method)))

  unguided = arena_lib.Method('unguided', {}, config.rule, None)
  entries = [(arena_for(unguided), unguided)]
  for name, weight in learned.items():
    method = arena_lib.learned_method(config, dataset.spec, name, weight)
    arena = arena_for(method)
    if arena is not here:
      method = arena_lib.learned_method(arena.config, dataset.spec, name, weight)
    entries.append((arena, method))
  if config.compare.match == 'mean':
    given = matched_methods(config, [method for _, method in entries[1:]])
    return entries + [(here, method) for method in given]
  start, names = time.perf_counter(), families(config)
  for i, name in enumerate(names):
    weakest = strengths(config, name)[0]
    arena = arena_for(given_method(config, dataset.num_classes, name, weakest))
    entries.append((arena, searched_method(arena, name)))
    logging.info(
      'search %d steps, %d/%d  %s  ETA %s',
      num_steps,
      i + 1,
      len(names),
      results_lib.key(name, entries[-1][1].params),
      reporting.eta(time.perf_counter() - start, i + 1, len(names)),
    )
  return entries


def strengths(config: config_dict.ConfigDict, name: str) -> tuple[float, ...]:
  """Those that a family is searched over."""
  is_rate = name in methods_lib.REWARDED
  return config.compare.rates if is_rate else config.compare.omegas


def given_method(
  config: config_dict.ConfigDict, num_classes: int, name: str, omega: float
) -> arena_lib.Method:
  """A hand-made method, the same for all classes."""
  row = methods_lib.schedule(name, omega, config)
  table = np.tile(row, (num_classes, 1))
  rule = methods_lib.rule_of(name, config)
  strength = 'rate' if name in methods_lib.REWARDED else 'omega'
  return arena_lib.Method(name, {strength: omega}, rule, table)


def searched_method(arena: arena_lib.Arena, name: str) -> arena_lib.Method:
  """The strength of a family that brings samples closest to validation data."""
  config, dataset = arena.config, arena.dataset
  found, cost = [], 0.0
  for strength in strengths(config, name):
    method = given_method(config, dataset.num_classes, name, strength)
    cost += arena.count_nfe(method) * len(arena.label)
    try:
      x, _ = arena.sample(method, config.seed)
    except reporting.NonFiniteError as error:
      logging.warning('%s', error)
      continue
    by_class = arena.class_sets(method, x)
    energy = metrics.class_conditional_energy(by_class, arena.validation)
    found.append((energy, strength))
  if not found:
    raise reporting.NonFiniteError(
      f'{name}: no samples are finite; take smaller values of config.compare.omegas or'
      ' rates, or leave it out of config.compare.methods.'
    )
  best = given_method(config, dataset.num_classes, name, min(found)[1])
  return best._replace(cost=round(cost))


def matched_methods(
  config: config_dict.ConfigDict, learned: list[arena_lib.Method]
) -> list[arena_lib.Method]:
  """Every family at the mean weight of a learned one, averaged over classes.

  Raises:
    launch.UserError: its mean, or that of a family, is 0 on this grid.
  """
  name, times = config.compare.reference, builders.time_grid(config)
  table = next(m.table for m in learned if m.name == name)
  mean = float(guidance.mean_in_time(table, times).mean())
  if mean <= 0.0:
    raise launch.UserError(
      f'compare.reference={name!r}: has mean 0, which no schedule is to be compared at;'
      ' choose another.'
    )
  methods = []
  for family in families(config):
    rows = methods_lib.schedule(family, 1.0, config)[None]
    # These are in proportion to w = 1 + omega.
    in_w = ('beta_schedule', 'beta_cfg', 'cfg_plus_plus')
    shift = 1.0 if family in in_w else 0.0
    try:
      rows = guidance.matched_mean(shift + rows, shift + mean, times) - shift
    except ValueError as error:
      raise launch.UserError(
        f'compare.match=mean: {family} on this grid: {error}'
      ) from error
    matched = np.tile(rows, (len(table), 1))
    rule = methods_lib.rule_of(family, config)
    methods.append(arena_lib.Method(family, {'omega': mean}, rule, matched))
  return methods


def measure(
  arena: arena_lib.Arena,
  asked: int,
  method: arena_lib.Method,
  judge: judge_lib.Judge,
  reference: evaluate.Reference,
) -> list[dict[str, Any]]:
  """The rows of a method, one for each seed; its time is that of the fastest one.

  Args:
    arena: where it is measured.
    asked: the number of steps that it is listed under.
    method: the method.
    judge: the classifier of the metrics.
    reference: the data.
  """
  config, section = arena.config, arena.config.evaluation
  row = {
    'method': method.name,
    'params': method.params,
    'rule': method.rule.name,
    'mean_omega': None if method.table is None else float(np.mean(method.table)),
    'num_samples': len(arena.label),
    'asked_steps': asked,
    'num_steps': section.num_steps,
    'nfe': arena.count_nfe(method),
    'learning_evaluations': method.cost,
  }
  rows, seconds = [], []
  arena.sample(method, config.seed)  # Compiles.
  for seed in range(config.seed, config.seed + section.num_seeds):
    x, taken = arena.sample(method, seed)
    seconds.append(taken)
    by_class = arena.class_sets(method, x)
    values = evaluate.compute_metrics(x, arena.label, by_class, judge, reference)
    rows.append(row | {'seed': seed, 'metrics': values})
  return [row | {'seconds': min(seconds)} for row in rows]


def write(path, rows: list[dict[str, Any]]) -> None:
  """The rows, a table for each step count, and energy distance against NFE."""
  files.write_json(path / 'results.json', rows)
  floor, *rows = rows
  lines = [
    '# Comparison',
    '',
    'Mean +- standard deviation over sampling seeds; in brackets and under w = 1 +'
    ' omega the strength, for learned weights its mean. Cost: denoiser evaluations of'
    ' the search on validation data, or of learning. MPGD and Stein also evaluate the'
    " gradient of a classifier of the judge's training data, once a step; Stein's"
    ' samples are drawn in groups, whose own pairs are left out of the distance. Real'
    f' against real: energy {floor["metrics"]["energy_test"]:.4f}, Frechet, features'
    f' {floor["metrics"]["frechet_features"]:.3g}.',
  ]
  by_steps = {
    asked: [row for row in rows if row['asked_steps'] == asked]
    for asked in sorted({row['asked_steps'] for row in rows})
  }
  lines += ['', '## Energy distance to test data', '', *overview(by_steps)]
  for asked, some in by_steps.items():
    lines += ['', f'## {asked} steps', '', *table_of(some)]
  (path / 'results.md').write_text('\n'.join(lines) + '\n')
  curves: dict[str, list[tuple[float, float]]] = {}
  for some in by_steps.values():
    for summary in results_lib.summarise(some):
      point = summary.nfe, summary.mean('energy_test')
      curves.setdefault(summary.method, []).append(point)
  plots.distance_against_evaluations(
    path / 'nfe.png',
    {name: np.array(points) for name, points in curves.items()},
    [name for name in curves if not is_given(name)],
  )


def overview(by_steps: dict[int, list[dict[str, Any]]]) -> list[str]:
  """A Markdown table of methods by step counts, the smallest mean rank first."""
  cells, ranks = {}, {}
  for rows in by_steps.values():
    ordered = sorted(results_lib.summarise(rows), key=lambda s: s.mean('energy_test'))
    for rank, s in enumerate(ordered):
      strength = results_lib.strength(s)
      cell = results_lib.cell(s, 'energy_test') + (strength and f' ({strength})')
      cells.setdefault(shown(s.method), []).append(cell)
      ranks.setdefault(shown(s.method), []).append(rank)
  names = sorted(cells, key=lambda name: np.mean(ranks[name]))
  return results_lib.table(
    ('method', *(f'{asked} steps' for asked in by_steps)),
    [(name, *cells[name]) for name in names],
  )


def shown(method: str) -> str:
  """The name of a method; learned ones stand out."""
  return method if is_given(method) else f'**{method}**'


def is_given(method: str) -> bool:
  """Whether a method is hand-made, or unguided."""
  return method in (*methods_lib.FAMILIES, 'unguided')


def table_of(rows: list[dict[str, Any]]) -> list[str]:
  """A Markdown table of one step count, the smallest test energy first."""
  summaries = results_lib.summarise(rows)
  first = {results_lib.key(row['method'], row['params']): row for row in reversed(rows)}
  summaries.sort(key=lambda s: s.mean('energy_test'))
  header = ('method', 'rule', 'w', *(title for _, title in COLUMNS))
  cells = []
  for s in summaries:
    row = first[s.key]
    cells.append(
      (
        shown(s.method),
        row['rule'],
        results_lib.strength(s) or mean_strength(row),
        *(results_lib.cell(s, metric) for metric, _ in COLUMNS),
        f'{s.nfe:.4g}',
        f'{row["seconds"]:.2f}',
        f'{s.learning_evaluations:,}' if s.learning_evaluations else '',
      )
    )
  return results_lib.table((*header, 'NFE', 'seconds', 'cost'), cells)


def mean_strength(row: dict[str, Any]) -> str:
  """Mean w of a learned weight over classes and steps."""
  omega = row['mean_omega']
  return '' if omega is None else f'mean {1.0 + omega:.3g}'


if __name__ == '__main__':
  launch.main(lambda flags: run(flags.config, flags.workdir), needs_config=False)
