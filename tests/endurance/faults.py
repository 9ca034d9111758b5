"""Runs that are killed: real processes of the commands, and what they leave behind."""

import dataclasses
import json
import os
import pathlib
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

import jax
import numpy as np
from orbax.checkpoint import v1 as ocp

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = (
  '--config=configs/digits.py:smoke',
  '--config.checkpoint_every=2',
  '--config.log_every=3',
  '--config.statistics.shard_size=8',
  '--config.statistics.batch_size=8',
)
# Every one that trains or samples, in the order in which they stand on each other.
BINARIES = (
  'train_denoiser',
  'collect_statistics',
  'train_guidance',
  'search_trajectory',
  'sweep',
  'sample',
  'evaluate',
  'compare',
  'fid',
)
# Of the commands that take many minutes as they are.
SHRUNKEN = {
  'compare': (
    '--config.compare.num_steps=(3,)',
    "--config.compare.methods=('constant', 'cfg_zero')",
    '--config.compare.omegas=(0.25, 1.0)',
  ),
  'fid': (
    '--config.fid.num_samples=50000',
    '--config.fid.batch_size=2048',
    '--config.fid.shard_size=2048',
  ),
}
# With the pixels as features: of networks no weights are at hand, and what is killed is
# the sampling.
FID = """
from experiments import fid
from experiments.app import launch
from experiments.judges import features
from lgd import metrics
extractor = metrics.Extractor(
  'distance', {}, lambda params, images: (images[..., 0].reshape(-1, 64) / 255.0, None)
)
network = features.Network('pixels', 'none', '0' * 64, extractor)
launch.main(
  lambda flags: fid.run(
    flags.config, flags.workdir, method='unguided', seed=0, network=network
  ),
  needs_config=True,
)
"""
_TIMES = re.compile(r'[\d.]+ s\b')  # Of reports, which no two runs share.
_TIME_KEYS = ('seconds', 'training', 'all', 'crc32')  # The last is of them, too.


class Run:
  """A binary on the shrunken digits, with a work directory, flags and environment."""

  def __init__(self, binary: str, workdir: pathlib.Path, *flags: str, **env: str):
    program = ['-c', FID] if binary == 'fid' else ['-m', f'experiments.{binary}']
    self._messages = tempfile.TemporaryFile('w+')
    self.process = subprocess.Popen(
      [
        sys.executable,
        *program,
        *CONFIG,
        *SHRUNKEN.get(binary, ()),
        f'--workdir={workdir}',
        *flags,
      ],
      cwd=ROOT,
      env={
        **os.environ,
        'JAX_NUM_CPU_DEVICES': '1',
        'JAX_DISABLE_MOST_OPTIMIZATIONS': '1',
        **env,
      },
      stdout=subprocess.DEVNULL,
      stderr=self._messages,
    )

  def is_over(self) -> bool:
    return self.process.poll() is not None

  def wait(self, timeout: float = 300.0) -> tuple[int, str]:
    """Exit code and messages, when it is over."""
    code = self.process.wait(timeout)
    self._messages.seek(0)
    with self._messages:
      return code, self._messages.read()

  def finish(self, timeout: float = 300.0) -> None:
    """Waits for a run that must succeed."""
    code, messages = self.wait(timeout)
    assert code == 0, f'exit code {code}: {messages[-3000:]}'

  def kill(self) -> None:
    """Sends SIGKILL."""
    self.process.kill()
    self.wait()

  def wait_for(self, condition: Callable[[], bool], timeout: float = 120.0) -> bool:
    """Whether `condition` came true before the run was over."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
      if condition():
        return True
      if self.is_over():
        return False
      time.sleep(0.0005)
    raise TimeoutError


@dataclasses.dataclass
class Kill:
  """When one run was killed."""

  moment: str  # 'start-up', 'work', 'save' or 'after the end'
  seconds: float


def kill_at_random(
  run: Run,
  workdir: pathlib.Path,
  rng: random.Random,
  seconds: float,
) -> Kill:
  """Sends SIGKILL at a moment drawn for it, and says which it was.

  Args:
    run: just started.
    workdir: where it writes.
    rng: draws a moment: uniform in `seconds`, soon after the first thing it writes, or
      while a file or a checkpoint is only partly written.
    seconds: that an undisturbed run takes.
  """
  begin, before = time.monotonic(), names(workdir)
  kind = rng.choice(('anywhere', 'work', 'save'))
  if kind == 'anywhere':
    deadline = begin + rng.uniform(0.0, seconds)
    run.wait_for(lambda: time.monotonic() >= deadline)
  elif kind == 'work':
    run.wait_for(lambda: bool(names(workdir) - before - {'lock'}))
    time.sleep(rng.uniform(0.0, 0.3 * seconds))
  else:
    for _ in range(rng.randrange(1, 4)):  # Not always the first of them.
      run.wait_for(lambda: is_saving(workdir))
      run.wait_for(lambda: not is_saving(workdir) or rng.random() < 0.5)
  saving, wrote = is_saving(workdir), bool(names(workdir) - before - {'lock'})
  ended = run.is_over()
  run.kill()
  moment = 'save' if saving else 'work' if wrote else 'start-up'
  return Kill('after the end' if ended else moment, time.monotonic() - begin)


def names(workdir: pathlib.Path) -> set[str]:
  """Paths of all files, which come and go while this looks."""
  return {
    os.path.relpath(os.path.join(path, name), workdir)
    for path, _, files in os.walk(workdir)
    for name in files
  }


def is_saving(workdir: pathlib.Path) -> bool:
  """Whether something is there under a name that is not its last."""
  return any(
    name.endswith('.partial') or 'orbax-checkpoint-tmp' in name
    for _, directories, files in os.walk(workdir)
    for name in (*directories, *files)
  )


def contents(workdir: pathlib.Path) -> dict[str, object]:
  """All that a work directory holds, read by nobody of ours, without times of day.

  Checkpoints are what Orbax restores of their newest step, npz files their arrays, JSON
  its tree. Of TensorBoard's events there may be more files after a kill.
  """
  found = {}
  for path in sorted(workdir.rglob('*')):
    name = str(path.relative_to(workdir))
    if is_newest_step(path):
      found[name] = _restore(path)
    elif path.is_file() and not _is_within(path, workdir):
      found[name] = _read(path)
  return found


def is_newest_step(path: pathlib.Path) -> bool:
  """Whether this is the directory of a run's last complete checkpoint."""
  if not path.name.isdecimal() or not (path / 'commit_success.txt').exists():
    return False
  return int(path.name) == max(int(p.name) for p in path.parent.glob('[0-9]*'))


