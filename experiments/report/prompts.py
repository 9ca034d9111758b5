"""results.json, results.md and the figures of an evaluation on prompts."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from experiments.report import figures
from experiments.report import rows as rows_lib

CHOSEN_BY = 'frechet_judge'
TITLES = {
  'frechet_judge': 'Frechet, judge',
  'frechet_squeezenet_proxy': 'Frechet, SqueezeNet proxy',
  'clip_score': 'CLIP score, judge',
  'retrieval_at_1': 'retrieval at 1',
  'retrieval_at_5': 'retrieval at 5',
  'reward': 'reward',
}
_NUM_SHOWN = 8  # Prompts in figures.
_NUM_GAMMAS = 2  # Of one kind of weight in figures, beside 0.


def write(
  path: epath.Path,
  rows: list[dict[str, Any]],
  *,
  prompts: Sequence[str],
  samples: dict[str, np.ndarray],
  tables: dict[str, np.ndarray],
  gammas: dict[str, tuple[str, float]],
  times: np.ndarray,
) -> None:
  """Writes everything that `evaluate_prompts` leaves behind.

  Args:
    path: the work directory.
    rows: one per method, split and seed.
    prompts: of the test split, n of them.
    samples: row key, and 'real' -> `[n, *data]` of the first seed.
    tables: learned method -> `[n, num_steps]`.
    gammas: as from `rows.gammas`.
    times: `[num_steps]` times denoised from.
  """
  test, chosen = _summaries(rows, 'test'), choose(rows)
  by_gamma = sorted(gammas, key=gammas.get)

  def draw():
    _draw(path / 'plots', test, chosen, prompts, samples, tables, gammas, times)

  rows_lib.write(path, rows, to_markdown(test, chosen, by_gamma), draw)


def _draw(directory, test, chosen, prompts, samples, tables, gammas, times):
  shown = np.linspace(0, len(prompts) - 1, min(_NUM_SHOWN, len(prompts))).astype(int)
  names = [prompts[i] for i in shown]
  learned = _some(gammas)
  columns = {key: key for key in ('real', 'unguided', *chosen)} | learned
  figures.prompt_samples(
    directory / 'prompts.png',
    names,
    {title: samples[key][shown] for key, title in columns.items()},
  )
  if tables:
    figures.prompt_curves(
      directory / 'omega_curves.png',
      names,
      {title: tables[key][shown] for key, title in learned.items()},
      times,
    )
  prices = [name for name in ('clip_score', 'reward') if name in test[0].metrics]
  titles = {name: TITLES[name] for name in (CHOSEN_BY, *prices)}
  rows_lib.plot_frontier(directory / 'frontier.png', test, gammas, titles)


def choose(rows: list[dict[str, Any]]) -> list[str]:
  """Keys of the constant and the interval nearest to validation data."""
  validation = _summaries(rows, 'validation')
  grids = [g for g in rows_lib.GRIDS if any(s.method == g for s in validation)]
  return [rows_lib.best(validation, grid, CHOSEN_BY).key for grid in grids]


def _some(gammas: dict[str, tuple[str, float]]) -> dict[str, str]:
  """Learned methods for figures, and their titles: of many gammas some."""
  families = sorted({family for family, _ in gammas.values()})
  some = {}
  for family in families:
    by_gamma = sorted((g, name) for name, (of, g) in gammas.items() if of == family)
    picked = np.linspace(0, len(by_gamma) - 1, min(_NUM_GAMMAS + 1, len(by_gamma)))
    for i in picked.round().astype(int):
      gamma, name = by_gamma[i]
      some[name] = f'{family} (gamma={gamma:g})' if gamma else family
  return some


def _summaries(rows, split):
  return rows_lib.summarise([row for row in rows if row['split'] == split])


def to_markdown(
  test: Sequence[rows_lib.Summary], chosen: Sequence[str], learned: Sequence[str]
) -> str:
  """The table of methods on test prompts, and the whole grids."""
  by_key = {summary.key: summary for summary in test}
  measured = [name for name in TITLES if name in test[0].metrics]

  def table(keys, notes):
    return rows_lib.table(
      ('method', 'w', *(TITLES[name] for name in measured), 'NFE'),
      [
        (
          key + notes.get(key, ''),
          rows_lib.strength(by_key[key]),
          *(rows_lib.cell(by_key[key], name) for name in measured),
          f'{by_key[key].nfe:g}',
        )
        for key in keys
      ],
    )

  note = dict.fromkeys(chosen, ', chosen on validation')
  grids = [s.key for s in test if s.method in rows_lib.GRIDS]
  lines = [
    '# Results',
    '',
    'A sample of each held-out prompt; mean +- standard deviation over sampling seeds.'
    ' The judge is a CLIP trained on all pairs, the reward one of the training pairs.'
    ' Frechet distances are of features to those of the images of the same prompts:'
    ' proxies, comparable with no published number. retrieval at k: share of samples'
    ' whose prompt is among the k that the judge finds best. omega = 0 is the'
    ' conditional model; w = 1 + omega. NFE: denoiser evaluations of a sample.',
    '',
    *table(['real', 'unguided', *chosen, *learned], note),
    '',
    '## Grids',
    '',
    *table(grids, note),
  ]
  return '\n'.join(lines) + '\n'
