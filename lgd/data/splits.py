"""Labelled data held in memory, and its batches."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np


class Split(NamedTuple):
  """`x [n, *data]` float32 and `label [n]` int32."""

  x: np.ndarray
  label: np.ndarray


class Dataset(NamedTuple):
  """Three disjoint splits; labels are 0..num_classes-1."""

  train: Split
  validation: Split
  test: Split
  num_classes: int

  @property
  def shape(self) -> tuple[int, ...]:
    return self.train.x.shape[1:]


def batches(
  split: Split, batch_size: int, *, seed: int, start: int = 0
) -> Iterator[Split]:
  """Endless shuffled batches; batch number `start` first.

  Every epoch is a new permutation, cut into whole batches; what is left over waits
  for the next one. For a given split and batch size, batch i depends on (seed, i)
  alone, so a resumed run sees what an uninterrupted one would have.

  Raises:
    ValueError: a batch larger than the split.
  """
  per_epoch = len(split.label) // batch_size
  if per_epoch == 0:
    raise ValueError(
      f'batch_size={batch_size}: the split has only {len(split.label)} data.'
    )
  epoch, index = divmod(start, per_epoch)
  while True:
    order = np.random.default_rng((seed, epoch)).permutation(len(split.label))
    for i in range(index, per_epoch):
      rows = order[i * batch_size : (i + 1) * batch_size]
      yield Split(split.x[rows], split.label[rows])
    epoch, index = epoch + 1, 0
