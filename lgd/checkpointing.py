"""Orbax behind one thin wall.

A checkpoint is a step directory with three separate items: `train_state` (without
the average), `ema_params`, and `config`, a readable JSON file. Training restores
the first two, evaluation only the last two. A save that was cut short leaves a
temporary directory, which is never read.
"""

import json
from typing import Any

import jax
from etils import epath
from orbax.checkpoint import v1 as ocp

from lgd import training
from lgd import types

# Orbax writes it last, on file systems with and without an atomic rename.
_COMMIT_MARK = 'commit_success.txt'


class CheckpointError(ValueError):
  """A checkpoint that is missing, or does not fit what is to be restored."""


def latest_step(directory: epath.PathLike) -> int | None:
  """The newest complete step under `directory`, None if there is none.

  Only reads: a directory that does not exist is not created.
  """
  directory = epath.Path(directory)
  if not directory.is_dir():
    return None
  steps = [
    int(path.name)
    for path in directory.iterdir()
    if path.name.isdecimal() and (path / _COMMIT_MARK).exists()
  ]
  return max(steps, default=None)


class Checkpointer:
  """Writes and restores the train states of one run.

  Use as a context manager: leaving it waits for saves in flight.

  Args:
    directory: of the run; created by the first save.
    config: JSON-like dictionary stored beside every step.
    keep: how many of the newest steps to keep.
  """

  def __init__(self, directory: epath.PathLike, *, config: dict[str, Any], keep: int):
    self._directory = _absolute(directory)
    self._config = config
    self._checkpointer = ocp.training.Checkpointer(
      self._directory,
      context=_context(),
      preservation_policy=ocp.training.preservation_policies.LatestN(keep),
      cleanup_tmp_directories=True,
    )

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self._checkpointer.close()

  def save(self, state: training.TrainState) -> None:
    """Saves `state` under its step, in the background once it is off the device."""
    self._checkpointer.save_checkpointables_async(
      int(state.step),
      {
        'train_state': state._replace(ema_params=None),
        'ema_params': state.ema_params,
        'config': self._config,
      },
      force=True,
    )

  def restore(self, abstract_state: training.TrainState) -> training.TrainState:
    """The newest saved state, on the shardings of `abstract_state`.

    Raises:
      CheckpointError: no checkpoint, or one of another structure.
    """
    items = {
      'train_state': abstract_state._replace(ema_params=None),
      'ema_params': abstract_state.ema_params,
    }
    restored = _load(self._directory, items)
    return training.TrainState(*restored['train_state'])._replace(
      ema_params=restored['ema_params']
    )


def load_config(directory: epath.PathLike) -> dict[str, Any]:
  """The config stored with the newest step. Raises CheckpointError if none."""
  return _load(directory, {'config': None})['config']


def load_ema_params(
  directory: epath.PathLike, abstract_params: types.Params
) -> types.Params:
  """The averaged parameters of the newest step.

  Args:
    directory: of the run.
    abstract_params: pytree of `jax.ShapeDtypeStruct` with shardings.

  Raises:
    CheckpointError: no checkpoint, or one of another structure.
  """
  return _load(directory, {'ema_params': abstract_params})['ema_params']


def abstract(tree: Any, shardings: Any) -> Any:
  """Shapes and dtypes of `tree`, to be restored onto a tree of shardings."""
  return jax.tree.map(
    lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
    tree,
    shardings,
  )


def _absolute(directory: epath.PathLike) -> epath.Path:
  """Orbax wants absolute paths; `resolve` would spoil a gs:// one, which is."""
  path = epath.Path(directory)
  return path if path.is_absolute() else path.resolve()


def _context() -> ocp.Context:
  # The generic handler would store the config as an array tree; as JSON it can be
  # read with any editor.
  registry = ocp.handlers.local_registry()
  registry.add(ocp.handlers.JsonHandler, checkpointable_name='config')
  context = ocp.Context()
  context.checkpointables.registry = registry
  return context


def _load(directory: epath.PathLike, items: dict[str, Any]) -> dict[str, Any]:
  directory = _absolute(directory)
  step = latest_step(directory)
  if step is None:
    raise CheckpointError(f'{directory}: holds no checkpoint.')
  path = directory / str(step)
  with _context():
    stored = ocp.checkpointables_metadata(path).metadata
    for name, target in items.items():
      if name not in stored:
        raise CheckpointError(
          f'{path}: has no item {name!r}, so it was not written by this program.'
        )
      if target is not None:
        _check_structure(path / name, stored[name], target)
    return ocp.load_checkpointables(path, items)


def _check_structure(path: epath.Path, stored: Any, target: Any) -> None:
  """Names the first array that differs, where Orbax would print both trees."""

  def shapes(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {_leaf_name(key): tuple(leaf.shape) for key, leaf in leaves}

  stored, target = shapes(stored), shapes(target)
  for name in sorted(stored.keys() | target.keys()):
    if stored.get(name) != target.get(name):
      raise CheckpointError(
        f'{path}: array {name} is {stored.get(name, "absent")} in the checkpoint'
        f' but {target.get(name, "absent")} in this config; restore it with the'
        ' config it was trained with, or use another --workdir.'
      )


def _leaf_name(key_path) -> str:
  """'params/hidden/kernel', whether a container is a dict, a tuple or a class."""
  names = (
    next(str(getattr(k, a)) for a in ('key', 'name', 'idx') if hasattr(k, a))
    for k in key_path
  )
  return '/'.join(names)


def to_json(config: Any) -> dict[str, Any]:
  """A config as it will read after a round trip through JSON."""
  return json.loads(json.dumps(config))
