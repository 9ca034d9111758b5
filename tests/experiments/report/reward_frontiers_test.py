"""Which methods make a line in figures of a reward, and in what order."""

from types import SimpleNamespace

import numpy as np
from absl.testing import absltest

from experiments import report
from experiments import workdirs
from lgd.training import checkpoints


def weight(gamma):
  return SimpleNamespace(guidance=SimpleNamespace(gamma=gamma))


class RewardFrontiersTest(absltest.TestCase):
  def test_families(self):
    learned = {
      'l2': weight(0.0),
      'l2_reward0.1_validation': weight(0.1),
      'l2_reward30_validation': weight(30.0),
      'reward': weight(0.0),  # The objective of that name.
    }
    self.assertEqual(
      report.rows.gammas(learned),
      {
        'l2': ('l2', 0.0),
        'l2_reward0.1_validation': ('l2_validation', 0.1),
        'l2_reward30_validation': ('l2_validation', 30.0),
        'reward': ('reward', 0.0),
      },
    )

  def test_lines_are_in_order_of_strength(self):
    def row(method, distance, **params):
      return report.rows.Summary(
        method, params, 2.0, 0, {'d': [distance], 'a': [-distance]}
      )

    summaries = [
      row('unguided', 1.0),
      row('constant', 3.0, omega=2.0),
      row('constant', 2.0, omega=1.0),
      row('interval', 9.0, omega=1.0, lo=0.0, hi=0.5),
      row('l2_reward10', 6.0),
      row('l2_reward3', 5.0),
      row('l2_reward3', 7.0, kappa=2.0),
      row('l2', 4.0),
      row('reward', 8.0),
    ]
    gammas = {
      'l2_reward10': ('l2', 10.0),
      'l2_reward3': ('l2', 3.0),
      'l2': ('l2', 0.0),
      'reward': ('reward', 0.0),
    }
    titles = {'d': 'distance', 'a': 'alignment'}
    with absltest.mock.patch.object(report.figures, 'reward_frontier') as frontier:
      report.rows.plot_frontier('unused.png', summaries, gammas, titles)
    _, lines, points, labels = frontier.call_args.args
    self.assertEqual(labels, ('distance', 'alignment'))
    self.assertEqual(set(lines), {'constant', 'l2'})
    self.assertEqual(set(points), {'interval', 'reward'})
    np.testing.assert_array_equal(lines['constant'], [[1, -1], [2, -2], [3, -3]])
    np.testing.assert_array_equal(lines['l2'], [[4, -4], [5, -5], [6, -6]])
    np.testing.assert_array_equal(points['interval'], [[9, -9]])


class NamesTest(absltest.TestCase):
  def test_numbers_are_in_order(self):
    workdir = workdirs.Workdir(self.create_tempdir().full_path)
    names = ['l2', 'l2_reward0.3', 'l2_reward3', 'l2_reward10', 'self_consistency']
    for name in reversed(names):
      workdir.guidance(name).mkdir(parents=True)
    with absltest.mock.patch.object(checkpoints, 'latest_step', return_value=1):
      self.assertEqual(workdir.guidance_names(), names)


if __name__ == '__main__':
  absltest.main()
