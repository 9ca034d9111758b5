"""The small CLIPs of a work directory: one that rewards, and one that judges.

The text embeddings of the first are also what weights of `guidance.prompts='clip'`
read.
"""

import functools
import json
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import config_dict

from experiments import builders
from experiments.workdirs import base_model
from experiments.workdirs import configs
from experiments.workdirs import refuse
from experiments.workdirs.session import Session
from lgd import arrays
from lgd import networks
from lgd import types
from lgd.data import splits
from lgd.training import sharding

_BATCH = 128  # Of an embedding call.
_END = 2  # Of `data.prompts.text.train`'s special tokens, the end of text.


def clip_config(config: config_dict.ConfigDict) -> networks.ClipConfig:
  """The sizes of the network, for the images and tokens of the data."""
  section, data = config.clip, config.data
  return networks.ClipConfig(
    dim=section.dim,
    size=data.size,
    patch=section.patch_size,
    image_width=section.width,
    image_layers=section.image_depth,
    text_width=section.width,
    text_layers=section.text_depth,
    length=data.caption_length,
    vocab_size=data.vocab_size,
    eot=_END,
    head_dim=section.head_dim,
  )


class Clip(NamedTuple):
  """A network and its parameters."""

  net: networks.CLIP
  params: types.Params


def load(session: Session, model: str) -> Clip:
  """The averaged 'reward' or 'judge' of a work directory.

  Raises:
    errors.InputError: none was trained here, or on other data.
  """
  workdir, config, spec = session
  stored, path = configs.load_clip_config(workdir, model), workdir.clip(model)
  refuse.require_same(
    configs.config_to_json(stored, 'seed', 'data'),
    configs.config_to_json(config, 'seed', 'data'),
    path,
  )
  refuse.require_encoded(path, config)
  base_model.warn_if_unfinished(path, stored.clip.num_steps)
  net = networks.CLIP(clip_config(stored))
  init = make_init(spec, net)
  return Clip(net, base_model.load_ema(path, init, builders.models.mesh(config)))


def make_init(
  spec: splits.Spec, net: networks.CLIP
) -> Callable[[jax.Array], types.Params]:
  """Fresh parameters from a key."""

  def init(key):
    images = networks.clip.preprocess(jnp.zeros((1, *spec.shape)), net.config)
    return net.init(key, images, spec.conditions.zeros(1))

  return init


def score(
  net: networks.CLIP, params: types.Params, x: jax.Array, tokens: jax.Array
) -> jax.Array:
  """CLIP scores of images in [-1, 1] and prompts, `[batch]`."""
  images = networks.clip.preprocess(x, net.config)
  return networks.clip_score(*net.apply(params, images, tokens)[:2])


def make_read(session: Session) -> Callable[[np.ndarray], types.Cond]:
  """A function from labels `[..., *label]` to what the weights read; on the host.

  Raises:
    errors.InputError: they read embeddings, and there are none.
  """
  workdir, config, _ = session
  if config.guidance.prompts == 'tokens':
    return builders.captions.lookup(config).pooled
  clip, path = load(session, 'reward'), workdir.clip('reward')
  dims = ({'clip': {'dim': of.dim}} for of in (clip.net.config, config.clip))
  refuse.require_same(*dims, path)
  embed = Embedder(clip).texts

  def read(label):
    pooled = embed(label.reshape(-1, label.shape[-1]))
    return {'clip': {'pooled': pooled.reshape(*label.shape[:-1], -1)}}

  return read


class Readers:
  """Readers of weights that are loaded together; those of one CLIP share it."""

  def __init__(self):
    self._made = {}

  def of(self, session: Session) -> Callable[[np.ndarray], types.Cond]:
    """`make_read`, made once for all sessions that agree in what it looks at."""
    config = session.config
    looked_at = configs.config_to_json(config, 'seed', 'data', 'clip', 'mesh')
    key = json.dumps([str(session.workdir.path), config.guidance.prompts, looked_at])
    if key not in self._made:
      self._made[key] = make_read(session)
    return self._made[key]


class Embedder:
  """Embeddings of arrays of any length; on the host."""

  def __init__(self, clip: Clip):
    self._params = clip.params

    @jax.jit
    def images(params, x):
      x = networks.clip.preprocess(x, clip.net.config)
      return clip.net.apply(params, x, method='encode_image')

    @jax.jit
    def texts(params, tokens):
      return clip.net.apply(params, tokens, method='encode_text')[0]

    self.images = functools.partial(self._in_batches, images)
    self.texts = functools.partial(self._in_batches, texts)

  def _in_batches(self, embed, x: np.ndarray) -> np.ndarray:
    """`[n, ...]` -> `[n, dim]`, in whole batches: one compiled program."""
    batches = arrays.whole_batches(len(x), _BATCH)
    parts = [sharding.to_host(embed(self._params, x[rows])) for rows in batches]
    return np.concatenate(parts)[: len(x)]
