"""results.json, results.md and the figure of a comparison."""

from typing import Any

import numpy as np
from etils import epath

from experiments import builders
from experiments.report import figures
from experiments.report import rows as rows_lib

COLUMNS = (
  ('energy_test', 'energy, test'),
  ('frechet_features', 'Frechet, features'),
  ('accuracy', 'accuracy'),
  ('log_inverse_prob', 'log mean 1/p(c given x)'),
)


def write(path: epath.Path, rows: list[dict[str, Any]]) -> None:
  """The rows, a table for each step count, and energy distance against NFE."""
  floor, *measured = rows
  by_steps = {
    asked: [row for row in measured if row['asked_steps'] == asked]
    for asked in sorted({row['asked_steps'] for row in measured})
  }
  curves: dict[str, list[tuple[float, float]]] = {}
  for some in by_steps.values():
    for summary in rows_lib.summarise(some):
      point = summary.nfe, summary.mean('energy_test')
      curves.setdefault(summary.method, []).append(point)

  def draw():
    figures.distance_against_evaluations(
      path / 'nfe.png',
      {name: np.array(points) for name, points in curves.items()},
      [name for name in curves if not is_given(name)],
    )

  rows_lib.write(path, rows, to_markdown(floor, by_steps), draw)


def to_markdown(
  floor: dict[str, Any], by_steps: dict[int, list[dict[str, Any]]]
) -> str:
  """How far real data are from real data, and the rows of every step count."""
  lines = [
    '# Comparison',
    '',
    'Mean +- standard deviation over sampling seeds; in brackets and under w = 1 +'
    ' omega the strength, for learned weights its mean. Cost: denoiser evaluations of'
    ' the search on validation data, or of learning. MPGD and Stein also evaluate the'
    " gradient of a classifier of the judge's training data, once a step; Stein's"
    ' samples are drawn in groups, whose own pairs are left out of the distance. Real'
    f' against real: energy {floor["metrics"]["energy_test"]:.4f}, Frechet, features'
    f' {floor["metrics"]["frechet_features"]:.3g}.',
  ]
  lines += ['', '## Energy distance to test data', '', *overview(by_steps)]
  for asked, some in by_steps.items():
    lines += ['', f'## {asked} steps', '', *table_of(some)]
  return '\n'.join(lines) + '\n'


def overview(by_steps: dict[int, list[dict[str, Any]]]) -> list[str]:
  """A Markdown table of methods by step counts, the smallest mean rank first."""
  cells, ranks = {}, {}
  for rows in by_steps.values():
    ordered = sorted(rows_lib.summarise(rows), key=lambda s: s.mean('energy_test'))
    for rank, s in enumerate(ordered):
      strength = rows_lib.strength(s)
      cell = rows_lib.cell(s, 'energy_test') + (strength and f' ({strength})')
      cells.setdefault(shown(s.method), []).append(cell)
      ranks.setdefault(shown(s.method), []).append(rank)
  names = sorted(cells, key=lambda name: np.mean(ranks[name]))
  return rows_lib.table(
    ('method', *(f'{asked} steps' for asked in by_steps)),
    [(name, *cells[name]) for name in names],
  )


def shown(method: str) -> str:
  """The name of a method; learned ones stand out."""
  return method if is_given(method) else f'**{method}**'


def is_given(method: str) -> bool:
  """Whether a method is hand-made, or unguided."""
  return method in (*builders.families.FAMILIES, 'unguided')


def table_of(rows: list[dict[str, Any]]) -> list[str]:
  """A Markdown table of one step count, the smallest test energy first."""
  summaries = rows_lib.summarise(rows)
  first = {rows_lib.key(row['method'], row['params']): row for row in reversed(rows)}
  summaries.sort(key=lambda s: s.mean('energy_test'))
  header = ('method', 'rule', 'w', *(title for _, title in COLUMNS))
  cells = []
  for s in summaries:
    row = first[s.key]
    cells.append(
      (
        shown(s.method),
        row['rule'],
        rows_lib.strength(s) or mean_strength(row),
        *(rows_lib.cell(s, metric) for metric, _ in COLUMNS),
        f'{s.nfe:.4g}',
        f'{row["seconds"]:.2f}',
        f'{s.learning_evaluations:,}' if s.learning_evaluations else '',
      )
    )
  return rows_lib.table((*header, 'NFE', 'seconds', 'cost'), cells)


def mean_strength(row: dict[str, Any]) -> str:
  """Mean w of a learned weight over classes and steps."""
  omega = row['mean_omega']
  return '' if omega is None else f'mean {1.0 + omega:.3g}'
