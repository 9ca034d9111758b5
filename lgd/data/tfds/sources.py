"""Images as TensorFlow Datasets prepares them, by random access.

Records are read and decoded when they are asked for; nothing is kept. `load` reads all
of a small data set at once.
"""

import dataclasses
from collections.abc import Iterator
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import numpy as np
from absl import logging
from etils import epath
from etils import epy

from lgd import conditions
from lgd import errors
from lgd.data import images
from lgd.data import splits
from lgd.data.tfds import catalog
from lgd.data.tfds import prepared

with epy.lazy_imports():  # Half a second that users of other data need not wait.
  import tensorflow_datasets as tfds

_CHUNK = 256  # Records at a time: full-size images weigh half a megabyte, decoded.


class Example(NamedTuple):
  """`x [n, height, width, channels]` uint8 and `label`.

  Labels are `[n]` int32 in 0..num_classes-1, or `[n, attributes]` float32 in {0, 1}; of
  captioned images, numbers of records.
  """

  x: np.ndarray
  label: np.ndarray


@dataclasses.dataclass(frozen=True)
class Source:
  """Random access to one split: `source[rows] -> Example`. It can be pickled.

  Attributes:
    name: of the data set, a key of `catalog.DATA_SETS`.
    data_set: what is made of its images.
    builder: TFDS's, of the prepared data.
    official: name of the split that TFDS stores.
    records: that split; images are decoded.
    rows: those of it that belong to this one.
    attributes: that number the classes, as in `source`.
  """

  name: str
  data_set: catalog.DataSet
  builder: Any
  official: str
  records: Any
  rows: range
  attributes: tuple[str, ...]

  def __len__(self) -> int:
    return len(self.rows)

  @property
  def shape(self) -> tuple[int, int, int]:
    return self.data_set.shape

  @property
  def conditions(self) -> conditions.Conditions:
    return self.data_set.conditions(self.attributes)

  def __getitem__(self, rows: Sequence[int]) -> Example:
    """Reads and decodes examples, given by their numbers, 0..len-1.

    Raises:
      IndexError: a number outside of the split.
      errors.DataError: a damaged file, an image of another size, a label out of range.
    """
    keys = [self.rows[i] for i in rows]
    x, labels = np.empty((len(keys), *self.shape), np.uint8), [self._labels([], [])]
    for start, chunk, examples in self._chunks(self.records, keys):
      for i, (key, example) in enumerate(zip(chunk, examples, strict=True), start):
        x[i] = self._image(key, example['image'])
      labels.append(self._labels(chunk, examples))
    return Example(x, np.concatenate(labels))

  def labels(self) -> np.ndarray:
    """All labels of the split; images stay encoded. One pass over the files: keep it.

    Raises:
      errors.DataError: a damaged file, a label out of range.

    Cost: 30 microseconds an example, 40 s for ImageNet at 64x64, and the reading of
    every byte of the split: 140 GB for ImageNet in its original size.
    """
    labels = [self._labels([], [])]
    labels += [self._labels(*chunk) for chunk in self.undecoded()]
    return np.concatenate(labels)

  def undecoded(self) -> Iterator[tuple[list[int], Sequence[Any]]]:
    """Keys and examples of the whole split, images as they are stored."""
    skip = tfds.decode.SkipDecoding()
    records = self.builder.as_data_source(self.official, decoders={'image': skip})
    for start, chunk, examples in self._chunks(records, self.rows):
      yield chunk, examples
      logging.log_every_n_seconds(
        logging.INFO, 'labels of %s: %d of %d', 20, self.name, start, len(self)
      )

  def _image(self, key: int, image: np.ndarray) -> np.ndarray:
    data_set = self.data_set
    if image.ndim != 3 or any(
      wanted not in (None, size)
      for wanted, size in zip(data_set.stored, image.shape, strict=True)
    ):
      raise errors.DataError(
        f'{self.where(key)}: image of shape {image.shape}, must be {data_set.stored}.'
      )
    return data_set.transform(image)

  def _labels(self, keys: Sequence[int], examples: Sequence[Any]) -> np.ndarray:
    if self.data_set.is_captioned:
      return np.asarray(keys, np.int32)
    num_classes = self.data_set.num_classes
    if num_classes is None:
      names = self.attributes or catalog.ATTRIBUTES
      bits = [[example['attributes'][name] for name in names] for example in examples]
      bits = np.asarray(bits, np.int32).reshape(len(examples), len(names))
      if self.attributes:
        return bits @ (1 << np.arange(len(names), dtype=np.int32))
      return bits.astype(np.float32)
    label = np.asarray([example['label'] for example in examples], np.int32)
    wrong = np.flatnonzero((label < 0) | (label >= num_classes))
    if len(wrong):
      raise errors.DataError(
        f'{self.where(keys[wrong[0]])}: label {label[wrong[0]]}, must be in'
        f' 0..{num_classes - 1}.'
      )
    return label

  def _chunks(
    self, records: Any, keys: Sequence[int]
  ) -> Iterator[tuple[int, list[int], Sequence[Any]]]:
    """Position of each chunk of keys, the keys and their examples."""
    for start in range(0, len(keys), _CHUNK):
      chunk = list(keys[start : start + _CHUNK])
      yield start, chunk, self._read(records, chunk)

  def _read(self, records: Any, keys: list[int]) -> Sequence[Any]:
    """One batch: array_record reads it in parallel."""
    try:
      return records.__getitems__(keys)
    except Exception:  # Whatever damaged bytes make of the readers and decoders.
      for key in keys:
        try:
          records[key]
        except Exception as error:
          reason = ' '.join(str(error).split())
          raise errors.DataError(
            f'{self.where(key)}: cannot be read, {type(error).__name__}: {reason}'
          ) from error
      raise

  def where(self, key: int) -> str:
    """File of a record of the official split, and its number there."""
    position = key
    for file in self.builder.info.splits[self.official].file_instructions:
      if position < file.take:
        return f'{file.filename}: record {position}'
      position -= file.take
    return f'{self.name}: record {key} of {self.official}'


