"""The small pipeline in a loop for an hour, killed at random: all the same, and flat.

  python -m tests.endurance.soak --minutes=60 --seed=0

The first loop is undisturbed; every other must make what it made, bit for bit. Memory
and open files of every process are looked at twice a second. What counts is the longest
stage, training with a checkpoint every 25 steps, from its first save on, when all is
compiled: the last quarter of that time must not need more than the second one.
"""

import argparse
import os
import pathlib
import random
import shutil
import sys
import tempfile
import time

import numpy as np

from lgd.training import checkpoints
from tests.endurance import faults

STAGES = ('train_denoiser', 'collect_statistics', 'train_guidance', 'evaluate')
FLAGS = (
  '--config.denoiser.num_steps=3000',
  '--config.guidance.num_steps=500',
  '--config.checkpoint_every=25',
  '--config.log_every=10',
)
# That the last quarter may have more: what one save in flight needs, and no trend.
MOST_MEGABYTES, MOST_FILES = 32.0, 16
LEAST_LOOKS = 20  # Of a run, for quarters that hold some saves each.


def watch(
  run: faults.Run, directory: pathlib.Path, kill_after: float
) -> tuple[bool, np.ndarray]:
  """Waits for the end, or kills after so many seconds.

  Returns:
    Whether it came to its end, and `[n, 2]`: megabytes and open files, in turn, since
    it first saved to `directory`.
  """
  begin, seen = time.monotonic(), []
  first_step = checkpoints.latest_step(directory)
  while not run.is_over():
    if time.monotonic() - begin > kill_after:
      run.kill()
      return False, np.array(seen)
    time.sleep(0.5)
    if checkpoints.latest_step(directory) == first_step:
      continue
    place = pathlib.Path(f'/proc/{run.process.pid}')
    try:
      num_pages = int((place / 'statm').read_text().split()[1])
      num_files = len(os.listdir(place / 'fd'))
      seen.append((num_pages * os.sysconf('SC_PAGESIZE') / 1e6, num_files))
    except OSError:  # It just ended.
      pass
  run.finish()
  return True, np.array(seen)


def growth(seen: np.ndarray) -> np.ndarray:
  """Growth of a run's largest needs, from its second quarter to its last."""
  quarter = len(seen) // 4
  return seen[-quarter:].max(axis=0) - seen[quarter : 2 * quarter].max(axis=0)


def loop(
  workdir: pathlib.Path, rng: random.Random | None, typical: dict[str, float]
) -> tuple[int, dict[str, float], list[np.ndarray]]:
  """All stages once; kills, seconds of each stage's last run, and `growth` of training.

  Without `rng` nothing is killed; `typical` are the seconds of runs that were not.
  """
  kills, seconds, grown = 0, {}, []
  for stage in STAGES:
    done = False
    while not done:
      kill = rng is not None and rng.random() < 0.5
      begin = time.monotonic()
      run = faults.Run(stage, workdir, *FLAGS)
      kill_after = rng.uniform(0.0, typical[stage]) if kill else float('inf')
      done, seen = watch(run, workdir / 'denoiser', kill_after)
      kills += not done
    seconds[stage] = time.monotonic() - begin
    if stage == 'train_denoiser' and len(seen) >= LEAST_LOOKS:
      grown.append(growth(seen))
  return kills, seconds, grown


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--minutes', type=float, default=60.0)
  parser.add_argument('--seed', type=int, default=0)
  args = parser.parse_args()
  rng, end = random.Random(args.seed), time.monotonic() + 60.0 * args.minutes
  expected, kills, loops, grown, different, seconds = None, 0, 0, [], [], {}
  with tempfile.TemporaryDirectory() as directory:
    while expected is None or time.monotonic() < end:
      workdir = pathlib.Path(directory) / 'run'
      killed, seconds, more = loop(workdir, rng if expected else None, seconds)
      found = faults.contents(workdir)
      shutil.rmtree(workdir)
      expected = expected or found
      wrong = faults.differences(found, expected)
      kills, loops = kills + killed, loops + 1
      grown, different = grown + more, different + wrong
      print(
        f'loop {loops}: {killed} kills, {f"DIFFERENT: {wrong}" if wrong else "same"},',
        ', '.join(f'{stage} {s:.0f} s' for stage, s in seconds.items()),
        '; grown by (MB, files)',
        [tuple(map(float, np.round(g, 1))) for g in more],
        flush=True,
      )
  most = np.max(np.reshape(grown, (-1, 2)), axis=0, initial=0.0)
  print(
    f'{loops} loops, {kills} kills, {len(different)} differences; in {len(grown)} long'
    f' trainings memory grew by at most {most[0]:.1f} MB, open files by {most[1]:.0f}'
  )
  flat = bool(grown) and most[0] <= MOST_MEGABYTES and most[1] <= MOST_FILES
  sys.exit(int(not flat or bool(different)))


if __name__ == '__main__':
  main()
