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


def run_identity(
  workdir: layout.Workdir, config: config_dict.ConfigDict
) -> dict[str, Any]:
  """Everything that decides to the last bit what a command computes.

  The whole config: who changes any of it no longer runs the same command.
  """
  return {
    'config': configs.to_json(config),
    **base_model_identity(workdir),
    'weak': weak_identity(config.rule),
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


def reward_identity(config: config_dict.ConfigDict) -> dict[str, Any]:
  """The reward, with the keys that decide what it is; not where its weights lie.

  Of a function of the user's only the name is known, not what it does.
  """
  if not config.reward.name:
    return {'reward': {'name': ''}}
  identity = configs.config_to_json(config, 'reward')
  del identity['reward']['weights']
  if config.reward.name == 'classifier':
    keys = ('classifier_width', 'classifier_steps')
    identity['evaluation'] = {key: config.evaluation[key] for key in keys}
  return identity


def reward_model_identity(
  workdir: layout.Workdir, config: config_dict.ConfigDict
) -> dict[str, Any] | None:
  """Which CLIP is the reward, if one is that `config` names."""
  if config.reward.name != 'clip':
    return None
  if builders.captions.is_captioned(config):
    return {'weights': files.sha256(config.reward.weights)}
  return clip_identity(workdir, 'reward')


def prompt_model_identity(
  workdir: layout.Workdir, config: config_dict.ConfigDict
) -> dict[str, Any] | None:
  """Which CLIP the weight reads prompts by, if by one."""
  if config.guidance.prompts == 'tokens':
    return None
  return clip_identity(workdir, 'reward')


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


def statistics_identity(
  workdir: layout.Workdir, config: config_dict.ConfigDict
) -> dict[str, Any]:
  """The identity of a statistics pass."""
  return {
    'seed': config.seed,
    'statistics': statistics_section(config),
    **clipping(config),
    'rule': rule_identity(config),
    **reward_identity(config),
    'reward_model': reward_model_identity(workdir, config),
    **base_model_identity(workdir),
    'weak': weak_identity(config.rule),
  }


def guidance_identity(
  workdir: layout.Workdir,
  config: config_dict.ConfigDict,
  *,
  num_steps: int,
  num_evaluations: int,
) -> dict[str, Any]:
  """The record that is stored with a learned weight.

  Args:
    workdir: with the base model.
    config: that the weight is learned with.
    num_steps: of the whole training.
    num_evaluations: denoiser evaluations that it takes.
  """
  return {
    'config': configs.to_json(config),
    **base_model_identity(workdir),
    'weak': weak_identity(config.rule),
    'reward_model': reward_model_identity(workdir, config),
    'prompt_model': prompt_model_identity(workdir, config),
    'num_steps': num_steps,
    'num_evaluations': int(num_evaluations),
  }
