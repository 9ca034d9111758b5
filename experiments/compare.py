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
from experiments import methods as methods_lib
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
  config = workdir_lib.resolve_config(workdir, config)
  builders.log_config(config)
  dataset = datasets.load_classes(config)
  learned = arena_lib.load_learned(workdir, dataset.spec)
  require_comparable(config, learned)
  params, _ = workdir_lib.load_denoiser(workdir, dataset.spec, builders.mesh(config))
  judge = judge_lib.train_judge(config, dataset)
  classifier = judge_lib.train_reward(config, dataset)
  reference = evaluate.make_reference(dataset, judge)
  rows = evaluate.real_rows(dataset, judge, reference)

  @functools.cache  # What an arena has compiled serves all methods.
  def arena_at(num_steps):
    at_steps = with_steps(config, num_steps)
    return arena_lib.Arena(at_steps, dataset, params, classifier)

  for num_steps in config.compare.num_steps:
    methods = gather(arena_at(num_steps), learned)
    for i, method in enumerate(methods):
      new = measure(arena_at, num_steps, learned, method, judge, reference)
      rows += new
      logging.info(
        'compare %d steps, %d/%d  %s  energy_test %.4f  nfe %g',
        num_steps,
        i + 1,
        len(methods),
        results_lib.key(method.name, method.params),
        np.mean([row['metrics']['energy_test'] for row in new]),
        new[0]['nfe'],
      )
    if jax.process_index() == 0:
      write(workdir.path / 'compare', rows)
  return rows


