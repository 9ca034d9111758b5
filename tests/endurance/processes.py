"""Runs every command as several processes, and compares with one.

  python -m tests.endurance.processes --num=2
  python -m tests.endurance.processes --num=4 --binaries=evaluate

Each starts from what one process made of the binaries before it. Devices are as many as
processes, one each; sums over a batch come out in another order, so numbers agree to a
tolerance, and the files are the same. Then a process of `train_denoiser` is sent
SIGTERM, and all must save and stop; and one is killed: the others must end by
themselves, and a single process must come from there to where an undisturbed run comes.
"""

import argparse
import pathlib
import re
import shutil
import signal
import sys
import tempfile
import time

import numpy as np

from experiments import app
from lgd.training import checkpoints
from tests import helpers
from tests.endurance import faults

PEER_TIMEOUT = 20  # Seconds.
# A base whose null prediction is not that of the class: weights have a gradient.
FLAGS = (
  '--config.denoiser.learning_rate=0.02',
  '--config.denoiser.ema_decay=0.5',
  '--config.denoiser.label_dropout=0.3',
)
TOLERANCE = 0.02
# What is of the devices: fingerprints of every bit, and the evaluations of the null
# branch, whose number each device rounds up.
OF_DEVICES = ('fingerprints', 'nfe')


def start(
  binary: str, workdir: pathlib.Path, num: int, *flags: str
) -> list[faults.Run]:
  """All processes of a run."""
  together = (
    f'--coordinator={helpers.free_address()}',
    f'--num_processes={num}',
    f'--peer_timeout={PEER_TIMEOUT}',
  )
  return [
    faults.Run(binary, workdir, *FLAGS, *flags, *together, f'--process_id={i}')
    for i in range(num)
  ]


def far(a: object, b: object) -> bool:
  """Whether two of `faults.contents` differ by more than the tolerance, anywhere."""
  if isinstance(a, dict) and isinstance(b, dict):
    compared = (k for k in a if not any(name in k for name in OF_DEVICES))
    return a.keys() != b.keys() or any(far(a[k], b[k]) for k in compared)
  if isinstance(a, list) and isinstance(b, list):
    return len(a) != len(b) or any(map(far, a, b))
  if isinstance(a, np.ndarray | float | int):
    return not np.allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE)
  return a != b


def compare(together: pathlib.Path, alone: pathlib.Path) -> list[str]:
  """Names of what differs; tables, figures and lines of metrics only by presence."""
  a, b = faults.contents(together), faults.contents(alone)
  both = [name for name in a.keys() & b.keys() if not isinstance(a[name], bytes | str)]
  return sorted(a.keys() ^ b.keys()) + [name for name in both if far(a[name], b[name])]


def stop_one(top: pathlib.Path, num: int) -> None:
  """A process is sent SIGTERM; all save the same step, and exit with 75."""
  workdir = top / 'one-stopped'
  runs = start('train_denoiser', workdir, num, '--config.denoiser.num_steps=1000000')
  denoiser = workdir / 'denoiser'
  runs[-1].wait_for(lambda: checkpoints.latest_step(denoiser) is not None)
  runs[-1].process.send_signal(signal.SIGTERM)
  begin, steps = time.monotonic(), set()
  for run in runs:
    code, messages = run.wait(10 * PEER_TIMEOUT)
    assert code == app.preemption.EXIT_CODE, messages[-2000:]
    steps.add(re.search(r'stopped: denoiser: step (\d+) is saved', messages).group(1))
  assert steps == {str(checkpoints.latest_step(denoiser))}, steps
  seconds = time.monotonic() - begin
  print(f'SIGTERM to one: all saved and ended in {seconds:.0f} s', flush=True)


def kill_one(top: pathlib.Path, num: int) -> None:
  """A process dies; the others follow; fewer of them go on."""
  workdir, straight = top / 'one-killed', top / 'straight'
  flags = ('--config.denoiser.num_steps=400', '--config.checkpoint_every=20')
  *others, last = start('train_denoiser', workdir, num, *flags)
  denoiser = workdir / 'denoiser'
  last.wait_for(lambda: checkpoints.latest_step(denoiser) is not None)
  last.kill()
  begin = time.monotonic()
  for run in others:
    code, messages = run.wait(10 * PEER_TIMEOUT)
    assert code != 0, messages[-2000:]
  seconds, step = time.monotonic() - begin, checkpoints.latest_step(denoiser)
  print(f'a killed process: the others ended after {seconds:.0f} s', flush=True)
  faults.Run('train_denoiser', workdir, *FLAGS, *flags).finish()
  faults.Run('train_denoiser', straight, *FLAGS, *flags).finish()
  different = compare(workdir, straight)
  assert not different, different
  print(f'one process went on from step {step}, to the same end', flush=True)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--num', type=int, default=2, help='of processes')
  parser.add_argument(
    '--binaries', nargs='*', default=faults.BINARIES, choices=faults.BINARIES
  )
  args = parser.parse_args()
  failed = False
  with tempfile.TemporaryDirectory() as directory:
    top = pathlib.Path(directory)
    base, together = top / 'base', top / 'together'
    base.mkdir()
    for binary in faults.BINARIES[: max(map(faults.BINARIES.index, args.binaries)) + 1]:
      shutil.copytree(base, together)
      faults.Run(binary, base, *FLAGS).finish()
      if binary in args.binaries:
        for run in start(binary, together, args.num):
          run.finish()
        different = compare(together, base)
        failed |= bool(different)
        result = f'DIFFERENT: {different}' if different else 'as one'
        print(f'{binary}: {args.num} processes, {result}', flush=True)
      shutil.rmtree(together)
    stop_one(top, args.num)
    kill_one(top, args.num)
  sys.exit(failed)


if __name__ == '__main__':
  main()
