"""Writes the train states of one run with Orbax, and restores the newest.

A save goes on in the background while training does; a failed one is told by the next,
or when the run ends. What was saved before it stays.
"""

import contextlib
from typing import Any

from etils import epath
from orbax.checkpoint import v1 as ocp

from lgd import checkpointing
from lgd import training


class SaveError(OSError):
  """A checkpoint that could not be written."""


class Checkpointer:
  """Writes and restores the train states of one run.

  Use as a context manager: leaving it waits for saves in flight.

  Args:
    directory: of the run; created by the first save.
    config: JSON-like dictionary stored beside every step.
    keep: how many of the newest steps to keep.
  """

  def __init__(self, directory: epath.PathLike, *, config: dict[str, Any], keep: int):
    self._directory = checkpointing.absolute(directory)
    self._config = config
    self._checkpointer = ocp.training.Checkpointer(
      self._directory,
      context=checkpointing.orbax_context(),
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
      SaveError: this save, or the one before it, which is told no sooner.
    """
    items = {
      'train_state': state._replace(ema_params=None),
      'ema_params': state.ema_params,
      'config': self._config,
    }
    items['fingerprints'] = checkpointing.fingerprints_of(items)
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
      reason = checkpointing.reason_of(error)
      step = checkpointing.latest_step(self._directory)
      intact = 'nothing is saved' if step is None else f'step {step} is intact'
      raise SaveError(
        f'{self._directory}: could not save ({reason}); {intact}; see that the disk has'
        ' space and can be written, then run the same command again.'
      ) from error

  def restore(self, abstract_state: training.TrainState) -> training.TrainState:
    """The newest saved state, on the shardings of `abstract_state`.

    Raises:
      checkpointing.CheckpointError: none, a damaged one, or one of another structure.
    """
    items = {
      'train_state': abstract_state._replace(ema_params=None),
      'ema_params': abstract_state.ema_params,
    }
    restored = checkpointing.load(self._directory, items)
    return training.TrainState(*restored['train_state'])._replace(
      ema_params=restored['ema_params']
    )
