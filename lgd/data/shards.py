"""Arrays that are computed once and read at random: shards of .npy files.

DIR/config.json          what the arrays are of, and how they are cut; sealed
DIR/pooled-00003.npy     part 3 of one of them, that of rows [3 s, 4 s), s = shard_size
DIR/crc32-00003.npz      of every element of every array of that part

A file is there whole or not at all, and what it holds depends on config.json alone: a
job that was stopped makes what is missing. On a local disk files are mapped into
memory, and a row costs the reading of its own bytes; others are read whole, once, and
kept.

.npy has no checksums. Those of crc32-00003.npz, which has its own, are compared
whenever a row is read (`shard_reader`). They are written last: a part without them is
missing, be it one of an older version. It is made anew and never believed, for nobody
could say which of its bits have changed since.
"""

import zlib
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import numpy as np
from etils import epath

from lgd import files
from lgd import sealed


class Field(NamedTuple):
  """One of the arrays of a shard."""

  dtype: Any
  shape: tuple[int, ...]  # Of an element.
  is_ragged: bool = False  # Whether a row has any number of elements, or one.


class Layout(NamedTuple):
  """How rows are cut into shards."""

  num_rows: int
  shard_size: int

  @property
  def num_shards(self) -> int:
    return -(-self.num_rows // self.shard_size)

  def rows(self, shard: int) -> range:
    """Of shard number `shard`."""
    first = shard * self.shard_size
    return range(first, min(first + self.shard_size, self.num_rows))


def begin(directory: epath.PathLike, config: Mapping[str, Any]) -> None:
  """Says what the arrays are of; goes on with those that are of the same.

  Args:
    directory: of the arrays; made if it is not there.
    config: that of `Layout` and all else on which they depend; JSON.

  Raises:
    files.FileError: it holds arrays of another config, whose first key is named; or it
      cannot be written to, before any array is computed.
  """
  files.require_writable(directory)
  path = files.user_path(directory) / 'config.json'
  if path.exists():
    require_same(path, read_config(directory), config)
  else:
    sealed.write(path, config)


def read_config(directory: epath.PathLike) -> dict[str, Any]:
  """What the arrays are of.

  Raises:
    files.FileError: none are there, or the file is damaged.
  """
  path = files.user_path(directory) / 'config.json'
  if not path.exists():
    raise files.FileError(f'{directory}: holds no encoded data, for {path} is missing.')
  try:
    config = sealed.read(path)
  except files.FileError as error:
    raise files.FileError(f'{error} Remove {directory} and encode again.') from error
  missing = {*Layout._fields} - {*config}
  if missing:
    raise files.FileError(f'{path}: has no {min(missing)}; it is of something else.')
  return config


def require_same(
  path: epath.PathLike, stored: Mapping[str, Any], wanted: Mapping[str, Any]
) -> None:
  """Refuses arrays of another config.

  Raises:
    files.FileError: a key of `wanted` has another value in `stored`; names the first.
  """
  for key, value in wanted.items():
    if stored.get(key) != value:
      raise files.FileError(
        f'{path}: {key} is {stored.get(key)!r}, not {value!r}; encode again into a new'
        ' directory, or give the one that belongs to it.'
      )


def missing(directory: epath.PathLike, names: Sequence[str], layout: Layout):
  """Numbers of the shards that are still to be written."""
  stored = {path.name for path in files.user_path(directory).iterdir()}
  return [
    shard
    for shard in range(layout.num_shards)
    if not {checksums_name(shard), *(file_name(name, shard) for name in names)}
    <= stored
  ]


def write(
  directory: epath.PathLike, shard: int, arrays: Mapping[str, np.ndarray]
) -> None:
  """One shard; each file appears under its name when it is complete."""
  directory = files.user_path(directory)
  for name, array in arrays.items():
    path = directory / file_name(name, shard)
    files.write_whole(path, lambda f, array=array: np.save(f, array))
  checksums = {name: crc32(np.ascontiguousarray(a)) for name, a in arrays.items()}
  files.write_npz(directory / checksums_name(shard), checksums)


def file_name(name: str, shard: int) -> str:
  """Of one array of a shard."""
  return f'{name}-{shard:05d}.npy'


def checksums_name(shard: int) -> str:
  """Of the checksums of a shard."""
  return f'crc32-{shard:05d}.npz'


def crc32(array: np.ndarray) -> np.ndarray:
  """Checksums of the elements of an array `[n, ...]`, each contiguous: `[n]` uint32."""
  return np.fromiter(map(zlib.crc32, array), np.uint32, len(array))
