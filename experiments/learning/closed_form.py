"""Weights without training: the minimum of l2 or score matching, from statistics.

Both losses are a + b omega + c omega^2 for every particle, so that per class and bin

  (1)  omega = max(-sum numerators / sum denominators, 0)

with the terms of `lgd.statistics`; but 0 where its gain is not clear (`lgd.jackknife`,
(2)), or noise around 0 would be guidance in the mean.
"""

import jax
import jax.numpy as jnp
from ml_collections import config_dict

from experiments import builders
from experiments import workdirs
from lgd import arrays
from lgd import jackknife
from lgd import objectives
from lgd import statistics

_NUM_BLOCKS = 8  # Of the jackknife.


def solve(
  config: config_dict.ConfigDict, num_classes: int, store: objectives.Store
) -> jax.Array:
  """Minimiser of the objective per class and bin of t, `[num_classes, num_steps]`.

  At least 0; a bin without data has 0. For l2, s is drawn as in Algorithm 1.
  """
  section = config.guidance
  num_bins = section.num_bins
  usable = workdirs.statistics.in_reach(store.t, section)
  store = jax.tree.map(lambda x: x[usable], store)
  gram = statistics.unpack(store.gram)
  s = objectives.sample_s(
    arrays.stream(config.seed, 'closed_form'),
    store.t,
    s_min=section.s_min,
    zeta=section.zeta,
    gap=section.gap,
  )
  terms = builders.objectives.of(config).terms(
    gram, s, store.t, section, builders.models.schedule(config)
  )
  shape = (num_classes, num_bins, _NUM_BLOCKS)
  where = (
    store.cond,
    _bin(store.t, num_bins),
    jnp.arange(len(store.t)) % _NUM_BLOCKS,
  )
  by_block = [jnp.zeros(shape).at[where].add(term) for term in terms]
  numerator, denominator = (
    jnp.concatenate([total, total - term], axis=2)
    for term in by_block
    for total in [term.sum(axis=2, keepdims=True)]
  )
  minimum = -numerator / jnp.where(denominator > 0.0, denominator, 1.0)
  omega = minimum[:, :, :1]
  gain = omega * minimum - 0.5 * omega**2  # In units of the curvature.
  is_clear = jackknife.is_clear(gain, section.confidence)
  bins = _bin(builders.models.time_grid(config)[:-1], num_bins)
  return jnp.where(is_clear, jnp.maximum(omega[:, :, 0], 0.0), 0.0)[:, bins]


def _bin(t, num_bins):
  """The bin of [0, 1] that a time is in; rounding puts no edge into the bin below."""
  return jnp.minimum((t + arrays.TIME_ROUNDING) * num_bins, num_bins - 1).astype(int)
