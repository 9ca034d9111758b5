r"""Every rule and schedule against the learned weights, at several step counts.

  python -m experiments.compare --config=configs/digits.py --workdir=runs/digits
  ... --config.compare.match=mean     # Schedules of the learned weights' mean instead.
  ... --config.compare.match=nfe      # As many steps as 2 num_steps evaluations pay.

One base model, one set of seeds. The strength of every hand-made method is searched on
validation data with one seed, over `config.compare.omegas`, and reported on test data;
the evaluations of the search stand beside those that learning took. Writes
compare/results.json, results.md and nfe.png. What is found and measured is kept until
then: the same command resumes.
"""

import functools
from typing import Any

import jax
import numpy as np
from absl import logging
from ml_collections import config_dict

from experiments import arena as arena_lib
from experiments import builders
from experiments import compare_methods
from experiments import compare_results
from experiments import datasets
from experiments import evaluate
from experiments import identities
from experiments import judge as judge_lib
from experiments import launch
from experiments import learned_weights
from experiments import methods as methods_lib
from experiments import pieces as pieces_lib
from experiments import restoring
from experiments import stored_configs
from experiments import workdir as workdir_lib
from lgd.data import splits


def run(config: config_dict.ConfigDict | None, workdir: str) -> list[dict[str, Any]]:
  """Compares, writes and returns the rows."""
  workdir = workdir_lib.Workdir(workdir)
  config = restoring.resolve_config(workdir, config)
  dataset = datasets.load_classes(config)
  learned = arena_lib.load_learned(workdir, config, dataset.spec)
  require_comparable(config, dataset.spec, learned)
  params, _ = restoring.load_denoiser(workdir, dataset.spec, builders.mesh(config))
  identity = identities.run_identity(workdir, config)
  pieces = pieces_lib.Pieces(workdir.unfinished('compare'), identity)
  stored_configs.record(workdir.path, 'compare', config)
  judge = judge_lib.train_judge(config, dataset, pieces)
  classifier = None
  if not set(methods_lib.REWARDED).isdisjoint(compare_methods.families(config)):
    train = functools.partial(judge_lib.train_reward, config, dataset)
    classifier = judge_lib.kept(pieces, 'reward', train)
  reference = evaluate.make_reference(dataset, judge)
  rows = evaluate.real_rows(dataset, judge, reference)

  @functools.cache  # What an arena has compiled serves all methods.
  def arena_at(num_steps):
    at_steps = compare_methods.with_steps(config, num_steps)
    return arena_lib.Arena(at_steps, dataset, params, classifier)

  for num_steps in config.compare.num_steps:
    entries = compare_methods.gather(arena_at, num_steps, learned, pieces)
    for i, (arena, method) in enumerate(entries):
      key = ['rows', num_steps, arena.config.evaluation.num_steps, method.identity]
      make = functools.partial(measure, arena, num_steps, method, judge, reference)
      new = pieces.get(key, make)['rows']
      rows += new
      logging.info(
        'compare %d steps, %d/%d  %s  energy_test %.4f  nfe %g',
        num_steps,
        i + 1,
        len(entries),
        method.key,
        np.mean([row['metrics']['energy_test'] for row in new]),
        new[0]['nfe'],
      )
  if jax.process_index() == 0:
    compare_results.write(workdir.path / 'compare', rows)
  pieces.remove()
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
  for name in compare_methods.families(config):
    methods_lib.require_usable(name, config)
    if section.match == 'mean' and name in methods_lib.REWARDED:
      raise launch.UserError(
        f"compare.match='mean': {name} has a rate and no weight; leave it out of"
        ' --config.compare.methods.'
      )
  if 'autoguidance' in compare_methods.families(config):
    rule = methods_lib.rule_of('autoguidance', config)
    restoring.load_weak(methods_lib.with_rule(config, rule), spec)


def measure(
  arena: arena_lib.Arena,
  asked: int,
  method: arena_lib.Method,
  judge: judge_lib.Judge,
  reference: evaluate.Reference,
) -> pieces_lib.Piece:
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
  return {'rows': [row | {'seconds': min(seconds)} for row in rows]}


if __name__ == '__main__':
  launch.main(lambda flags: run(flags.config, flags.workdir), needs_config=False)
