"""The shards of a statistics pass: written whole or not at all, checked when read.

statistics/KIND/config.json        what the pass belongs to
statistics/KIND/shard-00003.npz    gram [n, p (p + 1) / 2], t [n], label [n, ...] or
                                   [n, group_size], index [n], num_evaluations []
"""

import json
from typing import Any
from typing import NamedTuple

import jax
import numpy as np
from etils import epath

from experiments import launch
from lgd import files


class Statistics(NamedTuple):
  """All shards of a pass."""

  gram: np.ndarray  # [num, p (p + 1) / 2] float32, packed
  t: np.ndarray  # [num] float32
  label: np.ndarray  # [num, ...] or [num, group_size], conditions
  index: np.ndarray  # [num], 0..num-1
  num_evaluations: np.ndarray  # [num_shards], network evaluations made for each


def shard_path(directory: epath.Path, shard: int) -> epath.Path:
  """Of shard number `shard`."""
  return directory / f'shard-{shard:05d}.npz'


def write_config(directory: epath.Path, stored: dict[str, Any]) -> None:
  """Says what the pass belongs to; before its first shard."""
  if jax.process_index() == 0:
    files.write_json(directory / 'config.json', stored)


def read_config(directory: epath.Path) -> dict[str, Any]:
  """What the pass under `directory` belongs to.

  Raises:
    launch.UserError: no statistics there, or a damaged file.
  """
  path = directory / 'config.json'
  if not path.exists():
    raise launch.UserError(
      f'{directory}: holds no statistics; run python -m experiments.collect_statistics'
      f' with --config.statistics.kind={directory.name} first.'
    )
  try:
    stored = json.loads(path.read_text())
  except ValueError:
    stored = None
  if not isinstance(stored, dict) or not stored.keys() >= {'base', 'denoiser_step'}:
    raise launch.UserError(f'{path}: is damaged; remove {directory} and collect again.')
  return stored


def write_shard(directory: epath.Path, shard: int, statistics: Statistics) -> None:
  """One file, under its name only when it is complete."""
  if jax.process_index() == 0:
    files.write_npz(shard_path(directory, shard), statistics._asdict())


def read_shard(path: epath.Path, num_vectors: int) -> Statistics:
  """One file, of Gram matrices of `num_vectors` vectors.

  Raises:
    launch.UserError: it is missing, cut short, damaged (npz carries checksums), of
      another shape, or holds values that are not finite.
  """
  again = f'delete it and run collect_statistics again: only {path.name} is made anew.'
  if not path.exists():
    raise launch.UserError(
      f'{path}: is missing; run collect_statistics again to finish.'
    )
  try:
    arrays = files.read_npz(path)
    statistics = Statistics(**{name: arrays[name] for name in Statistics._fields})
  except (files.FileError, KeyError) as error:
    reason = error.__cause__ or error
    raise launch.UserError(
      f'{path}: is cut short or damaged ({reason}); {again}'
    ) from error
  num, width = len(statistics.index), num_vectors * (num_vectors + 1) // 2
  lengths = [len(a) if a.ndim else 0 for a in statistics[:4]]
  if statistics.gram.shape != (num, width) or lengths != [num] * 4:
    raise launch.UserError(
      f'{path}: holds Gram matrices of shape {statistics.gram.shape}, not'
      f' ({num}, {width}); {again}'
    )
  finite = np.isfinite(statistics.gram).all(axis=1) & np.isfinite(statistics.t)
  if not finite.all():
    raise launch.UserError(
      f'{path}: datum {statistics.index[np.argmin(finite)]} is not finite; {again}'
    )
  return statistics


def read(directory: epath.Path, num_shards: int, *, num_vectors: int) -> Statistics:
  """All shards under `directory`, in order; raises as `read_shard`."""
  shards = [
    read_shard(shard_path(directory, i), num_vectors) for i in range(num_shards)
  ]
  joined = Statistics(
    *(
      np.concatenate([np.atleast_1d(a) for a in arrays])
      for arrays in zip(*shards, strict=True)
    )
  )
  if not np.array_equal(joined.index, np.arange(len(joined.index))):
    raise launch.UserError(
      f'{directory}: its shards do not hold every datum once; remove them and run'
      ' collect_statistics again.'
    )
  return joined
