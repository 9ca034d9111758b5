"""Class-conditional energy distance.

  (1)  1/C sum_c [2 E||X - Y|| - E||X - X'|| - E||Y - Y'||],  X, Y | class c

with unbiased means over pairs: the estimate of `lgd.mmd` at beta = 1. It is 0 in the
mean when every class is matched, and it may be negative. X and X' are independent:
samples that were drawn together, in groups, make pairs with other groups only.

Its error, and that of a difference of two such, comes from the jackknife over blocks of
samples and data (`lgd.jackknife`).
"""

from typing import NamedTuple

import numpy as np

from lgd import checks
from lgd import jackknife
from lgd.metrics import distances


class ClassSets(NamedTuple):
  """Data by class, and what a distance to any other data needs of them alone."""

  x: dict[int, np.ndarray]  # class -> [n, dim]
  within: dict[int, float]  # class -> mean distance of its pairs


def class_sets(x: np.ndarray, label: np.ndarray, *, group_size: int = 1) -> ClassSets:
  """Sorts `x [n, *data]` by `label [n]`.

  Args:
    x: data, or samples; any array that NumPy takes.
    label: their classes.
    group_size: each so many rows of a class depend on each other.

  Cost: O(n^2 dim) for the n of a class.

  Raises:
    ValueError: a class with a single datum or group, or with a part of a group; or
      arrays of other shapes, or not finite.
  """
  x, label = np.asarray(x), np.asarray(label)
  if not len(x) or np.shape(label) != (len(x),) or group_size < 1:
    raise ValueError(
      f'x.shape={x.shape}, label.shape={np.shape(label)}, group_size={group_size}: must'
      ' be [n, *data], [n] with n >= 1, and at least 1.'
    )
  checks.finite('look at the samples.', x=x)
  x = x.reshape(len(x), -1)
  by_class = {int(c): x[label == c] for c in np.unique(label)}
  for c, own in by_class.items():
    if len(own) <= group_size or len(own) % group_size:
      raise ValueError(
        f'class {c} has n={len(own)} data; a distance needs at least 2, and of groups'
        f' of group_size={group_size} at least 2 whole ones.'
      )
  return ClassSets(
    by_class, {c: _within(own, group_size) for c, own in by_class.items()}
  )


def _within(x, group_size):
  """Mean distance of the pairs of different groups."""
  total = _sum_distances(x, x)
  if group_size > 1:
    groups = x.reshape(-1, group_size, x.shape[1])
    total -= sum(_sum_distances(group, group) for group in groups)
  return total / (len(x) * (len(x) - group_size))


def class_conditional_energy(x: ClassSets, y: ClassSets) -> float:
  """Mean over classes of the energy distance of two sets, (1).

  Cost: O(n m dim) for the n and m of a class.

  Raises:
    ValueError: sets of different classes.
  """
  if x.x.keys() != y.x.keys():
    raise ValueError(f'classes {sorted(x.x)} and {sorted(y.x)}: must be the same.')
  return float(
    np.mean(
      [
        2.0 * _sum_distances(x.x[c], y.x[c]) / (len(x.x[c]) * len(y.x[c]))
        - x.within[c]
        - y.within[c]
        for c in x.x
      ]
    )
  )


def jackknifed_energy(
  x: np.ndarray,
  label: np.ndarray,
  y: np.ndarray,
  y_label: np.ndarray,
  *,
  num_blocks: int,
) -> np.ndarray:
  """(1), and what it would be without each block: `[1 + num_blocks]`.

  The samples of a class and its data are dealt into blocks as `jackknife.kept` does.

  Args:
    x: samples, `[n, *data]`.
    label: their classes, `[n]`.
    y: data, `[m, *data]`.
    y_label: their classes, `[m]`: the same ones.
    num_blocks: B, at least 2.

  Raises:
    ValueError: other classes, or one with less than 3 samples or data.

  Cost: O((n + m)^2 dim) for the n and m of a class.
  """
  classes = np.unique(label)
  if num_blocks < 2 or not np.array_equal(classes, np.unique(y_label)):
    raise ValueError(
      f'num_blocks={num_blocks}: must be at least 2; classes {classes} and'
      f' {np.unique(y_label)}: must be the same.'
    )
  total = np.zeros(1 + num_blocks)
  for c in classes:
    own, data = (v.reshape(len(v), -1)[of == c] for v, of in ((x, label), (y, y_label)))
    if min(len(own), len(data)) < 3:
      raise ValueError(
        f'class {c} has {len(own)} samples and {len(data)} data: needs at least 3 each.'
      )
    keep_x, keep_y = (
      jackknife.kept(len(v), num_blocks).astype(np.float64) for v in (own, data)
    )
    total += (
      2.0 * _kept_mean(keep_x, own, keep_y, data)
      - _kept_mean(keep_x, own, keep_x, own, of_pairs=True)
      - _kept_mean(keep_y, data, keep_y, data, of_pairs=True)
    )
  return total / len(classes)


def _kept_mean(keep_x, x, keep_y, y, *, of_pairs=False):
  """Mean distances of what is kept, `[1 + B]`; of pairs i != j where y is x."""
  total = np.zeros(len(keep_x))
  for i, sq_dist in distances.squared(x, y):
    rows = np.sqrt(sq_dist, out=sq_dist) @ keep_y.T  # [rows, 1 + B]
    total += np.sum(keep_x[:, i : i + len(rows)].T * rows, axis=0)
  num_x, num_y = keep_x.sum(axis=1), keep_y.sum(axis=1)
  return total / (num_x * (num_y - 1.0 if of_pairs else num_y))


def _sum_distances(x: np.ndarray, y: np.ndarray) -> float:
  """Sum of ||x_i - y_j|| over all pairs."""
  return float(
    sum(np.sum(np.sqrt(sq_dist, out=sq_dist)) for _, sq_dist in distances.squared(x, y))
  )