def require_comparable(
  config: config_dict.ConfigDict, learned: dict[str, workdir_lib.LearnedWeight]
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
  # Neighbours are dealt to the devices in turn.
  group = config.rule.num_particles * builders.mesh(config).size
  if 'stein' in families(config) and config.evaluation.samples_per_class % group:
    raise launch.UserError(
      f'evaluation.samples_per_class={config.evaluation.samples_per_class}: stein needs'
      f' a multiple of {group}, rule.num_particles on every device.'
    )


def with_steps(config: config_dict.ConfigDict, num_steps: int):
  """The config with another number of sampling steps."""
  config = config.copy_and_resolve_references()
  config.evaluation.num_steps = num_steps
  return config


def families(config: config_dict.ConfigDict) -> tuple[str, ...]:
  """The hand-made methods to compare; if none is named, all that `config` allows."""
  if config.compare.methods:
    return config.compare.methods
  left_out = () if config.rule.weak_workdir else ('autoguidance',)
  if config.compare.match == 'mean':
    left_out += methods_lib.REWARDED
  return tuple(name for name in methods_lib.FAMILIES if name not in left_out)


def gather(
  arena: arena_lib.Arena, learned: dict[str, workdir_lib.LearnedWeight]
) -> list[arena_lib.Method]:
  """Unguided, all learned weights, and every family, searched or matched."""
  config = arena.config
  methods = [
    arena_lib.learned_method(config, arena.dataset.spec, name, weight)
    for name, weight in learned.items()
  ]
  if config.compare.match == 'mean':
    given = matched_methods(config, methods)
  else:
    given = search(arena, families(config))
  return [arena_lib.Method('unguided', {}, config.rule, None), *methods, *given]


def given_method(
  config: config_dict.ConfigDict, num_classes: int, name: str, omega: float
) -> arena_lib.Method:
  """A hand-made method, the same for all classes."""
  row = methods_lib.schedule(name, omega, config)
  table = np.tile(row, (num_classes, 1))
  rule = methods_lib.rule_of(name, config)
  strength = 'rate' if name in methods_lib.REWARDED else 'omega'
  return arena_lib.Method(name, {strength: omega}, rule, table)


def search(arena: arena_lib.Arena, names: tuple[str, ...]) -> list[arena_lib.Method]:
  """Every family at its best strength on validation data."""
  start, found = time.perf_counter(), []
  for name in names:
    found.append(searched_method(arena, name))
    logging.info(
      'search %d steps, %d/%d  %s  ETA %s',
      arena.config.evaluation.num_steps,
      len(found),
      len(names),
      results_lib.key(name, found[-1].params),
      reporting.eta(time.perf_counter() - start, len(found), len(names)),
    )
  return found


def searched_method(arena: arena_lib.Arena, name: str) -> arena_lib.Method:
  """The strength of a family that brings samples closest to validation data."""
  config, dataset = arena.config, arena.dataset
  validation = metrics.class_sets(*dataset.validation)
  found, cost = [], 0.0
  for omega in config.compare.omegas:
    method = given_method(config, dataset.num_classes, name, omega)
    cost += arena.count_nfe(method) * len(arena.label)
    try:
      x, _ = arena.sample(method, config.seed)
    except reporting.NonFiniteError as error:
      logging.warning('%s', error)
      continue
    by_class = metrics.class_sets(x, arena.label)
    found.append((metrics.class_conditional_energy(by_class, validation), omega))
  if not found:
    raise reporting.NonFiniteError(
      f'{name}: no samples are finite; take smaller values of config.compare.omegas, or'
      ' leave it out of config.compare.methods.'
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
    # These two are in proportion to w = 1 + omega.
    shift = 1.0 if family in ('beta_cfg', 'cfg_plus_plus') else 0.0
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
  arena_at: Callable[[int], arena_lib.Arena],
  asked: int,
  learned: dict[str, workdir_lib.LearnedWeight],
  method: arena_lib.Method,
  judge: judge_lib.Judge,
  reference: evaluate.Reference,
) -> list[dict[str, Any]]:
  """The rows of a method at the steps asked for, one for each seed.

  Its time is that of the fastest one.
  """
  arena = arena_at(asked)
  nfe = arena.count_nfe(method)
  if arena.config.compare.match == 'nfe':
    # As many steps as 2 evaluations each would pay.
    arena = arena_at(round(2 * asked * asked / nfe))
    method = at_other_steps(arena.config, arena.dataset.spec, learned, method)
    nfe = arena.count_nfe(method)
  rows, seconds = [], []
  config, section = arena.config, arena.config.evaluation
  arena.sample(method, config.seed)  # Compiles.
  for seed in range(config.seed, config.seed + section.num_seeds):
    x, taken = arena.sample(method, seed)
    seconds.append(taken)
    by_class = metrics.class_sets(x, arena.label)
    rows.append(
      {
        'method': method.name,
        'params': method.params,
        'rule': method.rule.name,
        'seed': seed,
        'num_samples': len(x),
        'asked_steps': asked,
        'num_steps': section.num_steps,
        'nfe': nfe,
        'learning_evaluations': method.cost,
        'metrics': evaluate.compute_metrics(x, arena.label, by_class, judge, reference),
      }
    )
  return [row | {'seconds': min(seconds)} for row in rows]


def at_other_steps(
  config: config_dict.ConfigDict,
  spec: splits.Spec,
  learned: dict[str, workdir_lib.LearnedWeight],
  method: arena_lib.Method,
) -> arena_lib.Method:
  """The same method on the grid of `config`."""
  if method.table is None:
    return method
  if method.name in learned:
    return arena_lib.learned_method(config, spec, method.name, learned[method.name])
  num_classes = spec.conditions.num_classes
  (strength,) = method.params.values()
  new = given_method(config, num_classes, method.name, strength)
  return new._replace(cost=method.cost)


def write(path, rows: list[dict[str, Any]]) -> None:
  """The rows, a table for each step count, and energy distance against NFE."""
  files.write_json(path / 'results.json', rows)
  floor, *rows = rows
  lines = [
    '# Comparison',
    '',
    'Mean +- standard deviation over sampling seeds; w = 1 + omega. Cost: denoiser'
    ' evaluations of the search on validation data, or of learning. Real against real:'
    f' energy {floor["metrics"]["energy_test"]:.4f}, Frechet, features'
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
    path / 'nfe.png', {name: np.array(points) for name, points in curves.items()}
  )


def overview(by_steps: dict[int, list[dict[str, Any]]]) -> list[str]:
  """A Markdown table of methods by step counts, the smallest mean rank first."""
  cells, ranks = {}, {}
  for rows in by_steps.values():
    ordered = sorted(results_lib.summarise(rows), key=lambda s: s.mean('energy_test'))
    for rank, s in enumerate(ordered):
      cells.setdefault(shown(s.method), []).append(results_lib.cell(s, 'energy_test'))
      ranks.setdefault(shown(s.method), []).append(rank)
  names = sorted(cells, key=lambda name: np.mean(ranks[name]))
  return results_lib.table(
    ('method', *(f'{asked} steps' for asked in by_steps)),
    [(name, *cells[name]) for name in names],
  )


def shown(method: str) -> str:
  """The name of a method; learned ones stand out."""
  is_given = method in (*methods_lib.FAMILIES, 'unguided')
  return method if is_given else f'**{method}**'


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
        results_lib.strength(s),
        *(results_lib.cell(s, metric) for metric, _ in COLUMNS),
        f'{s.nfe:.4g}',
        f'{row["seconds"]:.2f}',
        f'{s.learning_evaluations:,}' if s.learning_evaluations else '',
      )
    )
  return results_lib.table((*header, 'NFE', 'seconds', 'cost'), cells)


if __name__ == '__main__':
  launch.main(lambda flags: run(flags.config, flags.workdir), needs_config=False)
