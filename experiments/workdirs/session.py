"""A command's session: its work directory, its config and its data's spec, all checked.

Commands that sample from a trained base model, or learn weights for a finished one,
open one. What the base model was trained with is compared there, once.
"""

from typing import Any
from typing import NamedTuple

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
from lgd import types
from lgd.data import splits


class Session(NamedTuple):
  """Work directory, config and spec of a command that runs."""

  workdir: Workdir
  config: config_dict.ConfigDict
  spec: splits.Spec

  def load_denoiser(self) -> tuple[types.Params, int]:
    """The base model's averaged parameters, on the mesh, and their step."""
    mesh = builders.models.mesh(self.config)
    return base_model.load_denoiser(self.workdir, self.spec, mesh)

  def load_pair(self) -> types.Params:
    """The parameters of `builders.rules.pair`."""
    return base_model.load_pair(self.workdir, self.config, self.spec)

  def pieces(self, command: str, **identity: Any) -> app.Pieces:
    """The pieces that a long command keeps until it is done; records its config.

    Args:
      command: its name.
      **identity: JSON that decides the pieces, beside the config and the base model.
    """
    run = identity_lib.run_identity(self.workdir, self.config) | identity
    configs.record(self.workdir.path, command, self.config)
    return app.Pieces(self.workdir.unfinished(command), run)


def open_trained(
  config: config_dict.ConfigDict | None, path: epath.PathLike
) -> Session:
  """A session that samples; without a config, with the one that is stored.

  Raises:
    errors.InputError: as `base_model.resolve_config`.
  """
  workdir = Workdir(path)
  config = base_model.resolve_config(workdir, config)
  return Session(workdir, config, builders.data.spec(config))


def open_to_learn(config: config_dict.ConfigDict, path: epath.PathLike) -> Session:
  """A session that learns weights for a base model that is trained to its end.

  Raises:
    errors.InputError: a config that breaks a rule, a rule that weights cannot be
      learned for, or no finished base model of this config.
  """
  validation.validate(config)
  validation.require_learnable(config)
  workdir = Workdir(path)
  refuse.require_finished_base(workdir, config)
  return Session(workdir, config, builders.data.spec(config))
