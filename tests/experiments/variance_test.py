"""The noise of both estimates: on numbers that are known, and on a small base."""

import pathlib
from unittest import mock

import numpy as np
from absl.testing import absltest

from configs import mixture
from experiments import train_denoiser
from experiments import variance
from lgd import errors


class CompareTest(absltest.TestCase):
  def test_by_hand(self):
    """Two points of variance 4 and 16 against 1 and 8: ratios 20 / 9, and 2 to 4."""
    signs = np.tile([1.0, -1.0], 50)[:, None]
    direct = 3.0 + signs * np.array([2.0, 4.0])
    estimate = np.array([3.0, 3.5]) - signs * np.array([1.0, 8.0**0.5])
    out = variance.compare(direct, estimate)
    self.assertAlmostEqual(out['ratio'], 20.0 / 9.0)
    self.assertAlmostEqual(out['median_ratio'], 3.0)
    # Of the second point: .5 over the deviation of the difference, / sqrt(100).
    self.assertAlmostEqual(out['max_z'], 0.5 / ((4.0 + 8.0**0.5) / 10.0))


class RunTest(absltest.TestCase):
  def test_one_mean_and_less_noise(self):
    """What is integrated out is noise no more: loss and gradient.

    By the law of total variance no point of independent particles can have more; the
    pooled ratio is an estimate from 300 draws.
    """
    config = mixture.get_config('smoke')
    config.guidance.num_particles = config.statistics.num_particles = 4
    config.sweep.beta = (1.75,)
    workdir = pathlib.Path(self.create_tempdir().full_path)
    train_denoiser.run(config, workdir)
    config.rule.name = 'angle_domain'
    with self.assertRaisesRegex(errors.InputError, 'weights are learned for'):
      variance.run(config, workdir)
    config.rule.name = 'linear'
    with (
      mock.patch.object(variance, 'NUM_POINTS', 8),
      mock.patch.object(variance, 'NUM_DRAWS', 300),
    ):
      results = variance.run(config, workdir)
    self.assertEqual(results.keys(), {1.75})
    for measured in results.values():
      self.assertLen(measured, 2 * 2 * 3)
      for noise in variance.NOISES:
        for quantity in ('loss', 'gradient'):
          of = {k: measured[f'{noise}_{quantity}_{k}'] for k in ('ratio', 'max_z')}
          self.assertLess(of['max_z'], 5.0)
          self.assertGreater(of['ratio'], 1.05)


if __name__ == '__main__':
  absltest.main()
