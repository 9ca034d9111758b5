"""A statistics pass: its sizes, and the datum, time and noise that every item has."""

from typing import Any

import jax
import numpy as np
from ml_collections import config_dict

from experiments.builders import data
from lgd import errors
from lgd import passes
from lgd.data import splits


def group_size(config: config_dict.ConfigDict) -> int:
  """Data of an item of a statistics pass: 1, or those that share a t."""
  section = config.statistics
  return 1 if section.kind == 'particles' else section.group_size


def num_shards(config: config_dict.ConfigDict) -> int:
  """Files of a statistics pass."""
  section, n = config.statistics, group_size(config)
  return -(-(section.num_data // n) // (section.shard_size // n))


def num_vectors(config: config_dict.ConfigDict) -> int:
  """Vectors of a stored Gram matrix."""
  section = config.statistics
  if section.kind == 'particles':
    return 3 * section.num_particles
  return 4 * section.group_size


def profile_shape(config: config_dict.ConfigDict) -> tuple[int, ...] | None:
  """The shape of the stored rewards of an item; None without a reward."""
  if not config.reward.name:
    return None
  of_datum = (2, len(config.reward.nodes))
  if config.statistics.kind == 'particles':
    return of_datum
  return config.statistics.group_size, *of_datum


class Plan:
  """The items of a pass; of the config and the data alone.

  An item is a datum with its particles, or a group of data with one particle each. A
  shard is a range of items.

  Args:
    config: the config.
    data: of `statistics.split`.
    num_classes: those that must fill a group each; None where there are none.
  """

  def __init__(
    self,
    config: config_dict.ConfigDict,
    data: splits.Split,
    num_classes: int | None,
  ):
    section = config.statistics
    self._config, self._data, self._num_classes = config, data, num_classes
    self._by_class = section.kind == 'class_groups'
    self.group_size = group_size(config)
    self.num_items = section.num_data // self.group_size
    self._items_per_shard = section.shard_size // self.group_size
    self.items_per_batch = section.batch_size // self.group_size
    self.num_shards = num_shards(config)
    self.num_vectors = num_vectors(config)
    if self.items_per_batch % jax.device_count():
      raise errors.InputError(
        f'statistics.batch_size={section.batch_size}: makes {self.items_per_batch}'
        f' items a call, which must be a multiple of the {jax.device_count()} devices'
        ' that share them.'
      )
    self._passes: dict[int, np.ndarray] = {}
    self._rows_of_pass(0)  # Refuses groups that no class can fill.

  def items(self, shard: int) -> np.ndarray:
    """The items of a shard."""
    first = shard * self._items_per_shard
    return np.arange(first, min(first + self._items_per_shard, self.num_items))

  def batch(self, items: np.ndarray) -> tuple[Any, ...]:
    """`index, x0 [items, n, *data], label [items, n, ...], t [items]` of a batch."""
    items = np.resize(items, self.items_per_batch)
    per_pass = len(self._rows_of_pass(0))
    rows = np.stack([self._rows_of_pass(i // per_pass)[i % per_pass] for i in items])
    return (
      items.astype(np.uint32),
      self._data.x[rows],
      self._data.label[rows],
      passes.times(items, self._config.statistics.t_max),
    )

  def _rows_of_pass(self, epoch: int) -> np.ndarray:
    if epoch not in self._passes:
      self._passes[epoch] = data.group_rows(
        self._config,
        'statistics',
        self._data,
        self.group_size,
        self._by_class,
        epoch=epoch,
        num_classes=self._num_classes,
      )
    return self._passes[epoch]
