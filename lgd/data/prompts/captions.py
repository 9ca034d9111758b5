"""Images of TFDS with several captions each: pairs of an image and one caption.

Captions are numbered through all splits, training first, and label their pairs. Within
a split

  (1)  pairs = the first caption of every image, then the second of every image, ...

so that the first pairs of a split have different images. A split is one of images: a
caption of one split is of no image of another.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import numpy as np

from lgd import errors
from lgd.data.tfds import catalog
from lgd.data.tfds import sources


@dataclasses.dataclass(frozen=True)
class Pairs:
  """A split by pairs: `pairs[rows] -> sources.Example`. It can be pickled.

  Attributes:
    source: of the images, or of their latents: a `sources.Source`, or what reads like
      one.
    image: `[n]`, the number in `source` of each pair's image.
    first: the number of the first caption.
  """

  source: Any
  image: np.ndarray
  first: int

  def __len__(self) -> int:
    return len(self.image)

  @property
  def shape(self) -> tuple[int, ...]:
    return self.source.shape

  def __getitem__(self, rows: Sequence[int]) -> sources.Example:
    """Images, read and decoded, and numbers of captions; raises as the source."""
    rows = np.asarray(rows)
    labels = (self.first + rows).astype(np.int32)
    return sources.Example(self.source[self.image[rows]].x, labels)

  def labels(self) -> np.ndarray:
    """Numbers of all captions, `[n]` int32."""
    return self.first + np.arange(len(self), dtype=np.int32)


class Captioned(NamedTuple):
  """All captions of a data set, and its splits."""

  texts: list[str]  # By their numbers.
  images: list[str]  # The names of their images.
  names: list[str]  # The names of all images, split by split.
  train: Pairs
  validation: Pairs
  test: Pairs


def read(name: str, data_dir: str = '', *, size: int) -> Captioned:
  """Reads all captions; no image is read yet.

  Args:
    name: a captioned one of `catalog.DATA_SETS`.
    data_dir: the TFDS directory.
    size: of the images, central squares averaged by area.

  Raises:
    As `sources.source`.
    errors.DataError: a damaged file, an empty caption.

  Cost: one pass over the files, of 19 GB for COCO.
  """
  texts, images, names, parts = [], [], [], []
  for split in catalog.SPLITS:
    source = sources.source(name, split, data_dir, size=size)
    of_images = _captions(source)
    pairs = [
      (j, i) for i, (_, captions) in enumerate(of_images) for j in range(len(captions))
    ]
    pairs.sort()  # (1)
    image = np.array([i for _, i in pairs], np.int64)
    parts.append(Pairs(source, image, len(texts)))
    texts += [of_images[i][1][j] for j, i in pairs]
    images += [of_images[i][0] for _, i in pairs]
    names += [name for name, _ in of_images]
  return Captioned(texts, images, names, *parts)


def _captions(source: sources.Source) -> list[tuple[str, list[str]]]:
  """Name and captions of every image."""
  captions = []
  for keys, examples in source.undecoded():
    for key, example in zip(keys, examples, strict=True):
      name = _to_str(example['image/filename'])
      try:
        texts = [_to_str(text) for text in example['captions']['text']]
      except UnicodeDecodeError as error:
        raise errors.DataError(
          f'{source.where(key)}, {name}: a caption is no UTF-8: {error}.'
        ) from error
      empty = [i for i, text in enumerate(texts) if not text.strip()]
      if empty:
        raise errors.DataError(
          f'{source.where(key)}, {name}: caption {empty[0]} is empty.'
        )
      captions.append((name, texts))
  return captions


def _to_str(text: bytes | str) -> str:
  """Bytes as files hold them; TFDS's mocks give strings."""
  return text.decode() if isinstance(text, bytes) else text