def _is_within(path: pathlib.Path, workdir: pathlib.Path) -> bool:
  """Whether a file is of a checkpoint, or of TensorBoard."""
  parts = path.relative_to(workdir).parts
  return parts[0] == 'tensorboard' or any(part.isdecimal() for part in parts)


def _read(path: pathlib.Path) -> object:
  if path.suffix == '.npz':
    with np.load(path, allow_pickle=False) as arrays:
      return dict(arrays)
  if path.suffix == '.json':
    return _timeless(json.loads(path.read_text()))
  if path.suffix == '.png':
    return path.read_bytes()
  return _TIMES.sub('', path.read_text())


def differences(a: dict[str, object], b: dict[str, object]) -> list[str]:
  """Names of what is not the same, bit for bit, in two of `contents`."""
  names = sorted(a.keys() ^ b.keys())
  for name in sorted(a.keys() & b.keys()):
    try:
      np.testing.assert_equal(a[name], b[name])
    except AssertionError:
      names.append(name)
  return names


def _restore(path: pathlib.Path) -> dict[str, object]:
  """Every array of a checkpoint, whatever devices it was saved on, and its JSON."""
  here = jax.sharding.SingleDeviceSharding(jax.devices()[0])

  def on_host(leaf):
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=here)

  stored = ocp.checkpointables_metadata(path).metadata
  trees = {name: None for name in stored}
  for name in ('train_state', 'ema_params'):
    trees[name] = jax.tree.map(on_host, stored[name])
  leaves = jax.tree_util.tree_leaves_with_path(ocp.load_checkpointables(path, trees))
  return {
    jax.tree_util.keystr(key): np.asarray(leaf) if isinstance(leaf, jax.Array) else leaf
    for key, leaf in leaves
  }


def _timeless(tree: object) -> object:
  if isinstance(tree, dict):
    return {k: _timeless(v) for k, v in tree.items() if k not in _TIME_KEYS}
  return [_timeless(x) for x in tree] if isinstance(tree, list) else tree
