"""CLIPs under transformers' names: sizes, shapes and random arrays."""

import functools

import numpy as np

from lgd import networks

# Towers of 4 and 2 heads; the end of text is not the largest token.
CONFIG = networks.ClipConfig(
  12, 16, 8, 32, 2, 16, 2, length=7, vocab_size=50, eot=20, head_dim=8
)
PUBLISHED = (
  (networks.CLIP_B32, 151_277_313),
  (networks.CLIP_B16, 149_620_737),
  (networks.CLIP_L14, 427_616_513),
)


def shapes(config):
  """Arrays of transformers' state dict, by name."""
  image, text = config.image_width, config.text_width
  patches = (config.size // config.patch) ** 2
  named = {
    'logit_scale': (),
    'visual_projection.weight': (config.dim, image),
    'text_projection.weight': (config.dim, text),
    'vision_model.embeddings.class_embedding': (image,),
    'vision_model.embeddings.patch_embedding.weight': (
      (image, 3, config.patch, config.patch)
    ),
    'vision_model.embeddings.position_embedding.weight': (patches + 1, image),
    'text_model.embeddings.token_embedding.weight': (config.vocab_size, text),
    'text_model.embeddings.position_embedding.weight': (config.length, text),
  }
  norms = {
    'vision_model.pre_layrnorm': image,
    'vision_model.post_layernorm': image,
    'text_model.final_layer_norm': text,
  }
  for tower, width, layers in (
    ('vision_model', image, config.image_layers),
    ('text_model', text, config.text_layers),
  ):
    for i in range(layers):
      layer = f'{tower}.encoder.layers.{i}'
      norms |= {f'{layer}.layer_norm1': width, f'{layer}.layer_norm2': width}
      linear = {f'self_attn.{name}_proj': (width, width) for name in 'qkv'}
      linear['self_attn.out_proj'] = (width, width)
      linear |= {'mlp.fc1': (4 * width, width), 'mlp.fc2': (width, 4 * width)}
      for name, shape in linear.items():
        named[f'{layer}.{name}.weight'] = shape
        named[f'{layer}.{name}.bias'] = shape[:1]
  for name, width in norms.items():
    named |= {f'{name}.weight': (width,), f'{name}.bias': (width,)}
  return named


@functools.cache
def state():
  """A state dict of `CONFIG`."""
  rng = np.random.default_rng(0)
  return {
    name: np.asarray(0.5 * rng.normal(size=shape), np.float32)
    for name, shape in shapes(CONFIG).items()
  }
