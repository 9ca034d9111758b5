"""What several tests share."""

import contextlib
import os
import pathlib
import re
import resource
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from typing import Any
from unittest import mock

from absl.testing import parameterized
from ml_collections import config_dict

from experiments import app
from experiments import builders
from experiments import workdirs

_COLLECTIVE = re.compile(
  r'= (.*?) (all-reduce|all-gather|all-to-all|reduce-scatter|collective-permute)'
  r'(?:-start)?\('
)


MEAN, VARIANCE = 1.0, 0.25  # The data of `gaussian_denoiser`, one number each.


def gaussian_denoiser(xt, s, t, cond):
  """E[x_0 | x_t] for N(MEAN, VARIANCE) data on the rectified flow."""
  del s, cond
  alpha, sigma = 1.0 - t, t
  gain = alpha * VARIANCE / (alpha**2 * VARIANCE + sigma**2)
  return MEAN + gain[:, None] * (xt - alpha[:, None] * MEAN)


def session(workdir: Any, config: config_dict.ConfigDict) -> workdirs.Session:
  """A session that nothing was checked for; `workdir` is a `Workdir` or a path."""
  if not isinstance(workdir, workdirs.Workdir):
    workdir = workdirs.Workdir(workdir)
  return workdirs.Session(workdir, config, builders.data.spec(config))


class WorkdirCase(parameterized.TestCase):
  """A work directory that `fill` makes once, and copies of it for single tests."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.root = pathlib.Path(tempfile.mkdtemp())
    cls.addClassCleanup(shutil.rmtree, cls.root)
    cls.fill()

  @classmethod
  def fill(cls):
    raise NotImplementedError

  def copy(self) -> pathlib.Path:
    workdir = pathlib.Path(self.create_tempdir().full_path)
    return pathlib.Path(shutil.copytree(self.root, workdir, dirs_exist_ok=True))


def start(program: str, *args: object, **env: str) -> subprocess.Popen[str]:
  """A Python process of a program's text, on one CPU device unless `env` says more."""
  return subprocess.Popen(
    [sys.executable, '-c', program, *map(str, args)],
    cwd=pathlib.Path(__file__).parents[1],
    env={**os.environ, 'JAX_NUM_CPU_DEVICES': '1', **env},
    stderr=subprocess.PIPE,
    text=True,
  )


def free_address() -> str:
  """'localhost:PORT', where the processes of a test may meet."""
  with socket.socket() as s:
    s.bind(('localhost', 0))
    return f'localhost:{s.getsockname()[1]}'


@contextlib.contextmanager
def full_disk(left=1000):
  """No file may grow beyond `left` bytes: writes fail, as Python ignores SIGXFSZ."""
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (left, before[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def pieces_made(run: Callable[[], Any], *, dies_at: int | None = None) -> int:
  """How many pieces a command makes; it may die when it has made one and not kept it.

  Args:
    run: the command.
    dies_at: the number of that piece, from 0.
  """
  made, encode = 0, app.pieces._encode

  def counted(*args):
    nonlocal made
    if made == dies_at:
      raise KeyboardInterrupt
    made += 1
    return encode(*args)

  with mock.patch.object(app.pieces, '_encode', counted):
    try:
      run()
    except KeyboardInterrupt:
      assert made == dies_at
    else:
      assert dies_at is None, f'died at none of {made}'
  return made


def files_under(path: pathlib.Path) -> dict[pathlib.Path, int]:
  """Every file and directory, with the time of its last change."""
  return {p: p.stat().st_mtime_ns for p in path.rglob('*')}


def elements_moved(program: str) -> dict[str, list[int]]:
  """Elements that each communication of a compiled program (HLO text) results in."""
  moved = {}
  for types, name in _COLLECTIVE.findall(program):
    for dims in re.findall(r'\w+\[([\d,]*)\]', types):
      size = 1
      for dim in filter(None, dims.split(',')):
        size *= int(dim)
      moved.setdefault(name, []).append(size)
  return moved
