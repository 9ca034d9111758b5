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


def run(config: config_dict.ConfigDict | None, workdir: str) -> list[dict[str, Any]]:
  """Compares, writes and returns the rows."""
  session = workdirs.open_trained(config, workdir)
  workdir, config, spec = session
  dataset = builders.data.load_classes(config, spec)
  learned = workdirs.weights.load_all(session)
  require_comparable(session, learned)
  params = workdirs.base_model.load_denoiser(session)
  pieces = workdirs.open_pieces(session, 'compare')
  judge = judges.classifiers.train_judge(config, dataset, pieces)
  classifier = None
  if not set(builders.families.REWARDED).isdisjoint(
    sampling.strengths.families(config)
  ):
    train = functools.partial(judges.classifiers.train_reward, config, dataset)
    classifier = judges.classifiers.kept(pieces, 'reward', train)
  reference = report.class_metrics.make_reference(dataset, judge)
  rows = report.class_metrics.real_rows(dataset, judge, reference)

  @functools.cache  # What a sampler has compiled serves all methods.
  def sampler_at(num_steps):
    at_steps = sampling.strengths.with_steps(session, num_steps)
    return sampling.methods.ClassSampler(at_steps, dataset, params, classifier)

  for num_steps in config.compare.num_steps:
    entries = sampling.strengths.gather(sampler_at, num_steps, learned, pieces)
    for i, (sampler, method) in enumerate(entries):
      taken = sampler.config.evaluation.num_steps
      key = ['rows', num_steps, taken, method.identity]
      make = functools.partial(measure, sampler, num_steps, method, judge, reference)
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
  session: workdirs.Session, learned: dict[str, workdirs.weights.LearnedWeight]
) -> None:
  """Refuses what would fail later.

  Raises:
    errors.InputError: a reference that is not there, or a family that cannot be used.
  """
  config, section = session.config, session.config.compare
  if section.match == 'mean' and section.reference not in learned:
    raise errors.InputError(
      f'compare.reference={section.reference!r}: must be one of the learned weights'
      f' here, {list(learned)}.'
    )
  for name in sampling.strengths.families(config):
    if name not in builders.families.FAMILIES:  # In a config of an older version.
      raise errors.InputError(
        f'compare.methods={section.methods}: {name!r} is no method; give --config and'
        f' some of {", ".join(builders.families.FAMILIES)}.'
      )
    builders.families.require_usable(name, config)
    if section.match == 'mean' and name in builders.families.REWARDED:
      raise errors.InputError(
        f"compare.match='mean': {name} has a rate and no weight; leave it out of"
        ' --config.compare.methods.'
      )
  if 'autoguidance' in sampling.strengths.families(config):
    rule = builders.families.rule_of('autoguidance', config)
    workdirs.base_model.load_weak(session.with_rule(rule))


def measure(
  sampler: sampling.methods.ClassSampler,
  asked: int,
  method: sampling.methods.Method,
  judge: judges.classifiers.Judge,
  reference: report.class_metrics.Reference,
) -> app.Piece:
  """The rows of a method, one for each seed; its time is that of the fastest one.

  Args:
    sampler: where it is measured.
    asked: the number of steps that it is listed under.
    method: the method.
    judge: the classifier of the metrics.
    reference: the data.
  """
  config, section = sampler.config, sampler.config.evaluation
  row = {
    'method': method.name,
    'params': method.params,
    'rule': method.rule.name,
    'mean_omega': None if method.table is None else float(np.mean(method.table)),
    'num_samples': len(sampler.label),
    'asked_steps': asked,
    'num_steps': section.num_steps,
    'nfe': sampler.count_nfe(method),
    'learning_evaluations': method.cost,
  }
  rows, seconds = [], []
  sampler.sample(method, config.seed)  # Compiles.
  for seed in range(config.seed, config.seed + section.num_seeds):
    x, taken = sampler.sample(method, seed)
    seconds.append(taken)
    by_class = sampler.class_sets(method, x)
    values = report.class_metrics.compute_metrics(
      x, sampler.label, by_class, judge, reference
    )
    rows.append(row | {'seed': seed, 'metrics': values})
  return {'rows': [row | {'seconds': min(seconds)} for row in rows]}


if __name__ == '__main__':
  app.main(lambda flags: run(flags.config, flags.workdir), needs_config=False)
