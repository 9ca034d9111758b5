"""Verdicts of many weights beside what test data say of them."""

from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import numpy as np
from etils import epath

from experiments import workdirs
from experiments.report import figures
from experiments.report import rows as rows_lib
from lgd import errors
from lgd import jackknife


class Row(NamedTuple):
  """One learned weight.

  Attributes:
    workdir: the name of its work directory.
    name: of the weight.
    kappa: the strength of its verdict.
    omega: its mean over classes and steps, at strength 1.
    promised: gain in energy distance over no guidance at strength 1, by validation
      data.
    promised_error: its standard error.
    gain: the same, by test data and from other noise.
    gain_error: its standard error.
    used: by test data, at the strength of the verdict; 0 for kappa 0.
    used_error: its standard error.
  """

  workdir: str
  name: str
  kappa: float
  omega: float
  promised: float
  promised_error: float
  gain: float
  gain_error: float
  used: float
  used_error: float


def make_row(
  workdir: str,
  name: str,
  verdict: workdirs.verdicts.Verdict,
  results: Sequence[dict[str, Any]],
) -> Row:
  """The row of a weight, from its verdict and the rows of `evaluate`.

  Raises:
    errors.InputError: a verdict that did not try strength 1, or results without a
      strength that is needed, as they are older than the verdict.
  """
  if 1.0 not in verdict.kappas:
    raise errors.InputError(
      f'{workdir}: the verdict of {name} tried kappa {verdict.kappas} and not 1.0, at'
      ' which weights are compared; run validate_weights with 1.0 among'
      ' --config.verdict.kappas.'
    )
  at: dict[float, list[dict[str, Any]]] = {}
  for row in results:
    if row['method'] == name:
      at.setdefault(row.get('kappa'), []).append(row)
  missing = {1.0, verdict.kappa} - {0.0, *at}
  if missing:
    raise errors.InputError(
      f'{workdir}/results.json: has {name} at kappa {sorted(at)} and not at'
      f' {min(missing):g}, which its verdict needs; run evaluate again.'
    )
  unguided = next(s for s in rows_lib.summarise(results) if s.method == 'unguided')
  gains = {
    kappa: gain_on_test(rows_lib.summarise(of)[0], unguided) for kappa, of in at.items()
  }
  at_1 = verdict.kappas.index(1.0)
  return Row(
    workdir,
    name,
    verdict.kappa,
    at[1.0][0]['omega'],
    verdict.gain[at_1],
    verdict.error[at_1],
    *gains[1.0],
    *(gains[verdict.kappa] if verdict.kappa else (0.0, 0.0)),
  )


def gain_on_test(
  summary: rows_lib.Summary, unguided: rows_lib.Summary
) -> tuple[float, float]:
  """Gain in energy distance to test data over no guidance, and its standard error.

  By a jackknife over samples and test data; NaN where they are too few for one.
  """
  name = 'energy_test_jackknife'
  gain = np.mean(unguided.metrics[name] - summary.metrics[name], axis=0)
  error = jackknife.variance(gain) ** 0.5 if len(gain) > 1 else np.nan
  return float(gain[0]), float(error)


def draw(path: epath.PathLike, rows: Sequence[Row]) -> None:
  """Gains on test data against promised ones, by the strength of the verdict."""
  points = {}
  for row in sorted(rows, key=lambda row: row.kappa):
    point = (row.promised, row.promised_error, row.gain, row.gain_error)
    points.setdefault(f'kappa {row.kappa:g}', []).append(point)
  figures.promised_gains(path, {name: np.array(each) for name, each in points.items()})


def to_markdown(rows: Sequence[Row]) -> str:
  """How often verdicts hold, and every weight."""
  table = {key: np.array([getattr(row, key) for row in rows]) for key in Row._fields}
  gain, error, promised = table['gain'], table['gain_error'], table['promised']
  acts, is_clear = gain != 0.0, np.abs(gain) > error
  agrees = np.sign(promised) == np.sign(gain)
  off = (promised - gain)[acts] / np.hypot(table['promised_error'], error)[acts]

  def loses(gain, error, times):
    return f'{np.sum(gain < -times * error)} of {len(rows)}'

  summary = [
    ('weights', f'{len(rows)}, of {len(set(table["workdir"]))} bases'),
    (
      'sign of the promised gain is that on test data, of weights not 0',
      _share(agrees[acts]),
    ),
    ('the same, of gains beyond their standard error', _share(agrees[is_clear])),
    ('promise within 1 standard error of the difference', _share(np.abs(off) < 1.0)),
    ('promise within 2 standard errors of the difference', _share(np.abs(off) < 2.0)),
    ('mean of (promise - gain) / its standard error', f'{off.mean():.2f}'),
    ('lose more than 1 standard error, at strength 1', loses(gain, error, 1.0)),
    (
      'lose more than 1 standard error, by verdict',
      loses(table['used'], table['used_error'], 1.0),
    ),
    (
      'lose more than 2 standard errors, by verdict',
      loses(table['used'], table['used_error'], 2.0),
    ),
    ('mean gain at strength 1', f'{gain.mean():.5f}'),
    ('mean gain by verdict', f'{table["used"].mean():.5f}'),
    ('mean gain at the better of 0 and 1 on test', f'{np.maximum(gain, 0).mean():.5f}'),
  ]
  lines = [
    '# Verdicts',
    '',
    'Gains are in class-conditional energy distance over no guidance, paired, +- a'
    ' standard error by a jackknife over samples and data. Promised: by validation'
    ' data, at strength 1.',
    '',
    *rows_lib.table(('measure', 'value'), summary),
    '',
    *rows_lib.table(
      ('base', 'weight', 'mean omega', 'promised', 'on test', 'kappa', 'by verdict'),
      [
        (
          row.workdir,
          row.name,
          f'{row.omega:.4f}',
          rows_lib.with_error(row.promised, row.promised_error),
          rows_lib.with_error(row.gain, row.gain_error),
          f'{row.kappa:g}',
          rows_lib.with_error(row.used, row.used_error),
        )
        for row in rows
      ],
    ),
  ]
  return '\n'.join(lines) + '\n'


def _share(which: np.ndarray) -> str:
  return f'{which.sum()} of {len(which)}, {which.mean():.0%}' if len(which) else 'none'
