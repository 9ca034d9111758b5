"""Learned weights, into a work directory and out of it.

guidance/NAME/    Orbax steps; their config is `identity.guidance_identity`

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
from experiments.workdirs import base_model
from experiments.workdirs import clip
from experiments.workdirs import configs
from experiments.workdirs import identity as identity_lib
from experiments.workdirs import layout
from experiments.workdirs import refuse
from lgd import errors
from lgd import training
from lgd import types
from lgd.data import splits
from lgd.training import checkpoints
from lgd.training import sharding


class LearnedWeight(NamedTuple):
  """A learned weight and where it comes from."""

  model: builders.models.WeightModel
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
  workdir: layout.Workdir,
  config: config_dict.ConfigDict,
  name: str,
  spec: splits.Spec,
  *,
  readers: clip.Readers | None = None,
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
    errors.InputError: no such weight, or one learned for another base model or clip.
  """
  path = workdir.guidance(name)
  if checkpoints.latest_step(path) is None:
    raise errors.InputError(
      f'{path}: holds no learned weight; this work directory has'
      f' {workdir.guidance_names()}.'
    )
  stored = checkpoints.load_config(path)
  now, config = config, configs.config_from_json(stored['config'])
  base_model.with_places(config, now)
  config.rule.weak_workdir = now.rule.weak_workdir or config.rule.weak_workdir
  refuse.require_base(workdir, stored, config.rule, path)
  refuse.require_same(stored['config'], identity_lib.clipping(now), path)
  base_model.warn_if_unfinished(path, stored['num_steps'])
  model = builders.models.weight_model(config, spec)
  params = base_model.load_ema(path, model.init, sharding.make_mesh())
  return LearnedWeight(
    model,
    params,
    (readers or clip.Readers()).of(workdir, config),
    stored['num_evaluations'],
    config.rule,
    config.guidance,
  )


def load_all(
  workdir: layout.Workdir,
  config: config_dict.ConfigDict,
  names: Sequence[str],
  spec: splits.Spec,
) -> dict[str, LearnedWeight]:
  """Several, as of `load_guidance`, by name; those that read one CLIP share it."""
  readers = clip.Readers()
  return {
    name: load_guidance(workdir, config, name, spec, readers=readers) for name in names
  }


def load_guidance_config(
  workdir: layout.Workdir, config: config_dict.ConfigDict
) -> dict[str, Any] | None:
  """The record of the weight that `config` names; None where there is none.

  Raises:
    errors.InputError: it was learned for another base model.
  """
  path = workdir.guidance(layout.guidance_name(config))
  if checkpoints.latest_step(path) is None:
    return None
  stored = checkpoints.load_config(path)
  refuse.require_base(workdir, stored, config.rule, path)
  return stored


def save_table(
  workdir: layout.Workdir,
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
    params: of `builders.models.weight_model`.
    num_evaluations: denoiser evaluations that it cost.
  """
  state = training.TrainState(jnp.ones((), jnp.int32), params, {}, params)
  if checkpoints.latest_step(directory) is not None:
    return state  # Done before, with the same config.
  return save_weight(workdir, config, directory, state, num_evaluations)


def save_weight(
  workdir: layout.Workdir,
  config: config_dict.ConfigDict,
  directory: epath.Path,
  state: training.TrainState,
  num_evaluations: int,
) -> training.TrainState:
  """Stores a weight that is learned, as of `save_table`, and returns it as stored."""
  state = sharding.replicate(state, sharding.make_mesh())
  stored = identity_lib.guidance_identity(
    workdir, config, num_steps=int(state.step), num_evaluations=num_evaluations
  )
  with checkpoints.Checkpointer(directory, config=stored, keep=1) as checkpointer:
    checkpointer.save(state)
  return state


def refuse_other(workdir: layout.Workdir, config: config_dict.ConfigDict) -> None:
  """Raises errors.InputError if the weight is there and was learned differently."""
  directory = workdir.guidance(layout.guidance_name(config))
  stored = load_guidance_config(workdir, config)
  if stored is None:
    return
  wanted = configs.config_to_json(config, 'seed', 'guidance')
  wanted['rule'] = identity_lib.rule_identity(config)
  wanted |= identity_lib.clipping(config)
  if builders.objectives.has_reward(config):
    refuse.require_same_reward(stored['config'], config, directory)
    wanted['reward_model'] = identity_lib.reward_model_identity(workdir, config)
  if config.guidance.source == 'statistics':
    wanted['statistics'] = identity_lib.statistics_section(config)
  stored = {**stored['config'], 'reward_model': stored.get('reward_model')}
  refuse.require_same(stored, wanted, directory)
  if config.guidance.weight == 'table':
    refuse.require_same_grid(stored, config, directory)
