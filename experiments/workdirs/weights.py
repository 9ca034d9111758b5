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
from ml_collections import config_dict

from experiments import builders
from experiments.workdirs import base_model
from experiments.workdirs import clip
from experiments.workdirs import configs
from experiments.workdirs import identity as identity_lib
from experiments.workdirs import layout
from experiments.workdirs import refuse
from experiments.workdirs import verdicts
from experiments.workdirs.session import Session
from lgd import errors
from lgd import training
from lgd import types
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
  verdict: verdicts.Verdict | None = None  # Of validate_weights.

  @property
  def kappa(self) -> float:
    """The strength at which it is used."""
    return 1.0 if self.verdict is None else self.verdict.kappa

  @property
  def is_table(self) -> bool:
    """Or a network."""
    return self.guidance.weight == 'table'

  def __call__(self, cond, s, t):
    """omega for what `read` gives, at strength 1."""
    return self.model.apply(self.params, cond, s, t)


def load(
  session: Session, name: str, *, readers: clip.Readers | None = None
) -> LearnedWeight:
  """A learned weight of this work directory.

  Args:
    session: of the base model; its config says where data, devices and the weak model,
      if any, are by now, and how predictions are clipped.
    name: of the weight.
    readers: of the weights that this one is loaded with.

  Raises:
    errors.InputError: no such weight, or one learned for another base model or clip.
  """
  workdir, config, spec = session
  path = workdir.guidance(name)
  if checkpoints.latest_step(path) is None:
    raise errors.InputError(
      f'{path}: holds no learned weight; this work directory has'
      f' {workdir.guidance_names()}.'
    )
  stored = checkpoints.load_config(path)
  learned = configs.config_from_json(stored['config'])
  configs.with_places(learned, config)
  learned.rule.weak_workdir = config.rule.weak_workdir or learned.rule.weak_workdir
  session = session.with_config(learned)
  refuse.require_made_here(session, stored, path)
  refuse.require_same(stored['config'], identity_lib.clipping(config), path)
  base_model.warn_if_unfinished(path, stored['num_steps'])
  model = builders.models.weight_model(learned, spec)
  params = base_model.load_ema(path, model.init, sharding.make_mesh())
  return LearnedWeight(
    model,
    params,
    (readers or clip.Readers()).of(session),
    stored['num_evaluations'],
    learned.rule,
    learned.guidance,
    verdicts.load(session, name),
  )


def load_all(
  session: Session, names: Sequence[str] | None = None
) -> dict[str, LearnedWeight]:
  """Weights by name, all if None is given; those that read one CLIP share it.

  Raises:
    errors.InputError: as `load`.
  """
  names = session.workdir.guidance_names() if names is None else names
  readers = clip.Readers()
  return {name: load(session, name, readers=readers) for name in names}


def load_record(session: Session) -> dict[str, Any] | None:
  """The record of the weight that the config names; None where there is none.

  Raises:
    errors.InputError: it was learned for another base model.
  """
  path = session.workdir.guidance(layout.guidance_name(session.config))
  if checkpoints.latest_step(path) is None:
    return None
  stored = checkpoints.load_config(path)
  refuse.require_made_here(session, stored, path)
  return stored


def save_table(
  session: Session, params: types.Params, num_evaluations: int
) -> training.TrainState:
  """Stores a table as the weight that the config names, in one step.

  Args:
    session: that the table was made in; its `guidance.weight` is 'table'.
    params: of `builders.models.weight_model`.
    num_evaluations: denoiser evaluations that it cost.
  """
  state = training.TrainState(jnp.ones((), jnp.int32), params, {}, params)
  if load_record(session) is not None:
    return state  # Done before, with the same config.
  return save(session, state, num_evaluations)


def save(
  session: Session, state: training.TrainState, num_evaluations: int
) -> training.TrainState:
  """Stores a learned weight as the one that the config names; returns it as stored."""
  directory = session.workdir.guidance(layout.guidance_name(session.config))
  state = sharding.replicate(state, sharding.make_mesh())
  stored = identity_lib.guidance_identity(
    session, num_steps=int(state.step), num_evaluations=num_evaluations
  )
  with checkpoints.Checkpointer(directory, config=stored, keep=1) as checkpointer:
    checkpointer.save(state)
  return state


def require_same(session: Session) -> None:
  """Refuses the weight that the config names if it is there, learned differently.

  Raises:
    errors.InputError: names the first key that differs.
  """
  config, stored = session.config, load_record(session)
  if stored is None:
    return
  wanted: dict[str, Any] = {}
  if builders.objectives.has_reward(config):
    reward_model = identity_lib.reward_model_identity(session)
    wanted = {**identity_lib.reward_identity(config), 'reward_model': reward_model}
  wanted |= configs.config_to_json(config, 'seed', 'guidance')
  wanted |= {
    'rule': identity_lib.rule_identity(config),
    **identity_lib.clipping(config),
  }
  if config.guidance.source == 'statistics':
    wanted['statistics'] = identity_lib.statistics_section(config)
  if config.guidance.weight == 'table':  # Which has no reward.
    wanted |= identity_lib.sampler_identity(config)
  stored = {**stored['config'], 'reward_model': stored.get('reward_model')}
  directory = session.workdir.guidance(layout.guidance_name(config))
  refuse.require_same(stored, wanted, directory)
