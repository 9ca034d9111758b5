"""The reward that `reward.name` names, with its frozen parameters.

  name               R(x0_hat, c)                            parameters
  'classifier'       log p(c | x0_hat)                       trained here, in seconds
  'clip', of pairs   CLIP score of x0_hat and the prompt c   `experiments.train_clip`'s
  'clip', of TFDS    (1)                                     published: `reward.weights`
  'module:function'  the user's                              none

  (1)  CLIP score of the image and c[encoder]['pooled']; of latents, the image is
       decode(x0_hat / scale)

The embedding in (1) was stored by the encoder of the same weights: no text tower runs
here. `decode` is the user's autoencoder's, and (1) is differentiated through it: JAX
must be able to trace it. Arrays that it captures become constants of every compiled
program; as `jax.tree_util.Partial(function, arrays)` it has them as arguments.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import tree_util

from experiments import builders
from experiments import workdirs
from experiments.judges import classifiers
from experiments.judges import published_clip
from lgd import errors
from lgd import networks
from lgd import statistics
from lgd import types
from lgd.data import splits
from lgd.training import sharding


def load(
  session: workdirs.Session, dataset: splits.Dataset
) -> tuple[builders.models.RewardFn, types.Params]:
  """The reward of the config, and its parameters, on every device.

  A classifier is trained anew: config and data determine it. A batch of statistics is
  scored with all particles at once: `statistics.batch_size` must leave memory for that.

  Raises:
    errors.InputError: no CLIP, or one that has not embedded the captions; a decoder
      that cannot be traced; a function that cannot be imported, that cannot be
      differentiated forward, or does not give one number per sample.
    errors.FileError: weights that are damaged.
  """
  config = session.config
  name, params = config.reward.name, None
  replicated = sharding.replicated(builders.models.mesh(config))
  reward = builders.models.reward(config, dataset.spec)
  if name == 'classifier':
    params = jax.device_put(classifiers.train_reward(config, dataset), replicated)
  elif name == 'clip' and session.spec.is_captioned:
    reward, params = _published(config)
    params = jax.device_put(params, replicated)
  elif name == 'clip':
    net, params = workdirs.clip.load(session, 'reward')
    reward = functools.partial(workdirs.clip.score, net)

  def profile(params, cond, x0_cond):
    bound, nodes = functools.partial(reward, params), config.reward.nodes
    return statistics.reward_profile(bound, cond, x0_cond, x0_cond, nodes)

  of_two = dataset.conditions.zeros(2), jnp.zeros((2, 1, *dataset.shape))
  try:
    jax.eval_shape(profile, params, *of_two)
  except errors.InputError:
    raise
  except (TypeError, ValueError) as error:
    raise errors.InputError(f'reward.name={name!r}: {error}') from error
  return reward, params


def _published(config):
  """(1), as a function of the image tower and the decoder."""
  encoder = published_clip.encoder_of(config, config.reward.weights)
  clip = published_clip.load(config.reward.weights)
  net = networks.CLIP(clip.config)

  def score(params, x0_hat, cond):
    tower, to_images = params
    images = networks.clip.preprocess(to_images(x0_hat), clip.config)
    embed = net.apply(tower, images, method='encode_image')
    # A sum of squares in float16 would overflow.
    return networks.clip_score(embed, cond[encoder]['pooled'].astype(jnp.float32))

  return score, (clip.params, _make_to_images(config))


def _make_to_images(config):
  """`captions.decode` inside of compiled programs, as a pytree of what it holds."""
  if not config.data.autoencoder:
    return tree_util.Partial(_same)
  decode = builders.captions.autoencoder(config).decode
  if not isinstance(decode, tree_util.Partial):
    decode = tree_util.Partial(decode)
  latents = jnp.zeros((1, *config.data.latent_shape))
  try:
    jax.eval_shape(decode, latents)
  except Exception as error:  # Of the user's code, whatever it is.
    reason = str(error).partition('\n')[0]
    raise errors.InputError(
      f'data.autoencoder={config.data.autoencoder!r}: its decode cannot be traced by'
      ' JAX, and a reward of latents is differentiated through it; write it in'
      f' jax.numpy ({type(error).__name__}: {reason}).'
    ) from error
  scale = np.float32(builders.captions.latents_store(config).scale)
  return tree_util.Partial(_decoded, decode, scale)


def _same(x0_hat: jax.Array) -> jax.Array:
  return x0_hat


def _decoded(decode: Any, scale: jax.Array, x0_hat: jax.Array) -> jax.Array:
  return decode(x0_hat / scale)
