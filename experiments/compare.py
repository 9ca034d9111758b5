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

from experiments import app
from experiments import builders
from experiments import judges
from experiments import report
from experiments import sampling
from experiments import workdirs
from lgd import errors
from lgd.data import splits


def run(config: config_dict.ConfigDict | None, workdir: str) -> list[dict[str, Any]]:
  """Compares, writes and returns the rows."""
  session = workdirs.open_trained(config, workdir)
  workdir, config, spec = session
  dataset = builders.data.load_classes(config)
  learned = sampling.arena.load_learned(workdir, config, spec)
  require_comparable(config, spec, learned)
  params, _ = session.load_denoiser()
  pieces = session.pieces('compare')
  judge = judges.classifiers.train_judge(config, dataset, pieces)
  classifier = None
  if not set(builders.methods.REWARDED).isdisjoint(sampling.strengths.families(config)):
    train = functools.partial(judges.classifiers.train_reward, config, dataset)
    classifier = judges.classifiers.kept(pieces, 'reward', train)
  reference = report.class_metrics.make_reference(dataset, judge)
  rows = report.class_metrics.real_rows(dataset, judge, reference)

  @functools.cache  # What an arena has compiled serves all methods.
  def arena_at(num_steps):
    at_steps = sampling.strengths.with_steps(config, num_steps)
    return sampling.arena.Arena(at_steps, dataset, params, classifier)

  for num_steps in config.compare.num_steps:
    entries = sampling.strengths.gather(arena_at, num_steps, learned, pieces)
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
    report.comparison.write(workdir.path / 'compare', rows)
  pieces.remove()
  return rows


def require_comparable(
  config: config_dict.ConfigDict,
  spec: splits.Spec,
  learned: dict[str, workdirs.weights.LearnedWeight],
) -> None:
  """Refuses what would fail later.

  Raises:
    errors.InputError: a reference that is not there, or a family that cannot be used.
  """
  section = config.compare
  if section.match == 'mean' and section.reference not in learned:
    raise errors.InputError(
      f'compare.reference={section.reference!r}: must be one of the learned weights'
      f' here, {list(learned)}.'
    )
  for name in sampling.strengths.families(config):
    builders.methods.require_usable(name, config)
    if section.match == 'mean' and name in builders.methods.REWARDED:
      raise errors.InputError(
        f"compare.match='mean': {name} has a rate and no weight; leave it out of"
        ' --config.compare.methods.'
      )
  if 'autoguidance' in sampling.strengths.families(config):
    rule = builders.methods.rule_of('autoguidance', config)
    workdirs.base_model.load_weak(builders.methods.with_rule(config, rule), spec)


def measure(
  arena: sampling.arena.Arena,
  asked: int,
  method: sampling.arena.Method,
  judge: judges.classifiers.Judge,
  reference: report.class_metrics.Reference,
) -> app.Piece:
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
    values = report.class_metrics.compute_metrics(
      x, arena.label, by_class, judge, reference
    )
    rows.append(row | {'seed': seed, 'metrics': values})
  return {'rows': [row | {'seconds': min(seconds)} for row in rows]}


if __name__ == '__main__':
  app.main(lambda flags: run(flags.config, flags.workdir), needs_config=False)
