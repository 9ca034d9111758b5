"""Arrays that are computed once and read at random: shards of .npy files.

DIR/config.json          what the arrays are of, and how they are cut
DIR/pooled-00003.npy     part 3 of one of them, that of rows [3 s, 4 s), s = shard_size

A file is there whole or not at all, and what it holds depends on config.json alone: a
job that was stopped makes what is missing. On a local disk files are mapped into
memory, and a row costs the reading of its own bytes; others are read whole, once, and
kept. Sizes and types are checked when a file is opened, the bytes of its values are
not.
"""

import json
import os
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import numpy as np
from etils import epath

from lgd import files


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
    files.FileError: it holds arrays of another config, whose first key is named.
  """
  path = epath.Path(directory) / 'config.json'
  if path.exists():
    require_same(path, read_config(directory), config)
  else:
    files.write_json(path, dict(config))


def read_config(directory: epath.PathLike) -> dict[str, Any]:
  """What the arrays are of.

  Raises:
    files.FileError: none are there, or the file is damaged.
  """
  path = epath.Path(directory) / 'config.json'
  if not path.exists():
    raise files.FileError(f'{directory}: holds no encoded data, for {path} is missing.')
  try:
    config = json.loads(path.read_text())
  except ValueError as error:
    raise files.FileError(
      f'{path}: is damaged; remove {directory} and encode again.'
    ) from error
  missing = {*Layout._fields} - {*config} if isinstance(config, dict) else {'keys'}
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
  stored = {path.name for path in epath.Path(directory).iterdir()}
  return [
    shard
    for shard in range(layout.num_shards)
    if not all(_name(name, shard) in stored for name in names)
  ]


def write(
  directory: epath.PathLike, shard: int, arrays: Mapping[str, np.ndarray]
) -> None:
  """One shard; each file appears under its name when it is complete."""
  for name, array in arrays.items():
    path = epath.Path(directory) / _name(name, shard)
    files.write_whole(path, lambda f, array=array: np.save(f, array))


class Reader:
  """Random access to the arrays of a directory. It can be pickled.

  Args:
    directory: of the arrays.
    fields: name -> what it holds.
    layout: how they are cut.
    command: that makes them, for messages.
  """

  def __init__(
    self,
    directory: epath.PathLike,
    fields: Mapping[str, Field],
    layout: Layout,
    command: str,
  ):
    self._directory, self._fields = epath.Path(directory), dict(fields)
    self._command, self.layout = command, layout
    self._open: dict[tuple[str, int], np.ndarray] = {}

  def __getstate__(self):
    # A mapped file would be pickled with all it holds.
    return {**self.__dict__, '_open': {}}

  def read(self, name: str, rows: np.ndarray) -> np.ndarray:
    """`[n, *shape]` of an array with one element a row.

    Raises:
      IndexError: a row outside of 0..num_rows-1.
      files.FileError: as of `part`.
    """
    field = self._fields[name]
    out = np.empty((len(rows), *field.shape), field.dtype)
    for shard, where, local in self.locate(rows):
      out[where] = self.part(name, shard)[local]
    return out

  def locate(self, rows: np.ndarray):
    """Of every shard that `rows [n]` lie in: its number, which they are, where there.

    Raises:
      IndexError: a row outside of 0..num_rows-1.
    """
    rows = np.asarray(rows)
    wrong = rows[(rows < 0) | (rows >= self.layout.num_rows)]
    if len(wrong):
      raise IndexError(
        f'{self._directory}: has rows 0..{self.layout.num_rows - 1}, not {wrong[0]}.'
      )
    shards, local = np.divmod(rows, self.layout.shard_size)
    for shard in np.unique(shards):
      where = np.flatnonzero(shards == shard)
      yield int(shard), where, local[where]

  def part(self, name: str, shard: int) -> np.ndarray:
    """The whole of one file, mapped into memory if it is local.

    Raises:
      files.FileError: it is missing, cut short, or of another size or type.
    """
    key = name, shard
    if key not in self._open:
      self._open[key] = self._load(*key)
    return self._open[key]

  def _load(self, name, shard):
    path, field = self._directory / _name(name, shard), self._fields[name]
    if not path.exists():
      raise files.FileError(f'{path}: is missing; to finish run {self._command}')
    again = f'delete it and run {self._command}'
    try:
      if os.path.exists(os.fspath(path)):  # Local, not a bucket.
        array = np.load(os.fspath(path), mmap_mode='r', allow_pickle=False)
      else:
        with path.open('rb') as f:
          array = np.load(f, allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
      raise files.FileError(
        f'{path}: is cut short or damaged ({error}); {again}'
      ) from error
    num = array.shape[:1] if field.is_ragged else (len(self.layout.rows(shard)),)
    wanted = (*num, *field.shape)
    if (array.shape, array.dtype) != (wanted, field.dtype):
      raise files.FileError(
        f'{path}: holds {array.dtype} {array.shape}, must be {np.dtype(field.dtype)}'
        f' {wanted}; {again}'
      )
    return array


def _name(name: str, shard: int) -> str:
  return f'{name}-{shard:05d}.npy'
