"""Networks, schedules, samplers' times and optimisers, from a config."""

import functools
import types as types_lib
from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from ml_collections import config_dict

from experiments.builders import data
from experiments.builders import user_functions
from lgd import conditions
from lgd import denoiser as denoiser_lib
from lgd import errors
from lgd import guidance
from lgd import networks
from lgd import sampling
from lgd import schedules
from lgd import types
from lgd.data import mixtures
from lgd.data import splits
from lgd.training import sharding

SCHEDULES = {
  'rectified_flow': schedules.RectifiedFlow,
  'cosine': schedules.Cosine,
  'ddpm': schedules.DiscreteBetas.linear,
  'ddpm_cosine': schedules.DiscreteBetas.cosine,
  'stable_diffusion': schedules.DiscreteBetas.scaled_linear,
  'karras': schedules.Karras,
}
REWARDS = ('classifier', 'clip')  # Beside 'module:function'.

# (params of the reward, x0_hat, cond) -> [batch]
RewardFn = Callable[[types.Params, jax.Array, types.Cond], jax.Array]


def mesh(config: config_dict.ConfigDict) -> jax.sharding.Mesh:
  """All devices.

  Raises:
    errors.InputError: `mesh.fsdp` does not divide their number.
  """
  try:
    return sharding.make_mesh(fsdp=config.mesh.fsdp)
  except ValueError as error:
    raise errors.InputError(f'mesh.{error}') from error


def overridden(section: config_dict.ConfigDict, overrides: dict[str, Any]):
  """The section with some values replaced, by traced ones too."""
  return types_lib.SimpleNamespace(**{**section.to_dict(), **overrides})


def schedule(config: config_dict.ConfigDict) -> types.Schedule:
  """The noise schedule."""
  return SCHEDULES[config.schedule]()


def hides_data(config: config_dict.ConfigDict) -> bool:
  """Whether x_1 is noise alone, so that eps leaves x0 undetermined at t = 1."""
  return float(schedule(config).alpha(1.0)) == 0.0


class Network(NamedTuple):
  """A kind of base model.

  Attributes:
    make: `(config, spec) -> nn.Module`, from the section `denoiser`.
    is_for_images: whether data must have the axes of an image.
    is_exact: whether data must be a mixture, whose denoiser it is.
    reads_prompts: whether its conditions are prompts; else they are classes or vectors.
  """

  make: Callable[..., nn.Module]
  is_for_images: bool = False
  is_exact: bool = False
  reads_prompts: bool = False


def _mlp(config, spec):
  section = config.denoiser
  return networks.ResidualMLP(
    num_classes=spec.conditions.num_classes, width=section.width, depth=section.depth
  )


def _unet(config, spec):
  section = config.denoiser
  return networks.UNet(
    num_classes=spec.conditions.num_classes,
    channels=section.channels,
    multipliers=section.multipliers,
    num_blocks=section.num_blocks,
    attention_sizes=section.attention_sizes,
    head_dim=section.head_dim,
    dtype=jnp.dtype(section.dtype),
    remat=section.remat,
  )


def _mmdit(config, spec):
  section, dtype = config.denoiser, jnp.dtype(config.denoiser.dtype)
  return networks.MMDiT(
    encode=_text_encoder(section, spec.conditions, dtype),
    patch_size=section.patch_size,
    width=section.width,
    depth=section.depth,
    head_dim=section.head_dim,
    dtype=dtype,
    remat=section.remat,
  )


def _text_encoder(section, of, dtype):
  """The encoder of prompts, by the kind of conditions."""
  match of:
    case conditions.Tokens():
      return networks.TokenEncoder(
        of.vocab_size, section.text_width, section.text_depth, section.head_dim
      )
    case conditions.Embeddings():
      return networks.EmbeddingEncoder(section.text_width, dtype)


def _exact(config, spec):
  del spec
  return mixtures.ExactNetwork(
    schedule(config), functools.partial(data.mixture, config)
  )


NETWORKS = {
  'mlp': Network(_mlp),
  'unet': Network(_unet, is_for_images=True),
  'mmdit': Network(_mmdit, is_for_images=True, reads_prompts=True),
  'exact': Network(_exact, is_exact=True),
}


