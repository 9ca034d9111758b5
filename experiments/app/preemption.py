"""Stopping when asked to: SIGTERM, which schedulers send before they take a machine.

(1) A long loop asks `requested()` after every step or piece, the same number of times
    in every process. When it is true it saves, and raises Preempted; `launch.main`
    makes that exit code 75, 'temporary failure': the same command goes on from there.
(2) Of several processes it is enough that one is sent the signal. JAX's coordination
    service tells the others, and all stop after the same step.
(3) A single process that does not come to the end of its step (it compiles, say, or its
    disk is slow) exits after `grace_seconds` with the same code. Nothing more is lost
    than by kill -9 at that moment: the work since what was saved last.
"""

import os
import signal
import sys
import threading
import time

import jax
from absl import logging
from jax.experimental import multihost_utils

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h.

_signalled = threading.Event()
_num_asked = 0


class Preempted(Exception):  # noqa: N818 - Not an error: what was asked for.
  """The run was asked to stop; what it says is where the same command goes on."""


def watch(grace_seconds: float) -> None:
  """Notes SIGTERM from now on; after `join_processes`, in the main thread.

  With several processes JAX watches for it, since it was initialised.
  """
  if jax.process_count() > 1:
    return
  read, write = os.pipe()
  os.set_blocking(write, False)
  # Python's own handler waits until what the main thread is in returns, which may be a
  # compilation of minutes; the byte that it writes first wakes another thread.
  signal.set_wakeup_fd(write, warn_on_full_buffer=False)
  signal.signal(signal.SIGTERM, lambda number, frame: None)
  thread = threading.Thread(target=_expire, args=(read, grace_seconds), daemon=True)
  thread.start()


def _expire(read: int, grace_seconds: float) -> None:
  while os.read(read, 1)[0] != signal.SIGTERM:
    pass  # Of a signal with a handler of its own.
  _signalled.set()
  logging.info('SIGTERM: stopping after this step, or in %g s', grace_seconds)
  time.sleep(grace_seconds)
  print(
    f'stopped: not at the end of a step {grace_seconds:g} s after SIGTERM; the same'
    ' command goes on from what was saved last. With a longer notice give'
    ' --grace_seconds.',
    file=sys.stderr,
    flush=True,
  )
  os._exit(EXIT_CODE)


def requested() -> bool:
  """Whether to stop here, as in (1) and (2)."""
  global _num_asked  # noqa: PLW0603 - As global as signals are.
  if jax.process_count() == 1:
    return _signalled.is_set()
  _num_asked += 1
  return multihost_utils.reached_preemption_sync_point(_num_asked)


def check(progress: str) -> None:
  """Raises Preempted if `requested`; for loops that have saved all they did.

  Args:
    progress: what is saved, as in 'statistics: 3 of 8 shards are saved'.
  """
  if requested():
    raise Preempted(progress)
