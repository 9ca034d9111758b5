"""results.json, results.md and the figures of an evaluation."""

from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import numpy as np
from etils import epath

from lgd import files
from lgd import plots

GRIDS = ('constant', 'interval', 'clamp_linear')
COLUMNS = (
  ('energy_test', 'energy, test'),
  ('energy_train', 'energy, train'),
  ('frechet_pixels', 'Frechet, pixels'),
  ('frechet_features', 'Frechet, features'),
  ('accuracy', 'accuracy'),
  ('log_inverse_prob', 'log mean 1/p(c given x)'),
)


class Summary(NamedTuple):
  """One method over its seeds."""

  method: str
  params: dict[str, Any]
  nfe: float
  learning_evaluations: int
  metrics: dict[str, np.ndarray]  # name -> [num_seeds]

  def mean(self, metric: str) -> float:
    return float(np.mean(self.metrics[metric]))

  def std(self, metric: str) -> float:
    """Over seeds, with n - 1; 0 for a single one."""
    values = self.metrics[metric]
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0

  @property
  def key(self) -> str:
    return key(self.method, self.params)


def key(method: str, params: dict[str, Any]) -> str:
  """'constant(omega=0.25)', the name of one row."""
  if not params:
    return method
  values = (
    f'{k}={v}' if isinstance(v, str) else f'{k}={v:g}' for k, v in params.items()
  )
  return f'{method}({", ".join(values)})'


def summarise(rows: Sequence[dict[str, Any]]) -> list[Summary]:
  """Groups rows by method and parameters, in order of appearance."""
  groups: dict[str, list[dict[str, Any]]] = {}
  for row in rows:
    groups.setdefault(key(row['method'], row['params']), []).append(row)
  return [
    Summary(
      group[0]['method'],
      group[0]['params'],
      group[0]['nfe'],
      group[0]['learning_evaluations'],
      {m: np.array([r['metrics'][m] for r in group]) for m in group[0]['metrics']},
    )
    for group in groups.values()
  ]


def best(summaries: Sequence[Summary], method: str, metric: str) -> Summary:
  """The point of a grid whose mean `metric` is smallest."""
  grid = [s for s in summaries if s.method == method]
  return min(grid, key=lambda s: s.mean(metric))


def recovered_fraction(learned: Summary, constant: Summary, unguided: Summary) -> float:
  """Gain of `learned` over unguided as a fraction of the constant's, in test energy."""
  gain = unguided.mean('energy_test') - constant.mean('energy_test')
  return (unguided.mean('energy_test') - learned.mean('energy_test')) / gain


