"""Features of many images under a network, in shards that a run resumes from.

fid/NAME/config.json           whose features they are, sealed
fid/NAME/features-00003.npz    features [n, dim], and of Inception log_prob [n, 1008]
"""

from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import jax
import numpy as np
from etils import epath

from experiments import app
from experiments import workdirs
from experiments.judges import published_clip
from lgd import errors
from lgd import metrics
from lgd.networks import published
from lgd.storage import files

# First and last index of a shard -> uint8 images of them.
ImageFn = Callable[[int, int], np.ndarray]


class Network(NamedTuple):
  """A network whose features are compared."""

  name: str
  path: str  # Of its weights.
  sha256: str  # Of that file.
  extractor: metrics.Extractor


def load_network(
  inception: str, squeezenet: str, clip: str, sha256: str | None
) -> Network:
  """The one whose weights are given.

  Raises:
    errors.InputError: none or several, or digits that are none of a sha256.
    errors.FileError: a file that does not hold these weights.
  """
  if sum(map(bool, (inception, squeezenet, clip))) != 1:
    raise errors.InputError(
      f'--inception={inception!r}, --squeezenet={squeezenet!r} and --clip={clip!r}:'
      ' give the weights of one; experiments.convert_inception and convert_clip make'
      ' the first and the last from published files.'
    )
  path = inception or squeezenet or clip
  try:
    if sha256 is not None:
      files.check_sha256(path, sha256)
  except errors.FileError:
    raise
  except ValueError as error:
    raise errors.InputError(f'--{error}') from error
  if inception:
    name = 'inception'
    extractor = metrics.inception(published.inception.load(path))
  elif squeezenet:
    name = 'squeezenet'
    extractor = metrics.squeezenet(published.squeezenet.load(path))
  else:
    name, config, params = published_clip.load(path)
    extractor = metrics.clip(params, config, name)
  return Network(name, path, files.sha256(path), extractor)


def collect(
  directory: epath.Path,
  identity: dict[str, Any],
  network: Network,
  images: ImageFn,
  *,
  shard_size: int,
) -> metrics.Features:
  """Features of `identity['num_samples']` images, from shards where they are there.

  Args:
    directory: of the shards.
    identity: what decides which images they are.
    network: whose features.
    images: draws or reads them.
    shard_size: images in a file.

  Raises:
    errors.InputError: the directory holds features of something else.
    errors.FileError: a file of it is damaged, or was cut with another `shard_size`.
  """
  path = directory / 'config.json'
  if path.exists():
    workdirs.refuse.require_same(_read_config(path), identity, directory)
  elif jax.process_index() == 0:
    files.write_sealed(path, identity)
  num, size = identity['num_samples'], shard_size
  firsts = range(0, num, size)
  paths = [directory / f'features-{i:05d}.npz' for i in range(len(firsts))]
  missing = [i for i, path in enumerate(paths) if not path.exists()]

  def read(numbers):
    return {i: _read(paths[i], network, min(size, num - firsts[i])) for i in numbers}

  def make(shard):
    x = images(firsts[shard], min(firsts[shard] + size, num))
    if x.shape[-1] == 1:
      x = np.repeat(x, 3, axis=-1)
    extracted = metrics.extract(network.extractor, x)
    if jax.process_index() == 0:
      files.write_npz(
        paths[shard], {k: v for k, v in extracted._asdict().items() if v is not None}
      )
    return len(x)

  loaded = read(set(range(len(paths))).difference(missing))  # Before hours are spent.
  app.shard_loop.run(directory, missing, len(paths), make, unit='images')
  loaded |= read(missing)
  features, log_prob = zip(*(loaded[i] for i in range(len(paths))), strict=True)
  has_log_prob = log_prob[0] is not None
  return metrics.Features(
    np.concatenate(features), np.concatenate(log_prob) if has_log_prob else None
  )


def _read_config(path):
  try:
    return files.read_sealed(path)
  except errors.FileError as error:
    raise errors.FileError(
      f'{error} Remove {path.parent} and run the same command again.'
    ) from error


def _read(path: epath.Path, network: Network, num: int) -> metrics.Features:
  """The features of `num` images."""
  again = f'delete it and run the same command again: only {path.name} is made anew.'
  try:
    arrays = files.read_npz(path)
    log_prob = arrays['log_prob'] if network.name == 'inception' else None
    read = metrics.Features(arrays['features'], log_prob)
  except (errors.FileError, KeyError) as error:
    reason = error.__cause__ or error
    raise errors.FileError(
      f'{path}: is cut short or damaged ({reason}); {again}'
    ) from error
  if len(read.features) != num:
    raise errors.FileError(
      f'{path}: holds features of {len(read.features)} images, not {num}; give the'
      f' config.fid.shard_size that it was made with, or {again}'
    )
  return read
