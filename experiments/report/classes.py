"""results.json, results.md and the figures of an evaluation on classes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from experiments.report import figures
from experiments.report import rows as rows_lib
from experiments.report import verdicts as verdicts_lib

COLUMNS = (
  ('energy_test', 'energy, test'),
  ('energy_train', 'energy, train'),
  ('frechet_pixels', 'Frechet, pixels'),
  ('frechet_features', 'Frechet, features'),
  ('accuracy', 'accuracy'),
  ('log_inverse_prob', 'log mean 1/p(c given x)'),
)


def recovered_fraction(
  learned: rows_lib.Summary, constant: rows_lib.Summary, unguided: rows_lib.Summary
) -> float:
  """Gain of `learned` over unguided as a fraction of the constant's, in test energy."""
  gain = unguided.mean('energy_test') - constant.mean('energy_test')
  return (unguided.mean('energy_test') - learned.mean('energy_test')) / gain


def write(
  path: epath.Path,
  rows: list[dict[str, Any]],
  *,
  samples: dict[str, np.ndarray],
  tables: dict[str, np.ndarray],
  gammas: dict[str, tuple[str, float]],
  verdicts: dict[str, float],
  times: np.ndarray,
) -> None:
  """Writes everything that `evaluate` leaves behind.

  Args:
    path: the work directory.
    rows: one per method and seed.
    samples: row key, and 'real' -> `[num_classes, n, *data]` of the first seed.
    tables: learned method -> `[num_classes, num_steps]`.
    gammas: as from `rows.gammas`.
    verdicts: learned method -> the strength of its verdict, of those that have one.
    times: `[num_steps]` times denoised from.
  """
  summaries = rows_lib.summarise(rows)

  def draw():
    _draw(path / 'plots', summaries, samples, tables, times)
    if any(gamma for _, gamma in gammas.values()):
      titles = {'energy_test': 'energy distance to test data', 'accuracy': 'accuracy'}
      rows_lib.plot_frontier(path / 'plots' / 'rewards.png', summaries, gammas, titles)

  rows_lib.write(path, rows, to_markdown(summaries, verdicts), draw)


def _draw(directory, summaries, samples, tables, times):
  unguided = next(s for s in summaries if s.method == 'unguided')
  learned = [s for s in summaries if s.method in tables and not s.params]
  chosen = _best_of_grids(summaries, rows_lib.GRIDS, 'energy_validation')
  if tables:
    figures.omega_curves(directory / 'omega_curves.png', tables, times)
    figures.omega_heatmap(directory / 'omega_heatmap.png', tables, times)
  shown = [unguided, *chosen, *learned]
  figures.sample_grid(
    directory / 'samples.png',
    {'real': samples['real'], **{s.key: samples[s.key] for s in shown}},
  )

  constants = [unguided, *(s for s in summaries if s.method == 'constant')]
  constants = sorted(constants, key=lambda s: s.params.get('omega', 0.0))
  names = [name for name, _ in COLUMNS]
  figures.metrics_against_constant(
    directory / 'metrics.png',
    [s.params.get('omega', 0.0) for s in constants],
    {
      name: (
        np.array([s.mean(name) for s in constants]),
        np.array([s.std(name) for s in constants]),
      )
      for name in names
    },
    {s.key: {name: s.mean(name) for name in names} for s in learned},
  )
  networks = [name for name in tables if not name.endswith('_table')]
  _plot_frontier(directory / 'frontier.png', summaries, networks)


def _plot_frontier(
  path: epath.Path, summaries: Sequence[rows_lib.Summary], learned: Sequence[str]
) -> None:
  """Distance against features and accuracy, as the strength of a method grows.

  Unguided is where every curve starts; a learned weight without a kappa has kappa 1.
  """
  dials = {'constant': 'omega', **dict.fromkeys(learned, 'kappa')}
  unguided = next(s for s in summaries if s.method == 'unguided')
  axes = ('frechet_features', 'accuracy', 'energy_test')

  def points(method):
    dial = dials[method]
    own = [s for s in summaries if s.method == method]
    own = sorted(own, key=lambda s: s.params.get(dial, 1.0))
    return np.array([[s.mean(name) for name in axes] for s in (unguided, *own)])

  intervals = [s for s in summaries if s.method == 'interval']
  figures.frontier(
    path,
    {method: points(method) for method in dials},
    np.array([[s.mean(name) for name in axes] for s in intervals]).reshape(-1, 3),
  )


