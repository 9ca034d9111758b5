"""Arrays that are computed once and read at random: shards of .npy files.

DIR/config.json          what the arrays are of, and how they are cut; sealed
DIR/pooled-00003.npy     part 3 of one of them, that of rows [3 s, 4 s), s = shard_size
DIR/crc32-00003.npz      of every element of every array of that part

A file is there whole or not at all, and what it holds depends on config.json alone: a
job that was stopped makes what is missing. On a local disk files are mapped into
memory, and a row costs the reading of its own bytes; others are read whole, once, and
kept.

.npy has no checksums. Those of crc32-00003.npz, which has its own, are compared
whenever a row is read (`Reader`): 1 microsecond for a row of 2 kB and 50 to 300 for
154 kB of 77 tokens (two shared cores of an AMD EPYC), and 4 bytes of memory for each
element of an open part. They are written last: a part without them is missing, be it
one of an older version. It is made anew and never believed, for nobody could say which
of its bits have changed since.
"""

import os
import zlib
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import numpy as np
from etils import epath

from lgd import errors
from lgd.storage import files


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
    """The rows of shard number `shard`."""
    first = shard * self.shard_size
    return range(first, min(first + self.shard_size, self.num_rows))


def begin(directory: epath.PathLike, config: Mapping[str, Any]) -> None:
  """Records what the arrays are of, or goes on with those of the same.

  Args:
    directory: of the arrays; made if it is not there.
    config: that of `Layout` and all else on which they depend; JSON.

  Raises:
    errors.FileError: it holds arrays of another config, whose first key is named; or it
      cannot be written to, before any array is computed.
  """
  files.require_writable(directory)
  path = files.user_path(directory) / 'config.json'
  if path.exists():
    require_same(path, read_config(directory), config)
  else:
    files.write_sealed(path, config)


def read_config(directory: epath.PathLike) -> dict[str, Any]:
  """The record of what the arrays are of.

  Raises:
    errors.FileError: none are there, or the file is damaged.
  """
  path = files.user_path(directory) / 'config.json'
  if not path.exists():
    raise errors.FileError(
      f'{directory}: holds no encoded data, for {path} is missing.'
    )
  try:
    config = files.read_sealed(path)
  except errors.FileError as error:
    raise errors.FileError(f'{error} Remove {directory} and encode again.') from error
  missing = {*Layout._fields} - {*config}
  if missing:
    raise errors.FileError(f'{path}: has no {min(missing)}; it is of something else.')
  return config


