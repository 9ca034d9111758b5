"""Files: written whole or not at all, and checked when they are read.

A file is written under another name, which ends in `.partial`, and renamed when all its
bytes are there. On a local disk they are synchronised before, and the directory after:
a machine that loses power keeps the old file or the new one. Buckets show an object
when it is complete.

Arrays lie in .npz, which carries checksums. In JSON a flipped bit often leaves another
number, or another name, and so another identity. A dictionary that must be believed is
therefore sealed: it carries a checksum of its own values, whatever their layout.

  (1)  {..., "crc32": "8f1d0e2a"}   of the rest, as `json.dumps` has it, keys sorted

A dictionary without (1) is refused, for its checksum itself may be what was damaged.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import IO

import jax
import numpy as np
from etils import epath
from flax import traverse_util

from lgd import errors
from lgd import types

_CHUNK = 1 << 20  # Bytes hashed at a time.
_KEY = 'crc32'  # Of (1).


def user_path(path: epath.PathLike) -> epath.Path:
  """A path as a user writes it: `~` is the home directory.

  A shell expands none in `--workdir=~/runs`. Every path of a flag, a config or a caller
  goes through this.
  """
  return epath.Path(path).expanduser()


def read_npz(
  path: epath.PathLike, *, sha256: str | None = None
) -> dict[str, np.ndarray]:
  """All arrays of an .npz file.

  Args:
    path: of the file.
    sha256: if given, what that of the file must start with, as in `check_sha256`.

  Raises:
    errors.FileError: missing, no npz, cut short or damaged (npz carries checksums), or
      of another sha256.
  """
  if sha256 is not None:
    check_sha256(path, sha256)
  path = user_path(path)
  if not path.exists():
    raise errors.FileError(f'{path}: no such file.')
  try:
    with path.open('rb') as f:
      archive = np.load(f, allow_pickle=False)
      arrays = dict(archive) if isinstance(archive, np.lib.npyio.NpzFile) else {}
    if not all(isinstance(array, np.ndarray) for array in arrays.values()):
      raise ValueError('not all of its members are arrays')
    if not arrays:
      raise ValueError('it holds no named arrays')
  except (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    zipfile.BadZipFile,
    zlib.error,
  ) as error:
    raise errors.FileError(
      f'{path}: is cut short, damaged or no npz ({error}); copy or make it again.'
    ) from error
  return arrays


def write_npz(path: epath.PathLike, arrays: Mapping[str, np.ndarray]) -> None:
  """Writes an .npz, under its name only when it is complete."""
  write_whole(path, lambda f: np.savez(f, **arrays))


def write_whole(path: epath.PathLike, write: Callable[[IO[bytes]], Any]) -> None:
  """Writes a file, under its name only when it is complete; makes its directory.

  Args:
    path: of the file.
    write: puts its bytes into an open file.

  Raises:
    errors.WriteError: a disk that is full, read-only or failing, a quota, no
      permission.
  """
  path = user_path(path)
  partial = path.parent / f'{path.name}.partial'
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    with partial.open('wb') as f:
      write(f)
      if is_local(path):
        f.flush()
        os.fsync(f.fileno())
    partial.replace(path)
  except OSError as error:
    with contextlib.suppress(OSError):  # Half of it would only fill the disk.
      partial.unlink()
    raise errors.WriteError(
      f'{path}: cannot be written ({error.strerror or error}); what was there before is'
      ' intact. Free space or make the disk writable, then run the same command again.'
    ) from error
  if is_local(path):
    _synchronise(path.parent)


def _synchronise(directory: epath.Path) -> None:
  """Puts the names in a directory on its disk."""
  descriptor = os.open(directory, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  except OSError as error:
    if error.errno != errno.EINVAL:  # Of file systems that cannot, and need not.
      raise
  finally:
    os.close(descriptor)


def write_text(path: epath.PathLike, text: str) -> None:
  """Writes a text in UTF-8, as `write_whole`."""
  write_whole(path, lambda f: f.write(text.encode()))


def write_json(path: epath.PathLike, tree: Any) -> None:
  """Writes a JSON file, as `write_whole`."""
  write_text(path, json.dumps(tree, indent=1))


def read_json(path: epath.PathLike) -> Any:
  """The content of a JSON file; `read_sealed` notices another value, too.

  Raises:
    errors.FileError: missing, no UTF-8, or no JSON.
  """
  try:
    return json.loads(user_path(path).read_bytes().decode())
  except FileNotFoundError as error:
    raise errors.FileError(f'{path}: no such file.') from error
  except (OSError, ValueError, RecursionError) as error:
    raise errors.FileError(
      f'{path}: is cut short, damaged or no JSON ({error}).'
    ) from error


def is_local(path: epath.PathLike) -> bool:
  """Whether a path is of this machine's file systems, and not of a bucket."""
  return '://' not in os.fspath(path)


