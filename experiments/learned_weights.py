"""Learned weights: into a work directory and out of it, with what each belongs to.

guidance/NAME/    Orbax steps; their config is `identities.guidance_identity`

A weight is given out for the base model, weak model and reward model that it was
learned with, at the step where they were, and for no other.
"""

from collections.abc import Callable
from collections.abc import Sequence
from typing import Any
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from etils import epath
from ml_collections import config_dict

from experiments import builders
from experiments import clips
from experiments import identities
from experiments import launch
from experiments import naming
from experiments import refusals
from experiments import restoring
from experiments import stored_configs
from experiments import workdir as workdir_lib
from lgd import checkpointing
from lgd import saving
from lgd import sharding
from lgd import training
from lgd import types
from lgd.data import splits


class LearnedWeight(NamedTuple):
  """A learned weight and where it comes from."""

  model: builders.WeightModel
  params: types.Params  # Averaged.
  read: Callable[[np.ndarray], types.Cond]  # From labels to what it is a function of.
  num_evaluations: int  # Denoiser evaluations spent on learning it.
  rule: config_dict.ConfigDict  # That it was learned for.
  guidance: config_dict.ConfigDict  # How it was learned.

  @property
  def is_table(self) -> bool:
    """Or a network."""
    return self.guidance.weight == 'table'

  def __call__(self, cond, s, t):
    """omega for what `read` gives."""
    return self.model.apply(self.params, cond, s, t)


def load_guidance(
  workdir: workdir_lib.Workdir,
  config: config_dict.ConfigDict,
  name: str,
  spec: splits.Spec,
  *,
  readers: clips.Readers | None = None,
) -> LearnedWeight:
  """A learned weight of this work directory.

  Args:
    workdir: of the base model.
    config: says where data, devices and the weak model, if any, are by now, and how
      predictions are clipped.
    name: of the weight.
    spec: of the data.
    readers: of the weights that this one is loaded with.

  Raises:
    launch.UserError: no such weight, or one learned for another base model or clip.
  """
  path = workdir.guidance(name)
  if checkpointing.latest_step(path) is None:
    raise launch.UserError(
      f'{path}: holds no learned weight; this work directory has'
      f' {workdir.guidance_names()}.'
    )
  stored = checkpointing.load_config(path)
  now, config = config, stored_configs.config_from_json(stored['config'])
  restoring.with_places(config, now)
  config.rule.weak_workdir = now.rule.weak_workdir or config.rule.weak_workdir
  refusals.require_base(workdir, stored, config.rule, path)
  refusals.require_same(stored['config'], identities.clipping(now), path)
  restoring.warn_if_unfinished(path, stored['num_steps'])
  model = builders.weight_model(config, spec)
  params = restoring.load_ema(path, model.init, sharding.make_mesh())
  return LearnedWeight(
    model,
    params,
    (readers or clips.Readers()).of(workdir, config),
    stored['num_evaluations'],
    config.rule,
    config.guidance,
  )


def load_all(
  workdir: workdir_lib.Workdir,
  config: config_dict.ConfigDict,
  names: Sequence[str],
  spec: splits.Spec,
) -> dict[str, LearnedWeight]:
  """Several, as of `load_guidance`, by name; those that read one CLIP share it."""
  readers = clips.Readers()
  return {
    name: load_guidance(workdir, config, name, spec, readers=readers) for name in names
  }


def load_guidance_config(
  workdir: workdir_lib.Workdir, config: config_dict.ConfigDict
) -> dict[str, Any] | None:
  """What is stored with the weight that `config` names; None where there is none.

  Raises:
    launch.UserError: it was learned for another base model.
  """
  path = workdir.guidance(naming.guidance_name(config))
  if checkpointing.latest_step(path) is None:
    return None
  stored = checkpointing.load_config(path)
  refusals.require_base(workdir, stored, config.rule, path)
  return stored


def save_table(
  workdir: workdir_lib.Workdir,
  config: config_dict.ConfigDict,
  directory: epath.Path,
  params: types.Params,
  num_evaluations: int,
) -> training.TrainState:
  """Stores a table as a learned weight, in one step.

  Args:
    workdir: with the base model.
    config: that the table was made with; its `guidance.weight` is 'table'.
    directory: of the weight.
    params: of `builders.weight_model`.
    num_evaluations: denoiser evaluations that it cost.
  """
  state = training.TrainState(jnp.ones((), jnp.int32), params, {}, params)
  if checkpointing.latest_step(directory) is not None:
    return state  # Done before, with the same config.
  return save_weight(workdir, config, directory, state, num_evaluations)


def save_weight(
  workdir: workdir_lib.Workdir,
  config: config_dict.ConfigDict,
  directory: epath.Path,
  state: training.TrainState,
  num_evaluations: int,
) -> training.TrainState:
  """Stores a weight that is learned, as of `save_table`, and returns it as stored."""
  state = sharding.replicate(state, sharding.make_mesh())
  stored = identities.guidance_identity(
    workdir, config, num_steps=int(state.step), num_evaluations=num_evaluations
  )
  with saving.Checkpointer(directory, config=stored, keep=1) as checkpointer:
    checkpointer.save(state)
  return state
