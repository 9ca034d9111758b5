"""JSON that is read back and believed, with a checksum of its own.

  (1)  {..., "crc32": "8f1d0e2a"}   of the rest, as `json.dumps` has it, keys sorted

.npz carries checksums; of JSON a flipped bit often leaves another number, or another
name, and so another identity. (1) is of values: how a file is laid out does not matter.
A file without it is refused, as one is whose checksum itself was damaged: to believe it
would be to check nothing.
"""

import json
import zlib
from collections.abc import Mapping
from typing import Any

from etils import epath

from lgd import files

_KEY = 'crc32'


def seal(tree: Mapping[str, Any]) -> dict[str, Any]:
  """The same as it will be read, with lists and names as JSON has them, and (1)."""
  tree = json.loads(json.dumps(tree))
  return {**tree, _KEY: _crc32(tree)}


def unseal(tree: Any, source: str) -> dict[str, Any]:
  """What was sealed.

  Args:
    tree: that of a JSON file.
    source: what the error calls it.

  Raises:
    files.FileError: no dictionary, one without (1), or with another.
  """
  if not isinstance(tree, dict) or _KEY not in tree:
    raise files.FileError(
      f'{source}: has no {_KEY}; it is of something else or of an older version.'
    )
  rest = {key: value for key, value in tree.items() if key != _KEY}
  if tree[_KEY] != _crc32(rest):
    raise files.FileError(f'{source}: is damaged, for its {_KEY} does not fit.')
  return rest


def write(path: epath.PathLike, tree: Mapping[str, Any]) -> None:
  """Writes a sealed dictionary, as `files.write_whole`."""
  files.write_json(path, seal(tree))


def read(path: epath.PathLike) -> dict[str, Any]:
  """A sealed dictionary.

  Raises:
    files.FileError: missing, cut short, damaged, or of something else.
  """
  return unseal(files.read_json(path), str(path))


def _crc32(tree: Mapping[str, Any]) -> str:
  return f'{zlib.crc32(json.dumps(tree, sort_keys=True).encode()):08x}'
