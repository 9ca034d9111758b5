"""Class-conditional energy distance, and its error.

  (1)  1/C sum_c [2 E||X - Y|| - E||X - X'|| - E||Y - Y'||],  X, Y | class c

with unbiased means over pairs: the estimate of `lgd.mmd` at beta = 1. It is 0 in the
mean when every class is matched, and it may be negative. X and X' are independent:
samples that were drawn together, in groups, make pairs with other groups only.

Its error, and that of a difference of two such, comes from the jackknife over blocks of
samples and data (`lgd.jackknife`): number i of a class, or its group, is in block
i mod B.
"""

from typing import NamedTuple

import numpy as np

from lgd import checks
from lgd import jackknife
from lgd.metrics import distances


class ClassSets(NamedTuple):
  """Data by class, and what a distance to any other data needs of them alone."""

  x: dict[int, np.ndarray]  # class -> [n, dim]
  kept: dict[int, np.ndarray]  # class -> [1 + B, n] of 0 and 1: all, all but a block
  within: dict[int, np.ndarray]  # class -> [1 + B] mean distance of the pairs kept

  @property
  def num_blocks(self) -> int:
    """B, the same for all classes."""
    return len(next(iter(self.kept.values()))) - 1


def class_sets(
  x: np.ndarray, label: np.ndarray, *, group_size: int = 1, num_blocks: int = 0
) -> ClassSets:
  """Sorts `x [n, *data]` by `label [n]`.

  Args:
    x: data, or samples; any array that NumPy takes.
    label: their classes.
    group_size: each so many rows of a class depend on each other.
    num_blocks: B of the jackknife; 0 leaves it out.

  Cost: O(n^2 (dim + B)) for the n of a class.

  Raises:
    ValueError: a class with a single datum or group, or with a part of a group, with or
      without any block; or arrays of other shapes, or not finite.
  """
  x, label = np.asarray(x), np.asarray(label)
  if not len(x) or np.shape(label) != (len(x),) or group_size < 1:
    raise ValueError(
      f'x.shape={x.shape}, label.shape={np.shape(label)}, group_size={group_size}: must'
      ' be [n, *data], [n] with n >= 1, and at least 1.'
    )
  checks.finite('look at the samples.', x=x)
  x = x.reshape(len(x), -1)
  sets = ClassSets({}, {}, {})
  for c in np.unique(label).tolist():
    own = x[label == c]
    groups = jackknife.kept(len(own) // group_size, num_blocks)
    if len(own) % group_size or groups.sum(axis=1).min() < 2:
      without = f' when one of num_blocks={num_blocks} is left out' * bool(num_blocks)
      raise ValueError(
        f'class {c} has n={len(own)} data; a distance needs at least 2, and of groups'
        f' of group_size={group_size} at least 2 whole ones{without}.'
      )
    sets.x[c] = own
    sets.kept[c] = np.repeat(groups, group_size, axis=1).astype(np.float64)
    sets.within[c] = _within(own, sets.kept[c], group_size)
  return sets


def class_conditional_energy(x: ClassSets, y: ClassSets) -> float:
  """Mean over classes of the energy distance of two sets, (1).

  Cost: O(n m dim) for the n and m of a class.

  Raises:
    ValueError: sets of different classes, or numbers of blocks.
  """
  return float(jackknifed_energy(x, y)[0])


def jackknifed_energy(x: ClassSets, y: ClassSets) -> np.ndarray:
  """(1), and what it is without each block: `[1 + B]`.

  Raises:
    ValueError: sets of different classes, or numbers of blocks.
  """
  if x.x.keys() != y.x.keys():
    raise ValueError(f'classes {sorted(x.x)} and {sorted(y.x)}: must be the same.')
  if x.num_blocks != y.num_blocks:
    blocks = sorted((x.num_blocks, y.num_blocks))
    raise ValueError(f'sets with num_blocks={blocks}: must be the same.')
  of_class = []
  for c in x.x:
    num_pairs = x.kept[c].sum(axis=1) * y.kept[c].sum(axis=1)
    between = _sum_distances(x.x[c], x.kept[c], y.x[c], y.kept[c]) / num_pairs
    of_class.append(2.0 * between - x.within[c] - y.within[c])
  return np.mean(of_class, axis=0)


def _within(x, kept, group_size):
  """Mean distance of the pairs of different groups, `[1 + B]`."""
  total = _sum_distances(x, kept, x, kept)
  if group_size > 1:
    for i in range(0, len(x), group_size):
      own, is_kept = x[i : i + group_size], kept[:, i : i + group_size]
      total -= _sum_distances(own, is_kept, own, is_kept)
  num = kept.sum(axis=1)
  return total / (num * (num - group_size))


def _sum_distances(x, kept_x, y, kept_y):
  """Sums of ||x_i - y_j|| over the pairs that are kept, `[1 + B]`."""
  total = np.zeros(len(kept_x))
  for i, sq_dist in distances.squared(x, y):
    rows = np.sqrt(sq_dist, out=sq_dist) @ kept_y.T  # [rows, 1 + B]
    total += np.sum(kept_x[:, i : i + len(rows)].T * rows, axis=0)
  return total
