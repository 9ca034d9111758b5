"""results.json, results.md and the figures of a sweep."""

from typing import Any

import numpy as np
from etils import epath

from experiments.report import figures
from experiments.report import rows as rows_lib

AXES = (
  'num_particles', 'beta', 'interaction', 'gap', 's_min', 'churn', 'learning_rate'
)  # fmt: skip


def average_seeds(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
  """One row per setting: means over its seeds, best validation energy first."""
  groups: dict[tuple, list[dict[str, Any]]] = {}
  for row in rows:
    groups.setdefault(tuple(row[axis] for axis in AXES), []).append(row)
  averaged = []
  for group in groups.values():
    measured = group[0].keys() - {*AXES, 'seed'}
    means = {name: float(np.mean([r[name] for r in group])) for name in measured}
    std = float(np.std([r['energy_validation'] for r in group]))
    averaged.append(
      {**{a: group[0][a] for a in AXES}, **means, 'energy_validation_std': std}
    )
  return sorted(averaged, key=lambda row: row['energy_validation'])


def write(
  path: epath.Path,
  rows: list[dict[str, Any]],
  num_evaluations: int,
  seconds: dict[str, float],
) -> None:
  """results.json, results.md and a figure per axis that has several values."""
  settings = average_seeds(rows)
  axes = [axis for axis in AXES if len({row[axis] for row in settings}) > 1]
  text = to_markdown(settings, axes, len(rows), num_evaluations, seconds)
  print(text)

  def draw():
    for axis in axes:
      figures.sweep_axis(
        path / f'{axis}.png',
        axis,
        np.array([row[axis] for row in settings]),
        np.array([row['energy_validation'] for row in settings]),
        np.array([row['energy_test'] for row in settings]),
      )

  rows_lib.write(path, rows, text, draw)


def to_markdown(
  settings: list[dict[str, Any]],
  axes: list[str],
  num_trainings: int,
  num_evaluations: int,
  seconds: dict[str, float],
) -> str:
  """The chosen setting, what each axis does, and every setting."""
  best = settings[0]
  chosen = ', '.join(f'{axis} {best[axis]:g}' for axis in AXES)
  lines = [
    '# Sweep',
    '',
    f'{num_trainings} trainings in {seconds["training"]:.0f} s, with their evaluation'
    f' {seconds["all"]:.0f} s, from one set of statistics of {num_evaluations:,}'
    ' denoiser evaluations. Energy distances are means over training seeds.',
    '',
    f'Chosen, by the smallest energy distance to validation data: {chosen}; validation'
    f' {best["energy_validation"]:.4f} (+- {best["energy_validation_std"]:.4f} over'
    f' seeds), test {best["energy_test"]:.4f}.',
    '',
  ]
  for axis in axes:
    by_value = {}
    for row in settings:
      by_value.setdefault(row[axis], []).append(row)
    lines += [
      f'## {axis}',
      '',
      *rows_lib.table(
        (axis, 'validation, mean', 'validation, best', 'test, mean', 'omega, mean'),
        [
          (
            f'{value:g}',
            f'{np.mean([r["energy_validation"] for r in group]):.4f}',
            f'{min(r["energy_validation"] for r in group):.4f}',
            f'{np.mean([r["energy_test"] for r in group]):.4f}',
            f'{np.mean([r["omega_mean"] for r in group]):.3f}',
          )
          for value, group in sorted(by_value.items())
        ],
      ),
      '',
    ]
  lines += [
    '## All settings',
    '',
    *rows_lib.table(
      (*axes, 'validation', '+- over seeds', 'test', 'omega, mean', 'omega, max'),
      [
        (
          *(f'{row[axis]:g}' for axis in axes),
          f'{row["energy_validation"]:.4f}',
          f'{row["energy_validation_std"]:.4f}',
          f'{row["energy_test"]:.4f}',
          f'{row["omega_mean"]:.3f}',
          f'{row["omega_max"]:.3f}',
        )
        for row in settings
      ],
    ),
  ]
  return '\n'.join(lines) + '\n'
