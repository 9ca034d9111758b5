"""The data of `config.data`, and each process's share of their batches."""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import config_dict

from experiments.builders import captions
from lgd import arrays
from lgd import conditions
from lgd import errors
from lgd.data import digits
from lgd.data import mixtures
from lgd.data import splits
from lgd.data.prompts import embeddings
from lgd.data.prompts import latents
from lgd.data.prompts import pairs
from lgd.data.prompts import text
from lgd.data.tfds import catalog
from lgd.data.tfds import loader
from lgd.data.tfds import sources
from lgd.data.tfds import streamed
from lgd.training import sharding


class Source(NamedTuple):
  """Where data come from.

  Attributes:
    load: `config -> splits.Dataset`.
    spec: from the section `data` to that of the data, without reading any.
  """

  load: Callable[[config_dict.ConfigDict], splits.Dataset]
  spec: Callable[[config_dict.ConfigDict], splits.Spec]


def load(config: config_dict.ConfigDict) -> splits.Dataset:
  """The data of `config.data`.

  Raises:
    errors.InputError: data that must be prepared or encoded first, embeddings of other
      captions, or an unknown name.
  """
  name = config.data.name
  if name not in SOURCES:
    raise errors.InputError(f'data.name={name!r}: must be one of {tuple(SOURCES)}.')
  return SOURCES[name].load(config)


def spec(config: config_dict.ConfigDict) -> splits.Spec:
  """The shape and the conditions of `load`, without reading any data."""
  return SOURCES[config.data.name].spec(config.data)


def mixture(config: config_dict.ConfigDict) -> mixtures.Mixture:
  """The distribution of the data 'mixture' or 'random_mixture'."""
  section = config.data
  shape = {'radius': section.radius, 'std': section.std}
  if section.name == 'mixture':
    return mixtures.ring(section.num_classes, **shape)
  return mixtures.random(
    arrays.stream(config.seed, 'mixture'),
    section.num_classes,
    dim=section.dim,
    components=section.components,
    **shape,
  )


def _draw_mixture(config):
  return mixtures.dataset(
    arrays.stream(config.seed, 'data'),
    mixture(config),
    num_per_class=config.data.num_per_class,
  )


def _load_tfds(config):
  section = config.data
  if catalog.DATA_SETS[section.name].is_captioned:
    return _load_captioned(config)
  read = sources.load if section.in_memory else streamed.load
  with captions.naming_directory(section):
    return read(section.name, section.dir, attributes=section.attributes)


def _tfds_spec(section):
  data_set = catalog.DATA_SETS[section.name]
  if data_set.is_captioned:
    of_captions = embeddings.conditions_of(section.encoders, section.caption_length)
    shape = (section.size, section.size, 3)
    return splits.Spec(
      tuple(section.latent_shape) if section.autoencoder else shape, of_captions
    )
  return splits.Spec(data_set.shape, data_set.conditions(section.attributes))


def _pairs_spec(section):
  tokens = conditions.Tokens(section.caption_length, section.vocab_size)
  return splits.Spec((section.size, section.size, 3), tokens)


def encoded_identity(config: config_dict.ConfigDict) -> dict[str, Any]:
  """The JSON of what was made of the data before training.

  Of captions the embeddings or tokens, of images the latents. A directory and a file
  are not part of it.
  """
  if config.data.name == 'pairs':
    return {'pairs_sha256': _load_pairs(config.data).sha256}
  return captions.identity(config)


