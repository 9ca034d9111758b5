"""Prompts as tokens, by byte-pair encoding.

A row is  <|startoftext|>, the tokens of the text, <|endoftext|>, padding.  Text is
lower-case and normalised (NFC) first. A tokenizer is either trained on the captions of
a data set, and pads with 0, or read from the `tokenizer.json` beside published weights,
such as CLIP's, and pads with the end of text where it has no padding of its own.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np
import tokenizers
from etils import epath
from tokenizers import models
from tokenizers import normalizers
from tokenizers import pre_tokenizers
from tokenizers import trainers

from lgd import errors
from lgd.storage import files

PAD, START, END = '<pad>', '<|startoftext|>', '<|endoftext|>'
_NORMALIZER = normalizers.Sequence(
  [normalizers.NFC(), normalizers.Lowercase(), normalizers.Strip()]
)


@dataclasses.dataclass(frozen=True)
class Tokenizer:
  """`[n]` strings -> `[n, length]` int32.

  Attributes:
    encoding: the byte-pair encoding.
    length: of a row, at least 3: a start, a token and an end.
    truncate: whether the ends of long captions are cut off, as CLIP's are; else they
      are refused.

  Raises:
    ValueError: rows without room for text.
  """

  encoding: tokenizers.Tokenizer
  length: int
  truncate: bool = False

  def __post_init__(self):
    if self.length < 3:
      raise ValueError(f'length={self.length}: must be at least 3.')

  def __call__(self, captions: Sequence[str]) -> np.ndarray:
    """The tokens of each caption.

    Raises:
      errors.CaptionError: an empty caption, which the null condition is not; one that
        is too long.
    """
    start, end = (self.encoding.token_to_id(name) for name in (START, END))
    pad = self.encoding.token_to_id(PAD)
    rows = np.full((len(captions), self.length), end if pad is None else pad, np.int32)
    encoded = self.encoding.encode_batch(list(captions), add_special_tokens=False)
    for i, (row, text) in enumerate(zip(rows, encoded, strict=True)):
      ids = text.ids
      if not ids:
        raise errors.CaptionError(
          f'caption {i} is {captions[i]!r}: holds no text; leave it out, or give it'
          ' some: to sample without a condition is a choice of weights, not of prompts.'
        )
      room = self.length - 2
      if len(ids) > room and not self.truncate:
        raise errors.CaptionError(
          f'caption {i} is {captions[i]!r}: has {len(ids)} tokens, {room} fit; shorten'
          ' it, or take longer rows.'
        )
      ids = ids[:room]
      row[: len(ids) + 2] = [start, *ids, end]
    return rows

  def decode(self, tokens: np.ndarray) -> list[str]:
    """The text of each row, as it was after normalisation."""
    return [text.strip() for text in self.encoding.decode_batch(tokens.tolist())]


def normalize(caption: str) -> str:
  """The text that a tokenizer of `train` encodes: equal texts are one caption."""
  return _NORMALIZER.normalize_str(caption)


def train(captions: Sequence[str], *, vocab_size: int, length: int) -> Tokenizer:
  """A tokenizer of the most frequent pairs in `captions`; the same for the same ones.

  Args:
    captions: to learn from; any others can be encoded, in more tokens.
    vocab_size: at most, and at least 259: all bytes and three special tokens.
    length: of a row.

  Raises:
    ValueError: a vocabulary that cannot hold all bytes, or rows without room for text.
  """
  if vocab_size < 259:
    raise ValueError(f'vocab_size={vocab_size}: must be at least 259, for all bytes.')
  encoding = tokenizers.Tokenizer(models.BPE())
  encoding.normalizer = _NORMALIZER
  encoding.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
  # A caption that spells a special token has its letters, not a padding in the middle.
  encoding.encode_special_tokens = True
  encoding.decoder = tokenizers.decoders.ByteLevel()
  trainer = trainers.BpeTrainer(
    vocab_size=vocab_size,
    special_tokens=[PAD, START, END],  # In this order: the padding is 0.
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
  )
  encoding.train_from_iterator(captions, trainer)
  return Tokenizer(encoding, length)


def load(path: epath.PathLike, *, length: int, truncate: bool = False) -> Tokenizer:
  """The tokenizer of a `tokenizer.json` file.

  Args:
    path: of the file.
    length: of a row; CLIP has 77.
    truncate: as in `Tokenizer`.

  Raises:
    ValueError: not such a file, or without the start and end of text.
  """
  path = files.user_path(path)
  try:
    encoding = tokenizers.Tokenizer.from_str(path.read_text())
  except Exception as error:  # The library raises nothing more precise.
    reason = ' '.join(str(error).split())
    raise ValueError(
      f'{path}: is no tokenizer.json of the tokenizers library ({reason}).'
    ) from error
  missing = [t for t in (START, END) if encoding.token_to_id(t) is None]
  if missing:
    raise ValueError(f'{path}: has no token {missing[0]}; give a tokenizer of CLIP.')
  # A file may say to cut or fill texts, as published ones do; a row does so itself.
  encoding.no_truncation()
  encoding.no_padding()
  return Tokenizer(encoding, length, truncate)
