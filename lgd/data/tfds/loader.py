"""Shuffled batches of a source, read ahead of the training loop by Grain.

  (1)  order_e  = the permutation of (seed, e), of epoch e
  (2)  batch i  = rows [j B, (j + 1) B) of order_e,  e, j = divmod(i, n // B)
  (3)  process p of P reads the p-th of P equal parts of every batch

A batch is a function of (seed, i): nothing but the number of a step needs to be saved
to resume, and the numbers of processes, workers and threads change nothing. What is
left of an epoch waits for the next one, as in `splits.batches`.

Grain permutes numbers of rows and draws the flips; a whole local batch is read and
decoded at once, in a thread or a worker process. Images travel as uint8.
"""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from etils import epy

from lgd.data import images
from lgd.data import splits
from lgd.data.tfds import sources

with epy.lazy_imports():  # A second that users of data in memory need not wait.
  import grain


def batches(
  source: sources.Source,
  batch_size: int,
  *,
  seed: int,
  start: int = 0,
  augment: bool = False,
  process_index: int = 0,
  process_count: int = 1,
  num_threads: int = 2,
  num_workers: int = 0,
) -> Iterator[splits.Batch]:
  """Endless shuffled batches of this process; batch number `start` first.

  Args:
    source: the data: a `sources.Source`, or what reads and is pickled like one.
    batch_size: of all processes together.
    seed: of shuffle and flips, in 0..2^32-1.
    start: first batch.
    augment: whether each image is flipped left to right with probability 1/2, drawn
      anew in every epoch.
    process_index: p of (3).
    process_count: P of (3).
    num_threads: batches read at a time, in this process or in each worker; so many
      more wait, read. 0 reads each when it is asked for.
    num_workers: processes that read. Each imports the main module again, which must
      be guarded by `if __name__ == '__main__'`, and absl's flags must be parsed (in a
      notebook: `flags.FLAGS.mark_as_parsed()`).

  Yields:
    `x [batch_size / process_count, height, width, channels]` float32 in [-1, 1], and
    as `cond` what the source's examples have as labels. Closing the iterator ends its
    workers.

  Raises:
    ValueError: a batch that the processes cannot share, or larger than the split.
  """
  if batch_size % process_count != 0:
    raise ValueError(
      f'batch_size={batch_size}: must be a multiple of the {process_count} processes'
      ' that share it.'
    )
  whole = len(source) - len(source) % batch_size
  if whole == 0:
    raise ValueError(f'batch_size={batch_size}: the split has only {len(source)} data.')
  rows = grain.MapDataset.range(len(source)).seed(seed).shuffle()[:whole]
  # By its number in the stream, before the processes part: (2) holds for flips too.
  draw = rows.random_map(_draw_flip) if augment else rows.map(_no_flip)
  local = draw.batch(batch_size // process_count)[process_index::process_count]
  read = local.repeat()[start:].map(functools.partial(_read, source))
  ahead = grain.ReadOptions(
    num_threads=num_threads, prefetch_buffer_size=2 * num_threads
  )
  dataset = read.to_iter_dataset(ahead)
  if num_workers:
    dataset = dataset.mp_prefetch(grain.MultiprocessingOptions(num_workers))
  return _to_float(dataset)


def _draw_flip(row: int, rng: np.random.Generator) -> tuple[int, bool]:
  return row, rng.random() < 0.5


def _no_flip(row: int) -> tuple[int, bool]:
  return row, False


def _read(
  source: sources.Source, element: tuple[np.ndarray, np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
  """One local batch of row numbers and flips, read."""
  rows, flip = element
  x, label = source[rows]
  return images.mirror(x, flip), label


def _to_float(dataset: Any) -> Iterator[splits.Batch]:
  iterator = iter(dataset)
  try:
    for x, label in iterator:  # From a worker they lie in memory shared with it.
      yield splits.Batch(images.to_float(x), jax.tree.map(np.array, label))
  finally:
    iterator.close()
