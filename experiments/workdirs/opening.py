"""Opens the session of a command, and checks its config and its base model.

command                                      opened by
train_denoiser, train_clip                   `open_new`
collect_statistics, train_guidance, ...      `open_to_learn`
evaluate, sample, fid, ...                   `open_trained`
"""

from typing import Any

from etils import epath
from ml_collections import config_dict

from experiments import app
from experiments import builders
from experiments import validation
from experiments.workdirs import base_model
from experiments.workdirs import configs
from experiments.workdirs import identity as identity_lib
from experiments.workdirs import refuse
from experiments.workdirs.layout import Workdir
from experiments.workdirs.session import Session
from lgd import errors
from lgd.training import checkpoints

# Sections that a command which samples takes from the config that it is given.
_OF_SAMPLING = ('evaluation', 'classifier', 'compare', 'fid', 'rule', 'verdict')


def open_new(config: config_dict.ConfigDict, path: epath.PathLike) -> Session:
  """A session that trains a model of its own.

  Raises:
    errors.InputError: a config that breaks a rule, or a directory of something else.
  """
  session = Session(Workdir(path), config, validation.validate(config))
  session.workdir.refuse_foreign()
  return session


def open_to_learn(
  config: config_dict.ConfigDict, path: epath.PathLike, *, finished: bool = True
) -> Session:
  """A session that learns weights for a base model, or measures what they learn from.

  Raises:
    errors.InputError: a config that breaks a rule, a rule that weights cannot be
      learned for, no base model of this config, or, if `finished`, one that is not
      trained to its end.
  """
  session = Session(Workdir(path), config, validation.validate(config))
  validation.require_learnable(config)
  base = refuse.require_base_of(session)
  step = checkpoints.latest_step(session.workdir.denoiser)
  # A run that was ended early is finished for whoever asks for no more steps of it.
  num_steps = min(base.denoiser.num_steps, config.denoiser.num_steps)
  if finished and step < num_steps:
    raise errors.InputError(
      f'{session.workdir.denoiser}: is at step {step} of {num_steps}; run'
      ' train_denoiser again to finish it, or take it as it is by'
      f' --config.denoiser.num_steps={step}.'
    )
  refuse.require_encoded(session.workdir.denoiser, config)
  return session


def open_trained(
  config: config_dict.ConfigDict | None, path: epath.PathLike
) -> Session:
  """A session that samples from a base model.

  Its config is the stored one; if `config` is given, with the sections `evaluation`,
  `classifier`, `compare`, `fid`, `rule`, `verdict` and `mesh`, the directories of
  `data` and `denoiser.clip`, of that.

  Raises:
    errors.InputError: no base model here, or one of another config or other data; or a
      stored config that names code of the user's, which the command must name.
  """
  workdir = Workdir(path)
  if config is None:
    stored = base_model.stored_config(workdir)
    session = Session(workdir, stored, builders.data.spec(stored))
  else:
    session = Session(workdir, config, validation.validate(config))
    stored = refuse.require_base_of(session)
    for section in _OF_SAMPLING:
      stored[section] = config[section]
    stored.denoiser.clip = config.denoiser.clip
    configs.with_places(stored, config)
    session = session.with_config(stored)
  refuse.require_encoded(workdir.denoiser, stored)
  return session


def open_pieces(session: Session, command: str, **identity: Any) -> app.Pieces:
  """The pieces that a long command keeps until it is done; records its config.

  Args:
    session: of the command.
    command: its name.
    **identity: JSON that decides the pieces, beside the config and the base model.
  """
  run = identity_lib.run_identity(session) | identity
  configs.record(session.workdir.path, command, session.config)
  return app.Pieces(session.workdir.unfinished(command), run)
