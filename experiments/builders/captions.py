"""Embeddings of captions and latents of images: from `config.data` to what is stored.

DIR/ENCODER/    of experiments.encode_text, DIR = config.data.encoded_dir
DIR/latents/    of experiments.encode_latents
"""

import contextlib
import functools
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import numpy as np
from ml_collections import config_dict

from experiments.builders import user_functions
from lgd import errors
from lgd.data import splits
from lgd.data.prompts import captions as captions_lib
from lgd.data.prompts import embeddings
from lgd.data.prompts import latents
from lgd.data.tfds import streamed
from lgd.storage import files

_DECODED = 32  # Latents in a call of the decoder.


@contextlib.contextmanager
def naming_directory(section: config_dict.ConfigDict) -> Iterator[None]:
  """Makes what is wrong with data of TFDS an error that names `data.dir`."""
  try:
    yield
  except (errors.NotPreparedError, errors.DataError) as error:
    raise errors.InputError(
      f'data.dir={section.dir!r}: {error} (data.name={section.name!r})'
    ) from error


def captions(config: config_dict.ConfigDict) -> captions_lib.Captioned:
  """All captions of data that have embeddings, and their images' splits.

  Raises:
    errors.InputError: data that must be prepared first, or hold an empty caption.
  """
  section = config.data
  with naming_directory(section):
    return _read_captions(section.name, section.dir, size=section.size)


_read_captions = functools.lru_cache(maxsize=2)(captions_lib.read)


def lookup(config: config_dict.ConfigDict) -> embeddings.Lookup:
  """The map from labels to conditions: embeddings come from nowhere else.

  Raises:
    errors.InputError: no embeddings, or those of another encoder.
  """
  section = config.data
  root = files.user_path(section.encoded_dir)
  try:
    return embeddings.Lookup(
      {
        name: embeddings.Store(root / name, name, section.caption_length)
        for name in section.encoders
      }
    )
  except errors.FileError as error:
    raise errors.InputError(
      f'data.encoded_dir={section.encoded_dir!r}: {error} To make embeddings, run'
      ' python -m experiments.encode_text.'
    ) from error


def autoencoder(config: config_dict.ConfigDict) -> latents.Autoencoder:
  """The one that `data.autoencoder` names.

  Raises:
    errors.InputError: no such module or function.
  """
  return user_functions.load('data.autoencoder', config.data.autoencoder)()


def decode(config: config_dict.ConfigDict) -> Callable[[np.ndarray], np.ndarray]:
  """A function from data, as networks make them, to images in [-1, 1].

  Raises:
    errors.InputError: no autoencoder where data are latents, or no latents.
  """
  if not config.data.autoencoder:
    return lambda x: x
  to_images, scale = autoencoder(config).decode, latents_store(config).scale

  def decoded(z):
    z = z / np.float32(scale)
    chunks = (z[i : i + _DECODED] for i in range(0, len(z), _DECODED))
    return np.concatenate([np.asarray(to_images(chunk)) for chunk in chunks])

  return decoded


def image_shape(
  config: config_dict.ConfigDict, shape: tuple[int, ...]
) -> tuple[int, ...]:
  """The shape of what `decode` makes of data of `shape`."""
  size = config.data.size
  return (size, size, 3) if config.data.autoencoder else shape


def pixels(
  config: config_dict.ConfigDict, dataset: splits.Dataset, split: str
) -> streamed.Images | np.ndarray:
  """The images of a split, `[n, ...]`: no latents, and each once, not by caption."""
  if dataset.spec.is_captioned:
    return streamed.Images(getattr(captions(config), split).source)
  return getattr(dataset, split).x


def latents_store(
  config: config_dict.ConfigDict, captioned: captions_lib.Captioned | None = None
) -> latents.Store:
  """The latents of `config`, which must be of the images of `captioned` if given.

  Raises:
    errors.InputError: none, unfinished ones, or of something else.
  """
  wanted = latents_config(config, captioned) if captioned else _latents_config(config)
  try:
    return latents.Store(files.user_path(config.data.encoded_dir) / 'latents', wanted)
  except errors.FileError as error:
    raise errors.InputError(
      f'data.encoded_dir={config.data.encoded_dir!r}: {error} To make latents, run'
      ' python -m experiments.encode_latents.'
    ) from error


def latents_config(
  config: config_dict.ConfigDict, captioned: captions_lib.Captioned
) -> dict[str, Any]:
  """The record of what latents are of."""
  names = latents.names_sha256(captioned.names)
  return {**_latents_config(config), 'num_rows': len(captioned.names), 'names': names}


def _latents_config(config):
  section = config.data
  return {
    'autoencoder': section.autoencoder,
    'size': section.size,
    'shape': list(section.latent_shape),
  }


def identity(config: config_dict.ConfigDict) -> dict[str, Any]:
  """The JSON that decides the embeddings and latents of `config`."""
  stored = lookup(config).identity
  if config.data.autoencoder:
    stored['latents'] = latents_store(config).identity
  return stored