def to_markdown(
  summaries: Sequence[rows_lib.Summary], verdicts: dict[str, float]
) -> str:
  """The table of methods, what learning recovers, and the whole grids."""
  unguided = next(s for s in summaries if s.method == 'unguided')
  every_learned = [
    s for s in summaries if s.method not in (*rows_lib.GRIDS, 'unguided', 'real')
  ]
  learned = [s for s in every_learned if not s.params]
  chosen = _best_of_grids(summaries, rows_lib.GRIDS, 'energy_validation')
  upper_bounds = _best_of_grids(summaries, ('constant', 'interval'), 'energy_test')
  labelled = [
    (next(s for s in summaries if s.method == 'real'), ''),
    (unguided, ''),
    *((s, ', chosen on validation') for s in chosen),
    *((s, _of_verdict(verdicts.get(s.method))) for s in learned),
    *((s, ', best on test: upper bound') for s in upper_bounds),
  ]
  lines = [
    '# Results',
    '',
    'Mean +- standard deviation over sampling seeds. energy: class-conditional energy'
    ' distance (unbiased, beta 1). Frechet distances are to test data. gain: energy'
    ' distance to test data of unguided minus that of the method, same seeds, +- its'
    ' standard error by a jackknife over samples and test data.'
    ' omega = 0 is the conditional model; w = 1 + omega. NFE: denoiser evaluations of a'
    ' sample; evaluations to learn: all that learning the weights took.',
    '',
    *rows_lib.table(
      (
        'method',
        'w',
        *(title for _, title in COLUMNS),
        'gain',
        'NFE',
        'evaluations to learn',
      ),
      [
        (
          summary.key + note,
          rows_lib.strength(summary),
          *(rows_lib.cell(summary, name) for name, _ in COLUMNS),
          _gain(summary, unguided),
          f'{summary.nfe:g}',
          f'{summary.learning_evaluations:,}' if summary.learning_evaluations else '',
        )
        for summary, note in labelled
      ],
    ),
    '',
    *_recovered(learned, upper_bounds[0], unguided),
    '',
    '## Strength',
    '',
    'Learned weights times kappa: fidelity traded for alignment along the learned'
    ' shape (plots/frontier.png).',
    '',
    *rows_lib.table(
      ('method', *(title for _, title in COLUMNS), 'gain'),
      [
        (
          summary.key,
          *(rows_lib.cell(summary, name) for name, _ in COLUMNS),
          _gain(summary, unguided),
        )
        for summary in every_learned
      ],
    ),
    '',
    '## Inverse probability',
    '',
    'Mean of 1/p(c given x) under the classifier: heavy-tailed, so read the logarithm'
    ' of the mean, its bootstrap interval and the mean of values clipped at 100 with'
    ' it (all averaged over seeds).',
    '',
    *rows_lib.table(
      ('method', 'mean', 'log of mean', '95% interval of it', 'clipped mean'),
      [
        (
          summary.key + note,
          f'{summary.mean("inverse_prob"):.3g}',
          rows_lib.cell(summary, 'log_inverse_prob'),
          f'{summary.mean("log_inverse_prob_low"):.2f} to'
          f' {summary.mean("log_inverse_prob_high"):.2f}',
          rows_lib.cell(summary, 'clipped_inverse_prob'),
        )
        for summary, note in labelled
      ],
    ),
    '',
    '## Grids',
    '',
    *rows_lib.table(
      ('method', 'w', 'energy, validation', *(title for _, title in COLUMNS)),
      [
        (
          summary.key,
          rows_lib.strength(summary),
          rows_lib.cell(summary, 'energy_validation'),
          *(rows_lib.cell(summary, name) for name, _ in COLUMNS),
        )
        for summary in summaries
        if summary.method in rows_lib.GRIDS
      ],
    ),
  ]
  return '\n'.join(lines) + '\n'


def _of_verdict(kappa):
  return '' if kappa is None else f', kappa {kappa:g} by its verdict'


def _best_of_grids(summaries, grids, metric):
  """The best point of each grid that has any."""
  present = {s.method for s in summaries}
  return [rows_lib.best(summaries, g, metric) for g in grids if g in present]


def _recovered(
  learned: Sequence[rows_lib.Summary],
  upper_bound: rows_lib.Summary,
  unguided: rows_lib.Summary,
) -> list[str]:
  if unguided.mean('energy_test') <= upper_bound.mean('energy_test'):
    return ['No constant of the grid gains anything over unguided on test data.']
  lines = []
  for summary in learned:
    share = recovered_fraction(summary, upper_bound, unguided)
    verb = f'recovers {share:.0%} of' if share > -1.0 else f'loses {-share:.3g} times'
    lines.append(
      f'- {summary.key} {verb} what the best constant on test data gains over unguided.'
    )
  return lines


def _gain(summary: rows_lib.Summary, unguided: rows_lib.Summary) -> str:
  if summary.method in ('real', 'unguided'):
    return ''
  gain, error = verdicts_lib.gain_on_test(summary, unguided)
  return f'{gain:.4f}' if np.isnan(error) else rows_lib.with_error(gain, error)
