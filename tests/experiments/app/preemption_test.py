"""SIGTERM to real runs: what is saved, the exit code, and that all goes on."""

import itertools
import json
import pathlib
import signal
import subprocess
import sys
import time
from unittest import mock

import jax
import pytest
from absl.testing import absltest

from configs import digits
from experiments import app
from experiments import builders
from experiments import train_denoiser
from lgd.training import checkpoints
from tests.endurance import faults

ROOT = pathlib.Path(__file__).parents[3]
LATE = """
import time
from experiments.app import preemption
preemption.watch(0.5)
print('watching', flush=True)
end = time.monotonic() + 60
while time.monotonic() < end:  # A step that does not end.
  pass
"""


@pytest.mark.slow
class SigtermTest(absltest.TestCase):
  def test_saves_the_step_and_goes_on(self):
    workdir = pathlib.Path(self.create_tempdir().full_path) / 'run'
    config = ('--config.denoiser.num_steps=1000000', '--config.log_every=100')
    run = faults.Run('train_denoiser', workdir, *config)
    run.wait_for((workdir / 'metrics.jsonl').exists)
    run.process.send_signal(signal.SIGTERM)
    code, errors = run.wait(60.0)
    self.assertEqual(code, app.preemption.EXIT_CODE, errors[-2000:])
    step = checkpoints.latest_step(workdir / 'denoiser')
    self.assertIn(
      f'stopped: denoiser: step {step} is saved in', errors.splitlines()[-1]
    )
    lines = (workdir / 'metrics.jsonl').read_text().splitlines()
    self.assertEqual(json.loads(lines[-1])['step'], step)  # Flushed, too.
    self.assertFalse((workdir / 'lock').exists())

  def test_a_step_that_does_not_end(self):
    process = subprocess.Popen(
      [sys.executable, '-c', LATE],
      cwd=ROOT,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    self.assertEqual(process.stdout.readline(), 'watching\n')
    start = time.monotonic()
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    self.assertEqual(process.returncode, app.preemption.EXIT_CODE)
    self.assertBetween(time.monotonic() - start, 0.5, 30.0)
    self.assertRegex(errors, 'stopped: not at the end of a step 0.5 s after SIGTERM')

  def test_workers_that_died_of_the_same_signal(self):
    """Their death is an error of the iterator; without the signal it stays one."""
    workdir = pathlib.Path(self.create_tempdir().full_path) / 'run'
    config = digits.get_config('smoke')
    original = builders.data.batches

    def dying(*args, **kwargs):
      def batches(start):
        yield from itertools.islice(original(*args, **kwargs)(start), 3)
        raise RuntimeError('worker process was terminated')

      return batches

    self.enter_context(mock.patch.object(builders.data, 'batches', dying))
    with self.assertRaisesRegex(RuntimeError, 'was terminated'):
      train_denoiser.run(config, workdir)
    self.assertIsNone(checkpoints.latest_step(workdir / 'denoiser'))
    asked = mock.patch.object(
      app.preemption, 'requested', side_effect=[False] * 3 + [True]
    )
    with asked, self.assertRaisesRegex(app.preemption.Preempted, 'step 3 is saved in'):
      train_denoiser.run(config, workdir)
    self.assertEqual(checkpoints.latest_step(workdir / 'denoiser'), 3)

  def test_not_asked(self):
    self.assertEqual(jax.process_count(), 1)
    self.assertFalse(app.preemption.requested())
    app.preemption.check('all')


if __name__ == '__main__':
  absltest.main()
