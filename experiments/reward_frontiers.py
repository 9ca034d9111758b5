"""Distance from data against what gamma buys, in the figures of both evaluations."""

from collections.abc import Mapping
from collections.abc import Sequence

import numpy as np
from etils import epath

from experiments import learned_weights
from experiments import naming
from experiments import results
from lgd import prompt_plots


def gammas(
  learned: Mapping[str, learned_weights.LearnedWeight],
) -> dict[str, tuple[str, float]]:
  """Name of a weight -> what is left of the name without gamma, and gamma."""
  each = ((name, weight.guidance.gamma) for name, weight in learned.items())
  return {name: (naming.without_gamma(name, gamma), gamma) for name, gamma in each}


def plot(
  path: epath.PathLike,
  summaries: Sequence[results.Summary],
  gammas: Mapping[str, tuple[str, float]],
  titles: Mapping[str, str],
) -> None:
  """A line of constants, one of every weight along gamma, and points of the rest.

  Args:
    path: of the PNG.
    summaries: of the methods on one split, unguided among them.
    gammas: as of the function of that name.
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
  prompt_plots.frontier(
    path,
    {name: points(g) for name, g in groups.items() if is_line[name]},
    {name: points(g) for name, g in groups.items() if g and not is_line[name]},
    tuple(titles.values()),
  )