def require_same(
  path: epath.PathLike, stored: Mapping[str, Any], wanted: Mapping[str, Any]
) -> None:
  """Refuses arrays of another config.

  Raises:
    errors.FileError: a key of `wanted` has another value in `stored`; names the first.
  """
  for key, value in wanted.items():
    if stored.get(key) != value:
      raise errors.FileError(
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
  """The file name of one array of a shard."""
  return f'{name}-{shard:05d}.npy'


def checksums_name(shard: int) -> str:
  """The file name of the checksums of a shard."""
  return f'crc32-{shard:05d}.npz'


def crc32(array: np.ndarray) -> np.ndarray:
  """Checksums of the elements of an array `[n, ...]`, each contiguous: `[n]` uint32."""
  return np.fromiter(map(zlib.crc32, array), np.uint32, len(array))


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
    self._directory, self._fields = files.user_path(directory), dict(fields)
    self._command, self.layout = command, layout
    self._open: dict[tuple[str, int], np.ndarray] = {}
    self._checksums: dict[int, dict[str, np.ndarray]] = {}

  def __getstate__(self):
    # A mapped file would be pickled with all it holds.
    return {**self.__dict__, '_open': {}, '_checksums': {}}

  def read(self, name: str, rows: np.ndarray) -> np.ndarray:
    """`[n, *shape]` of an array with one element a row.

    Raises:
      IndexError: a row outside of 0..num_rows-1.
      errors.FileError: as in `take`.
    """
    field = self._fields[name]
    out = np.empty((len(rows), *field.shape), field.dtype)
    for shard, where, local in self.locate(rows):
      out[where] = self.take(name, shard, local)
    return out

  def take(
    self, name: str, shard: int, elements: slice | np.ndarray = slice(None)
  ) -> np.ndarray:
    """A copy of some elements of a part, compared with their checksums.

    Raises:
      errors.FileError: as in `part`, or an element is not what was written; names it.
    """
    taken = np.array(self.part(name, shard)[elements])
    written = self._checksums_of(name, shard)[elements]
    actual = crc32(taken)  # Of the copy: the disk may answer otherwise.
    if not np.array_equal(actual, written):
      numbers = np.arange(len(self.part(name, shard)))[elements]
      bad, of = numbers[np.argmax(actual != written)], 'element'
      if not self._fields[name].is_ragged:
        bad, of = self.layout.rows(shard)[bad], 'row'
      raise errors.FileError(
        f'{self._directory / file_name(name, shard)}: {of} {bad} is damaged, for'
        f' its crc32 is not that of {checksums_name(shard)}; {self._again}'
      )
    return taken

  def locate(self, rows: np.ndarray):
    """Shard by shard: its number, which of `rows [n]` it holds, and where.

    Raises:
      IndexError: a row outside of 0..num_rows-1.
    """
    rows = np.asarray(rows)
    wrong = rows[(rows < 0) | (rows >= self.layout.num_rows)]
    if len(wrong):
      raise IndexError(
        f'{self._directory}: has rows 0..{self.layout.num_rows - 1}, not {wrong[0]}.'
      )
    shard_of, local = np.divmod(rows, self.layout.shard_size)
    for shard in np.unique(shard_of):
      where = np.flatnonzero(shard_of == shard)
      yield int(shard), where, local[where]

  def part(self, name: str, shard: int) -> np.ndarray:
    """The whole of one file, mapped into memory if it is local.

    Raises:
      errors.FileError: it is missing, cut short, or of another size or type.
    """
    key = name, shard
    if key not in self._open:
      self._open[key] = self._load(*key)
    return self._open[key]

  @property
  def _again(self):
    return f'delete it and run {self._command}'

  def _checksums_of(self, name, shard):
    """`[elements]` uint32, of the file as it was written."""
    path = self._directory / checksums_name(shard)
    if shard not in self._checksums:
      if not path.exists():
        raise errors.FileError(f'{path}: is missing; to finish run {self._command}')
      self._checksums[shard] = files.read_npz(path)
    checksums, num = self._checksums[shard].get(name), len(self.part(name, shard))
    if checksums is None or (checksums.shape, checksums.dtype) != ((num,), np.uint32):
      raise errors.FileError(
        f'{path}: is not of the {num} elements of {file_name(name, shard)};'
        f' {self._again}'
      )
    return checksums

  def _load(self, name, shard):
    path, field = self._directory / file_name(name, shard), self._fields[name]
    if not path.exists():
      raise errors.FileError(f'{path}: is missing; to finish run {self._command}')
    try:
      if files.is_local(path):
        array = np.load(os.fspath(path), mmap_mode='r', allow_pickle=False)
      else:
        with path.open('rb') as f:
          array = np.load(f, allow_pickle=False)
      if not isinstance(array, np.ndarray):
        raise ValueError('it is an npz')
    except Exception as error:  # Whatever a damaged header makes of NumPy.
      raise errors.FileError(
        f'{path}: is cut short or damaged ({error}); {self._again}'
      ) from error
    num = array.shape[:1] if field.is_ragged else (len(self.layout.rows(shard)),)
    wanted = (*num, *field.shape)
    if (array.shape, array.dtype) != (wanted, field.dtype):
      raise errors.FileError(
        f'{path}: holds {array.dtype} {array.shape}, must be {np.dtype(field.dtype)}'
        f' {wanted}; {self._again}'
      )
    return array
