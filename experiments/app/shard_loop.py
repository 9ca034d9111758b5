"""The loop that makes missing shards, shared by all processes of a command."""

import time
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence

import jax
import numpy as np
from absl import logging
from etils import epath

from experiments.app import preemption
from lgd.storage import shards
from lgd.training import reporting
from lgd.training import sharding


def run(
  directory: epath.Path,
  names: Sequence[str],
  layout: shards.Layout,
  make: Callable[[int], Mapping[str, np.ndarray]],
  *,
  unit: str,
) -> None:
  """Returns when all shards are written, by whichever process; all must call this.

  Args:
    directory: as of `shards.begin`.
    names: of the arrays of a shard.
    layout: how they are cut.
    make: from the number of a shard to its arrays, on this process alone.
    unit: what a row is, in the plural, for the log.

  Raises:
    preemption.Preempted: asked to stop; what was made is written.
  """
  missing = sharding.of_this_process(shards.missing(directory, names, layout))
  logging.info('%s: %d of %d shards to do', directory, len(missing), layout.num_shards)
  num_processes, done, start = jax.process_count(), 0, time.perf_counter()
  # One of every `num_processes` shards is of this process, made or not: all ask whether
  # to stop as often as each other.
  for first in range(0, layout.num_shards, num_processes):
    shard = first + jax.process_index()
    if shard in missing:
      shards.write(directory, shard, make(shard))
      done += 1
      elapsed = time.perf_counter() - start
      logging.info(
        '%s %d/%d shards  %.0f %s/s  ETA %s',
        directory.name,
        done,
        len(missing),
        done * layout.shard_size / elapsed,
        unit,
        reporting.eta(elapsed, done, len(missing)),
      )
    if first + num_processes < layout.num_shards:
      preemption.check(f'{directory}: {done} more shards are written')
  sharding.wait_for_processes(str(directory))
