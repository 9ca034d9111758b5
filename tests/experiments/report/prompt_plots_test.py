"""Figures of what prompts give."""

import os
import pathlib

import numpy as np
from absl.testing import absltest

from experiments import report


class PromptPlotsTest(absltest.TestCase):
  def test_no_display_is_needed(self):
    """Whatever the machine has: a window would stop a command."""
    self.assertIn('MPLBACKEND', os.environ)  # Theirs, or else ours.

  def test_prompts_are_no_mathematics(self):
    """matplotlib cannot parse what is between these dollars."""
    path, prompts = pathlib.Path(self.create_tempdir().full_path), ['$^$', '5$ or 9$']
    report.figures.prompt_samples(
      path / 'a.png', prompts, {'real': np.zeros((2, 4, 4, 3))}
    )
    omega = np.ones((2, 3))
    report.figures.prompt_curves(
      path / 'b.png', prompts, {'learned': omega}, np.arange(3.0)
    )
    for name in 'ab':
      self.assertTrue((path / f'{name}.png').exists())


if __name__ == '__main__':
  absltest.main()
