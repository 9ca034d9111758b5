"""Rows of results: grouped by method, as tables, and in the order they are written.

A row is of one method and seed; a summary is of one method.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import numpy as np
from etils import epath

from experiments import workdirs
from experiments.report import figures
from lgd.storage import files

GRIDS = ('constant', 'interval', 'clamp_linear')


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


def write(
  path: epath.Path,
  rows: Sequence[dict[str, Any]],
  text: str,
  draw: Callable[[], None],
) -> None:
  """Writes results.json, results.md and figures, in the place of older ones.

  results.json goes first and comes last: where it is, all beside it is of its run.

  Args:
    path: of a directory.
    rows: what results.json holds.
    text: what results.md holds.
    draw: makes the figures, under `path` or its plots/.
  """
  (path / 'results.json').unlink(missing_ok=True)
  for pattern in ('*.png*', 'plots/*.png*'):  # Of methods that may be none of these.
    for old in path.glob(pattern):
      old.unlink()
  draw()
  files.write_text(path / 'results.md', text)
  files.write_json(path / 'results.json', rows)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
  """Lines of a Markdown table."""
  return [
    f'| {" | ".join(cells)} |' for cells in (header, ['---'] * len(header), *rows)
  ]


def cell(summary: Summary, metric: str) -> str:
  """Mean and standard deviation, as tables show them."""
  digits = 4 if metric.startswith('energy') else 3
  return mean_std(summary.metrics[metric], digits)


def strength(summary: Summary) -> str:
  """w = 1 + omega, as tables show it; of a reward its rate."""
  if 'rate' in summary.params:
    return f'rate {summary.params["rate"]:g}'
  return f'{1.0 + summary.params["omega"]:.4g}' if 'omega' in summary.params else ''


def mean_std(values: np.ndarray, digits: int) -> str:
  """Mean and deviation over seeds, as tables show them."""
  if len(values) == 1:
    return f'{values[0]:.{digits}f}'
  std = np.std(values, ddof=1)
  return f'{np.mean(values):.{digits}f} +- {std:.{digits}f}'


def with_error(value: float, error: float) -> str:
  """A value and its standard error, as tables show them."""
  return f'{value:.4f} +- {error:.4f}'


def gammas(
  learned: Mapping[str, workdirs.weights.LearnedWeight],
) -> dict[str, tuple[str, float]]:
  """Name of a weight -> what is left of the name without gamma, and gamma."""
  each = ((name, weight.guidance.gamma) for name, weight in learned.items())
  return {
    name: (workdirs.layout.without_gamma(name, gamma), gamma) for name, gamma in each
  }


def plot_frontier(
  path: epath.PathLike,
  summaries: Sequence[Summary],
  gammas: Mapping[str, tuple[str, float]],
  titles: Mapping[str, str],
) -> None:
  """A line of constants, one of every weight along gamma, and points of the rest.

  Args:
    path: of the PNG.
    summaries: of the methods on one split, unguided among them.
    gammas: as `gammas` returns.
    titles: metric -> its name; the first is the distance.
  """
  groups = {'constant': [s for s in summaries if s.method in ('unguided', 'constant')]}
  groups['constant'].sort(key=lambda s: s.params.get('omega', 0.0))
  groups['interval'] = [s for s in summaries if s.method == 'interval']
  for summary in sorted(summaries, key=lambda s: gammas.get(s.method, ('', 0.0))[1]):
    if summary.method in gammas and not summary.params:
      groups.setdefault(gammas[summary.method][0], []).append(summary)

  def points(group):
    return np.array([[s.mean(name) for name in titles] for s in group])

  is_line = {name: name != 'interval' and len(g) > 1 for name, g in groups.items()}
  figures.reward_frontier(
    path,
    {name: points(g) for name, g in groups.items() if is_line[name]},
    {name: points(g) for name, g in groups.items() if g and not is_line[name]},
    tuple(titles.values()),
  )