def require_writable(directory: epath.PathLike) -> None:
  """Refuses a local directory that takes no file; leaves nothing behind.

  Writes a byte to a file without a name, as permission bits say little: root has all,
  and a read-only disk has those that it was given. Of a directory that is not there
  its nearest parent that is must take the file. A bucket is left to its writer.

  Raises:
    errors.FileError: no file can be made there.
  """
  if not is_local(directory):
    return
  place = user_path(directory)
  try:
    while not place.exists():
      place = place.parent
    if not place.is_dir():
      raise errors.FileError(f'{directory}: {place} is a file; give a directory.')
    with tempfile.TemporaryFile(dir=place) as f:
      f.write(b'0')
  except OSError as error:
    raise errors.FileError(
      f'{directory}: no file can be written in {place} ({error.strerror}); free space,'
      ' make it writable or give another directory.'
    ) from error


def sha256(path: epath.PathLike) -> str:
  """The sha256 of a file's bytes, 64 hexadecimal digits."""
  digest = hashlib.sha256()
  with user_path(path).open('rb') as f:
    while chunk := f.read(_CHUNK):
      digest.update(chunk)
  return digest.hexdigest()


def check_sha256(path: epath.PathLike, expected: str) -> None:
  """Compares a file with the first digits of its sha256, at least 8 of them.

  PyTorch's hub puts the first 8 into file names.

  Raises:
    errors.FileError: another file, or none.
    ValueError: `expected` is not 8 to 64 hexadecimal digits.
  """
  if not re.fullmatch('[0-9a-fA-F]{8,64}', expected):
    raise ValueError(f'sha256={expected!r}: must be 8 to 64 hexadecimal digits.')
  if not user_path(path).exists():
    raise errors.FileError(f'{path}: no such file.')
  actual = sha256(path)
  if not actual.startswith(expected.lower()):
    raise errors.FileError(
      f'{path}: its sha256 starts with {actual[: len(expected)]}, not {expected}: it is'
      ' cut short or another file; copy it again.'
    )


def to_params(
  arrays: Mapping[str, np.ndarray], abstract: types.Params, source: str
) -> types.Params:
  """Puts arrays named 'block/conv/kernel' where a network has its parameters.

  Args:
    arrays: by name, without the collection 'params'.
    abstract: of the network's `init`, under `jax.eval_shape`.
    source: what the error calls them.

  Returns:
    The parameters, on the default device.

  Raises:
    errors.FileError: an array is missing, extra, or of another shape or dtype; names
      it.
  """
  expected = traverse_util.flatten_dict(abstract['params'], sep='/')
  for name in sorted(expected.keys() | arrays.keys()):
    wanted, array = expected.get(name), arrays.get(name)
    if wanted is None:
      raise errors.FileError(
        f'{source}: has an array {name}, which the network has not.'
      )
    if array is None:
      raise errors.FileError(f'{source}: has no array {name}, which the network needs.')
    if (array.shape, array.dtype) != (wanted.shape, wanted.dtype):
      raise errors.FileError(
        f'{source}: array {name} is {array.dtype} {array.shape}; the network has'
        f' {wanted.dtype} {wanted.shape}.'
      )
  return jax.device_put({'params': traverse_util.unflatten_dict(dict(arrays), sep='/')})


def seal(tree: Mapping[str, Any]) -> dict[str, Any]:
  """The same as it will be read, with lists and names as JSON has them, and (1)."""
  tree = json.loads(json.dumps(tree))
  return {**tree, _KEY: _crc32(tree)}


def unseal(tree: Any, source: str) -> dict[str, Any]:
  """The dictionary that was sealed.

  Args:
    tree: that of a JSON file.
    source: what the error calls it.

  Raises:
    errors.FileError: no dictionary, one without (1), or with another.
  """
  if not isinstance(tree, dict) or _KEY not in tree:
    raise errors.FileError(
      f'{source}: has no {_KEY}; it is of something else or of an older version.'
    )
  rest = {key: value for key, value in tree.items() if key != _KEY}
  if tree[_KEY] != _crc32(rest):
    raise errors.FileError(f'{source}: is damaged, for its {_KEY} does not fit.')
  return rest


def write_sealed(path: epath.PathLike, tree: Mapping[str, Any]) -> None:
  """Writes a sealed dictionary, as `write_whole`."""
  write_json(path, seal(tree))


def read_sealed(path: epath.PathLike) -> dict[str, Any]:
  """A sealed dictionary.

  Raises:
    errors.FileError: missing, cut short, damaged, or of something else.
  """
  return unseal(read_json(path), str(path))


def _crc32(tree: Mapping[str, Any]) -> str:
  return f'{zlib.crc32(json.dumps(tree, sort_keys=True).encode()):08x}'
