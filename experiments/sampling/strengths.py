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
from experiments.sampling import arena as arena_lib
from lgd import errors
from lgd import guidance
from lgd import metrics
from lgd.training import reporting


def with_steps(config: config_dict.ConfigDict, num_steps: int):
  """The config with another number of sampling steps."""
  config = config.copy_and_resolve_references()
  config.evaluation.num_steps = num_steps
  return config


def families(config: config_dict.ConfigDict) -> tuple[str, ...]:
  """The hand-made methods to compare; if none is named, all that `config` allows."""
  if config.compare.methods:
    return config.compare.methods
  names = builders.methods.usable(config)
  if config.compare.match == 'mean':
    names = tuple(name for name in names if name not in builders.methods.REWARDED)
  return names


def gather(
  arena_at: Callable[[int], arena_lib.Arena],
  num_steps: int,
  learned: dict[str, workdirs.weights.LearnedWeight],
  pieces: app.Pieces,
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
  start, names = pieces.seconds, families(config)
  for i, name in enumerate(names):
    weakest = strengths(config, name)[0]
    arena = arena_for(given_method(config, dataset.num_classes, name, weakest))
    entries.append((arena, searched_method(arena, name, pieces)))
    logging.info(
      'search %d steps, %d/%d  %s  ETA %s',
      num_steps,
      i + 1,
      len(names),
      entries[-1][1].key,
      reporting.eta(pieces.seconds - start, i + 1, len(names)),
    )
  return entries


def strengths(config: config_dict.ConfigDict, name: str) -> tuple[float, ...]:
  """The strengths that a family is searched over."""
  is_rate = name in builders.methods.REWARDED
  return config.compare.rates if is_rate else config.compare.omegas


def given_method(
  config: config_dict.ConfigDict, num_classes: int, name: str, omega: float
) -> arena_lib.Method:
  """A hand-made method, the same for all classes."""
  row = builders.methods.schedule(name, omega, config)
  table = np.tile(row, (num_classes, 1))
  rule = builders.methods.rule_of(name, config)
  strength = 'rate' if name in builders.methods.REWARDED else 'omega'
  return arena_lib.Method(name, {strength: omega}, rule, table)


def searched_method(
  arena: arena_lib.Arena, name: str, pieces: app.Pieces
) -> arena_lib.Method:
  """The strength of a family that brings samples closest to validation data."""
  config, num_classes = arena.config, arena.dataset.num_classes
  found, cost = [], 0.0
  for strength in strengths(config, name):
    method = given_method(config, num_classes, name, strength)
    key = ['search', config.evaluation.num_steps, method.identity]
    piece = pieces.get(key, functools.partial(try_strength, arena, method))
    cost += piece['nfe'] * len(arena.label)
    if piece['energy'] is not None:
      found.append((piece['energy'], strength))
  if not found:
    raise errors.NonFiniteError(
      f'{name}: no samples are finite; take smaller values of config.compare.omegas or'
      ' rates, or leave it out of config.compare.methods.'
    )
  best = given_method(config, num_classes, name, min(found)[1])
  return best._replace(cost=round(cost))


def try_strength(arena: arena_lib.Arena, method: arena_lib.Method) -> app.Piece:
  """A method's energy distance to validation data; None if it is not finite."""
  nfe = arena.count_nfe(method)
  try:
    x, _ = arena.sample(method, arena.config.seed)
  except errors.NonFiniteError as error:
    logging.warning('%s', error)
    return {'energy': None, 'nfe': nfe}
  by_class = arena.class_sets(method, x)
  energy = metrics.class_conditional_energy(by_class, arena.validation)
  return {'energy': energy, 'nfe': nfe}


def matched_methods(
  config: config_dict.ConfigDict, learned: list[arena_lib.Method]
) -> list[arena_lib.Method]:
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
  methods = []
  for family in families(config):
    rows = builders.methods.schedule(family, 1.0, config)[None]
    # These are in proportion to w = 1 + omega.
    in_w = ('beta_schedule', 'beta_cfg', 'cfg_plus_plus')
    shift = 1.0 if family in in_w else 0.0
    try:
      rows = guidance.matched_mean(shift + rows, shift + mean, times) - shift
    except ValueError as error:
      raise errors.InputError(
        f'compare.match=mean: {family} on this grid: {error}'
      ) from error
    matched = np.tile(rows, (len(table), 1))
    rule = builders.methods.rule_of(family, config)
    methods.append(arena_lib.Method(family, {'omega': mean}, rule, matched))
  return methods
