"""From `config.data` to data.

With the builders the only place where config keys are given a meaning.
"""

import dataclasses
import functools
import itertools
from typing import Any

import numpy as np
from ml_collections import config_dict

from experiments import encoded
from experiments import launch
from lgd import arrays
from lgd import conditions
from lgd import files
from lgd.data import catalog
from lgd.data import digits
from lgd.data import embeddings
from lgd.data import latents
from lgd.data import mixtures
from lgd.data import pairs
from lgd.data import prepared
from lgd.data import sources
from lgd.data import splits
from lgd.data import streamed
from lgd.data import text

NAMES = ('digits', 'mixture', 'random_mixture', 'pairs', *catalog.DATA_SETS)


def load(config: config_dict.ConfigDict) -> splits.Dataset:
  """The data of `config.data`.

  Raises:
    launch.UserError: data that must be prepared or encoded first, embeddings of other
      captions, or an unknown name.
  """
  section = config.data
  if section.name == 'digits':
    return digits.load()
  if encoded.is_captioned(config):
    return _load_captioned(config)
  if section.name in catalog.DATA_SETS:
    read = sources.load if section.in_memory else streamed.load
    try:
      return read(section.name, section.dir, attributes=section.attributes)
    except (prepared.NotPreparedError, sources.DataError) as error:
      raise launch.UserError(
        f'data.dir={section.dir!r}: {error} (data.name={section.name!r})'
      ) from error
  if section.name == 'pairs':
    return _load_pairs(section).dataset
  if section.name == 'mixture':
    mixture = mixtures.ring(section.num_classes, radius=section.radius, std=section.std)
  elif section.name == 'random_mixture':
    mixture = mixtures.random(
      arrays.stream(config.seed, 'mixture'),
      section.num_classes,
      dim=section.dim,
      components=section.components,
      radius=section.radius,
      std=section.std,
    )
  else:
    raise launch.UserError(f'data.name={section.name!r}: must be one of {NAMES}.')
  return mixtures.dataset(
    arrays.stream(config.seed, 'data'), mixture, num_per_class=section.num_per_class
  )


def encoded_identity(config: config_dict.ConfigDict) -> dict[str, Any]:
  """What was made of the data before training, and not by it; JSON.

  Of captions the embeddings or tokens, of images the latents. A directory and a file
  are not part of it.
  """
  if config.data.name == 'pairs':
    return {'pairs_sha256': _load_pairs(config.data).sha256}
  return encoded.identity(config)


def _load_captioned(config):
  look_up = encoded.lookup(config)  # First: to read all captions takes long.
  captioned = encoded.captions(config)
  try:
    look_up.require_captions(captioned.texts)
  except files.FileError as error:
    raise launch.UserError(
      f'data.encoded_dir={config.data.encoded_dir!r}: of other captions: {error}'
    ) from error
  parts = [getattr(captioned, split) for split in catalog.SPLITS]
  if config.data.autoencoder:
    store = encoded.latents_store(config, captioned)
    ends = itertools.accumulate((len(pairs.source) for pairs in parts), initial=0)
    rows = itertools.starmap(range, itertools.pairwise(ends))
    parts = [
      dataclasses.replace(pairs, source=latents.Source(store, of_split))
      for pairs, of_split in zip(parts, rows, strict=True)
    ]
  return splits.Dataset(
    *(splits.Split(streamed.Images(pairs), pairs.labels()) for pairs in parts),
    spec(config).conditions,
  )


def tokenizer(config: config_dict.ConfigDict) -> text.Tokenizer:
  """Between captions and the conditions of data that have some."""
  return _load_pairs(config.data).tokenizer


@functools.lru_cache(maxsize=2)  # Both of the above want one.
def _read_pairs(file, **settings):
  return pairs.load(file, **settings)


def _load_pairs(section):
  try:
    return _read_pairs(
      section.file,
      size=section.size,
      vocab_size=section.vocab_size,
      length=section.caption_length,
    )
  except sources.DataError as error:
    hint = ''
    if isinstance(error.__cause__, text.CaptionError):
      hint = f' A row has data.caption_length={section.caption_length} tokens.'
    raise launch.UserError(f'data.file={section.file!r}: {error}{hint}') from error


def spec(config: config_dict.ConfigDict) -> splits.Spec:
  """That of `load`, without reading any data."""
  section = config.data
  if section.name == 'digits':
    return splits.Spec((8, 8, 1), conditions.Labels(10))
  if encoded.is_captioned(config):
    of_captions = embeddings.conditions_of(section.encoders, section.caption_length)
    shape = (section.size, section.size, 3)
    return splits.Spec(
      tuple(section.latent_shape) if section.autoencoder else shape, of_captions
    )
  if section.name in catalog.DATA_SETS:
    data_set = catalog.DATA_SETS[section.name]
    return splits.Spec(data_set.shape, data_set.conditions(section.attributes))
  if section.name == 'pairs':
    tokens = conditions.Tokens(section.caption_length, section.vocab_size)
    return splits.Spec((section.size, section.size, 3), tokens)
  dim = 2 if section.name == 'mixture' else section.dim
  return splits.Spec((dim,), conditions.Labels(section.num_classes))


def load_classes(
  config: config_dict.ConfigDict, *, in_memory: bool = True
) -> splits.Dataset:
  """`load`, to compare samples with data class by class, in memory if so asked.

  Raises:
    launch.UserError: there are no classes, data that stay on disk, or, in memory, a
      class with less than 2 data in a split; or as `load`.
  """
  match spec(config).conditions:
    case conditions.Attributes():
      raise launch.UserError(
        'data.attributes=(): vectors of all attributes make no classes to compare;'
        ' choose some attributes, or use experiments.fid.'
      )
    case conditions.Tokens() | conditions.Embeddings():
      binary = 'evaluate_prompts' if config.data.name == 'pairs' else 'fid'
      raise launch.UserError(
        f'data.name={config.data.name!r}: prompts make no classes to compare; use'
        f' experiments.{binary}.'
      )
  if in_memory and not config.data.in_memory:
    raise launch.UserError(
      'data.in_memory=False: distances of classes need data in memory; use'
      f' experiments.fid for {config.data.name}.'
    )
  dataset = load(config)
  if in_memory:
    _require_two_of_each(dataset)
  return dataset


def _require_two_of_each(dataset):
  """Before anything is computed for a distance that a class then does not have."""
  for name in catalog.SPLITS:
    label = getattr(dataset, name).label
    counts = np.bincount(label, minlength=dataset.num_classes)
    if counts.min() < 2:
      raise launch.UserError(
        f'data: class {np.argmin(counts)} has {counts.min()} data in split {name}, and'
        ' a distance needs at least 2; choose other data.attributes, or compare by'
        ' experiments.fid.'
      )
