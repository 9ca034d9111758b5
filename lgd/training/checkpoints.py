"""Checkpoints of the train states of one run, written and read with Orbax.

A checkpoint is a step directory with four separate items: `train_state` (without
the average), `ema_params`, `config`, a readable JSON file, and `fingerprints` of the
other three. Training restores the first two, evaluation the averaged parameters and the
config. A save that was cut short leaves a temporary directory, which is never read.
What is read must have its fingerprint: the formats below find files that are cut short,
not every bit that flipped.

A save goes on in the background while training does. A save that failed is told by the
next one, or when the run ends; what was saved before it stays.
"""

import contextlib
import json
from typing import Any

import jax
from etils import epath
from orbax.checkpoint import v1 as ocp

from lgd import errors
from lgd import training
from lgd import types
from lgd.storage import files
from lgd.training import fingerprints

# Orbax writes it last, on file systems with and without an atomic rename.
_COMMIT_MARK = 'commit_success.txt'


def latest_step(directory: epath.PathLike) -> int | None:
  """The newest complete step under `directory`, None if there is none.

  Only reads: a directory that does not exist is not created.
  """
  return max(_steps(files.user_path(directory)), default=None)


def _steps(directory: epath.Path) -> list[int]:
  """Complete ones."""
  if not directory.is_dir():
    return []
  return [
    int(path.name)
    for path in directory.iterdir()
    if path.name.isdecimal() and (path / _COMMIT_MARK).exists()
  ]


def load_config(directory: epath.PathLike) -> dict[str, Any]:
  """The config stored with the newest step. Raises errors.CheckpointError if none."""
  return load(directory, {'config': None})['config']


def load_ema_params(
  directory: epath.PathLike, abstract_params: types.Params
) -> types.Params:
  """The averaged parameters of the newest step.

  Args:
    directory: of the run.
    abstract_params: pytree of `jax.ShapeDtypeStruct` with shardings.

  Raises:
    errors.CheckpointError: as in `load`.
  """
  return load(directory, {'ema_params': abstract_params})['ema_params']


def abstract(tree: Any, shardings: Any) -> Any:
  """Shapes and dtypes of `tree`, to be restored onto a tree of shardings."""
  return jax.tree.map(
    lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
    tree,
    shardings,
  )


def absolute(directory: epath.PathLike) -> epath.Path:
  """Orbax wants absolute paths; `resolve` would spoil a gs:// one, which is."""
  path = files.user_path(directory)
  return path if path.is_absolute() else path.resolve()


def orbax_context() -> ocp.Context:
  """A context in which `config` and `fingerprints` are JSON, and no arrays."""
  registry = ocp.handlers.local_registry()
  for name in ('config', 'fingerprints'):
    registry.add(ocp.handlers.JsonHandler, checkpointable_name=name)
  context = ocp.Context()
  context.checkpointables.registry = registry
  return context


def fingerprints_of(items: dict[str, Any]) -> dict[str, Any]:
  """Fingerprints of every array by its name, and one of the whole config."""
  of_item = {'config': fingerprints.of_json}
  return {
    name: of_item.get(name, fingerprints.of_arrays)(item)
    for name, item in items.items()
  }


def load(directory: epath.PathLike, items: dict[str, Any]) -> dict[str, Any]:
  """Items of the newest step, compared with their fingerprints.

  Args:
    directory: of the run.
    items: name -> what arrays are restored to, as in `abstract`; None for the config.

  Raises:
    errors.CheckpointError: none, a damaged one, or one of another structure.
  """
  directory = absolute(directory)
  step = latest_step(directory)
  if step is None:
    raise errors.CheckpointError(f'{directory}: holds no checkpoint.')
  path = directory / str(step)
  for name in (*items, 'fingerprints'):
    if not (path / name).is_dir():
      raise errors.CheckpointError(
        f'{path}: has no item {name!r}, so it was not written by this program.'
      )
  try:
    saved = _read_json(path / 'fingerprints')
    loaded = {k: _read_json(path / k) for k, target in items.items() if target is None}
    targets = {k: target for k, target in items.items() if target is not None}
    if targets:
      with orbax_context():
        stored = ocp.checkpointables_metadata(path).metadata
        for name, target in targets.items():
          if _shapes(stored[name]).keys() != saved[name].keys():
            raise _damaged(path, f'{name} has not the arrays that were saved')
          _check_structure(path / name, stored[name], target)
        loaded |= ocp.load_checkpointables(path, targets)
    for name, found in fingerprints_of(loaded).items():
      if found != saved[name]:
        raise _damaged(path, f'{name} is not what was saved')
  except errors.CheckpointError:
    raise
  except Exception as error:  # Whatever damaged bytes make of the libraries below.
    raise _damaged(path, reason_of(error)) from error
  return loaded


