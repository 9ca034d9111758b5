"""Identities: JSON that tells one model, pass or weight from another.

An identity is JSON, stored beside what it describes: the keys of a config that decide
what was computed, and the steps of the models that it was computed with. Some sections
hold keys that decide nothing, as where data lie: `refuse.FREE_KEYS`.
"""

from typing import Any

import jax
from ml_collections import config_dict

from experiments import builders
from experiments.workdirs import configs
from experiments.workdirs import layout
from experiments.workdirs.session import Session
from lgd.storage import files
from lgd.training import checkpoints


def base_identity(config: config_dict.ConfigDict) -> dict[str, Any]:
  """The identity of a base model; how predictions are clipped is no part of it."""
  identity = configs.config_to_json(config, 'seed', 'schedule', 'data', 'denoiser')
  del identity['denoiser']['clip']
  return identity


def clipping(config: config_dict.ConfigDict) -> dict[str, Any]:
  """How clean predictions of the base model are clipped, for what is made with them."""
  return {'denoiser': {'clip': config.denoiser.clip}}


def base_model_identity(workdir: layout.Workdir) -> dict[str, Any]:
  """The base model that is here: its config, what it was trained on, and how far.

  Data of one config may be of other files: for prompts, `encoded` tells them apart.
  """
  base = configs.load_denoiser_config(workdir)
  return {
    'base': base_identity(base),
    'encoded': checkpoints.load_config(workdir.denoiser).get('encoded', {}),
    'denoiser_step': checkpoints.latest_step(workdir.denoiser),
  }


def run_identity(session: Session) -> dict[str, Any]:
  """Everything that decides to the last bit what a command computes.

  The whole config: who changes any of it no longer runs the same command.
  """
  return {
    'config': configs.to_json(session.config),
    **base_model_identity(session.workdir),
    'weak': weak_identity(session.config.rule),
    'devices': [device.device_kind for device in jax.devices()],
  }


def rule_identity(config: config_dict.ConfigDict) -> dict[str, Any]:
  """The rule, with its constants."""
  keys = ('name', *builders.rules.of(config).constants)
  return {key: config.rule[key] for key in keys}


def weak_identity(rule: config_dict.ConfigDict) -> dict[str, Any] | None:
  """Which weak model a section `rule` has, if its rule has one; not where it lies."""
  if not builders.rules.RULES[rule.name].has_weak_model:
    return None
  weak = layout.Workdir(rule.weak_workdir)
  return {
    'base': base_identity(configs.load_weak_config(rule)),
    'step': checkpoints.latest_step(weak.denoiser),
  }


def sampler_identity(config: config_dict.ConfigDict) -> dict[str, Any]:
  """The grid that a table belongs to, and how the sampler moves on it."""
  section = config.evaluation
  return {'evaluation': {k: section[k] for k in ('num_steps', 't_max', 'churn')}}


def reward_identity(config: config_dict.ConfigDict) -> dict[str, Any]:
  """The reward, with the keys that decide what it is; not where its weights lie.

  Of a function of the user's only the name is known, not what it does.
  """
  if not config.reward.name:
    return {'reward': {'name': ''}}
  identity = configs.config_to_json(config, 'reward')
  del identity['reward']['weights']
  if config.reward.name == 'classifier':
    identity |= configs.config_to_json(config, 'classifier')
    keys = ('classifier_width', 'classifier_steps')
    identity['evaluation'] = {key: config.evaluation[key] for key in keys}
  return identity


def reward_model_identity(session: Session) -> dict[str, Any] | None:
  """Which CLIP is the reward, if one is."""
  reward = session.config.reward
  if reward.name != 'clip':
    return None
  if session.spec.is_captioned:
    return {'weights': files.sha256(reward.weights)}
  return clip_identity(session.workdir, 'reward')


def prompt_model_identity(session: Session) -> dict[str, Any] | None:
  """Which CLIP the weight reads prompts by, if by one."""
  if session.config.guidance.prompts == 'tokens':
    return None
  return clip_identity(session.workdir, 'reward')


def clip_identity(workdir: layout.Workdir, model: str) -> dict[str, Any]:
  """How the CLIP of a work directory was trained, and how far."""
  stored = configs.load_clip_config(workdir, model)
  return {
    **configs.config_to_json(stored, 'seed', 'data', 'clip'),
    'step': checkpoints.latest_step(workdir.clip(model)),
  }


def statistics_section(config: config_dict.ConfigDict) -> dict[str, Any]:
  """The keys that decide what a pass holds; how it is cut into calls does not."""
  section = configs.config_to_json(config, 'statistics')['statistics']
  unused = ('num_particles', 'antithetic')
  if config.statistics.kind == 'particles':
    unused = ('group_size',)
  return {k: v for k, v in section.items() if k not in ('batch_size', *unused)}


def statistics_identity(session: Session) -> dict[str, Any]:
  """The identity of a statistics pass."""
  config = session.config
  return {
    **reward_identity(config),  # Its name before what it is made of.
    'seed': config.seed,
    'statistics': statistics_section(config),
    **clipping(config),
    'rule': rule_identity(config),
    'reward_model': reward_model_identity(session),
    **base_model_identity(session.workdir),
    'weak': weak_identity(config.rule),
  }


def guidance_identity(
  session: Session, *, num_steps: int, num_evaluations: int
) -> dict[str, Any]:
  """The record that is stored with a learned weight.

  Args:
    session: that the weight is learned in.
    num_steps: of the whole training.
    num_evaluations: denoiser evaluations that it takes.
  """
  return {
    'config': configs.to_json(session.config),
    **base_model_identity(session.workdir),
    'weak': weak_identity(session.config.rule),
    'reward_model': reward_model_identity(session),
    'prompt_model': prompt_model_identity(session),
    'num_steps': num_steps,
    'num_evaluations': int(num_evaluations),
  }
