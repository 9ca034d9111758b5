"""Images with a caption each, from one file, in memory.

The file is an npz with `image [n, height, width, 3]` uint8 and `caption [n]` strings. A
tenth of the captions validates, a tenth tests, chosen once for all by a fixed
permutation. Images of one caption, but for what a tokenizer leaves out, go together:
prompts of these splits occur in no other. Tokens are those of the training captions.
"""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from etils import epath

from lgd import conditions
from lgd import errors
from lgd.data import images
from lgd.data import splits
from lgd.data.prompts import text
from lgd.storage import files


class Pairs(NamedTuple):
  """Data whose conditions are tokens, and what reads these."""

  dataset: splits.Dataset
  tokenizer: text.Tokenizer
  sha256: str  # Of images and tokens, as they are here.


def load(path: epath.PathLike, *, size: int, vocab_size: int, length: int) -> Pairs:
  """All three splits of a file.

  Args:
    path: of the npz.
    size: of the images, which are averaged by area if they are larger.
    vocab_size: of the tokenizer.
    length: of a row of tokens.

  Raises:
    errors.DataError: no such file, one of other arrays, an image smaller than `size`,
      a caption that is empty or too long, fewer than 20 different ones.
  """
  x, captions = _read(files.user_path(path), size)
  train, validation, test = _split(path, captions)
  tokenizer = text.train(
    [captions[i] for i in train], vocab_size=vocab_size, length=length
  )
  try:
    tokens = tokenizer(captions)
  except errors.CaptionError as error:
    raise errors.DataError(f'{path}: {error}') from error
  dataset = splits.Dataset(
    *(splits.Split(x[rows], tokens[rows]) for rows in (train, validation, test)),
    conditions.Tokens(length, vocab_size),
  )
  digest = hashlib.sha256(x.tobytes())
  digest.update(tokens.tobytes())
  return Pairs(dataset, tokenizer, digest.hexdigest())


def _read(path: epath.Path, size: int) -> tuple[np.ndarray, list[str]]:
  try:
    arrays = files.read_npz(path)
    image, captions = arrays['image'], arrays['caption']
  except (errors.FileError, KeyError) as error:
    raise errors.DataError(
      f'{path}: must be an npz with image [n, height, width, 3] uint8 and caption [n]'
      f' ({error}).'
    ) from error
  if image.dtype != np.uint8 or image.ndim != 4 or image.shape[-1] != 3:
    raise errors.DataError(
      f'{path}: image is {image.dtype} {image.shape}, must be uint8 [n, height, width,'
      ' 3].'
    )
  if captions.dtype.kind != 'U' or captions.ndim != 1:
    raise errors.DataError(
      f'{path}: caption is {captions.dtype} {captions.shape}, must be strings [n];'
      ' decode bytes first.'
    )
  if len(captions) != len(image):
    raise errors.DataError(
      f'{path}: {len(captions)} captions of {len(image)} images; must be as many.'
    )
  if min(image.shape[1:3]) < size:
    raise errors.DataError(f'{path}: images of {image.shape[1:3]}, asked for {size}.')
  if image.shape[1:3] != (size, size):
    image = np.stack([images.area_square(x, size) for x in image])
  return images.to_float(image), captions.tolist()


def _split(
  path: epath.PathLike, captions: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Rows of the three splits."""
  numbers = {}  # Of different captions, in the order of their first rows.
  of_row = [numbers.setdefault(text.normalize(c), len(numbers)) for c in captions]
  if len(numbers) < 20:
    raise errors.DataError(
      f'{path}: has {len(numbers)} different captions; must have at least 20: a'
      ' tenth of them validates, a tenth tests, and one has no covariance.'
    )
  order = np.random.default_rng(0).permutation(len(numbers))
  rank = np.argsort(order)[of_row]  # Where in the order a row's caption is.
  rows = np.argsort(rank, kind='stable')
  held_out = len(numbers) // 10
  validation, test = np.searchsorted(rank[rows], [held_out, 2 * held_out])
  return rows[test:], rows[:validation], rows[validation:test]
