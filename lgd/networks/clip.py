"""CLIP: an image and a text tower with one space of embeddings (Radford et al. 2021).

  (1)  h <- h + attention(norm(h)),  h <- h + W' quick_gelu(W norm(h)),  each tower
  (2)  quick_gelu(x) = x sigmoid(1.702 x)
  (3)  image embedding = W norm(h at the class token), of patches and that token
  (4)  hidden = norm(h), text embedding = W hidden at the first end of text; attention
       of the text is causal, so what follows the end changes neither it nor what is
       before
  (5)  score = <image, text> / (|image| |text|)
  (6)  loss = 1/2 (cross entropy over texts + cross entropy over images) of the logits
       exp(min(logit_scale, log 100)) score_ij, pairs on the diagonal

`hidden` of (4) is what transformers' CLIPTextModel calls `last_hidden_state`: of the
last layer, after the final norm, which Stable Diffusion 1 is conditioned on. Later ones
take the layer before, which is not offered here.

For the end, transformers takes the largest id where a config says `eos_token_id` 2, as
OpenAI's code does, and elsewhere the first `eos_token_id`, as here. In the published
vocabulary it is the largest id, 49407, so both agree, also where texts are padded with
it. Weights of OpenCLIP have the same layout but most were trained with an exact GELU in
place of (2): they do not belong here.

Images reach the tower by `preprocess`, which is differentiable:

  (7)  x in [-1, 1] -> (x + 1) / 2
  (8)  resize until the short side is `size`: columns, then rows, each pass by a cubic
       kernel (a = -1/2) that widens with the reduction, and clipped to [0, 1]
  (9)  the `size` x `size` in the centre
  (10) (x - mean) / std, per channel

as torchvision's Resize and CenterCrop do it through PIL, in OpenAI's code. Where the
margins of (9) differ by a pixel, torchvision rounds half of them to the even number;
transformers rounds down, and its crop may be a pixel higher or further left. PIL rounds
to 8 bits after each pass of (8): its pixels differ from these by at most 1.13 of 255
levels, half a level of the first pass times the 1.25 that the magnitudes of the second
one's weights sum to, and half a level of the second.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
from flax import linen as nn

_PRECISION = jax.lax.Precision.HIGHEST  # Accelerators' default would move the score.
_MAX_LOGIT_SCALE = math.log(100.0)
# Of the training images, as published with the weights: red, green, blue.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)


@dataclasses.dataclass(frozen=True)
class ClipConfig:
  """Sizes of both towers. MLPs are four times as wide as their tower.

  Attributes:
    dim: of the embeddings.
    size: of images' sides, a multiple of `patch`.
    patch: of a patch's sides.
    image_width: of the image tower, a multiple of `head_dim`.
    image_layers: of the image tower.
    text_width: of the text tower, a multiple of `head_dim`.
    text_layers: of the text tower.
    length: the most tokens of a text.
    vocab_size: number of tokens.
    eot: the token that ends a text, in 0..vocab_size-1.
    head_dim: of the attention.
  """

  dim: int
  size: int
  patch: int
  image_width: int
  image_layers: int
  text_width: int
  text_layers: int
  length: int = 77
  vocab_size: int = 49_408
  eot: int = 49_407
  head_dim: int = 64

  def __post_init__(self):
    for key, divisor in (
      ('size', 'patch'),
      ('image_width', 'head_dim'),
      ('text_width', 'head_dim'),
    ):
      value, by = getattr(self, key), getattr(self, divisor)
      if value % by:
        raise ValueError(f'{key}={value}: must be a multiple of {divisor}={by}.')
    if not 0 <= self.eot < self.vocab_size:
      raise ValueError(f'eot={self.eot}: must be below vocab_size={self.vocab_size}.')


CLIP_B32 = ClipConfig(512, 224, 32, 768, 12, 512, 12)  # ViT-B/32
CLIP_B16 = ClipConfig(512, 224, 16, 768, 12, 512, 12)  # ViT-B/16
CLIP_L14 = ClipConfig(768, 224, 14, 1024, 24, 768, 12)  # ViT-L/14


class CLIP(nn.Module):
  """Both towers. Products are at the highest precision, in training as well.

  `apply(params, images, method='encode_image')`, or `'encode_text'`, runs one of them.
  """

  config: ClipConfig

  def setup(self):
    self.image = ImageTower(self.config)
    self.text = TextTower(self.config)
    start = nn.initializers.constant(math.log(1.0 / 0.07))
    self.logit_scale = self.param('logit_scale', start, ())

  def __call__(
    self, images: jax.Array, tokens: jax.Array
  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Both embeddings `[batch, dim]`, not normalised, and logit_scale `[]`, of (6)."""
    return self.encode_image(images), self.encode_text(tokens)[0], self.logit_scale

  def encode_image(self, images: jax.Array) -> jax.Array:
    """(3): `[batch, dim]`, not normalised.

    Args:
      images: `[batch, size, size, 3]` as from `preprocess`.

    Raises:
      ValueError: another shape.
    """
    return self.image(images)

  def encode_text(self, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(4): embeddings, not normalised, and the last hidden states.

    Args:
      tokens: `[batch, length]` int32 in 0..vocab_size-1, of any length up to the
        config's. What follows the first `eot` is padding.

    Returns:
      `[batch, dim]`, NaN for a row without `eot`; and `[batch, length, text_width]`.

    Raises:
      ValueError: more tokens than the config has positions.
    """
    return self.text(tokens)


class ImageTower(nn.Module):
  """(3)."""

  config: ClipConfig

  @nn.compact
  def __call__(self, images: jax.Array) -> jax.Array:
    config, width = self.config, self.config.image_width
    wanted = (config.size, config.size, 3)
    if images.ndim != 4 or images.shape[1:] != wanted:
      raise ValueError(
        f'images of shape {images.shape}: must be [batch, {config.size}, {config.size},'
        ' 3]; networks.clip.preprocess makes them.'
      )
    patch = (config.patch, config.patch)
    h = nn.Conv(
      width, patch, patch, 'VALID', use_bias=False, precision=_PRECISION, name='patches'
    )(images)
    h = h.reshape(len(images), -1, width)
    start = nn.initializers.normal(width**-0.5)
    token = self.param('class_token', start, (width,))
    token = jnp.broadcast_to(token, (len(images), 1, width))
    h = jnp.concatenate([token, h], axis=1)  # [batch, 1 + patches, width]
    h = h + self.param('positions', start, h.shape[1:])
    h = _norm('pre_norm')(h)
    for i in range(config.image_layers):
      h = Block(width // config.head_dim, name=f'block_{i}')(h)
    return _project(config.dim)(_norm('post_norm')(h[:, 0]))


class TextTower(nn.Module):
  """(4)."""

  config: ClipConfig

  @nn.compact
  def __call__(self, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
    config, width = self.config, self.config.text_width
    length = tokens.shape[-1]
    if tokens.ndim != 2 or length > config.length:
      raise ValueError(
        f'tokens of shape {tokens.shape}: must be [batch, length], length at most'
        f' {config.length}; cut texts, with {config.eot} as the last token.'
      )
    normal = nn.initializers.normal
    embed = nn.Embed(
      config.vocab_size, width, embedding_init=normal(0.02), name='tokens'
    )
    positions = self.param('positions', normal(0.01), (config.length, width))
    h = embed(tokens) + positions[:length]
    mask = nn.make_causal_mask(tokens)
    for i in range(config.text_layers):
      h = Block(width // config.head_dim, name=f'block_{i}')(h, mask)
    hidden = _norm('final_norm')(h)
    is_end = tokens == config.eot
    at_end = jnp.take_along_axis(
      hidden, jnp.argmax(is_end, axis=1)[:, None, None], axis=1
    )[:, 0]
    # A text that was cut and lost its end would be taken for an empty one.
    at_end = jnp.where(jnp.any(is_end, axis=1)[:, None], at_end, jnp.nan)
    return _project(config.dim)(at_end), hidden


class Block(nn.Module):
  """(1), for h `[batch, n, width]`; `mask [batch, 1, n, n]` says who sees whom."""

  num_heads: int

  @nn.compact
  def __call__(self, h: jax.Array, mask: jax.Array | None = None) -> jax.Array:
    width = h.shape[-1]
    attention = nn.MultiHeadDotProductAttention(
      self.num_heads, precision=_PRECISION, name='attention'
    )
    h = h + attention(_norm('attention_norm')(h), mask=mask)
    dense = functools.partial(nn.Dense, precision=_PRECISION)
    update = dense(4 * width, name='mlp_hidden')(_norm('mlp_norm')(h))
    return h + dense(width, name='mlp_out')(quick_gelu(update))


def quick_gelu(x: jax.Array) -> jax.Array:
  """(2)."""
  return x * nn.sigmoid(1.702 * x)


def clip_score(image_embed: jax.Array, text_embed: jax.Array) -> jax.Array:
  """Cosine of the angle between pairs of embeddings, (5).

  Published CLIP scores are 100 max(cosine, 0), or 2.5 max(cosine, 0) (Hessel et al.
  2021, arXiv 2104.08718).

  Args:
    image_embed: `[batch, dim]`, not zero.
    text_embed: `[batch, dim]`, not zero.

  Returns:
    `[batch]`, in [-1, 1].
  """
  return jnp.sum(_normalize(image_embed) * _normalize(text_embed), axis=-1)


def contrastive_loss(
  image_embed: jax.Array, text_embed: jax.Array, logit_scale: jax.Array
) -> jax.Array:
  """Symmetric InfoNCE of matching pairs among all pairs of a batch, (6).

  Args:
    image_embed: `[batch, dim]`, not zero.
    text_embed: `[batch, dim]`, of the text of the image in the same row. Rows of equal
      texts count as different ones.
    logit_scale: `[]`, logarithm of the inverse temperature, learned.

  Returns:
    Scalar: 0 where every image has its own text alone, log(batch) where all are alike.

  Gradient: none in `logit_scale` above log 100, where it has no effect either.
  """
  scale = jnp.exp(jnp.minimum(logit_scale, _MAX_LOGIT_SCALE))
  images, texts = _normalize(image_embed), _normalize(text_embed)
  logits = scale * jnp.matmul(images, texts.T, precision=_PRECISION)
  over_texts = jnp.diagonal(nn.log_softmax(logits, axis=1))
  over_images = jnp.diagonal(nn.log_softmax(logits, axis=0))
  return -0.5 * jnp.mean(over_texts + over_images)


def _normalize(x: jax.Array) -> jax.Array:
  return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def _norm(name: str) -> nn.LayerNorm:
  """The variance by differences: CLIP has a few very large activations."""
  return nn.LayerNorm(epsilon=1e-5, use_fast_variance=False, name=name)


def _project(dim: int) -> nn.Dense:
  return nn.Dense(dim, use_bias=False, precision=_PRECISION, name='projection')


def preprocess(images: jax.Array, config: ClipConfig) -> jax.Array:
  """(7)-(10).

  Args:
    images: `[batch, height, width, 3]` in [-1, 1]; beyond, clipped.
    config: whose `size` it is.

  Returns:
    `[batch, size, size, 3]` float32; float64 of such.

  Gradient: that of (7)-(10), none where a value is clipped.

  Raises:
    ValueError: images of another shape, or of integers.
  """
  is_float = jnp.issubdtype(images.dtype, jnp.floating)
  if images.ndim != 4 or images.shape[-1] != 3 or not is_float:
    raise ValueError(
      f'images of dtype {images.dtype} and shape {images.shape}: must be floats in'
      ' [-1, 1], [batch, height, width, 3].'
    )
  x = images.astype(jnp.promote_types(images.dtype, jnp.float32))
  x = jnp.clip((x + 1.0) / 2.0, 0.0, 1.0)
  short = min(x.shape[1:3])
  height, width = (config.size * side // short for side in x.shape[1:3])
  for axis, side in ((2, width), (1, height)):
    shape = (*x.shape[:axis], side, *x.shape[axis + 1 :])
    x = jnp.clip(jax.image.resize(x, shape, 'cubic', antialias=True), 0.0, 1.0)
  top, left = (round((side - config.size) / 2) for side in (height, width))
  x = x[:, top : top + config.size, left : left + config.size]
  return (x - jnp.asarray(MEAN, x.dtype)) / jnp.asarray(STD, x.dtype)
