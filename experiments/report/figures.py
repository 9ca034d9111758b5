"""Figures of an evaluation, each a function from arrays to a PNG file."""

import os
import re
from collections.abc import Collection
from collections.abc import Sequence

import numpy as np
from etils import epath
from etils import epy

from lgd.storage import files

os.environ.setdefault('MPLBACKEND', 'Agg')  # Files need no display.
with epy.lazy_imports():  # A second, which commands that draw nothing need not wait.
  from matplotlib import pyplot as plt

_PANELS_IN_A_ROW = 3


def omega_curves(
  path: epath.PathLike, tables: dict[str, np.ndarray], times: np.ndarray
) -> None:
  """omega against t, one panel per method and one line per class.

  Args:
    path: of the PNG.
    tables: method -> `[num_classes, num_steps]` weights at the sampler's times.
    times: `[num_steps]` the times denoised from.
  """
  fig, axes = _panels(len(tables), 3.7, 3.2, num_cols=4)
  for ax, (name, table) in zip(axes, tables.items(), strict=True):
    for c, row in enumerate(table):
      label = f'class {c}' if len(table) <= 10 else None  # More would fill the figure.
      ax.plot(times, row, color=plt.cm.tab10(c % 10), label=label)
    ax.plot(times, table.mean(axis=0), 'k--', linewidth=2, label='mean')
    ax.set(title=name, xlabel='t (0 data, 1 noise)')
    ax.set_ylim(0.0, None)
  axes[0].set(ylabel='omega')
  axes[0].legend(fontsize=6)
  save(fig, path)


