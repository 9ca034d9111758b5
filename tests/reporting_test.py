"""Windows, their means, and the step at which a value went bad."""

import json
import pathlib

import jax.numpy as jnp
from absl.testing import absltest

from lgd import reporting


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

  def test_non_finite_value_is_named_with_step_and_window(self):
    with self.assertRaisesRegex(
      reporting.NonFiniteError, r'base/loss=nan at step 12 \(window 11..13\)'
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


if __name__ == '__main__':
  absltest.main()
