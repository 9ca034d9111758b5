"""Grouping, selection on validation data, and the share of the gain."""

import functools
import json
import pathlib
import re
from unittest import mock

import numpy as np
from absl.testing import absltest
from etils import epath

from experiments import report


def make_row(method, seed, test, validation, **params):
  names = {name for name, _ in report.classes.COLUMNS}
  names |= {'clipped_inverse_prob', 'inverse_prob'}
  names |= {'log_inverse_prob_low', 'log_inverse_prob_high'}
  values = dict.fromkeys(names, 0.5)
  values |= {'energy_test': test, 'energy_validation': validation}
  values['energy_test_jackknife'] = [test, test - 0.1, test + 0.1]
  return {
    'method': method,
    'params': params,
    'seed': seed,
    'num_samples': 10,
    'num_steps': 2,
    'nfe': 2.0 if method == 'unguided' else 4.0,
    'learning_evaluations': 7168 if method == 'self_consistency' else 0,
    'metrics': values,
  }


def make_rows():
  """constant 0.25 is best on validation data, constant 0.5 on test data."""
  rows = []
  for seed, shift in enumerate((-0.1, 0.1)):
    rows += [
      make_row('unguided', seed, 1.0 + shift, 1.0),
      make_row('constant', seed, 0.8 + shift, 0.6, omega=0.25),
      make_row('constant', seed, 0.6 + shift, 0.7, omega=0.5),
      make_row('interval', seed, 0.9 + shift, 0.9, omega=0.5, lo=0.2, hi=0.8),
      make_row('clamp_linear', seed, 0.9 + shift, 0.9, omega=0.5, floor=0.0),
      make_row('self_consistency', seed, 0.7 + shift, 0.7),
      make_row('self_consistency', seed, 0.75 + shift, 0.75, kappa=0.5),
      make_row('l2_table', seed, 0.9 + shift, 0.9),
    ]
  return [make_row('real', 0, 0.0, 0.0, split='train'), *rows]


class ResultsTest(absltest.TestCase):
  def test_summaries_hold_every_seed(self):
    summary = report.rows.summarise(make_rows())[2]
    self.assertEqual(summary.key, 'constant(omega=0.25)')
    np.testing.assert_allclose(summary.metrics['energy_test'], [0.7, 0.9])
    self.assertAlmostEqual(summary.mean('energy_test'), 0.8)
    self.assertAlmostEqual(summary.std('energy_test'), np.sqrt(0.02))

  def test_chosen_on_validation_is_not_the_best_on_test(self):
    summaries = report.rows.summarise(make_rows())
    chosen = report.rows.best(summaries, 'constant', 'energy_validation')
    bound = report.rows.best(summaries, 'constant', 'energy_test')
    self.assertEqual(chosen.params, {'omega': 0.25})
    self.assertEqual(bound.params, {'omega': 0.5})

  def test_recovered_fraction(self):
    by_key = {s.key: s for s in report.rows.summarise(make_rows())}
    share = report.classes.recovered_fraction(
      by_key['self_consistency'], by_key['constant(omega=0.5)'], by_key['unguided']
    )
    self.assertAlmostEqual(share, 0.3 / 0.4)

  def test_write(self):
    path = pathlib.Path(self.create_tempdir().full_path)
    rows = make_rows()
    keys = {'real'} | {report.rows.key(r['method'], r['params']) for r in rows}
    report.classes.write(
      path,
      rows,
      samples={key: np.zeros((3, 4, 8, 8, 1)) for key in keys},
      tables={'self_consistency': np.ones((3, 2)), 'l2_table': np.ones((3, 2))},
      gammas={},
      verdicts={'self_consistency': 0.5},
      times=np.array([1.0, 0.5]),
    )
    self.assertEqual(json.loads((path / 'results.json').read_text()), rows)
    table = (path / 'results.md').read_text()
    self.assertIn('self_consistency recovers 75%', table)
    self.assertIn('constant(omega=0.25), chosen on validation | 1.25 |', table)
    # Gains are paired by seed: the shift common to both drops out.
    self.assertIn('| 0.3000 +- 0.0000 | 4 | 7,168 |', table)
    self.assertIn('| self_consistency, kappa 0.5 by its verdict |', table)
    self.assertIn('| l2_table |', table)  # Has none.
    # Strengths other than 1 have a table of their own, and recover nothing.
    self.assertLen(re.findall(r'\| self_consistency\(kappa=0.5\) \|', table), 1)
    self.assertLen(re.findall('recovers', table), 2)
    plots = sorted(p.name for p in (path / 'plots').iterdir())
    self.assertEqual(
      plots,
      [
        'frontier.png', 'metrics.png', 'omega_curves.png', 'omega_heatmap.png',
        'samples.png',
      ],
    )  # fmt: skip

  def test_results_json_is_the_last(self):
    """Where it is, all is of one run, whatever a run before left or broke off at."""
    path = epath.Path(self.create_tempdir().full_path)
    write = functools.partial(report.rows.write, path, [{'row': 1}], 'text')
    (path / 'plots').mkdir()

    def draw():
      self.assertFalse((path / 'results.json').exists())
      self.assertEmpty([*(path / 'plots').iterdir()])
      (path / 'plots' / 'a.png').write_text('')

    write(draw)
    names = ['plots', 'results.json', 'results.md']
    self.assertEqual(sorted(p.name for p in path.iterdir()), names)
    (path / 'plots' / 'old.png').write_text('')
    (path / 'plots' / 'cut.png.partial').write_text('')
    write(draw)
    self.assertEqual([p.name for p in (path / 'plots').iterdir()], ['a.png'])
    with self.assertRaises(KeyboardInterrupt):
      write(mock.Mock(side_effect=KeyboardInterrupt))
    self.assertFalse((path / 'results.json').exists())


if __name__ == '__main__':
  absltest.main()
