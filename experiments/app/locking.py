"""One run at a time in a work directory.

A run holds an flock of WORKDIR/lock, and writes into it who it is. The kernel takes the
lock back however the run ends, so that a file which a killed run left holds nobody up.
Buckets (gs://) have no such locks: there it is for the user to see to.
"""

import contextlib
import errno
import fcntl
import os
import pathlib
import shlex
import socket
import sys
from collections.abc import Iterator

import jax
import numpy as np
from absl import logging
from etils import epath

from lgd import errors
from lgd.storage import files
from lgd.training import sharding

FILE_NAME = 'lock'
# Of file systems that have no locks, such as some NFS.
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def lock(workdir: epath.PathLike) -> Iterator[None]:
  """Holds a work directory; a new one is made, and removed if it stays empty.

  Process 0 holds it for all of a run; all must call this.

  Raises:
    errors.LockError: another run holds it, or it cannot be written.
  """
  with contextlib.ExitStack() as stack:
    error = None
    if jax.process_index() == 0:
      try:
        stack.enter_context(_hold(workdir))
      except errors.LockError as e:
        error = e
    if error or not sharding.of_first_process(np.bool(error is None)):
      raise error or errors.LockError(
        f'--workdir={workdir}: process 0 could not take it.'
      )
    yield


@contextlib.contextmanager
def _hold(workdir: epath.PathLike) -> Iterator[None]:
  path = pathlib.Path(os.path.abspath(os.fspath(workdir)))
  if not files.is_local(workdir) or path.is_file():  # Which is refused elsewhere.
    yield
    return
  made = [p for p in (path, *path.parents) if not p.exists()]
  try:
    path.mkdir(parents=True, exist_ok=True)
    descriptor = _open_locked(path / FILE_NAME)
  except OSError as error:
    _remove_empty(made)
    raise errors.LockError(
      f'--workdir={workdir}: cannot be written ({error.strerror}); give a directory'
      ' that can.'
    ) from error
  try:
    yield
  finally:
    (path / FILE_NAME).unlink(missing_ok=True)
    os.close(descriptor)
    _remove_empty(made)


def _open_locked(path: pathlib.Path) -> int:
  """A descriptor of the file, locked."""
  while True:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
      fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      holder = os.read(descriptor, 1000).decode(errors='replace')
      os.close(descriptor)
      raise errors.LockError(
        f'--workdir={path.parent}: another run is in it: {holder or "unknown"}; wait'
        ' for it, stop it, or give another directory.'
      ) from None
    except OSError as error:
      if error.errno not in _NO_LOCKS:
        os.close(descriptor)
        raise
      logging.warning('%s: no locks here; start one run at a time', path.parent)
    # Whoever held it may have removed the file between the two calls above.
    if path.exists() and os.stat(path).st_ino == os.fstat(descriptor).st_ino:
      os.ftruncate(descriptor, 0)
      command = shlex.join([pathlib.Path(sys.argv[0]).name, *sys.argv[1:]])
      who = f'process {os.getpid()} on {socket.gethostname()}, {command}'
      os.write(descriptor, who.encode())
      return descriptor
    os.close(descriptor)


def _remove_empty(directories: list[pathlib.Path]) -> None:
  """Removes empty directories, from the innermost outwards."""
  for directory in directories:
    try:
      directory.rmdir()
    except OSError:
      return