def source(
  name: str,
  split: str,
  data_dir: str = '',
  *,
  attributes: Sequence[str] = (),
  size: int | None = None,
) -> Source:
  """One split of a prepared data set; no image is read yet.

  Args:
    name: a key of `catalog.DATA_SETS`, which says what the splits are.
    split: 'train', 'validation' or 'test'.
    data_dir: the TFDS directory, as in `prepared.builder`.
    attributes: of celeb_a only: k of `catalog.ATTRIBUTES` that make 2^k classes,
      attribute i adding 2^i. Without any, labels are the vectors of all 40.
    size: of images of coco_captions; None is 512.

  Raises:
    ValueError: an unknown name, split or attribute.
    errors.NotPreparedError: nothing there that can be read.
    errors.DataError: a file is missing.
  """
  data_set = catalog.DATA_SETS.get(name)
  if data_set is None:
    raise ValueError(f'name={name!r}: must be one of {tuple(catalog.DATA_SETS)}.')
  if split not in catalog.SPLITS:
    raise ValueError(f'split={split!r}: must be one of {catalog.SPLITS}.')
  known = catalog.ATTRIBUTES if name == 'celeb_a' else ()
  wrong = [attribute for attribute in attributes if attribute not in known]
  if wrong or len(set(attributes)) < len(attributes):
    raise ValueError(
      f'attributes={tuple(attributes)}: must be different ones of those of {name},'
      f' {known}.'
    )
  builder = prepared.builder(name, data_dir)
  official = data_set.official(split)
  stored = {path.name for path in epath.Path(builder.data_dir).iterdir()}
  for file_name in builder.info.splits[official].filenames:
    if file_name not in stored:
      raise errors.DataError(
        f'{builder.data_dir}: {file_name} is missing; copy it, or delete the'
        ' directory and prepare it again.'
      )
  records = builder.as_data_source(official)
  rows = data_set.rows(split, len(records))
  if size is not None:
    data_set = data_set.at(size)
  return Source(name, data_set, builder, official, records, rows, tuple(attributes))


def load(
  name: str, data_dir: str = '', *, attributes: Sequence[str] = ()
) -> splits.Dataset:
  """All three splits in memory, images in [-1, 1].

  Raises:
    As `source`.
  """
  parts = []
  for split in catalog.SPLITS:
    part = source(name, split, data_dir, attributes=attributes)
    example = part[range(len(part))]
    parts.append(splits.Split(images.to_float(example.x), example.label))
  return splits.Dataset(*parts, part.conditions)
