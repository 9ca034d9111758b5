"""Features of images, and what a distance between them may be called.

FID, KID, and precision and recall as published are those in InceptionV3's features,
with the published weights, of 8-bit images resized as TensorFlow 1 does. In another
network's features they are proxies, and named so: they rank samples of one data set
among themselves, and are comparable with no published number.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from lgd import networks
from lgd import types
from lgd.metrics.resize import resize

_SQUEEZENET_SIZE = 128  # Trained at 227; a third of the cost, for images of 64.
_SQUEEZENET_MEAN = (103.939, 116.779, 123.68)  # Blue, green, red.


class Features(NamedTuple):
  """A network's features and verdict on images."""

  features: np.ndarray  # [n, dim] float32
  log_prob: np.ndarray | None  # [n, num_classes] float32, of the Inception Score


class Extractor(NamedTuple):
  """A network that images are compared in."""

  distance_name: str  # Of the Frechet distance in its features.
  params: types.Params
  # (params, images [batch, h, w, 3] uint8) -> (features, log_prob or None)
  apply: Callable[[types.Params, jax.Array], tuple[jax.Array, jax.Array | None]]


def inception(params: types.Params) -> Extractor:
  """InceptionV3 with the published weights (`published.inception.load`)."""
  return Extractor('fid', params, _apply_inception)


def squeezenet(params: types.Params) -> Extractor:
  """SqueezeNet with the published weights (`published.squeezenet.load`): a proxy."""
  return Extractor('frechet_squeezenet_proxy', params, _apply_squeezenet)


def clip(params: types.Params, config: networks.ClipConfig, name: str) -> Extractor:
  """CLIP's image embeddings, not normalised (`published.clip.image_tower`): a proxy.

  `name` tells it from other CLIPs, and says in which one a distance is.
  """
  apply = functools.partial(_apply_clip, config)
  return Extractor(f'frechet_{name}_proxy', params, apply)


def extract(
  extractor: Extractor, images: np.ndarray, *, batch_size: int = 64
) -> Features:
  """Features of all images, on the default device, a batch at a time.

  Of a stream, `merge(moments_so_far, moments(extract(...).features))`.

  Args:
    extractor: of `inception`, `squeezenet` or `clip`.
    images: `[n, height, width, 3]` uint8, n >= 1, in the order red, green, blue.
    batch_size: one compiled program whatever n is; the last batch is filled up.

  Raises:
    ValueError: images that are not uint8 with three channels.
  """
  if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
    raise ValueError(
      f'images of dtype {images.dtype} and shape {images.shape}: must be uint8'
      ' [n, height, width, 3]; metrics.to_uint8 makes them from [-1, 1], np.repeat'
      ' colours from grey.'
    )
  parts = []
  for i in range(0, len(images), batch_size):
    batch = images[i : i + batch_size]
    fill = np.zeros((batch_size - len(batch), *images.shape[1:]), np.uint8)
    parts.append(extractor.apply(extractor.params, np.concatenate([batch, fill])))
  joined = jax.tree.map(lambda *a: np.concatenate(a)[: len(images)], *parts)
  return Features(*joined)


@jax.jit
def _apply_inception(params, images):
  x = (resize(images, networks.inception.SIZE) - 128.0) / 128.0
  features, logits = networks.InceptionV3().apply(params, x)
  return features, jax.nn.log_softmax(logits)


@jax.jit
def _apply_squeezenet(params, images):
  x = resize(images, _SQUEEZENET_SIZE)[..., ::-1] - jnp.asarray(_SQUEEZENET_MEAN)
  return networks.SqueezeNet().apply(params, x), None


@functools.partial(jax.jit, static_argnums=0)
def _apply_clip(config, params, images):
  x = networks.clip.preprocess(images / 127.5 - 1.0, config)
  return networks.CLIP(config).apply(params, x, method='encode_image'), None
