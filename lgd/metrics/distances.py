"""Squared distances of all pairs, a block of rows at a time.

By ||x||^2 + ||y||^2 - 2 x.y about y's mean, a matrix product, which float64 affords: a
distance is off by some 1e-8 of the data's extent.
"""

from collections.abc import Iterator

import numpy as np

_CHUNK = 4_000_000  # Distances in memory at a time.


def squared(x: np.ndarray, y: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
  """Yields (i, `[rows, m]` squared distances of x[i : i + rows] from all of y).

  A block may be written to.

  Args:
    x: `[n, dim]`.
    y: `[m, dim]`.

  Memory: copies of x and y in float64 and `_CHUNK` distances, or m if that is more.
  """
  center = np.mean(y, axis=0, dtype=np.float64)
  x, y = x - center, y - center
  x_sq, y_sq = np.sum(x**2, axis=1), np.sum(y**2, axis=1)
  rows = max(1, _CHUNK // len(y))
  for i in range(0, len(x), rows):
    sq_dist = x[i : i + rows] @ y.T
    sq_dist *= -2.0
    sq_dist += x_sq[i : i + rows, None]
    sq_dist += y_sq
    yield i, np.maximum(sq_dist, 0.0, out=sq_dist)