def omega_heatmap(
  path: epath.PathLike, tables: dict[str, np.ndarray], times: np.ndarray
) -> None:
  """omega over (class, t), one panel per method; arguments as in `omega_curves`."""
  fig, axes = _panels(len(tables), 4.2, 3.4, num_cols=4)
  for ax, (name, table) in zip(axes, tables.items(), strict=True):
    mesh = ax.pcolormesh(times, np.arange(len(table)), table, cmap='viridis', vmin=0.0)
    fig.colorbar(mesh, ax=ax, label='omega')
    ax.set(title=name, xlabel='t (0 data, 1 noise)', ylabel='class')
    ax.set_yticks(np.arange(0, len(table), -(-len(table) // 10)))
  save(fig, path)


def sample_grid(
  path: epath.PathLike, samples: dict[str, np.ndarray], num_rows: int = 3
) -> None:
  """Samples by class, one block per method that shares its noise with the others.

  Images, `[num_classes, n, height, width, 1 or 3]` in [-1, 1], are tiled with one
  column per class; of points, `[num_classes, n, dim >= 2]`, the first two
  coordinates are scattered.

  Raises:
    ValueError: data that are neither.
  """
  shape = next(iter(samples.values())).shape[2:]
  if len(shape) == 3 and shape[-1] in (1, 3):
    _image_grid(path, samples, num_rows)
  elif len(shape) == 1 and shape[0] >= 2:
    _scatter(path, samples)
  else:
    raise ValueError(f'data shape {shape}: only images and points are drawn.')


def _panels(num: int, width: float, height: float, num_cols: int):
  """A figure of `num` panels, `num_cols` in a row, and its axes as a flat list."""
  num_cols = min(num, num_cols)
  num_rows = -(-num // num_cols)
  fig, axes = plt.subplots(
    num_rows, num_cols, figsize=(width * num_cols, height * num_rows), squeeze=False
  )
  axes = list(axes.flat)
  for ax in axes[num:]:
    ax.axis('off')
  return fig, axes[:num]


def _image_grid(path, samples, num_rows):
  num_classes = len(next(iter(samples.values())))
  width = 5.0
  fig, axes = _panels(
    len(samples), width, width * num_rows / num_classes + 0.35, num_cols=2
  )
  for ax, (name, x) in zip(axes, samples.items(), strict=True):
    margin = ((0, 0), (0, 0), (1, 0), (1, 0), (0, 0))
    padded = np.pad(x[:, :num_rows], margin, constant_values=1.0)
    classes, rows, height, width, channels = padded.shape
    tiled = padded.transpose(1, 2, 0, 3, 4).reshape(
      rows * height, classes * width, channels
    )
    tiled = np.clip(0.5 * tiled + 0.5, 0.0, 1.0)
    ax.imshow(tiled.squeeze(), cmap='gray', vmin=0.0, vmax=1.0, aspect='auto')
    ax.set_title(name, fontsize=9)
    ax.axis('off')
  save(fig, path)


def _scatter(path, samples):
  fig, axes = _panels(len(samples), 2.8, 3.0, num_cols=4)
  limit = 1.3 * np.abs(next(iter(samples.values()))[..., :2]).max()
  for ax, (name, x) in zip(axes, samples.items(), strict=True):
    for c, points in enumerate(x):
      ax.scatter(points[:, 0], points[:, 1], s=2, color=plt.cm.tab10(c % 10))
    ax.set_title(name, fontsize=9)
    ax.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect='equal')
  save(fig, path)


def metrics_against_constant(
  path: epath.PathLike,
  omegas: Sequence[float],
  curves: dict[str, tuple[np.ndarray, np.ndarray]],
  lines: dict[str, dict[str, float]],
) -> None:
  """Each metric against constant omega, other methods drawn across.

  Args:
    path: of the PNG.
    omegas: the constants, 0 (unguided) included.
    curves: metric -> (mean, standard deviation) at every constant.
    lines: method -> metric -> mean.
  """
  fig, axes = _panels(len(curves), 3.7, 3.2, num_cols=3)
  for ax, (metric, (mean, std)) in zip(axes, curves.items(), strict=True):
    ax.errorbar(omegas, mean, yerr=std, color='k', marker='.', label='constant')
    for i, (method, values) in enumerate(lines.items()):
      style = {'color': plt.cm.tab10(i), 'linestyle': ('--', ':', '-.', '-')[i % 4]}
      ax.axhline(values[metric], label=method, **style)
    ax.set(title=metric, xlabel='constant omega (w = 1 + omega)')
    # Large constants are far off and would flatten the rest: their end of the curve
    # leaves the panel.
    ax.set_xscale('symlog', linthresh=0.5)
    shown = [*mean[: max(2, 2 * len(mean) // 3)], *(v[metric] for v in lines.values())]
    margin = 0.15 * (max(shown) - min(shown)) + 1e-3 * abs(max(shown))
    ax.set_ylim(min(shown) - margin, max(shown) + margin)
  axes[0].legend(fontsize=7)
  save(fig, path)


def frontier(
  path: epath.PathLike, curves: dict[str, np.ndarray], cloud: np.ndarray
) -> None:
  """Energy distance against feature distance and against accuracy.

  Args:
    path: of the PNG.
    curves: method -> `[n, 3]` (Frechet distance in features, accuracy, energy
      distance) from no strength to the largest; the first one, constants, in black.
    cloud: `[m, 3]` of methods without an order, such as intervals.
  """
  everything = np.concatenate([*curves.values(), cloud])
  start, low = next(iter(curves.values()))[0, 2], everything[:, 2].min()
  # Far beyond the unguided point nothing is worth comparing.
  top = start + 0.6 * (start - low) + 0.05 * abs(start)
  fig, axes = _panels(2, 5.2, 4.2, num_cols=2)
  for column, ax in enumerate(axes):
    for i, (method, points) in enumerate(curves.items()):
      style = {'color': plt.cm.tab10((i - 1) % 10), 'marker': 'os^vDP*X'[i % 8]}
      if i == 0:
        style = {'color': 'k', 'marker': '.', 'linewidth': 2.0}
      ax.plot(points[:, column], points[:, 2], markersize=4, label=method, **style)
    ax.plot(
      cloud[:, column], cloud[:, 2], 'x', color='0.6', markersize=4, label='interval'
    )
    ax.set_ylim(low - 0.1 * (top - low), top)
    shown = everything[everything[:, 2] <= top][:, column]
    margin = 0.05 * (shown.max() - shown.min()) + 1e-9
    ax.set_xlim(shown.min() - margin, shown.max() + margin)
    ax.set_xlabel(('Frechet distance, features', 'accuracy')[column])
    ax.set_ylabel('energy distance to test data')
  axes[0].legend(fontsize=7)
  save(fig, path)


def distance_against_evaluations(
  path: epath.PathLike, curves: dict[str, np.ndarray], learned: Collection[str]
) -> None:
  """Energy distance against network evaluations of a sample, on logarithmic axes.

  Args:
    path: of the PNG.
    curves: method -> `[n, 2]` (evaluations, energy distance), a point per step count.
    learned: methods to stand out.
  """
  fig, (ax,) = _panels(1, 9.0, 5.0, num_cols=1)
  for i, (method, points) in enumerate(curves.items()):
    style = {'color': plt.cm.tab20(i % 20), 'marker': 'os^vDP*X'[i % 8]}
    if method in learned:
      style |= {'linewidth': 3.0, 'zorder': 3}
    else:
      style |= {'linewidth': 0.8, 'linestyle': '--'}
    ax.plot(points[:, 0], points[:, 1], markersize=4, label=method, **style)
  ax.set_xscale('log')
  if all(points[:, 1].min() > 0.0 for points in curves.values()):
    ax.set_yscale('log')
  ax.set(xlabel='network evaluations', ylabel='energy distance to test data')
  ax.legend(fontsize=7, loc='center left', bbox_to_anchor=(1.0, 0.5))
  save(fig, path)


def sweep_axis(
  path: epath.PathLike,
  axis: str,
  values: np.ndarray,
  validation: np.ndarray,
  test: np.ndarray,
) -> None:
  """Energy distance against one setting: every point, their mean and the best.

  Args:
    path: of the PNG.
    axis: name of the setting.
    values: `[n]` of the setting.
    validation: `[n]` distances to validation data.
    test: `[n]` distances to test data.
  """
  fig, axes = _panels(2, 4.2, 3.4, num_cols=2)
  levels = np.unique(values)
  position = np.searchsorted(levels, values)
  for ax, name, distance in zip(
    axes, ('validation', 'test'), (validation, test), strict=True
  ):
    ax.plot(position, distance, '.', color='0.7', markersize=4, label='a setting')
    by_level = [distance[position == i] for i in range(len(levels))]
    ticks = np.arange(len(levels))
    ax.plot(ticks, [d.mean() for d in by_level], 'ko-', label='mean')
    ax.plot(ticks, [d.min() for d in by_level], 'C0s--', label='best')
    ax.set_xticks(ticks, [f'{level:g}' for level in levels])
    ax.set(title=f'energy distance, {name}', xlabel=axis)
  axes[0].legend(fontsize=7)
  save(fig, path)


def prompt_samples(
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


def prompt_curves(
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


def reward_frontier(
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


def promised_gains(path: epath.PathLike, points: dict[str, np.ndarray]) -> None:
  """Gains on test data against promised ones, with standard errors, beside equality.

  Axes are linear around 0, and logarithmic from there on.

  Args:
    path: of the PNG.
    points: group -> `[n, 4]`: promised gain and its error, gain on test and its error.
  """
  values = np.concatenate(list(points.values()))[:, [0, 2]]
  linear = max(np.quantile(np.abs(values), 0.25), 1e-3)
  ends = np.array([values.min(), values.max()])
  fig, ax = plt.subplots(figsize=(5.0, 4.6))
  for i, (name, group) in enumerate(points.items()):
    ax.errorbar(
      group[:, 0], group[:, 2], xerr=group[:, 1], yerr=group[:, 3],
      fmt='o', color=plt.cm.tab10(i), markersize=4, elinewidth=0.7, label=name,
    )  # fmt: skip
  ax.plot(ends, ends, 'k--', linewidth=0.8)
  ax.axhline(0.0, color='grey', linewidth=0.6)
  ax.axvline(0.0, color='grey', linewidth=0.6)
  ax.set_xscale('symlog', linthresh=linear)
  ax.set_yscale('symlog', linthresh=linear)
  ax.set(xlabel='promised gain, validation data', ylabel='gain, test data')
  ax.legend(fontsize=7, title='strength of the verdict', title_fontsize=7)
  save(fig, path)


def _plain(prompt: str) -> str:
  """Letter by letter: between two dollars matplotlib reads mathematics."""
  return prompt.replace('$', r'\$')


def _broken(name: str) -> str:
  """A name over several short lines."""
  name = re.sub(r'(\w{9,}?)_', r'\1\n', name)
  return name.replace(' (', '(').replace('(', '\n(').replace(', ', ',\n')


def save(fig: plt.Figure, path: epath.PathLike) -> None:
  """Writes and closes a figure, as `files.write_whole`."""
  fig.tight_layout()
  files.write_whole(path, lambda f: fig.savefig(f, format='png'))
  plt.close(fig)
