"""From a config to objects.

The only place where config keys are given a meaning: binaries call these functions
and never branch on a config string themselves. `validation.py` holds the rules that
the values must keep.
"""

import functools
from collections.abc import Callable
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import optax
from absl import logging
from flax import linen as nn
from ml_collections import config_dict

from experiments import launch
from lgd import arrays
from lgd import denoiser as denoiser_lib
from lgd import guidance
from lgd import networks
from lgd import objectives
from lgd import sampling
from lgd import schedules
from lgd import types
from lgd.data import digits
from lgd.data import mixtures
from lgd.data import splits

SCHEDULES = {'rectified_flow': schedules.RectifiedFlow, 'cosine': schedules.Cosine}
DATA = ('digits', 'mixture')
OBJECTIVES = ('self_consistency', 'l2', 'score_matching')


def dataset(config: config_dict.ConfigDict) -> splits.Dataset:
  """The data of `config.data`."""
  if config.data.name == 'digits':
    return digits.load()
  if config.data.name == 'mixture':
    return mixtures.dataset(
      arrays.stream(config.seed, 'data'),
      mixtures.ring(
        config.data.num_classes, radius=config.data.radius, std=config.data.std
      ),
      num_per_class=config.data.num_per_class,
    )
  raise launch.UserError(f'data.name={config.data.name!r}: must be one of {DATA}.')


def batches(
  config: config_dict.ConfigDict, section: str, train: splits.Split
) -> Callable[[int], Iterator[splits.Split]]:
  """From the first step wanted to the batches of a stage.

  Raises:
    launch.UserError: a batch larger than the split, or that devices cannot share.
  """
  batch_size = config[section].batch_size
  if batch_size > len(train.label):
    raise launch.UserError(
      f'{section}.batch_size={batch_size}: the training split has {len(train.label)}'
      ' data; take a smaller batch.'
    )
  if batch_size % jax.device_count() != 0:
    raise launch.UserError(
      f'{section}.batch_size={batch_size}: must be a multiple of the'
      f' {jax.device_count()} devices that share it.'
    )
  return lambda start: splits.batches(train, batch_size, seed=config.seed, start=start)


def schedule(config: config_dict.ConfigDict) -> types.Schedule:
  """The noise schedule."""
  return SCHEDULES[config.schedule]()


def network(config: config_dict.ConfigDict, num_classes: int) -> nn.Module:
  """The base model's network; label `num_classes` is the null label."""
  return networks.ResidualMLP(
    num_classes=num_classes,
    width=config.denoiser.width,
    depth=config.denoiser.depth,
  )


def init_network(
  net: nn.Module, key: jax.Array, shape: tuple[int, ...]
) -> types.Params:
  """Fresh parameters for data of `shape`."""
  one = jnp.zeros(1)
  return net.init(key, jnp.zeros((1, *shape)), one, one.astype(int))


def denoiser(config: config_dict.ConfigDict, num_classes: int) -> types.Denoiser:
  """The base model as a function of its parameters."""
  return denoiser_lib.from_network(
    network(config, num_classes).apply, schedule(config), config.denoiser.prediction
  )


def guidance_net(config: config_dict.ConfigDict, num_classes: int) -> nn.Module:
  """The learned weight's network."""
  return guidance.GuidanceNet(
    schedule=schedule(config),
    embed=guidance.LabelEmbedding(num_classes, config.guidance.width),
    width=config.guidance.width,
    depth=config.guidance.depth,
  )


def init_guidance_net(net: nn.Module, key: jax.Array) -> types.Params:
  """Fresh parameters."""
  half = jnp.full(1, 0.5)
  return net.init(key, jnp.zeros(1, int), half, half)


def time_grid(config: config_dict.ConfigDict) -> jax.Array:
  """The sampler's times, `[num_steps + 1]`."""
  section = config.evaluation
  return sampling.time_grid(section.num_steps, t_max=section.t_max)


def log_config(config: config_dict.ConfigDict) -> None:
  """The resolved config, a line per section."""
  for name, value in sorted(config.to_dict().items()):
    logging.info('config.%s = %s', name, value)


def optimizer(section: config_dict.ConfigDict) -> optax.GradientTransformation:
  """Adam at a constant rate, so that a run may be prolonged; the average smooths."""
  return optax.chain(
    optax.clip_by_global_norm(section.grad_clip), optax.adam(section.learning_rate)
  )


def guidance_objective(config: config_dict.ConfigDict) -> objectives.Objective:
  """The objective that `guidance.objective` names."""
  section = config.guidance
  if section.objective == 'score_matching':
    return objectives.score_matching_objective(rule=guidance.linear)
  compare = {
    'self_consistency': functools.partial(
      objectives.self_consistency,
      beta=section.beta,
      interaction=section.interaction,
    ),
    'l2': objectives.l2,
  }[section.objective]
  return objectives.consistency_objective(
    compare, schedule=schedule(config), churn=section.churn, rule=guidance.linear
  )
