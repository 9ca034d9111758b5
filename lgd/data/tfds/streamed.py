"""Data sets that stay on disk: their images are read when they are asked for."""

from collections.abc import Sequence

import numpy as np

from lgd.data import images
from lgd.data import splits
from lgd.data.tfds import catalog
from lgd.data.tfds import sources


class Images:
  """Reads like an array `[n, height, width, c]` float32 in [-1, 1] indexed by rows.

  `x[rows]`, with integers of any shape, reads and decodes those images. For batches in
  a loop `loader.batches` reads ahead.
  """

  def __init__(self, source: sources.Source):
    self.source = source

  @property
  def shape(self) -> tuple[int, ...]:
    return (len(self.source), *self.source.shape)

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows)
    x = images.to_float(self.source[rows.ravel()].x)
    return x.reshape(*rows.shape, *self.source.shape)


def load(
  name: str, data_dir: str = '', *, attributes: Sequence[str] = ()
) -> splits.Dataset:
  """All three splits, their labels in memory and their images on disk.

  Raises:
    As `sources.source`.

  Cost: one pass over the files for the labels (`sources.Source.labels`).
  """
  parts = []
  for split in catalog.SPLITS:
    source = sources.source(name, split, data_dir, attributes=attributes)
    parts.append(splits.Split(Images(source), source.labels()))
  return splits.Dataset(*parts, source.conditions)
