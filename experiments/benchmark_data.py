"""Images per second of the data pipeline alone.

  python -m experiments.benchmark_data --name=imagenet_resized/64x64 --data_dir=DIR

One line for each number of threads and workers, with and without flips, and one for
data held in memory. Start-up is not counted: as many batches as are read ahead come
before the clock starts, and at least four times as many after it.
"""

import itertools
import time
from collections.abc import Iterator

from absl import flags

from experiments import app
from lgd import errors
from lgd.data import images
from lgd.data import splits
from lgd.data.tfds import loader
from lgd.data.tfds import sources

THREADS = (0, 1, 2, 4, 16)
WORKERS = (0, 2)
IN_MEMORY = 4096  # Images held by the path in memory.


def run(name: str, data_dir: str, batch_size: int, seconds: float) -> dict[str, float]:
  """Measures, prints and returns images per second of every setting.

  Raises:
    errors.InputError: data that are not there, or a batch larger than they are.
  """
  try:
    source = sources.source(name, 'train', data_dir)
    first = source[range(min(IN_MEMORY, len(source)))]
    held = splits.Split(images.to_float(first.x), first.label)
    results = {}
    for workers, threads, flips in itertools.product(WORKERS, THREADS, (False, True)):
      stream = loader.batches(
        source,
        batch_size,
        seed=0,
        augment=flips,
        num_threads=threads,
        num_workers=workers,
      )
      label = f'workers={workers} threads={threads} flips={int(flips)}'
      ahead = 2 * max(threads, 1) * max(workers, 1)
      results[label] = _rate(label, stream, batch_size, ahead, seconds)
    for flips in (False, True):
      stream = splits.batches(held, batch_size, seed=0, augment=flips)
      label = f'in memory flips={int(flips)}'
      results[label] = _rate(label, stream, batch_size, 1, seconds)
  except ValueError as error:
    raise errors.InputError(str(error)) from error
  return results


def _rate(
  label: str,
  stream: Iterator[splits.Split | splits.Batch],
  batch_size: int,
  ahead: int,
  seconds: float,
) -> float:
  """Prints and returns images per second of a stream, and closes it."""
  for _ in range(ahead):
    next(stream)
  start, count = time.perf_counter(), 0
  while count < 4 * ahead or time.perf_counter() < start + seconds:
    next(stream)
    count += 1
  rate = count * batch_size / (time.perf_counter() - start)
  stream.close()
  print(f'{label}: {rate:.0f} images/s')
  return rate


if __name__ == '__main__':
  NAME = flags.DEFINE_string('name', 'imagenet_resized/64x64', 'The data set.')
  DATA_DIR = flags.DEFINE_string('data_dir', '', "Its place; empty is TFDS's default.")
  BATCH_SIZE = flags.DEFINE_integer('batch_size', 256, 'Images.', lower_bound=1)
  SECONDS = flags.DEFINE_float('seconds', 4.0, 'Of each measurement.', lower_bound=0.0)
  app.main(
    lambda _: run(NAME.value, DATA_DIR.value, BATCH_SIZE.value, SECONDS.value),
    needs_config=False,
    needs_workdir=False,
  )
