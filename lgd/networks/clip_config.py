"""Sizes of CLIP models, and those that are published."""

import dataclasses


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
