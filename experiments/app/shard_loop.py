"""The loop that makes missing shards, until it is done or asked to stop."""

from collections.abc import Callable
from collections.abc import Sequence

import jax
from absl import logging
from etils import epath

from experiments.app import preemption
from lgd.training import reporting
from lgd.training import sharding


def run(
  directory: epath.Path,
  missing: Sequence[int],
  num_shards: int,
  make: Callable[[int], int],
  *,
  unit: str,
  split: bool = False,
) -> None:
  """Returns when all shards are written; all processes must call this.

  Args:
    directory: of the shards, for the log.
    missing: numbers of the shards that are still to be made.
    num_shards: those that are there included.
    make: writes the shard of a number, and returns how many rows it has.
    unit: what a row is, in the plural, for the log.
    split: whether every process makes shards of its own, whichever are missing; or all
      make each together.

  Raises:
    preemption.Preempted: asked to stop; what was made is written.
  """
  logging.info('%s: %d of %d shards to do', directory, len(missing), num_shards)
  turns = mine = missing
  if split:
    # One of every `process_count` shards is of this process, made or not: all ask
    # whether to stop as often as each other.
    mine = sharding.of_this_process(missing)
    firsts = range(0, num_shards, jax.process_count())
    turns = [first + jax.process_index() for first in firsts]
  progress = reporting.Progress(f'{directory.name}, shards', len(mine))
  done = num_rows = 0
  for turn, shard in enumerate(turns, 1):
    if shard in mine:
      num_rows += make(shard)
      done += 1
      progress.log(done, rate=(num_rows, unit))
    if turn < len(turns):
      preemption.check(f'{directory}: {done} more shards are written')
  sharding.wait_for_processes(str(directory))
