"""From a config to objects, and the rules that a config must keep.

The only place where config keys are given a meaning: binaries call these functions
and never branch on a config string themselves.
"""

import functools
import itertools
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

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
from lgd import noising
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


def validate(config: config_dict.ConfigDict) -> None:
  """Checks every rule before anything is computed or written.

  Raises:
    launch.UserError: one line with key, value, rule and way out.
  """

  def check(key: str, holds: Callable[[Any], bool], rule: str) -> None:
    value = functools.reduce(lambda node, name: node[name], key.split('.'), config)
    if not holds(value):
      raise launch.UserError(f'{key}={value!r}: {rule}')

  def positive(key):
    check(key, lambda v: v > 0, 'must be positive.')

  def fraction(key):
    check(key, lambda v: 0.0 <= v < 1.0, 'must be in [0, 1).')

  def one_of(key, names):
    check(key, lambda v: v in names, f'must be one of {", ".join(names)}.')

  def numbers(key, holds, rule):
    check(
      key,
      lambda v: (
        len(v) > 0
        and all(isinstance(x, (int, float)) for x in v)
        and all(holds(x) for x in v)
      ),
      f'must be a tuple of numbers {rule}, as in --config.{key}="(0.5, 1.0)".',
    )

  one_of('schedule', SCHEDULES)
  one_of('data.name', DATA)
  one_of('denoiser.prediction', noising.PREDICTIONS)
  one_of('guidance.objective', OBJECTIVES)
  check('seed', lambda v: v >= 0, 'must not be negative.')
  check('data.num_classes', lambda v: v >= 2, 'guidance needs at least 2 classes.')
  check('data.num_per_class', lambda v: v >= 2, 'needs at least 2 for a distance.')
  for key in ('data.radius', 'data.std', 'log_every', 'checkpoint_every'):
    positive(key)
  for section in ('denoiser', 'guidance'):
    for key in ('width', 'batch_size', 'num_steps', 'learning_rate', 'grad_clip'):
      positive(f'{section}.{key}')
    fraction(f'{section}.ema_decay')
    check(
      f'{section}.batch_size',
      lambda v: v % jax.device_count() == 0,
      f'must be a multiple of the {jax.device_count()} devices that share it.',
    )
  positive('denoiser.depth')
  check(
    'denoiser.label_dropout',
    lambda v: 0.0 < v < 1.0,
    'must be in (0, 1): without dropped labels the null prediction is untrained.',
  )
  check('guidance.depth', lambda v: v >= 2, 'needs an input and an output layer.')
  positive('guidance.num_particles')
  check(
    'guidance.beta',
    lambda v: 0.0 < v < 2.0,
    "must be in (0, 2); beta 2 without interaction is guidance.objective='l2'.",
  )
  check('guidance.interaction', lambda v: 0.0 <= v <= 1.0, 'must be in [0, 1].')
  if (
    config.guidance.objective == 'self_consistency'
    and config.guidance.interaction > 0.0
  ):
    check(
      'guidance.num_particles',
      lambda v: v >= 2,
      'the sum over pairs needs at least 2; use --config.guidance.interaction=0.0'
      ' for single-particle training.',
    )
  check('guidance.churn', lambda v: 0.0 <= v <= 1.0, 'must be in [0, 1].')
  check('guidance.gap', lambda v: 0.0 < v < 1.0, 'must be in (0, 1).')
  fraction('guidance.s_min')
  fraction('guidance.zeta')
  check(
    'guidance.gap',
    lambda v: config.guidance.s_min + v + config.guidance.zeta <= 1.0,
    f'with s_min={config.guidance.s_min} and zeta={config.guidance.zeta} no s is'
    ' left: s_min + gap + zeta must be at most 1.',
  )
  for key in ('num_seeds', 'num_steps', 'classifier_width', 'classifier_steps'):
    positive(f'evaluation.{key}')
  check(
    'evaluation.samples_per_class', lambda v: v >= 2, 'a distance needs at least 2.'
  )
  check('evaluation.churn', lambda v: 0.0 <= v <= 1.0, 'must be in [0, 1].')
  check('evaluation.t_max', lambda v: 0.0 < v <= 1.0, 'must be in (0, 1].')
  if config.denoiser.prediction == 'eps':
    check(
      'evaluation.t_max',
      lambda v: v < 1.0,
      "denoiser.prediction='eps' leaves x0 undetermined at t = 1; start sampling"
      ' at --config.evaluation.t_max=0.99.',
    )
  for key in ('constants', 'interval_omegas', 'clamp_linear_omegas'):
    numbers(f'evaluation.{key}', lambda v: v > 0.0, 'above 0')
  numbers('evaluation.clamp_linear_floors', lambda v: v >= 0.0, 'at least 0')
  numbers('evaluation.interval_bounds', lambda v: 0.0 <= v <= 1.0, 'in [0, 1]')
  check(
    'evaluation.interval_bounds',
    lambda v: len(v) >= 2 and all(a < b for a, b in itertools.pairwise(v)),
    'needs at least 2 times in increasing order.',
  )


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
    launch.UserError: a batch larger than the split.
  """
  batch_size = config[section].batch_size
  if batch_size > len(train.label):
    raise launch.UserError(
      f'{section}.batch_size={batch_size}: the training split has {len(train.label)}'
      ' data; take a smaller batch.'
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


def guidance_objective(config: config_dict.ConfigDict) -> Callable[..., jax.Array]:
  """`(key, x0, particles, omega) -> [batch]` losses of `guidance.objective`."""
  section = config.guidance
  if section.objective == 'score_matching':

    def score_matching(key, x0, particles, omega):
      del key
      x0_guided = guidance.linear(particles.x0_cond, particles.x0_null, omega)
      return objectives.score_matching(x0, x0_guided)

    return score_matching

  compare = {
    'self_consistency': functools.partial(
      objectives.self_consistency,
      beta=section.beta,
      interaction=section.interaction,
    ),
    'l2': objectives.l2,
  }[section.objective]

  def consistency(key, x0, particles, omega):
    del x0
    x_guided = objectives.guided_particles(
      key,
      particles,
      omega,
      schedule=schedule(config),
      churn=section.churn,
      rule=guidance.linear,
    )
    return compare(x_guided, particles.xs)

  return consistency
