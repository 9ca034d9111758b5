"""Encodes all images of a captioned data set once, by an autoencoder of yours.

  F="--config=configs/coco512.py --config.data.encoded_dir=DIR"
  python -m experiments.encode_latents $F --config.data.autoencoder=MODULE:FUNCTION

FUNCTION takes no arguments and returns a `lgd.data.prompts.latents.Autoencoder`; the
module must be on PYTHONPATH, for sampling as well. Its latents must have the shape
`config.data.latent_shape`. Writes DIR/latents/, in shards, and the scale that gives
latents of training images unit variance; the same command again resumes. Several
processes (--distributed) share the shards.
"""

import jax
import numpy as np
from absl import flags
from absl import logging
from ml_collections import config_dict

from experiments import app
from experiments import builders
from experiments import validation
from lgd import errors
from lgd.data import images
from lgd.data.prompts import latents
from lgd.data.tfds import catalog
from lgd.data.tfds import sources
from lgd.storage import files
from lgd.storage import shards
from lgd.training import sharding


def run(
  config: config_dict.ConfigDict, *, batch_size: int = 32, shard_size: int = 2048
) -> None:
  """Encodes, or resumes.

  Raises:
    errors.InputError: no autoencoder, or latents of another shape.
    errors.FileError: latents of something else are there.
    errors.NonFiniteError: latents that float16 cannot hold.
  """
  validation.validate(config)
  section = config.data
  if not (section.autoencoder and section.encoded_dir):
    raise errors.InputError(
      f'data.autoencoder={section.autoencoder!r},'
      f' data.encoded_dir={section.encoded_dir!r}: must both be given, as in'
      ' --config.data.autoencoder=MODULE:FUNCTION --config.data.encoded_dir=DIR.'
    )
  encode = builders.captions.autoencoder(config).encode
  captioned = builders.captions.captions(config)
  parts = [getattr(captioned, split).source for split in catalog.SPLITS]
  layout = shards.Layout(sum(map(len, parts)), shard_size)
  directory = files.user_path(section.encoded_dir) / 'latents'
  if jax.process_index() == 0:
    identity = builders.captions.latents_config(config, captioned)
    shards.begin(directory, {**identity, **layout._asdict()})
  sharding.wait_for_processes('encode_latents')

  def make(shard):
    z = [
      _encode(encode, _images(parts, rows), section.latent_shape)
      for rows in _batches(layout.rows(shard), batch_size)
    ]
    shards.write(directory, shard, {'latents': np.concatenate(z)})
    return sum(map(len, z))

  missing = shards.missing(directory, ('latents',), layout)
  app.shard_loop.run(
    directory, missing, layout.num_shards, make, unit='images', split=True
  )
  if jax.process_index() == 0:
    stored = latents.reader(directory, tuple(section.latent_shape), layout)
    latents.write_scale(directory, stored, len(parts[0]))
  sharding.wait_for_processes('scaled_latents')
  logging.info(
    '%s: scale %.4g', directory, builders.captions.latents_store(config).scale
  )


def _batches(rows: range, size: int) -> list[range]:
  return [rows[i : i + size] for i in range(0, len(rows), size)]


def _images(parts: list[sources.Source], rows: range) -> np.ndarray:
  """Images by their numbers through all splits, float32 in [-1, 1]."""
  x, first = [], 0
  for part in parts:
    local = [i - first for i in rows if first <= i < first + len(part)]
    if local:
      x.append(images.to_float(part[local].x))
    first += len(part)
  return np.concatenate(x)


def _encode(encode, x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
  with np.errstate(over='ignore'):
    z = np.asarray(encode(x)).astype(latents.DTYPE)
  if z.shape != (len(x), *shape):
    raise errors.InputError(
      f'data.latent_shape={tuple(shape)}: the autoencoder gives {z.shape} for images'
      f' {x.shape}; it must be the shape of one latent.'
    )
  if not np.isfinite(z).all():
    raise errors.NonFiniteError(
      'latents are not finite in float16; nothing of their shard was written; look at'
      ' the autoencoder.'
    )
  return z


if __name__ == '__main__':
  BATCH_SIZE = flags.DEFINE_integer('batch_size', 32, 'Images in a call.', 1)
  SHARD_SIZE = flags.DEFINE_integer('shard_size', 2048, 'Images in a file.', 1)
  app.main(
    lambda f: run(f.config, batch_size=BATCH_SIZE.value, shard_size=SHARD_SIZE.value),
    needs_config=True,
    needs_workdir=False,
  )