def _load_captioned(config):
  look_up = captions.lookup(config)  # First: to read all captions takes long.
  captioned = captions.captions(config)
  try:
    look_up.require_captions(captioned.texts)
  except errors.FileError as error:
    raise errors.InputError(
      f'data.encoded_dir={config.data.encoded_dir!r}: of other captions: {error}'
    ) from error
  parts = [getattr(captioned, split) for split in catalog.SPLITS]
  if config.data.autoencoder:
    store = captions.latents_store(config, captioned)
    ends = itertools.accumulate((len(pairs.source) for pairs in parts), initial=0)
    rows = itertools.starmap(range, itertools.pairwise(ends))
    parts = [
      dataclasses.replace(pairs, source=latents.Source(store, of_split))
      for pairs, of_split in zip(parts, rows, strict=True)
    ]
  return splits.Dataset(
    *(splits.Split(streamed.Images(pairs), pairs.labels()) for pairs in parts),
    _tfds_spec(config.data).conditions,
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
  except errors.DataError as error:
    hint = ''
    if isinstance(error.__cause__, errors.CaptionError):
      hint = f' A row has data.caption_length={section.caption_length} tokens.'
    raise errors.InputError(f'data.file={section.file!r}: {error}{hint}') from error


MIXTURES = ('mixture', 'random_mixture')
SOURCES = {
  'digits': Source(
    lambda config: digits.load(),
    lambda section: splits.Spec((8, 8, 1), conditions.Labels(10)),
  ),
  'mixture': Source(
    _draw_mixture,
    lambda section: splits.Spec((2,), conditions.Labels(section.num_classes)),
  ),
  'random_mixture': Source(
    _draw_mixture,
    lambda section: splits.Spec((section.dim,), conditions.Labels(section.num_classes)),
  ),
  'pairs': Source(lambda config: _load_pairs(config.data).dataset, _pairs_spec),
  **dict.fromkeys(catalog.DATA_SETS, Source(_load_tfds, _tfds_spec)),
}


def load_classes(
  config: config_dict.ConfigDict, spec: splits.Spec, *, in_memory: bool = True
) -> splits.Dataset:
  """`load`, to compare samples with data class by class, in memory if so asked.

  Raises:
    errors.InputError: there are no classes, data that stay on disk, or, in memory, a
      class with less than 2 data in a split; or as `load`.
  """
  match spec.conditions:
    case conditions.Attributes():
      raise errors.InputError(
        'data.attributes=(): vectors of all attributes make no classes to compare;'
        ' choose some attributes, or use experiments.fid.'
      )
    case conditions.Tokens() | conditions.Embeddings():
      command = 'evaluate_prompts' if config.data.name == 'pairs' else 'fid'
      raise errors.InputError(
        f'data.name={config.data.name!r}: prompts make no classes to compare; use'
        f' experiments.{command}.'
      )
  if in_memory and not config.data.in_memory:
    raise errors.InputError(
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
      raise errors.InputError(
        f'data: class {np.argmin(counts)} has {counts.min()} data in split {name}, and'
        ' a distance needs at least 2; choose other data.attributes, or compare by'
        ' experiments.fid.'
      )


def batches(
  config: config_dict.ConfigDict,
  section: str,
  train: splits.Split,
  *,
  group_size: int = 1,
  by_class: bool = False,
  num_classes: int | None = None,
) -> Callable[[int], Iterator[splits.Batch]]:
  """A function from the first step to this process's share of the batches.

  Consecutive data form groups of `group_size`, each of one class if `by_class`; then
  each of `num_classes` must fill one.

  Raises:
    errors.InputError: a batch larger than the split, or that devices cannot share.
  """
  if by_class and num_classes is None:
    raise ValueError('by_class=True with num_classes=None: must be their number.')
  batch_size = config[section].batch_size
  groups = group_rows(
    config, section, train, group_size, by_class, epoch=0, num_classes=num_classes
  )
  if batch_size > groups.size:
    raise errors.InputError(
      f'{section}.batch_size={batch_size}: its split has {groups.size} data; take a'
      ' smaller batch.'
    )
  if batch_size % jax.device_count() != 0:
    raise errors.InputError(
      f'{section}.batch_size={batch_size}: must be a multiple of the'
      f' {jax.device_count()} devices that share it.'
    )
  look_up = captions.lookup(config)
  common = {'seed': config.seed, 'augment': config.data.flip}
  if isinstance(train.x, streamed.Images) and group_size == 1:
    return lambda start: loader.batches(
      embeddings.Conditioned(train.x.source, look_up),
      batch_size,
      start=start,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
      num_threads=config.data.num_threads,
      num_workers=config.data.num_workers,
      **common,
    )

  def share(batch):
    x, label = sharding.process_share(batch)
    return splits.Batch(x, look_up(label))

  return lambda start: map(
    share,
    splits.batches(
      train,
      batch_size,
      start=start,
      group_size=group_size,
      by_class=by_class,
      **common,
    ),
  )


def group_rows(
  config: config_dict.ConfigDict,
  section: str,
  train: splits.Split,
  group_size: int,
  by_class: bool,
  *,
  epoch: int,
  num_classes: int | None,
) -> np.ndarray:
  """`splits.group_rows` of one pass, with an error that names the key."""
  try:
    return splits.group_rows(
      train.label,
      group_size,
      by_class=by_class,
      seed=config.seed,
      epoch=epoch,
      num_classes=num_classes,
    )
  except ValueError as error:
    raise errors.InputError(f'{section}.{error} Take smaller groups.') from error
