"""The shards of a statistics pass: written whole or not at all, checked when read.

statistics/KIND/config.json        what the pass belongs to, sealed
statistics/KIND/shard-00003.npz    gram [n, p (p + 1) / 2], t [n], label [n, ...] or
                                   [n, group_size], index [n], num_evaluations [];
                                   with a reward, profile [n, 2, nodes] or
                                   [n, group_size, 2, nodes]
"""

from typing import Any
from typing import NamedTuple

import jax
import numpy as np
from etils import epath

from experiments import launch
from lgd import files
from lgd import sealed


class Statistics(NamedTuple):
  """All shards of a pass."""

  gram: np.ndarray  # [num, p (p + 1) / 2] float32, packed
  t: np.ndarray  # [num] float32
  label: np.ndarray  # [num, ...] or [num, group_size], conditions
  index: np.ndarray  # [num], 0..num-1
  num_evaluations: np.ndarray  # [num_shards], network evaluations made for each
  profile: np.ndarray | None = None  # [num, ..., 2, nodes], of a reward


_FLOATS = ('gram', 't', 'profile')


def shard_path(directory: epath.Path, shard: int) -> epath.Path:
  """Of shard number `shard`."""
  return directory / f'shard-{shard:05d}.npz'


def write_config(directory: epath.Path, stored: dict[str, Any]) -> None:
  """Says what the pass belongs to; before its first shard."""
  if jax.process_index() == 0:
    sealed.write(directory / 'config.json', stored)


def read_config(directory: epath.Path) -> dict[str, Any]:
  """What the pass under `directory` belongs to.

  Raises:
    launch.UserError: a damaged file, or one of something else.
  """
  path = directory / 'config.json'
  try:
    stored = sealed.read(path)
    if not stored.keys() >= {'base', 'denoiser_step'}:
      raise files.FileError(f'{path}: is of something else.')
  except files.FileError as error:
    raise launch.UserError(f'{error} Remove {directory} and collect again.') from error
  return stored


def write_shard(directory: epath.Path, shard: int, statistics: Statistics) -> None:
  """One file, under its name only when it is complete."""
  if jax.process_index() == 0:
    arrays = {k: v for k, v in statistics._asdict().items() if v is not None}
    files.write_npz(shard_path(directory, shard), arrays)


def read_shard(
  path: epath.Path, num_vectors: int, profile_shape: tuple[int, ...] | None = None
) -> Statistics:
  """One file, of Gram matrices of `num_vectors` vectors.

  `profile_shape` is that of an item's rewards, None without a reward.

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
    names = Statistics._fields if profile_shape else Statistics._fields[:-1]
    statistics = Statistics(**{name: arrays[name] for name in names})
  except (files.FileError, KeyError) as error:
    reason = error.__cause__ or error
    raise launch.UserError(
      f'{path}: is cut short or damaged ({reason}); {again}'
    ) from error
  kinds = {k: a.dtype.kind for k, a in statistics._asdict().items() if a is not None}
  del kinds['label']  # Numbers of any kind.
  if kinds != {k: 'f' if k in _FLOATS else 'i' for k in kinds}:
    raise launch.UserError(f'{path}: holds arrays of other kinds, {kinds}; {again}')
  num = statistics.index.size
  width = num_vectors * (num_vectors + 1) // 2
  lengths = [len(a) if a.ndim else 0 for a in statistics[:4]]
  if statistics.gram.shape != (num, width) or lengths != [num] * 4:
    raise launch.UserError(
      f'{path}: holds Gram matrices of shape {statistics.gram.shape}, not'
      f' ({num}, {width}); {again}'
    )
  profile = statistics.profile
  if profile_shape and profile.shape != (num, *profile_shape):
    raise launch.UserError(
      f'{path}: holds reward profiles of shape {profile.shape}, not'
      f' {(num, *profile_shape)}; {again}'
    )
  finite = np.isfinite(statistics.gram).all(axis=1) & np.isfinite(statistics.t)
  if profile_shape:
    finite &= np.isfinite(profile.reshape(num, -1)).all(axis=1)
  if not finite.all():
    raise launch.UserError(
      f'{path}: datum {statistics.index[np.argmin(finite)]} is not finite; {again}'
    )
  return statistics


def read(
  directory: epath.Path,
  num_shards: int,
  *,
  num_vectors: int,
  profile_shape: tuple[int, ...] | None = None,
) -> Statistics:
  """All shards under `directory`, in order; arguments and errors as of `read_shard`."""
  shards = [
    read_shard(shard_path(directory, i), num_vectors, profile_shape)
    for i in range(num_shards)
  ]
  joined = jax.tree.map(
    lambda *arrays: np.concatenate([np.atleast_1d(a) for a in arrays]), *shards
  )
  if not np.array_equal(joined.index, np.arange(len(joined.index))):
    raise launch.UserError(
      f'{directory}: its shards do not hold every datum once; remove them and run'
      ' collect_statistics again.'
    )
  return joined
