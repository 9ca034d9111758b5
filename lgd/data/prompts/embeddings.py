"""Prompts as embeddings of published encoders, stored once, looked up by number.

Of a caption with n tokens, start and end among them, an encoder gives

  (1)  pooled  [pooled_dim]   of CLIP its projected embedding, of T5 the mean over (2)
  (2)  tokens  [n, dim]       the last hidden states

and both are stored in float16, n tokens and no padding: COCO's captions have 14 tokens
where padded rows have 77. CLIP's hidden states after the end of text, which some models
read as well, are left out; those before do not depend on them.

The label of a datum is the number of its caption. A `Lookup` makes conditions of
labels on the host, batch by batch, padded; splits, shuffles, statistics and the
sampler's books handle integers alone. Weights read (1) alone.
"""

import dataclasses
import hashlib
from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from lgd import conditions
from lgd import errors
from lgd import types
from lgd.data.tfds import sources
from lgd.storage import files
from lgd.storage import shards

DTYPE = np.float16  # .npy has no bfloat16; these values need no more range.
_COMMAND = 'python -m experiments.encode_text again: it makes what is missing.'


@dataclasses.dataclass(frozen=True)
class Encoder:
  """One that is known here.

  Attributes:
    kind: 'clip' or 't5'.
    pooled_dim: of (1).
    dim: of (2).
  """

  kind: str
  pooled_dim: int
  dim: int


ENCODERS = {
  'clip_b32': Encoder('clip', 512, 512),
  'clip_b16': Encoder('clip', 512, 512),
  'clip_l14': Encoder('clip', 768, 768),
  'clip_tiny': Encoder('clip', 64, 64),  # Not published: of smoke tests.
  't5_small': Encoder('t5', 512, 512),
  't5_base': Encoder('t5', 768, 768),
  't5_large': Encoder('t5', 1024, 1024),
  't5_xl': Encoder('t5', 2048, 2048),
  't5_xxl': Encoder('t5', 4096, 4096),
}


def conditions_of(names: Sequence[str], length: int) -> conditions.Embeddings:
  """Conditions of a network, padded to `length` tokens of each encoder."""
  dims = tuple((n, ENCODERS[n].pooled_dim, ENCODERS[n].dim) for n in names)
  return conditions.Embeddings(dims, length)


def fields(encoder: Encoder) -> dict[str, shards.Field]:
  """The arrays of a store."""
  return {
    'pooled': shards.Field(DTYPE, (encoder.pooled_dim,)),
    'tokens': shards.Field(DTYPE, (encoder.dim,), is_ragged=True),
    'length': shards.Field(np.int32, ()),
  }


def captions_sha256(captions: Sequence[str]) -> str:
  """The sha256 of captions in their order."""
  digest = hashlib.sha256()
  for caption in captions:
    data = caption.encode()
    digest.update(b'%d:' % len(data) + data)
  return digest.hexdigest()


