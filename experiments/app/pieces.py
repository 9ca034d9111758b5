"""Pieces of a long computation, kept so that a command that was cut short resumes.

unfinished/COMMAND/KEY.piece    a sha256, and what it is of: arrays, the rest as JSON

A piece is named by a hash of all that decides it: one of another config, base model or
learned weight is never found. It is written whole or not at all as soon as it is made,
and made anew where it does not read back. They serve the run that was cut short, not a
later one: when the results of a command are written its pieces go.

What `get` returns has been through the file's format whether it was made now or
before, and is what process 0 has of it on every process. So a run that resumes goes on
with the same bits as one that was never cut short.
"""

import hashlib
import io
import json
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from absl import logging
from etils import epath

from experiments.app import preemption
from lgd.storage import files
from lgd.training import reporting
from lgd.training import sharding

# Arrays, and values that JSON holds, by name.
Piece = dict[str, Any]

_JSON = 'json'  # The array that holds all that is none.
_SEAL = hashlib.sha256().digest_size


class Pieces:
  """The pieces of one command; all processes ask for the same ones in one order.

  Args:
    directory: of the command, `Workdir.unfinished`.
    identity: JSON of all that decides what any of them is.

  Attributes:
    seconds: that the pieces given out so far took to make, in whichever run.
  """

  def __init__(self, directory: epath.Path, identity: Any):
    self._directory, self._identity = directory, identity
    self.seconds = 0.0

  def get(self, key: Any, make: Callable[[], Piece]) -> Piece:
    """The piece that is kept, or that `make` makes now.

    Args:
      key: what tells the piece from the others; JSON, and arrays.
      make: called by all processes where none is kept.

    Raises:
      preemption.Preempted: asked to stop, where this piece is still to be made.
    """
    path = self._directory / f'{_digest([self._identity, key])}.piece'
    content = _of_first_process(_stored(path))
    if not content:
      preemption.check(f'{self._directory}: every piece so far is kept')
      start = time.perf_counter()
      piece = make()
      content = _of_first_process(_encode(piece, time.perf_counter() - start))
      if jax.process_index() == 0:
        sealed = hashlib.sha256(content).digest() + content
        files.write_whole(path, lambda f: f.write(sealed))
    piece, seconds = _decode(content)
    self.seconds += seconds
    return piece

  def progress(self, stage: str, num: int) -> reporting.Progress:
    """Lines of a loop over pieces, in which kept ones count with their own time."""
    return reporting.Progress(stage, num, clock=lambda: self.seconds)

  def remove(self) -> None:
    """Removes all pieces of the command: its results are written."""
    if jax.process_index() == 0 and self._directory.exists():
      self._directory.rmtree()
      if not any(self._directory.parent.iterdir()):
        self._directory.parent.rmdir()


def _stored(path: epath.Path) -> bytes:
  """The content of a file, on process 0; empty where it is missing or damaged."""
  if jax.process_index() or not path.exists():
    return b''
  sealed = path.read_bytes()
  seal, content = sealed[:_SEAL], sealed[_SEAL:]
  if hashlib.sha256(content).digest() != seal:
    logging.warning('%s: is cut short or damaged; it is made anew.', path)
    return b''
  return content


def _encode(piece: Piece, seconds: float) -> bytes:
  arrays = {k: v for k, v in piece.items() if isinstance(v, np.ndarray)}
  rest = {k: v for k, v in piece.items() if k not in arrays}
  text = json.dumps({'piece': rest, 'seconds': seconds})
  content = io.BytesIO()
  np.savez(content, **arrays, **{_JSON: np.frombuffer(text.encode(), np.uint8)})
  return content.getvalue()


def _decode(content: bytes) -> tuple[Piece, float]:
  arrays = dict(np.load(io.BytesIO(content), allow_pickle=False))
  rest = json.loads(arrays.pop(_JSON).tobytes())
  return arrays | rest['piece'], rest['seconds']


def _of_first_process(content: bytes) -> bytes:
  size = int(sharding.of_first_process(len(content)))
  if jax.process_count() == 1 or not size:
    return content[:size]
  padded = np.zeros(size, np.uint8)
  padded[: len(content)] = np.frombuffer(content[:size], np.uint8)
  return sharding.of_first_process(padded).tobytes()


def _digest(key: Any) -> str:
  def of_array(x):
    if not isinstance(x, np.ndarray):
      raise TypeError(f'{type(x).__name__}: neither JSON nor an array.')
    return [str(x.dtype), x.shape, hashlib.sha256(x.tobytes()).hexdigest()]

  text = json.dumps(key, sort_keys=True, default=of_array)
  return hashlib.sha256(text.encode()).hexdigest()[:32]
