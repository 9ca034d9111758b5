"""The base model of a work directory: its config and its parameters.

All parameters are the averaged ones of the newest step, sharded on a mesh. With
autoguidance they are those of two base models: the one here, and the weak one of
`rule.weak_workdir`.
"""

import math
from collections.abc import Callable

import jax
from absl import logging
from etils import epath
from ml_collections import config_dict

from experiments import builders
from experiments import validation
from experiments.workdirs import configs
from experiments.workdirs import layout
from experiments.workdirs import refuse
from lgd import errors
from lgd import types
from lgd.data import splits
from lgd.training import checkpoints
from lgd.training import sharding


def resolve_config(
  workdir: layout.Workdir, config: config_dict.ConfigDict | None
) -> config_dict.ConfigDict:
  """The config to evaluate a trained directory with.

  The stored one; if `config` is given, with the sections `evaluation`, `compare`,
  `fid`, `rule` and `mesh`, the directories of `data` and `denoiser.clip`, of that.

  Raises:
    errors.InputError: no base model here, or one of another config; or a stored one
      that names code of the user's, which the command must name.
  """
  if config is None:
    stored = configs.load_denoiser_config(workdir)
    named = stored.data.autoencoder
    builders.user_functions.require_given('data.autoencoder', named, workdir.denoiser)
    # It may have been trained on other devices.
    stored.mesh.fsdp = math.gcd(stored.mesh.fsdp, jax.device_count())
    return stored
  validation.validate(config)
  stored = refuse.require_base_of(workdir, config)
  for section in ('evaluation', 'compare', 'fid', 'rule'):
    stored[section] = config[section]
  stored.denoiser.clip = config.denoiser.clip
  with_places(stored, config)
  return stored


def with_places(stored: config_dict.ConfigDict, config: config_dict.ConfigDict) -> None:
  """Puts where data and devices are by now, as of `config`, into a stored config."""
  stored.mesh = config.mesh
  for key in ('dir', 'file', 'encoded_dir', 'num_threads', 'num_workers'):
    stored.data[key] = config.data[key]


def load_denoiser(
  workdir: layout.Workdir, spec: splits.Spec, mesh: jax.sharding.Mesh
) -> tuple[types.Params, int]:
  """The base model's averaged parameters, sharded on `mesh`, and their step.

  Raises:
    errors.InputError: no base model in this work directory.
    errors.CheckpointError: one of another shape.
  """
  config = configs.load_denoiser_config(workdir)
  warn_if_unfinished(workdir.denoiser, config.denoiser.num_steps)
  net = builders.models.network(config, spec)
  params = load_ema(
    workdir.denoiser, lambda key: builders.models.init_network(net, key, spec), mesh
  )
  return params, checkpoints.latest_step(workdir.denoiser)


def load_pair(
  workdir: layout.Workdir, config: config_dict.ConfigDict, spec: splits.Spec
) -> types.Params:
  """The parameters of `builders.rules.pair`.

  Raises:
    errors.InputError: no base model here, one trained on other embeddings, or no weak
      one where `rule` has it.
  """
  refuse.require_encoded(workdir.denoiser, config)
  params, _ = load_denoiser(workdir, spec, builders.models.mesh(config))
  return with_weak(params, config, spec)


def with_weak(
  params: types.Params, config: config_dict.ConfigDict, spec: splits.Spec
) -> types.Params:
  """The base model's parameters, beside the weak model's where `rule` has one."""
  if not builders.rules.of(config).has_weak_model:
    return params
  return params, load_weak(config, spec)


def load_weak(config: config_dict.ConfigDict, spec: splits.Spec) -> types.Params:
  """The parameters of the base model in `rule.weak_workdir`.

  Raises:
    errors.InputError: none is there, or one that `config` does not describe, or of
      other captions, embeddings or latents.
  """
  stored = configs.load_weak_config(config.rule)

  def described(config):
    config = config.copy_and_resolve_references()
    config.denoiser.remat = False
    data = {k: v for k, v in config.data.items() if f'data.{k}' not in refuse.FREE_KEYS}
    network = builders.models.network(config, spec)
    return network, config.schedule, data, config.denoiser.prediction

  if described(stored) != described(config):
    raise errors.InputError(
      f'rule.weak_workdir={config.rule.weak_workdir!r}: its base model is of another'
      ' network, schedule, data set or prediction; give one that differs in training'
      ' alone.'
    )
  weak = layout.Workdir(config.rule.weak_workdir)
  refuse.require_encoded(weak.denoiser, config)
  params, _ = load_denoiser(weak, spec, builders.models.mesh(config))
  return params


def load_ema(
  path: epath.Path, init: Callable[[jax.Array], types.Params], mesh: jax.sharding.Mesh
) -> types.Params:
  """Averaged parameters of the newest step, of the form of `init`, on `mesh`."""
  params = jax.eval_shape(init, jax.random.key(0))
  abstract = checkpoints.abstract(params, sharding.fsdp(params, mesh))
  return checkpoints.load_ema_params(path, abstract)


def warn_if_unfinished(path: epath.Path, num_steps: int) -> None:
  """Warns that the newest step is not the last of `num_steps`."""
  step = checkpoints.latest_step(path)
  if step < num_steps:
    logging.warning('%s: is at step %d of %d', path, step, num_steps)
