"""Methods to compare: unguided, learned, and hand-made ones at a strength.

The strength of a hand-made method is searched on validation data, or matched to the
mean of a learned weight.
"""

import functools
from collections.abc import Callable

import numpy as np
from absl import logging
from ml_collections import config_dict

from experiments import app
from experiments import builders
from experiments import workdirs
from experiments.sampling import methods
from lgd import errors
from lgd import guidance
from lgd import metrics


def with_steps(session: workdirs.Session, num_steps: int) -> workdirs.Session:
  """The session with another number of sampling steps."""
  config = session.config.copy_and_resolve_references()
  config.evaluation.num_steps = num_steps
  return session.with_config(config)


def families(config: config_dict.ConfigDict) -> tuple[str, ...]:
  """The hand-made methods to compare; if none is named, all that `config` allows."""
  if config.compare.methods:
    return config.compare.methods
  names = builders.families.usable(config)
  if config.compare.match == 'mean':
    names = tuple(name for name in names if name not in builders.families.REWARDED)
  return names


def gather(
  sampler_at: Callable[[int], methods.ClassSampler],
  num_steps: int,
  learned: dict[str, workdirs.weights.LearnedWeight],
  pieces: app.Pieces,
) -> list[tuple[methods.ClassSampler, methods.Method]]:
  """Unguided, all learned weights, and every family, searched or matched.

  Each comes with the sampler that it is measured in: at the steps asked for, or at as
  many as 2 evaluations each would pay.
  """
  here = sampler_at(num_steps)
  config, num_classes = here.config, here.dataset.num_classes
  classes = np.arange(num_classes)

  def sampler_for(method):
    if config.compare.match != 'nfe':
      return here
    return sampler_at(round(2 * num_steps * num_steps / here.count_nfe(method)))

  unguided = methods.Method('unguided', {}, config.rule, None)
  entries = [(sampler_for(unguided), unguided)]
  for name, weight in learned.items():
    method = methods.learned_method(config, name, weight, classes)
    sampler = sampler_for(method)
    if sampler is not here:
      method = methods.learned_method(sampler.config, name, weight, classes)
    entries.append((sampler, method))
  if config.compare.match == 'mean':
    given = matched_methods(config, [method for _, method in entries[1:]])
    return entries + [(here, method) for method in given]
  names = families(config)
  progress = pieces.progress(f'search at {num_steps} steps', len(names))
  for i, name in enumerate(names):
    weakest = strengths(config, name)[0]
    sampler = sampler_for(given_method(config, num_classes, name, weakest))
    entries.append((sampler, searched_method(sampler, name, pieces)))
    progress.log(i + 1, entries[-1][1].key)
  return entries


def strengths(config: config_dict.ConfigDict, name: str) -> tuple[float, ...]:
  """The strengths that a family is searched over."""
  is_rate = name in builders.families.REWARDED
  return config.compare.rates if is_rate else config.compare.omegas


def given_method(
  config: config_dict.ConfigDict, num_classes: int, name: str, omega: float
) -> methods.Method:
  """A hand-made method, the same for all classes."""
  row = builders.families.schedule(name, omega, config)
  table = np.tile(row, (num_classes, 1))
  rule = builders.families.rule_of(name, config)
  strength = 'rate' if name in builders.families.REWARDED else 'omega'
  return methods.Method(name, {strength: omega}, rule, table)


def searched_method(
  sampler: methods.ClassSampler, name: str, pieces: app.Pieces
) -> methods.Method:
  """The strength of a family that brings samples closest to validation data."""
  config, num_classes = sampler.config, sampler.dataset.num_classes
  found, cost = [], 0.0
  for strength in strengths(config, name):
    method = given_method(config, num_classes, name, strength)
    key = ['search', config.evaluation.num_steps, method.identity]
    piece = pieces.get(key, functools.partial(try_strength, sampler, method))
    cost += piece['nfe'] * len(sampler.label)
    if piece['energy'] is not None:
      found.append((piece['energy'], strength))
  if not found:
    raise errors.NonFiniteError(
      f'{name}: no samples are finite; take smaller values of config.compare.omegas or'
      ' rates, or leave it out of config.compare.methods.'
    )
  best = given_method(config, num_classes, name, min(found)[1])
  return best._replace(cost=round(cost))


def try_strength(sampler: methods.ClassSampler, method: methods.Method) -> app.Piece:
  """A method's energy distance to validation data; None if it is not finite."""
  nfe = sampler.count_nfe(method)
  try:
    x, _ = sampler.sample(method, sampler.config.seed)
  except errors.NonFiniteError as error:
    logging.warning('%s', error)
    return {'energy': None, 'nfe': nfe}
  by_class = sampler.class_sets(method, x)
  energy = metrics.class_conditional_energy(by_class, sampler.validation)
  return {'energy': energy, 'nfe': nfe}


def matched_methods(
  config: config_dict.ConfigDict, learned: list[methods.Method]
) -> list[methods.Method]:
  """Every family at the mean weight of a learned one, averaged over classes.

  Raises:
    errors.InputError: its mean, or that of a family, is 0 on this grid.
  """
  name, times = config.compare.reference, builders.models.time_grid(config)
  table = next(m.table for m in learned if m.name == name)
  mean = float(guidance.mean_in_time(table, times).mean())
  if mean <= 0.0:
    raise errors.InputError(
      f'compare.reference={name!r}: has mean 0, which no schedule is to be compared at;'
      ' choose another.'
    )
  matched = []
  for family in families(config):
    rows = builders.families.schedule(family, 1.0, config)[None]
    # These are in proportion to w = 1 + omega.
    in_w = ('beta_schedule', 'beta_cfg', 'cfg_plus_plus')
    shift = 1.0 if family in in_w else 0.0
    try:
      rows = guidance.matched_mean(shift + rows, shift + mean, times) - shift
    except ValueError as error:
      raise errors.InputError(
        f'compare.match=mean: {family} on this grid: {error}'
      ) from error
    table_of_family = np.tile(rows, (len(table), 1))
    rule = builders.families.rule_of(family, config)
    matched.append(methods.Method(family, {'omega': mean}, rule, table_of_family))
  return matched
