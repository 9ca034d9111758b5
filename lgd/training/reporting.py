"""Reports of a run: metrics.jsonl, TensorBoard, and lines on the console.

Only process 0 writes. Metrics of a window of steps stay on the device until the
window ends, so that logging never makes the accelerator wait; the end of a window
is also where a non-finite value is found, and named with its step. Steps that say
'skipped' are counted, and are in no mean.
"""

import contextlib
import datetime
import json
import math
import time
from collections.abc import Callable

import jax
import numpy as np
from absl import logging
from etils import epath
from tensorboardX import SummaryWriter

from lgd import errors
from lgd.storage import files


class Progress:
  """Lines of a long loop: how much is done, what came of it, and the time left.

  Args:
    stage: what runs, at the start of every line.
    num: turns of the loop.
    clock: seconds spent, from any start. Work that an earlier run has kept counts with
      the time that it took then if the clock says so.
  """

  def __init__(
    self, stage: str, num: int, *, clock: Callable[[], float] = time.perf_counter
  ):
    self._stage, self._num, self._clock = stage, num, clock
    self._start = clock()

  def log(
    self, done: int, result: str = '', *, rate: tuple[int, str] | None = None
  ) -> None:
    """Says that `done` turns are done; `rate` is a number of things, and their name."""
    elapsed = self._clock() - self._start
    parts = [f'{self._stage} {done}/{self._num}', result]
    if rate:
      count, things = rate
      parts.append(f'{count / elapsed:.3g} {things}/s')
    parts.append(f'ETA {_eta(elapsed / done, self._num - done)}')
    logging.info('%s', '  '.join(part for part in parts if part))


def _eta(seconds: float, left: int) -> datetime.timedelta:
  """The time left, at `seconds` a turn."""
  return datetime.timedelta(seconds=round(seconds * left))


class Reporter:
  """Collects the metrics of every step, and reports the mean of each window.

  Use as a context manager.

  Args:
    workdir: of the experiment.
    stage: what runs, such as 'denoiser': the prefix of all metric names.
    num_steps: of the whole run, for the ETA.
    start: steps already done; lines of this stage beyond it, left by a run that
      was cut short after its last checkpoint, are dropped.
  """

  def __init__(
    self, workdir: epath.PathLike, stage: str, *, num_steps: int, start: int
  ):
    self._stage, self._num_steps = stage, num_steps
    self._window, self._window_start = [], start
    self._time, self._waited = time.perf_counter(), 0.0
    self._writes = jax.process_index() == 0
    if self._writes:
      workdir = files.user_path(workdir)
      self._path = workdir / 'metrics.jsonl'
      self._drop_lines_after(start)
      self._tensorboard = SummaryWriter(
        str(workdir / 'tensorboard' / stage), purge_step=start + 1
      )

  def __enter__(self):
    return self

  def __exit__(self, *_):
    if self._writes:
      self._tensorboard.close()

  def add(self, metrics: dict[str, jax.Array]) -> None:
    """Takes the metrics of one step; does not wait for them."""
    self._window.append(metrics)

  @contextlib.contextmanager
  def waiting_for_data(self):
    """Counts the time spent inside: the console shows its share of the window."""
    start = time.perf_counter()
    yield
    self._waited += time.perf_counter() - start

  def flush(self) -> dict[str, float]:
    """Ends the window: checks every step of it, reports the mean and returns it.

    Raises:
      errors.NonFiniteError: names the quantity, the step and the window; or all were
        skipped.
    """
    if not self._window:
      return {}
    fetched = jax.device_get(self._window)
    step = self._window_start + len(fetched)
    window = f'(window {self._window_start + 1}..{step})'
    counted = [metrics for metrics in fetched if not metrics.get('skipped')]
    for i, metrics in enumerate(fetched, self._window_start + 1):
      for name, value in metrics.items():
        if not metrics.get('skipped') and not math.isfinite(value):
          raise errors.NonFiniteError(
            f'{self._stage}/{name}={value} at step {i} {window}; a lower learning_rate'
            ' or grad_clip is the usual cure, skip_nonfinite one for rare cases.'
          )
    if not counted:
      raise errors.NonFiniteError(
        f'{self._stage}: every step was skipped {window}, for none was finite; a lower'
        ' learning_rate or grad_clip is the usual cure.'
      )
    means = {k: float(np.mean([m[k] for m in counted])) for k in fetched[0]}
    if 'skipped' in means:
      means['skipped'] = len(fetched) - len(counted)
    now = time.perf_counter()
    seconds = now - self._time
    rate, waited = len(fetched) / seconds, self._waited / seconds
    self._window, self._window_start, self._time = [], step, now
    self._waited = 0.0
    if self._writes:
      self._write(step, means, rate, waited)
    return means

  def _write(
    self, step: int, means: dict[str, float], rate: float, waited: float
  ) -> None:
    named = {f'{self._stage}/{k}': v for k, v in means.items()}
    with self._path.open('a') as f:
      f.write(json.dumps({'stage': self._stage, 'step': step, **named}) + '\n')
    for name, value in named.items():
      self._tensorboard.add_scalar(name, value, step)
    values = '  '.join(f'{k} {v:.4g}' for k, v in means.items())
    logging.info(
      '%s %d/%d  %s  %.3g steps/s  waiting for data %.0f%%  ETA %s',
      self._stage,
      step,
      self._num_steps,
      values,
      rate,
      100.0 * waited,
      _eta(1.0 / rate, self._num_steps - step),
    )

  def _drop_lines_after(self, step: int) -> None:
    if not self._path.exists():
      return
    lines = self._path.read_bytes().splitlines()
    kept = [line for line in lines if self._is_kept(line, step)]
    if len(kept) < len(lines):
      content = b''.join(line + b'\n' for line in kept)
      files.write_whole(self._path, lambda f: f.write(content))

  def _is_kept(self, line: bytes, step: int) -> bool:
    try:
      record = json.loads(line)
      return record['stage'] != self._stage or record['step'] <= step
    except (ValueError, KeyError, TypeError):
      # As a rule the run died while it wrote this line, and it will come again.
      logging.warning('%s: %r is cut short, and left out', self._path, line[:80])
      return False
