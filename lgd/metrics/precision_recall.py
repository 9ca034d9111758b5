"""Precision and recall of samples (Kynkaanniemi et al. 2019).

With B(x) the balls around every x of a set that reach its k-th nearest neighbour in it,

  (1)  precision = share of samples that lie in some ball of the reference
       recall    = share of the reference that lies in some ball of the samples

Precision is high when samples are like data, recall when they cover them. Both depend
on the sizes of the sets: compare values only at equal ones.
"""

from typing import NamedTuple

import numpy as np

from lgd import checks
from lgd.metrics import distances


class PrecisionRecall(NamedTuple):
  """Shares, in [0, 1]."""

  precision: float
  recall: float


def precision_recall(
  x: np.ndarray, reference: np.ndarray, *, num_neighbors: int = 3
) -> PrecisionRecall:
  """Precision and recall of the features `x` of samples, (1).

  Args:
    x: `[n, dim]`, of samples.
    reference: `[m, dim]`, of data.
    num_neighbors: k; a point is not its own neighbour.

  Raises:
    ValueError: no more than k points in a set, k < 1, or features of different
      dimensions.

  Cost: O((n + m)^2 dim), in the memory of `distances.squared`.
  """
  checks.matrices(x=x, reference=reference)
  if not 1 <= num_neighbors < min(len(x), len(reference)):
    raise ValueError(
      f'num_neighbors={num_neighbors}: must be at least 1 and below the sizes of both'
      f' sets, {len(x)} and {len(reference)}.'
    )
  x_radius, radius = (_squared_radius(z, num_neighbors) for z in (x, reference))
  return PrecisionRecall(
    _covered(x, reference, radius), _covered(reference, x, x_radius)
  )


def _squared_radius(x: np.ndarray, k: int) -> np.ndarray:
  """`[n]` squared distances from the k-th nearest other point."""
  radius = np.empty(len(x))
  for i, sq_dist in distances.squared(x, x):
    rows = np.arange(len(sq_dist))
    sq_dist[rows, i + rows] = np.inf
    radius[i : i + len(sq_dist)] = np.partition(sq_dist, k - 1, axis=1)[:, k - 1]
  return radius


def _covered(x: np.ndarray, centers: np.ndarray, sq_radius: np.ndarray) -> float:
  """Share of x inside a ball."""
  inside = [
    np.any(sq_dist <= sq_radius, axis=1) for _, sq_dist in distances.squared(x, centers)
  ]
  return float(np.mean(np.concatenate(inside)))
