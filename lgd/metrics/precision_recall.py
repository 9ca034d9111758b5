"""Precision and recall of samples (Kynkaanniemi et al. 2019).

With B(x) the balls around every x of a set that reach its k-th nearest neighbour in it,

  (1)  precision = share of samples that lie in some ball of the reference
       recall    = share of the reference that lies in some ball of the samples

Precision is high when samples are like data, recall when they cover them. Both depend
on the sizes of the sets: compare values only at equal ones.

Points on the edge of a ball are in it, and ties are common: repeated points, features
that are integers. The product of matrices in `distances` cannot tell them from near
ones, so that whatever it leaves open is decided by

  (2)  ||x - y||^2 = sum_i (x_i - y_i)^2

in float64, which is the same number wherever the two points are.
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
      dimensions or not finite.

  Cost: O((n + m)^2 dim), in the memory of `distances.squared`; and (2) for the pairs
  that it leaves open, few where points do not repeat.
  """
  x, reference = np.asarray(x), np.asarray(reference)
  checks.matrices(x=x, reference=reference)
  if not 1 <= num_neighbors < min(len(x), len(reference)):
    raise ValueError(
      f'num_neighbors={num_neighbors}: must be at least 1 and below the sizes of both'
      f' sets, {len(x)} and {len(reference)}.'
    )
  checks.finite('look at what they are features of.', x=x, reference=reference)
  x, reference = np.float64(x), np.float64(reference)
  x_radius, radius = (_squared_radius(z, num_neighbors) for z in (x, reference))
  return PrecisionRecall(
    _covered(x, reference, radius), _covered(reference, x, x_radius)
  )


def _squared_radius(x: np.ndarray, k: int) -> np.ndarray:
  """`[n]` squared distances (2) from the k-th nearest other point."""
  radius, error = np.empty(len(x)), _error(x, x)
  for i, sq_dist in distances.squared(x, x):
    rows = np.arange(len(sq_dist))
    sq_dist[rows, i + rows] = np.inf
    # Only these may be among the nearest k.
    bound = np.partition(sq_dist, k - 1, axis=1)[:, k - 1] + 2.0 * error
    for row in rows:
      near = np.flatnonzero(sq_dist[row] <= bound[row])
      exact = _squared(x[near], x[i + row])
      radius[i + row] = np.partition(exact, k - 1)[k - 1]
  return radius


def _covered(x: np.ndarray, centers: np.ndarray, sq_radius: np.ndarray) -> float:
  """Share of x inside a ball."""
  inside, error = np.empty(len(x), bool), _error(x, centers)
  for i, sq_dist in distances.squared(x, centers):
    beyond = np.subtract(sq_dist, sq_radius, out=sq_dist)
    part = inside[i : i + len(beyond)]
    part[:] = np.any(beyond < -error, axis=1)
    for row in np.flatnonzero(~part):
      open_ = np.flatnonzero(beyond[row] <= error)
      part[row] = np.any(_squared(centers[open_], x[i + row]) <= sq_radius[open_])
  return float(np.mean(inside))


def _squared(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """(2) of `x [n, dim]` and `y [dim]`."""
  return np.sum(np.square(x - y), axis=1)


def _error(x: np.ndarray, y: np.ndarray) -> float:
  """More than `distances.squared` and (2) can differ by: rounding of dim terms each."""
  center = np.mean(y, axis=0)
  extent = max(np.max(np.sum(np.square(z - center), axis=1)) for z in (x, y))
  return 8.0 * (x.shape[1] + 8) * np.finfo(np.float64).eps * extent
