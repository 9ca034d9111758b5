"""Configs as they are stored in a work directory: to JSON, back, and read.

A checkpoint may be older than a key: what a file lacks has its default.
"""

import json
from typing import Any

import jax
from absl import logging
from etils import epath
from ml_collections import config_dict

from configs import common
from experiments.workdirs import layout
from lgd import errors
from lgd.storage import files
from lgd.training import checkpoints


def to_json(config: config_dict.ConfigDict) -> dict[str, Any]:
  """A config as it will read after a round trip through JSON."""
  return json.loads(json.dumps(config.to_dict()))


def config_to_json(config: config_dict.ConfigDict, *sections: str) -> dict[str, Any]:
  """The sections of a config that determine a checkpoint."""
  tree = to_json(config)
  return {name: tree[name] for name in sections}


def config_from_json(tree: dict[str, Any]) -> config_dict.ConfigDict:
  """The inverse: lists are tuples, and keys that the file lacks have their default."""

  def convert(node):
    if isinstance(node, dict):
      return {k: convert(v) for k, v in node.items()}
    return tuple(node) if isinstance(node, list) else node

  config = common.get_default()
  config.update(convert(tree))
  return config


def with_places(stored: config_dict.ConfigDict, config: config_dict.ConfigDict) -> None:
  """Puts where data and devices are by now, as in `config`, into a stored config."""
  stored.mesh = config.mesh
  for key in ('dir', 'file', 'encoded_dir', 'num_threads', 'num_workers'):
    stored.data[key] = config.data[key]


def record(path: epath.Path, name: str, config: config_dict.ConfigDict) -> None:
  """Writes the resolved config of a command, to be read; a line of the log says where.

  Args:
    path: of the work directory.
    name: of the command or stage.
    config: as it is used.
  """
  file = path / 'configs' / f'{name}.json'
  if jax.process_index() == 0:
    files.write_json(file, to_json(config))
  logging.info('%s: its config is in %s', name, file)


def load_denoiser_config(workdir: layout.Workdir) -> config_dict.ConfigDict:
  """The whole config that the base model was trained with."""
  if checkpoints.latest_step(workdir.denoiser) is None:
    raise errors.InputError(
      f'--workdir={workdir.path}: holds no trained base model; run'
      ' python -m experiments.train_denoiser --config=configs/NAME.py'
      f' --workdir={workdir.path} first.'
    )
  return config_from_json(checkpoints.load_config(workdir.denoiser)['config'])


def load_weak_config(rule: config_dict.ConfigDict) -> config_dict.ConfigDict:
  """The whole config that the weak model of a section `rule` was trained with.

  Raises:
    errors.InputError: there is none in `rule.weak_workdir`.
  """
  weak = layout.Workdir(rule.weak_workdir)
  if checkpoints.latest_step(weak.denoiser) is None:
    raise errors.InputError(
      f'rule.weak_workdir={rule.weak_workdir!r}: holds no trained base model; give the'
      ' work directory of one, as by --config.rule.weak_workdir=DIR.'
    )
  return load_denoiser_config(weak)


def load_clip_config(workdir: layout.Workdir, model: str) -> config_dict.ConfigDict:
  """The whole config that a CLIP was trained with.

  Raises:
    errors.InputError: none was trained here.
  """
  path = workdir.clip(model)
  if checkpoints.latest_step(path) is None:
    raise errors.InputError(
      f'{path}: holds no CLIP; run python -m experiments.train_clip with'
      f' --model={model} first.'
    )
  return config_from_json(checkpoints.load_config(path)['config'])


def write_statistics_config(directory: epath.Path, stored: dict[str, Any]) -> None:
  """Records what a statistics pass belongs to, before its first shard."""
  if jax.process_index() == 0:
    files.write_sealed(directory / 'config.json', stored)


def load_statistics_config(directory: epath.Path) -> dict[str, Any]:
  """The record of what the pass under `directory` belongs to.

  Raises:
    errors.InputError: a damaged file, or one of something else.
  """
  path = directory / 'config.json'
  try:
    stored = files.read_sealed(path)
    if not stored.keys() >= {'base', 'denoiser_step'}:
      raise errors.FileError(f'{path}: is of something else.')
  except errors.FileError as error:
    raise errors.InputError(f'{error} Remove {directory} and collect again.') from error
  return stored