def _read_json(path: epath.Path) -> Any:
  """An item of Orbax's JsonHandler, which itself takes a tenth of a second."""
  (file,) = path.glob('*.json')
  return json.loads(file.read_text())


def _damaged(path: epath.Path, reason: str) -> errors.CheckpointError:
  before = [step for step in _steps(path.parent) if step < int(path.name)]
  again = f'goes on from step {max(before)}' if before else 'starts again'
  return errors.CheckpointError(
    f'{path}: is damaged ({reason}); remove it, and the command that trained it'
    f' {again}.'
  )


def reason_of(error: BaseException) -> str:
  """The innermost cause, on one line and not the libraries' whole story."""
  while error.__cause__ is not None:
    error = error.__cause__
  return f'{type(error).__name__}: {" ".join(str(error).split())[:200]}'


def _check_structure(path: epath.Path, stored: Any, target: Any) -> None:
  """Names the first array that differs, where Orbax would print both trees."""
  stored, target = _shapes(stored), _shapes(target)
  for name in sorted(stored.keys() | target.keys()):
    if stored.get(name) != target.get(name):
      raise errors.CheckpointError(
        f'{path}: array {name} is {stored.get(name, "absent")} in the checkpoint'
        f' but {target.get(name, "absent")} in this config; restore it with the'
        ' config it was trained with, or use another --workdir.'
      )


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {fingerprints.leaf_name(key): tuple(leaf.shape) for key, leaf in leaves}


class Checkpointer:
  """Writes and restores the train states of one run.

  Use as a context manager: leaving it waits for saves in flight.

  Args:
    directory: of the run; created by the first save.
    config: JSON-like dictionary stored beside every step.
    keep: how many of the newest steps to keep.
  """

  def __init__(self, directory: epath.PathLike, *, config: dict[str, Any], keep: int):
    self._directory = absolute(directory)
    self._config = config
    self._checkpointer = ocp.training.Checkpointer(
      self._directory,
      context=orbax_context(),
      preservation_policy=ocp.training.preservation_policies.LatestN(keep),
      cleanup_tmp_directories=True,
    )
    self._pending = None  # Orbax's response to the save in flight.

  def __enter__(self):
    return self

  def __exit__(self, *_):
    with self._naming_failures():
      try:
        self._finish()
      finally:
        self._checkpointer.close()

  def save(self, state: training.TrainState) -> None:
    """Saves `state` under its step, in the background once it is off the device.

    Raises:
      errors.SaveError: this save, or the one before it, which is told no sooner.
    """
    items = {
      'train_state': state._replace(ema_params=None),
      'ema_params': state.ema_params,
      'config': self._config,
    }
    items['fingerprints'] = fingerprints_of(items)
    with self._naming_failures():
      self._finish()
      self._pending = self._checkpointer.save_checkpointables_async(
        int(state.step), items, force=True
      )

  def _finish(self):
    """Waits for the last save. Of one not asked for, Orbax keeps a thread and files."""
    pending, self._pending = self._pending, None
    if pending is not None:
      pending.result()

  @contextlib.contextmanager
  def _naming_failures(self):
    try:
      yield
    except Exception as error:  # Each of the libraries below has its own.
      reason = reason_of(error)
      step = latest_step(self._directory)
      intact = 'nothing is saved' if step is None else f'step {step} is intact'
      raise errors.SaveError(
        f'{self._directory}: could not save ({reason}); {intact}; see that the disk has'
        ' space and can be written, then run the same command again.'
      ) from error

  def restore(self, abstract_state: training.TrainState) -> training.TrainState:
    """The newest saved state, on the shardings of `abstract_state`.

    Raises:
      errors.CheckpointError: none, a damaged one, or one of another structure.
    """
    items = {
      'train_state': abstract_state._replace(ema_params=None),
      'ema_params': abstract_state.ema_params,
    }
    restored = load(self._directory, items)
    return training.TrainState(*restored['train_state'])._replace(
      ema_params=restored['ema_params']
    )
