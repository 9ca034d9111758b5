"""Figures of what prompts give, each a function from arrays to a PNG file."""

import re
from collections.abc import Sequence

import numpy as np
from etils import epath

from lgd.plots import plt
from lgd.plots import save

_PANELS_IN_A_ROW = 3


def samples(
  path: epath.PathLike, prompts: Sequence[str], columns: dict[str, np.ndarray]
) -> None:
  """A row for every prompt and a column for every method, of the same noise.

  Args:
    path: of the PNG.
    prompts: n of them.
    columns: method -> `[n, height, width, 3]` in [-1, 1].
  """
  n, m = len(prompts), len(columns)
  fig, axes = plt.subplots(n, m, figsize=(2.0 + 0.8 * m, 0.8 * n + 0.6), squeeze=False)
  for column, name in zip(axes.T, columns, strict=True):
    column[0].set_title(_broken(name), fontsize=6)
    for ax, x in zip(column, columns[name], strict=True):
      ax.imshow(np.clip(0.5 * x + 0.5, 0.0, 1.0), interpolation='nearest')
      ax.axis('off')
  for ax, prompt in zip(axes[:, 0], prompts, strict=True):
    place = {'transform': ax.transAxes, 'ha': 'right', 'va': 'center'}
    ax.text(-0.1, 0.5, _plain(prompt), fontsize=7, **place)
  save(fig, path)


def curves(
  path: epath.PathLike,
  prompts: Sequence[str],
  tables: dict[str, np.ndarray],
  times: np.ndarray,
) -> None:
  """omega against t: a panel for every method, a line for every prompt.

  Args:
    path: of the PNG.
    prompts: n of them.
    tables: method -> `[n, num_steps]` weights at the sampler's times.
    times: `[num_steps]` the times denoised from.
  """
  columns = min(len(tables), _PANELS_IN_A_ROW)
  rows = -(-len(tables) // columns)
  fig, axes = plt.subplots(
    rows, columns, figsize=(2.6 * columns + 2.4, 2.8 * rows), squeeze=False
  )
  for ax in axes.flat[len(tables) :]:
    ax.axis('off')
  for ax, (name, table) in zip(axes.flat, tables.items(), strict=False):
    for i, (prompt, row) in enumerate(zip(prompts, table, strict=True)):
      ax.plot(times, row, color=plt.cm.tab20(i % 20), label=_plain(prompt))
    ax.set_title(name, fontsize=8)
    ax.set(ylim=(0.0, None))
  for ax in axes[-1]:
    ax.set(xlabel='t (0 data, 1 noise)')
  for ax in axes[:, 0]:
    ax.set(ylabel='omega (w = 1 + omega)')
  axes[0, columns - 1].legend(fontsize=6, loc='upper left', bbox_to_anchor=(1.0, 1.0))
  save(fig, path)


def frontier(
  path: epath.PathLike,
  lines: dict[str, np.ndarray],
  points: dict[str, np.ndarray],
  labels: tuple[str, ...],
) -> None:
  """Distance from data against what it buys, a panel for every price.

  Distances are on a log scale where they are positive and span more than a decade.

  Args:
    path: of the PNG.
    lines: method -> `[k, 1 + prices]`: the distance, and each price, in order of
      strength.
    points: the same, of methods without an order.
    labels: of the distance and of every price.
  """
  fig, axes = plt.subplots(
    1, len(labels) - 1, figsize=(5.0 * (len(labels) - 1), 4.0), squeeze=False
  )
  distances = np.concatenate([v[:, 0] for v in (*lines.values(), *points.values())])
  is_wide = 0.0 < 10.0 * distances.min() < distances.max()
  for column, ax in enumerate(axes[0], 1):
    for i, (name, values) in enumerate(lines.items()):
      colour = plt.cm.tab10(i % 10)
      ax.plot(values[:, column], values[:, 0], color=colour, marker='o', label=name)
    for i, (name, values) in enumerate(points.items(), len(lines)):
      ax.plot(
        values[:, column], values[:, 0], 'x', color=plt.cm.tab10(i % 10), label=name
      )
    ax.set(xlabel=labels[column], ylabel=labels[0])
    if is_wide:
      ax.set_yscale('log')
  axes[0, 0].legend(fontsize=7)
  save(fig, path)


def _plain(prompt: str) -> str:
  """Letter by letter: between two dollars matplotlib reads mathematics."""
  return prompt.replace('$', r'\$')


def _broken(name: str) -> str:
  """A name over several short lines."""
  name = re.sub(r'(\w{9,}?)_', r'\1\n', name)
  return name.replace(' (', '(').replace('(', '\n(').replace(', ', ',\n')