class Store:
  """Embeddings of all captions by one encoder. It can be pickled.

  Args:
    directory: that `experiments.encode_text` filled.
    name: of the encoder, a key of `ENCODERS`.
    length: tokens that conditions are padded to; that of the store.

  Raises:
    errors.FileError: no store, or one of another encoder or length.
  """

  def __init__(self, directory: epath.PathLike, name: str, length: int):
    self.directory, self._length = files.user_path(directory), length
    self.config = shards.read_config(directory)
    path = self.directory / 'config.json'
    shards.require_same(path, self.config, {'encoder': name, 'length': length})
    layout = shards.Layout(*(self.config[key] for key in shards.Layout._fields))
    self._encoder = ENCODERS[name]
    self._reader = shards.Reader(
      directory, fields(self._encoder), layout, f'{_COMMAND} --encoder={name}'
    )
    self._offsets: dict[int, np.ndarray] = {}

  @property
  def identity(self) -> dict[str, Any]:
    """The JSON that decides the embeddings; how they are cut does not."""
    return {key: v for key, v in self.config.items() if key != 'shard_size'}

  def pooled(self, rows: np.ndarray) -> np.ndarray:
    """Pooled embeddings of captions `rows [n]`, `[n, pooled_dim]`.

    Raises:
      IndexError: no such caption.
      errors.FileError: a file is missing or damaged.
    """
    return self._reader.read('pooled', rows)

  def __getitem__(self, rows: np.ndarray) -> dict[str, np.ndarray]:
    """Pooled embeddings, tokens `[n, length, dim]` and mask of captions `rows [n]`.

    Raises:
      As `pooled`.
    """
    tokens = np.zeros((len(rows), self._length, self._encoder.dim), DTYPE)
    mask = np.zeros((len(rows), self._length), bool)
    for shard, where, local in self._reader.locate(rows):
      offsets = self._ends(shard)
      for i, row in zip(where, local, strict=True):
        first, last = offsets[row : row + 2]
        tokens[i, : last - first] = self._reader.take(
          'tokens', shard, slice(first, last)
        )
        mask[i, : last - first] = True
    return {'pooled': self.pooled(rows), 'tokens': tokens, 'mask': mask}

  def _ends(self, shard: int) -> np.ndarray:
    """Where rows begin and end in the tokens of a shard: `[rows + 1]`.

    Raises:
      errors.FileError: files of different runs, whose lengths do not fit the tokens.
    """
    if shard not in self._offsets:
      length = self._reader.take('length', shard)
      ends, num = np.cumsum(length), len(self._reader.part('tokens', shard))
      if ends[-1] != num or not 1 <= length.min() <= length.max() <= self._length:
        raise errors.FileError(
          f'{self.directory}: shard {shard} has {num} tokens for captions of'
          f' {ends[-1]}, the longest of {length.max()}, at most {self._length}; delete'
          f' its files and run {_COMMAND}'
        )
      self._offsets[shard] = np.concatenate([[0], ends])
    return self._offsets[shard]


class Lookup:
  """A map from labels to conditions; without stores a label is its condition.

  Args:
    stores: encoder -> store; of the same captions.
  """

  def __init__(self, stores: Mapping[str, Store]):
    self._stores = dict(stores)

  def __call__(self, label: np.ndarray) -> types.Cond:
    """The conditions of labels `[...]`, each `[..., *shape]`.

    Raises:
      As `Store.pooled`.
    """
    return self._map(label, lambda store, rows: store[rows])

  def pooled(self, label: np.ndarray) -> types.Cond:
    """The same without tokens and masks, as weights read them."""
    return self._map(label, lambda store, rows: {'pooled': store.pooled(rows)})

  @property
  def identity(self) -> dict[str, Any]:
    """The identities of all stores."""
    return {name: store.identity for name, store in self._stores.items()}

  def require_captions(self, captions: Sequence[str]) -> None:
    """Refuses embeddings of other captions.

    Raises:
      errors.FileError: they have changed since.
    """
    wanted = {
      'num_rows': len(captions),
      'captions_sha256': captions_sha256(captions),
    }
    for store in self._stores.values():
      shards.require_same(store.directory / 'config.json', store.config, wanted)

  def _map(self, label, read):
    if not self._stores:
      return label
    label = np.asarray(label)

    def of(store):
      arrays = read(store, label.ravel())
      return {k: a.reshape(*label.shape, *a.shape[1:]) for k, a in arrays.items()}

    return {name: of(store) for name, store in self._stores.items()}


@dataclasses.dataclass(frozen=True)
class Conditioned:
  """A source whose examples have conditions in place of labels. It can be pickled.

  Attributes:
    source: `source[rows] -> sources.Example`.
    look_up: what makes conditions of its labels.
  """

  source: Any
  look_up: Lookup

  def __len__(self) -> int:
    return len(self.source)

  def __getitem__(self, rows: Sequence[int]) -> sources.Example:
    """Examples by their numbers, with conditions in place of labels.

    Raises:
      errors.DataError: as the source; or a file of latents or embeddings is missing or
        damaged, which in the middle of a run is what a damaged image is.
    """
    try:
      x, label = self.source[rows]
      return sources.Example(x, self.look_up(label))
    except errors.FileError as error:
      raise errors.DataError(str(error)) from error