def write(
  path: epath.Path,
  rows: list[dict[str, Any]],
  *,
  samples: dict[str, np.ndarray],
  tables: dict[str, np.ndarray],
  times: np.ndarray,
) -> None:
  """Writes everything that `evaluate` leaves behind.

  Args:
    path: the work directory.
    rows: one per method and seed.
    samples: row key, and 'real' -> `[num_classes, n, *data]` of the first seed.
    tables: learned method -> `[num_classes, num_steps]`.
    times: `[num_steps]` times denoised from.
  """
  files.write_json(path / 'results.json', rows)
  summaries = summarise(rows)
  (path / 'results.md').write_text(to_markdown(summaries))

  unguided = next(s for s in summaries if s.method == 'unguided')
  learned = [s for s in summaries if s.method in tables and not s.params]
  chosen = [best(summaries, g, 'energy_validation') for g in GRIDS]
  plot_dir = path / 'plots'
  if tables:
    plots.omega_curves(plot_dir / 'omega_curves.png', tables, times)
    plots.omega_heatmap(plot_dir / 'omega_heatmap.png', tables, times)
  shown = [unguided, *chosen, *learned]
  plots.sample_grid(
    plot_dir / 'samples.png',
    {'real': samples['real'], **{s.key: samples[s.key] for s in shown}},
  )

  constants = [unguided, *(s for s in summaries if s.method == 'constant')]
  constants = sorted(constants, key=lambda s: s.params.get('omega', 0.0))
  names = [name for name, _ in COLUMNS]
  plots.metrics_against_constant(
    plot_dir / 'metrics.png',
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
  _plot_frontier(plot_dir / 'frontier.png', summaries, networks)


def _plot_frontier(
  path: epath.Path, summaries: Sequence[Summary], learned: Sequence[str]
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
  plots.frontier(
    path,
    {method: points(method) for method in dials},
    np.array([[s.mean(name) for name in axes] for s in intervals]),
  )


def to_markdown(summaries: Sequence[Summary]) -> str:
  """The table of methods, what learning recovers, and the whole grids."""
  unguided = next(s for s in summaries if s.method == 'unguided')
  every_learned = [s for s in summaries if s.method not in (*GRIDS, 'unguided', 'real')]
  learned = [s for s in every_learned if not s.params]
  chosen = [best(summaries, g, 'energy_validation') for g in GRIDS]
  upper_bounds = [best(summaries, g, 'energy_test') for g in ('constant', 'interval')]
  labelled = [
    (next(s for s in summaries if s.method == 'real'), ''),
    (unguided, ''),
    *((s, ', chosen on validation') for s in chosen),
    *((s, '') for s in learned),
    *((s, ', best on test: upper bound') for s in upper_bounds),
  ]
  lines = [
    '# Results',
    '',
    'Mean +- standard deviation over sampling seeds. energy: class-conditional energy'
    ' distance (unbiased, beta 1). Frechet distances are to test data. gain: energy'
    ' distance to test data of unguided minus that of the method, same seeds.'
    ' omega = 0 is the conditional model; w = 1 + omega. NFE: denoiser evaluations of a'
    ' sample; evaluations to learn: all that learning the weights took.',
    '',
    *table(
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
          strength(summary),
          *(cell(summary, name) for name, _ in COLUMNS),
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
    *table(
      ('method', *(title for _, title in COLUMNS), 'gain'),
      [
        (
          summary.key,
          *(cell(summary, name) for name, _ in COLUMNS),
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
    *table(
      ('method', 'mean', 'log of mean', '95% interval of it', 'clipped mean'),
      [
        (
          summary.key + note,
          f'{summary.mean("inverse_prob"):.3g}',
          cell(summary, 'log_inverse_prob'),
          f'{summary.mean("log_inverse_prob_low"):.2f} to'
          f' {summary.mean("log_inverse_prob_high"):.2f}',
          cell(summary, 'clipped_inverse_prob'),
        )
        for summary, note in labelled
      ],
    ),
    '',
    '## Grids',
    '',
    *table(
      ('method', 'w', 'energy, validation', *(title for _, title in COLUMNS)),
      [
        (
          summary.key,
          strength(summary),
          cell(summary, 'energy_validation'),
          *(cell(summary, name) for name, _ in COLUMNS),
        )
        for summary in summaries
        if summary.method in GRIDS
      ],
    ),
  ]
  return '\n'.join(lines) + '\n'


def _recovered(
  learned: Sequence[Summary], upper_bound: Summary, unguided: Summary
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


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
  """Lines of a Markdown table."""
  return [
    f'| {" | ".join(cells)} |' for cells in (header, ['---'] * len(header), *rows)
  ]


def cell(summary: Summary, metric: str) -> str:
  """Mean and standard deviation, as tables show them."""
  digits = 4 if metric.startswith('energy') else 3
  return _mean_std(summary.metrics[metric], digits)


def _gain(summary: Summary, unguided: Summary) -> str:
  if summary.method in ('real', 'unguided'):
    return ''
  gain = unguided.metrics['energy_test'] - summary.metrics['energy_test']
  return _mean_std(gain, 4)


def strength(summary: Summary) -> str:
  """w = 1 + omega, as tables show it; of a reward its rate."""
  if 'rate' in summary.params:
    return f'rate {summary.params["rate"]:g}'
  return f'{1.0 + summary.params["omega"]:.4g}' if 'omega' in summary.params else ''


def _mean_std(values: np.ndarray, digits: int) -> str:
  if len(values) == 1:
    return f'{values[0]:.{digits}f}'
  std = np.std(values, ddof=1)
  return f'{np.mean(values):.{digits}f} +- {std:.{digits}f}'
