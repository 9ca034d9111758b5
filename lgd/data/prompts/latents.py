"""Latents of images by an autoencoder, stored once, as training reads them.

  (1)  z     = scale encode(x),  1 / scale^2 = variance of all numbers of the latents of
               the training images
  (2)  x_hat = decode(z / scale)

What is stored is encode(x), in float16, and the scale beside it, when all are there.
"""

import dataclasses
import hashlib
from collections.abc import Callable
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import numpy as np
from etils import epath

from lgd import errors
from lgd.data.tfds import sources
from lgd.storage import files
from lgd.storage import shards

DTYPE = np.float16
_COMMAND = 'python -m experiments.encode_latents again: it makes what is missing.'


class Autoencoder(NamedTuple):
  """Between images and latents; called on NumPy arrays, and free to compile inside.

  A reward of latents is differentiated through `decode`, which must then be of
  jax.numpy. As a `jax.tree_util.Partial` of a function and its parameters, these are
  an argument of the compiled program; those that a plain function holds are copied
  into it as constants.
  """

  # images [batch, height, width, 3] float32 in [-1, 1] -> [batch, *latent]
  encode: Callable[[np.ndarray], Any]
  decode: Callable[[np.ndarray], Any]  # The other way.


def names_sha256(names: Sequence[str]) -> str:
  """The sha256 of the names of images in their order."""
  return hashlib.sha256('\n'.join(names).encode()).hexdigest()


class Store:
  """Latents of all images, by their numbers. It can be pickled.

  Args:
    directory: that `experiments.encode_latents` filled.
    config: what they must be of: keys of the config that is stored with them.

  Raises:
    errors.FileError: none, unfinished ones, or of another autoencoder, size or shape.
  """

  def __init__(self, directory: epath.PathLike, config: dict[str, Any]):
    path = files.user_path(directory) / 'config.json'
    self._config = shards.read_config(directory)
    shards.require_same(path, self._config, config)
    layout = shards.Layout(*(self._config[key] for key in shards.Layout._fields))
    self.shape = tuple(self._config['shape'])
    self._reader = reader(directory, self.shape, layout)
    self.scale = _read_scale(directory)

  @property
  def identity(self) -> dict[str, Any]:
    """The JSON that decides the latents: other weights have another scale."""
    config = {k: v for k, v in self._config.items() if k != 'shard_size'}
    return {**config, 'scale': self.scale}

  def __getitem__(self, rows: np.ndarray) -> np.ndarray:
    """(1) of images `rows [n]`: `[n, *shape]` float32.

    Raises:
      IndexError: no such image.
      errors.FileError: a file is missing or damaged.
    """
    z = self._reader.read('latents', np.asarray(rows)).astype(np.float32)
    return z * np.float32(self.scale)


@dataclasses.dataclass(frozen=True)
class Source:
  """Latents of one split, in the place of its images. It can be pickled.

  Attributes:
    store: of all splits.
    rows: those of this one.
  """

  store: Store
  rows: range

  def __len__(self) -> int:
    return len(self.rows)

  @property
  def shape(self) -> tuple[int, ...]:
    return self.store.shape

  def __getitem__(self, rows: Sequence[int]) -> sources.Example:
    """Latents float32, and their numbers; raises as `Store`."""
    rows = np.asarray(rows)
    return sources.Example(self.store[rows + self.rows.start], rows)


def reader(
  directory: epath.PathLike, shape: tuple[int, ...], layout: shards.Layout
) -> shards.Reader:
  """A reader of what is stored, without the scale."""
  fields = {'latents': shards.Field(DTYPE, shape)}
  return shards.Reader(directory, fields, layout, _COMMAND)


def write_scale(directory: epath.PathLike, stored: shards.Reader, num_train: int):
  """Measures the scale of (1) on the first `num_train` rows, and keeps it.

  Raises:
    errors.FileError: a file is missing or damaged.
    ValueError: latents that are all alike.
  """
  total, squares, num = 0.0, 0.0, 0
  for shard in range(-(-num_train // stored.layout.shard_size)):
    rows = stored.layout.rows(shard)
    z = stored.take('latents', shard, slice(num_train - rows.start)).astype(np.float64)
    total, squares, num = total + z.sum(), squares + np.square(z).sum(), num + z.size
  variance = squares / num - (total / num) ** 2
  if not variance > 0.0:
    raise ValueError(f'latents have the variance {variance}; look at the autoencoder.')
  files.write_sealed(
    files.user_path(directory) / 'scale.json', {'scale': float(variance**-0.5)}
  )


def _read_scale(directory: epath.PathLike) -> float:
  path = files.user_path(directory) / 'scale.json'
  if not path.exists():
    raise errors.FileError(f'{path}: is missing; to finish run {_COMMAND}')
  try:
    return files.read_sealed(path)['scale']
  except (errors.FileError, KeyError) as error:
    raise errors.FileError(
      f'{path}: holds no scale ({error}); remove it and run {_COMMAND}'
    ) from error
