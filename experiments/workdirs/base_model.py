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
from experiments.workdirs import configs
from experiments.workdirs import layout
from experiments.workdirs import refuse
from experiments.workdirs.session import Session
from lgd import errors
from lgd import types
from lgd.training import checkpoints
from lgd.training import sharding


def stored_config(workdir: layout.Workdir) -> config_dict.ConfigDict:
  """The config of the base model, to sample with as it is.

  Raises:
    errors.InputError: no base model here; or the config names code of the user's, which
      a command must name itself.
  """
  stored = configs.load_denoiser_config(workdir)
  named = stored.data.autoencoder
  builders.user_functions.require_given('data.autoencoder', named, workdir.denoiser)
  # It may have been trained on other devices.
  stored.mesh.fsdp = math.gcd(stored.mesh.fsdp, jax.device_count())
  return stored


def load_denoiser(session: Session) -> types.Params:
  """The base model's averaged parameters, sharded on the mesh.

  Raises:
    errors.InputError: no base model in this work directory.
    errors.CheckpointError: one of another shape.
  """
  directory, spec = session.workdir.denoiser, session.spec
  config = configs.load_denoiser_config(session.workdir)
  warn_if_unfinished(directory, config.denoiser.num_steps)
  logging.info('%s: at step %d', directory, checkpoints.latest_step(directory))
  net = builders.models.network(config, spec)

  def init(key):
    return builders.models.init_network(net, key, spec)

  return load_ema(directory, init, builders.models.mesh(session.config))


def load_pair(session: Session) -> types.Params:
  """The parameters of `builders.rules.pair`.

  Raises:
    errors.InputError: no base model here, or no weak one where `rule` has it.
  """
  return with_weak(session, load_denoiser(session))


def with_weak(session: Session, params: types.Params) -> types.Params:
  """The base model's parameters, beside the weak model's where `rule` has one."""
  if not builders.rules.of(session.config).has_weak_model:
    return params
  return params, load_weak(session)


def load_weak(session: Session) -> types.Params:
  """The parameters of the base model in `rule.weak_workdir`.

  Raises:
    errors.InputError: none is there, or one that the config does not describe, or of
      other captions, embeddings or latents.
  """
  config, spec = session.config, session.spec
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
  return load_denoiser(session._replace(workdir=weak))


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
