"""Labelled data held in memory, and its batches."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from lgd import conditions as conditions_lib
from lgd import types
from lgd.data import images

_FLIPS = 1  # Sets the seeds of flips apart from those of shuffles, (seed, epoch).


class Spec(NamedTuple):
  """The shape and the conditions of data, for networks."""

  shape: tuple[int, ...]  # Of a datum.
  conditions: conditions_lib.Conditions

  @property
  def is_captioned(self) -> bool:
    """Whether labels are numbers of captions, whose embeddings are the conditions."""
    return isinstance(self.conditions, conditions_lib.Embeddings)

  @property
  def has_prompts(self) -> bool:
    """Whether conditions are prompts, as tokens or as embeddings."""
    return self.is_captioned or isinstance(self.conditions, conditions_lib.Tokens)


class Split(NamedTuple):
  """`x [n, *data]` float32 and `label [n, ...]`, its conditions."""

  x: np.ndarray
  label: np.ndarray


class Batch(NamedTuple):
  """What a network is trained on: data, and the conditions that labels stand for."""

  x: np.ndarray  # [n, *data]
  cond: types.Cond  # A pytree of [n, ...]; without embeddings the labels themselves.


class Dataset(NamedTuple):
  """Three disjoint splits."""

  train: Split
  validation: Split
  test: Split
  conditions: conditions_lib.Conditions

  @property
  def shape(self) -> tuple[int, ...]:
    return self.train.x.shape[1:]

  @property
  def num_classes(self) -> int | None:
    """None where conditions are vectors."""
    return self.conditions.num_classes

  @property
  def spec(self) -> Spec:
    return Spec(self.shape, self.conditions)


def draw_of_each(
  rng: np.random.Generator, split: Split, num_classes: int, num: int
) -> tuple[np.ndarray, np.ndarray]:
  """Random data of each class, as many as it has, up to `num`.

  Returns:
    `[num_classes, n, *data]`, n of the class with most; and `[num_classes]`, how many
    of them are of the class: the first, the rest repeats.
  """
  used = np.minimum(np.bincount(split.label, minlength=num_classes), num)
  rows = [
    np.resize(rng.permutation(np.flatnonzero(split.label == c))[: used[c]], used.max())
    for c in range(num_classes)
  ]
  return split.x[np.stack(rows)], used


def group_rows(
  label: np.ndarray,
  group_size: int,
  *,
  by_class: bool,
  seed: int,
  epoch: int,
  num_classes: int | None = None,
) -> np.ndarray:
  """One shuffled pass over a split, cut into groups: `[num_groups, group_size]` rows.

  Args:
    label: `[n]`.
    group_size: data in a group; what does not fill one is left out of this pass.
    by_class: whether a group has one label; else it is a plain sample.
    seed: of the shuffle.
    epoch: number of the pass; every pass is shuffled anew, into as many groups.
    num_classes: each of which must fill a group, if `by_class`; None is those that are
      there.

  Raises:
    ValueError: a group that no data, or not those of some class, can fill: what is
      learned from groups says nothing of a class without one.
  """
  rng = np.random.default_rng((seed, epoch))
  order = rng.permutation(len(label))
  pools = [order]
  if by_class:
    classes = np.unique(label) if num_classes is None else range(num_classes)
    pools = [order[label[order] == c] for c in classes]
  sizes = [len(pool) for pool in pools]
  if min(sizes) < group_size:
    of_class = f' of class {classes[np.argmin(sizes)]}' if by_class else ''
    raise ValueError(
      f'group_size={group_size}: there are only {min(sizes)} data{of_class}.'
    )
  whole = [pool[: len(pool) - len(pool) % group_size] for pool in pools]
  groups = np.concatenate(whole).reshape(-1, group_size)
  return rng.permutation(groups) if by_class else groups


def batches(
  split: Split,
  batch_size: int,
  *,
  seed: int,
  start: int = 0,
  group_size: int = 1,
  by_class: bool = False,
  augment: bool = False,
) -> Iterator[Split]:
  """Endless shuffled batches; batch number `start` first.

  Every epoch is a new permutation, cut into whole batches; what is left over waits
  for the next one. For a given split and batch size, batch i depends on (seed, i)
  alone, so a resumed run sees what an uninterrupted one would have.

  Args:
    split: the data.
    batch_size: a multiple of `group_size`.
    seed: of the shuffle.
    start: first batch.
    group_size: consecutive data that form a group.
    by_class: whether a group has one label, as in `group_rows`.
    augment: whether each of `x [n, height, width, c]` is flipped left to right with
      probability 1/2, drawn anew for every batch.

  Raises:
    ValueError: a batch larger than the groups of the split.
  """

  def rows_of_epoch(epoch):
    return group_rows(
      split.label, group_size, by_class=by_class, seed=seed, epoch=epoch
    ).ravel()

  per_epoch = len(rows_of_epoch(0)) // batch_size
  if per_epoch == 0:
    raise ValueError(
      f'batch_size={batch_size}: the split has only {len(rows_of_epoch(0))} data.'
    )
  epoch, index = divmod(start, per_epoch)
  while True:
    order = rows_of_epoch(epoch)
    for i in range(index, per_epoch):
      rows = order[i * batch_size : (i + 1) * batch_size]
      x = split.x[rows]
      if augment:
        rng = np.random.default_rng((seed, epoch * per_epoch + i, _FLIPS))
        x = images.mirror(x, rng.random(batch_size) < 0.5)
      yield Split(x, split.label[rows])
    epoch, index = epoch + 1, 0
