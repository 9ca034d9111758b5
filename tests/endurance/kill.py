"""Kills every command at random moments, and compares what its reruns make.

  python -m tests.endurance.kill --kills=20 --seed=0    # All of them: half an hour.
  python -m tests.endurance.kill --kills=5 --binaries=evaluate

Of each binary one run is undisturbed. Another work directory gets runs that are killed
(SIGKILL) until `--kills` of them are, and the same command once more, to its end; then
all that it holds must be what the undisturbed one holds, bit for bit. A run may be
killed several times before it comes to its end, so that what a killed run left is what
the next one starts from.
"""

import argparse
import collections
import os
import pathlib
import random
import shutil
import sys
import tempfile
import time

from tests.endurance import faults


def try_binary(
  binary: str, base: pathlib.Path, top: pathlib.Path, kills: int, rng: random.Random
) -> tuple[collections.Counter[str], list[str]]:
  """Moments at which runs on a copy of `base` were killed, and what differed at last.

  `base` has what the binary stands on, and afterwards what it wrote undisturbed.
  """
  template = top / f'{binary}-before'
  shutil.copytree(base, template)
  begin = time.monotonic()
  faults.Run(binary, base).finish()
  seconds = time.monotonic() - begin
  expected = faults.contents(base)
  moments, different = collections.Counter(), []
  while sum(moments.values()) < kills:
    killed = top / f'{binary}-killed'
    shutil.copytree(template, killed)
    for _ in range(rng.choice((1, 1, 2, 4))):
      run = faults.Run(binary, killed)
      kill = faults.kill_at_random(run, killed, rng, seconds)
      if kill.moment != 'after the end':
        moments[kill.moment] += 1
    faults.Run(binary, killed).finish()
    different += faults.differences(faults.contents(killed), expected)
    shutil.rmtree(killed)
  return moments, different


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--kills', type=int, default=20, help='of each binary')
  parser.add_argument(
    '--binaries', nargs='*', default=faults.BINARIES, choices=faults.BINARIES
  )
  parser.add_argument('--seed', type=int, default=0)
  args = parser.parse_args()
  failed = False
  with tempfile.TemporaryDirectory() as directory:
    top = pathlib.Path(directory)
    base = top / 'undisturbed'
    base.mkdir()
    # Killed while they write it, too, and with what they left of it.
    os.environ['JAX_COMPILATION_CACHE_DIR'] = str(top / 'compilation_cache')
    os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'
    last = max(map(faults.BINARIES.index, args.binaries))
    for binary in faults.BINARIES[: last + 1]:
      kills = args.kills if binary in args.binaries else 0
      rng = random.Random(f'{args.seed}/{binary}')
      begin = time.monotonic()
      moments, different = try_binary(binary, base, top, kills, rng)
      if binary in args.binaries:
        failed |= bool(different)
        result = f'DIFFERENT: {different}' if different else 'all the same'
        when = ', '.join(f'{n} in {moment}' for moment, n in sorted(moments.items()))
        seconds = time.monotonic() - begin
        print(f'{binary}: {sum(moments.values())} kills ({when}), {result};'
              f' {seconds:.0f} s', flush=True)  # fmt: skip
  sys.exit(failed)


if __name__ == '__main__':
  main()
