"""Figures of an evaluation, each a function from arrays to a PNG file."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from etils import epath

matplotlib.use('Agg')

from matplotlib import pyplot as plt


def omega_curves(
  path: epath.PathLike, tables: dict[str, np.ndarray], times: np.ndarray
) -> None:
  """Omega against t, one panel per method and one line per class.

  Args:
    path: of the PNG.
    tables: method -> `[num_classes, num_steps]` weights at the sampler's times.
    times: `[num_steps]` the times denoised from.
  """
  fig, axes = plt.subplots(
    1, len(tables), figsize=(4.2 * len(tables), 3.4), squeeze=False
  )
  for ax, (name, table) in zip(axes[0], tables.items(), strict=True):
    for c, row in enumerate(table):
      ax.plot(times, row, color=plt.cm.tab10(c % 10), label=f'class {c}')
    ax.plot(times, table.mean(axis=0), 'k--', linewidth=2, label='mean')
    ax.set(title=name, xlabel='t (0 data, 1 noise)', ylabel='omega')
    ax.set_ylim(bottom=0.0)
  axes[0, -1].legend(fontsize=7, ncols=2)
  _save(fig, path)


def omega_heatmap(
  path: epath.PathLike, tables: dict[str, np.ndarray], times: np.ndarray
) -> None:
  """Omega over (class, t), one panel per method; arguments as in `omega_curves`."""
  fig, axes = plt.subplots(
    1, len(tables), figsize=(4.2 * len(tables), 3.4), squeeze=False
  )
  for ax, (name, table) in zip(axes[0], tables.items(), strict=True):
    mesh = ax.pcolormesh(times, np.arange(len(table)), table, cmap='viridis', vmin=0.0)
    fig.colorbar(mesh, ax=ax, label='omega')
    ax.set(title=name, xlabel='t (0 data, 1 noise)', ylabel='class')
    ax.set_yticks(np.arange(len(table)))
  _save(fig, path)


def sample_grid(
  path: epath.PathLike, samples: dict[str, np.ndarray], num_rows: int = 3
) -> None:
  """Samples by class, one block per method that shares its noise with the others.

  Images, `[num_classes, n, height, width, 1 or 3]` in [-1, 1], are tiled with one
  column per class; points, `[num_classes, n, 2]`, are scattered.

  Raises:
    ValueError: data that are neither.
  """
  shape = next(iter(samples.values())).shape[2:]
  if len(shape) == 3 and shape[-1] in (1, 3):
    _image_grid(path, samples, num_rows)
  elif shape == (2,):
    _scatter(path, samples)
  else:
    raise ValueError(f'data shape {shape}: only images and points in 2-d are drawn.')


def _image_grid(path, samples, num_rows):
  fig, axes = plt.subplots(
    len(samples), 1, figsize=(6.0, 0.62 * num_rows * len(samples) + 0.3)
  )
  for ax, (name, x) in zip(np.atleast_1d(axes), samples.items(), strict=True):
    margin = ((0, 0), (0, 0), (1, 0), (1, 0), (0, 0))
    padded = np.pad(x[:, :num_rows], margin, constant_values=1.0)
    classes, rows, height, width, channels = padded.shape
    tiled = padded.transpose(1, 2, 0, 3, 4).reshape(
      rows * height, classes * width, channels
    )
    tiled = np.clip(0.5 * tiled + 0.5, 0.0, 1.0)
    ax.imshow(tiled.squeeze(), cmap='gray', vmin=0.0, vmax=1.0)
    ax.set_ylabel(name, rotation=0, ha='right', va='center', fontsize=8)
    ax.set(xticks=[], yticks=[])
  _save(fig, path)


def _scatter(path, samples):
  fig, axes = plt.subplots(
    1, len(samples), figsize=(3.0 * len(samples), 3.2), sharex=True, sharey=True
  )
  for ax, (name, x) in zip(np.atleast_1d(axes), samples.items(), strict=True):
    for c, points in enumerate(x):
      ax.scatter(points[:, 0], points[:, 1], s=2, color=plt.cm.tab10(c % 10))
    ax.set_title(name, fontsize=9)
    ax.set_aspect('equal')
  _save(fig, path)


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
  fig, axes = plt.subplots(
    1, len(curves), figsize=(3.7 * len(curves), 3.6), squeeze=False
  )
  for ax, (metric, (mean, std)) in zip(axes[0], curves.items(), strict=True):
    ax.errorbar(omegas, mean, yerr=std, color='k', marker='.', label='constant')
    for i, (method, values) in enumerate(lines.items()):
      style = {'color': plt.cm.tab10(i), 'linestyle': ('--', ':', '-.', '-')[i % 4]}
      ax.axhline(values[metric], label=method, **style)
    ax.set(title=metric, xlabel='constant omega (w = 1 + omega)')
    # Large constants are far off: symlog keeps 0 and the small ones apart.
    ax.set_xscale('symlog', linthresh=0.25)
    if mean.max() > 20.0 * abs(mean[0]):
      ax.set_yscale('log')
  axes[0, 0].legend(fontsize=7)
  _save(fig, path)


def _save(fig, path: epath.PathLike) -> None:
  path = epath.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  fig.tight_layout()
  with path.open('wb') as f:
    fig.savefig(f, format='png', dpi=100)
  plt.close(fig)
