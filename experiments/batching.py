"""From data to this process's share of the batches of a stage."""

from collections.abc import Callable
from collections.abc import Iterator

import jax
import numpy as np
from ml_collections import config_dict

from experiments import datasets
from experiments import encoded
from experiments import launch
from lgd import sharding
from lgd.data import embeddings
from lgd.data import loader
from lgd.data import splits
from lgd.data import streamed


def batches(
  config: config_dict.ConfigDict,
  section: str,
  train: splits.Split,
  *,
  group_size: int = 1,
  by_class: bool = False,
) -> Callable[[int], Iterator[splits.Split]]:
  """From the first step wanted to this process's share of the batches of a stage.

  Consecutive data form groups of `group_size`, each of one class if `by_class`. What
  networks are conditioned on takes the place of labels.

  Raises:
    launch.UserError: a batch larger than the split, or that devices cannot share.
  """
  batch_size = config[section].batch_size
  groups = group_rows(config, section, train, group_size, by_class, epoch=0)
  if batch_size > groups.size:
    raise launch.UserError(
      f'{section}.batch_size={batch_size}: its split has {groups.size} data; take a'
      ' smaller batch.'
    )
  if batch_size % jax.device_count() != 0:
    raise launch.UserError(
      f'{section}.batch_size={batch_size}: must be a multiple of the'
      f' {jax.device_count()} devices that share it.'
    )
  look_up = encoded.lookup(config)
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
    return splits.Split(x, look_up(label))

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
) -> np.ndarray:
  """`splits.group_rows` of one pass, with an error that names the key."""
  try:
    return splits.group_rows(
      train.label,
      group_size,
      by_class=by_class,
      seed=config.seed,
      epoch=epoch,
      num_classes=datasets.spec(config).conditions.num_classes,
    )
  except ValueError as error:
    raise launch.UserError(f'{section}.{error} Take smaller groups.') from error
