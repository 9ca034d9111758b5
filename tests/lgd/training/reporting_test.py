"""Windows, their means, and the step at which a value went bad."""

import json
import pathlib
from unittest import mock

import jax.numpy as jnp
from absl.testing import absltest

from lgd import errors
from lgd.training import reporting


class EtaTest(absltest.TestCase):
  def test_rest_at_the_rate_so_far(self):
    clock = iter((100.0, 130.0, 170.0))
    progress = reporting.Progress('work', 7, clock=lambda: next(clock))
    with self.assertLogs() as logged:
      progress.log(3, 'loss 0.5', rate=(90, 'rows'))
      progress.log(7)
    self.assertEqual(
      [record.getMessage() for record in logged.records],
      ['work 3/7  loss 0.5  3 rows/s  ETA 0:00:40', 'work 7/7  ETA 0:00:00'],
    )


class ReporterTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.workdir = pathlib.Path(self.create_tempdir().full_path)

  def lines(self):
    text = (self.workdir / 'metrics.jsonl').read_text()
    return [json.loads(line) for line in text.splitlines()]

  def report(self, losses, *, start=0, stage='base'):
    with reporting.Reporter(self.workdir, stage, num_steps=100, start=start) as r:
      for loss in losses:
        r.add({'loss': jnp.float32(loss)})
      r.flush()

  def test_reports_the_mean_of_a_window(self):
    self.report([1.0, 2.0, 6.0], start=10)
    self.assertEqual(self.lines(), [{'stage': 'base', 'step': 13, 'base/loss': 3.0}])
    self.assertNotEmpty(list((self.workdir / 'tensorboard' / 'base').iterdir()))

  def test_share_of_waiting_for_data(self):
    """A clock that moves by hand: 3 of 4 seconds, and nothing in the next window."""
    seconds = [0.0]
    with (
      mock.patch.object(reporting.time, 'perf_counter', lambda: seconds[0]),
      self.assertLogs('absl', 'INFO') as logs,
      reporting.Reporter(self.workdir, 'base', num_steps=2, start=0) as reporter,
    ):
      for waits, works in ((3.0, 1.0), (0.0, 1.0)):
        with reporter.waiting_for_data():
          seconds[0] += waits
        seconds[0] += works
        reporter.add({'loss': jnp.float32(1.0)})
        reporter.flush()
    self.assertRegex(logs.output[0], r'0\.25 steps/s  waiting for data 75%')
    self.assertRegex(logs.output[1], r'1 steps/s  waiting for data 0%')

  def test_non_finite_value_is_named_with_step_and_window(self):
    with self.assertRaisesRegex(
      errors.NonFiniteError, r'base/loss=nan at step 12 \(window 11..13\)'
    ):
      self.report([1.0, float('nan'), float('nan')], start=10)
    self.assertFalse((self.workdir / 'metrics.jsonl').exists())

  def test_resume_drops_lines_of_its_stage_that_will_come_again(self):
    self.report([1.0] * 4)
    self.report([2.0] * 4, stage='other')
    with (self.workdir / 'metrics.jsonl').open('a') as f:
      f.write('{"stage": "base", "st')  # Cut short by a kill.
    self.report([3.0], start=2)
    self.assertEqual(
      [(line['stage'], line['step']) for line in self.lines()],
      [('other', 4), ('base', 3)],
    )

  def test_damaged_lines_are_left_out(self):
    self.report([1.0])
    self.report([2.0], stage='other')
    path = self.workdir / 'metrics.jsonl'
    first, second = path.read_bytes().splitlines()
    for damaged in (b'\xff\xfe', b'[1]', b'{"stage": "base"}', b'{"step": 1}'):
      path.write_bytes(first + b'\n' + damaged + b'\n' + second + b'\n')
      with self.assertLogs('absl', 'WARNING'):
        self.report([3.0], start=1)
      self.assertEqual(
        [(line['stage'], line['step']) for line in self.lines()],
        [('base', 1), ('other', 1), ('base', 2)],
      )

  def test_skipped_steps_are_counted_and_in_no_mean(self):
    nan = float('nan')
    with reporting.Reporter(self.workdir, 'base', num_steps=9, start=0) as reporter:
      for loss, skipped in ((1.0, 0.0), (nan, 1.0), (4.0, 0.0), (nan, 1.0)):
        reporter.add({'loss': jnp.float32(loss), 'skipped': jnp.float32(skipped)})
      means = reporter.flush()
      self.assertEqual(means, {'loss': 2.5, 'skipped': 2})
      reporter.add({'loss': jnp.float32(nan), 'skipped': jnp.float32(1.0)})
      with self.assertRaisesRegex(
        errors.NonFiniteError, r'base: every step was skipped \(window 5..5\)'
      ):
        reporter.flush()
    (line,) = self.lines()
    self.assertEqual((line['base/loss'], line['base/skipped']), (2.5, 2))


if __name__ == '__main__':
  absltest.main()