def network(config: config_dict.ConfigDict, spec: splits.Spec) -> nn.Module:
  """The base model's network."""
  return NETWORKS[config.denoiser.network].make(config, spec)


def init_network(net: nn.Module, key: jax.Array, spec: splits.Spec) -> types.Params:
  """Fresh parameters of `network`."""
  return net.init(
    key, jnp.zeros((1, *spec.shape)), jnp.zeros(1), spec.conditions.zeros(1)
  )


def denoiser(config: config_dict.ConfigDict, spec: splits.Spec) -> types.Denoiser:
  """The base model as a function of its parameters."""
  section = config.denoiser
  return denoiser_lib.from_network(
    network(config, spec).apply,
    schedule(config),
    section.prediction,
    clip=section.clip or None,
  )


def reward(config: config_dict.ConfigDict, spec: splits.Spec) -> RewardFn:
  """The reward of `reward.name`, but 'clip'; for '', `classifier_reward`.

  The parameters are those of `judges.rewards.load`. A function of the user's is
  imported when it is called. The config must be one that the command gave, as in
  `user_functions`.
  """
  name = config.reward.name
  if ':' in name:

    def of_user(params, x0_hat, cond):
      del params
      return user_functions.load('reward.name', name)(x0_hat, cond)

    return of_user
  return classifier_reward(config, spec)


def classifier_reward(config: config_dict.ConfigDict, spec: splits.Spec) -> RewardFn:
  """log p(cond | x0_hat) of a classifier, whatever reward weights are learned for."""
  net = networks.Classifier(
    spec.conditions.num_classes, config.evaluation.classifier_width
  )

  def log_prob(params, x0_hat, cond):
    logits, _ = net.apply(params, x0_hat)
    return -optax.softmax_cross_entropy_with_integer_labels(logits, cond)

  return log_prob


class WeightModel(NamedTuple):
  """A weight omega(cond, s, t) with parameters."""

  init: Callable[[jax.Array], types.Params]  # From a key.
  apply: Callable[..., jax.Array]  # (params, cond, s, t) -> omega [batch]
  network: guidance.GuidanceNet | None = None  # None for a table.
  reads: conditions.Conditions | None = None  # By the network.


def weight_model(config: config_dict.ConfigDict, spec: splits.Spec) -> WeightModel:
  """The learned weight: a network, or a table on the grid of the sampler."""
  section, num_classes = config.guidance, spec.conditions.num_classes
  if section.weight == 'table':
    times = time_grid(config)
    return WeightModel(
      lambda key: {'values': jnp.zeros((num_classes, len(times) - 1)), 'times': times},
      lambda params, *args: guidance.table(params['values'], params['times'])(*args),
    )
  read = spec.conditions
  if section.prompts == 'clip':
    read = conditions.Embeddings((('clip', config.clip.dim, 0),), length=0)
  net = guidance.GuidanceNet(
    schedule=schedule(config),
    embed=_embedding(read, section.width),
    width=section.width,
    depth=section.depth,
  )
  half = jnp.full(1, 0.5)
  return WeightModel(
    lambda key: net.init(key, read.zeros(1), half, half), net.apply, net, read
  )


def _embedding(of: conditions.Conditions, width: int) -> nn.Module:
  """How a weight reads a condition."""
  match of:
    case conditions.Labels(num_classes):
      return guidance.LabelEmbedding(num_classes, width)
    case conditions.Tokens():
      return guidance.TokenEmbedding(of.vocab_size, width)
    case conditions.Attributes():
      return guidance.VectorEmbedding(width)
    case conditions.Embeddings():
      return guidance.PooledEmbedding(width)


def time_grid(config: config_dict.ConfigDict) -> jax.Array:
  """The sampler's times, `[num_steps + 1]`."""
  section = config.evaluation
  return sampling.time_grid(section.num_steps, t_max=section.t_max)


def optimizer(section: config_dict.ConfigDict) -> optax.GradientTransformation:
  """Adam at a constant rate after its warm-up, so that a run may be prolonged."""
  rate = section.learning_rate
  if section.warmup_steps:
    rate = optax.linear_schedule(0.0, rate, section.warmup_steps)
  return optax.chain(
    optax.clip_by_global_norm(section.grad_clip), optax.adam(rate, b2=section.adam_b2)
  )
