"""results.json, results.md and the figures of an evaluation."""

import json
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import numpy as np
from etils import epath

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
    samples: row key -> `[num_classes, n, *data]` of the first seed.
    tables: learned method -> `[num_classes, num_steps]` (None for unguided).
    times: `[num_steps]` times denoised from.
  """
  (path / 'results.json').write_text(json.dumps(rows, indent=1))
  summaries = summarise(rows)
  (path / 'results.md').write_text(to_markdown(summaries))

  unguided = next(s for s in summaries if s.method == 'unguided')
  learned = [s for s in summaries if s.method in tables and s.method != 'unguided']
  chosen = [best(summaries, g, 'energy_validation') for g in GRIDS]
  plot_dir = path / 'plots'
  learned_tables = {s.method: tables[s.method] for s in learned}
  if learned_tables:
    plots.omega_curves(plot_dir / 'omega_curves.png', learned_tables, times)
    plots.omega_heatmap(plot_dir / 'omega_heatmap.png', learned_tables, times)
  shown = [unguided, *chosen, *learned]
  plots.sample_grid(plot_dir / 'samples.png', {s.key: samples[s.key] for s in shown})

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


def to_markdown(summaries: Sequence[Summary]) -> str:
  """The table of methods, what learning recovers, and the whole grids."""
  unguided = next(s for s in summaries if s.method == 'unguided')
  learned = [s for s in summaries if s.method not in (*GRIDS, 'unguided', 'real')]
  lines = [
    '# Results',
    '',
    'Mean +- standard deviation over sampling seeds. energy: class-conditional'
    ' energy distance (unbiased, beta 1). Frechet distances are to test data.'
    ' omega = 0 is the conditional model; w = 1 + omega.',
    '',
    _row('method', 'w', *(title for _, title in COLUMNS), 'gain, test', 'NFE'),
    _row(*['---'] * (len(COLUMNS) + 4)),
  ]

  def add(summary, note=''):
    cells = [_cell(summary, name) for name, _ in COLUMNS]
    gain = unguided.metrics['energy_test'] - summary.metrics['energy_test']
    sampled = summary.method not in ('real', 'unguided')
    gain = f'{np.mean(gain):.4f} +- {_std(gain):.4f}' if sampled else ''
    omega = summary.params.get('omega')
    w = f'{1.0 + omega:g}' if omega is not None else ''
    lines.append(_row(summary.key + note, w, *cells, gain, f'{summary.nfe:g}'))

  add(next(s for s in summaries if s.method == 'real'))
  add(unguided)
  for grid in GRIDS:
    add(best(summaries, grid, 'energy_validation'), ', chosen on validation')
  for summary in learned:
    add(summary)
  upper_bound = best(summaries, 'constant', 'energy_test')
  add(upper_bound, ', best on test: upper bound')
  add(best(summaries, 'interval', 'energy_test'), ', best on test: upper bound')
  lines += [
    '',
    'gain: energy distance to test data of unguided minus that of the method, same'
    ' seeds.',
    '',
  ]
  for summary in learned:
    share = recovered_fraction(summary, upper_bound, unguided)
    if unguided.mean('energy_test') > upper_bound.mean('energy_test'):
      lines.append(
        f'- {summary.key} recovers {100.0 * share:.0f}% of what the best constant on'
        ' test data gains over unguided.'
      )
  lines += [
    '',
    '## Grids',
    '',
    _row('method', 'w', 'energy, validation', *(title for _, title in COLUMNS)),
    _row(*['---'] * (len(COLUMNS) + 3)),
  ]
  for s in summaries:
    if s.method in GRIDS:
      cells = [_cell(s, name) for name, _ in (('energy_validation', ''), *COLUMNS)]
      lines.append(_row(s.key, f'{1.0 + s.params["omega"]:g}', *cells))
  return '\n'.join(lines) + '\n'


def _row(*cells: str) -> str:
  return f'| {" | ".join(cells)} |'


def _cell(summary: Summary, metric: str) -> str:
  std = summary.std(metric)
  digits = 4 if metric.startswith('energy') else 3
  mean = f'{summary.mean(metric):.{digits}f}'
  return mean if len(summary.metrics[metric]) == 1 else f'{mean} +- {std:.{digits}f}'


def _std(values: np.ndarray) -> float:
  return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
