"""Published CLIPs, whose embeddings of captions are stored with the data.

  (1)  score = <clip(image), text> / (|clip(image)| |text|), in [-1, 1]

The text is an embedding that `experiments.encode_text` stored: the image tower alone is
loaded. Both are of one space only if they are of the same weights, so the file must
have the sha256 that is stored with the embeddings. Published CLIP scores are 100 or 2.5
times (1), and 0 where it is negative.
"""

from typing import NamedTuple

import numpy as np
from etils import epath
from ml_collections import config_dict

from experiments import builders
from experiments.judges import text_encoders
from lgd import errors
from lgd import networks
from lgd import types
from lgd.networks import published
from lgd.storage import files


class Clip(NamedTuple):
  """An image tower."""

  name: str  # Of its sizes, a key of `text_encoders.CLIP`.
  config: networks.ClipConfig
  params: types.Params  # For `encode_image`.


def load(weights: epath.PathLike) -> Clip:
  """The image tower of an .npz that `experiments.convert_clip` wrote.

  Raises:
    errors.FileError: no such file, damaged, or of unknown sizes.
  """
  arrays = files.read_npz(weights)
  shape = np.shape(arrays.get('image/positions'))
  for name, config in text_encoders.CLIP.items():
    if shape == ((config.size // config.patch) ** 2 + 1, config.image_width):
      params = published.clip.image_tower(arrays, config, str(weights))
      return Clip(name, config, params)
  raise errors.FileError(
    f'{weights}: its image/positions are {shape}, of none of'
    f' {", ".join(text_encoders.CLIP)}; give a file of experiments.convert_clip.'
  )


def encoder_of(config: config_dict.ConfigDict, weights: epath.PathLike) -> str:
  """Which of `data.encoders` embedded the captions by these weights.

  Raises:
    errors.InputError: no embeddings of captions, none of a CLIP, or of other weights.
  """
  section = config.data
  if not section.encoders:
    raise errors.InputError(
      f'data.name={section.name!r}: has no embeddings of captions, which a published'
      ' CLIP scores images against; use coco_captions/2014.'
    )
  clips = [name for name in section.encoders if name in text_encoders.CLIP]
  if not clips:
    raise errors.InputError(
      f'data.encoders={section.encoders}: has no CLIP, whose embeddings of captions'
      f' {weights} scores images against; encode by one of'
      f' {", ".join(text_encoders.CLIP)}, too.'
    )
  identity, sha256 = builders.captions.lookup(config).identity, files.sha256(weights)
  stored = {name: identity[name]['weights'] for name in clips}
  for name, of_texts in stored.items():
    if of_texts == sha256:
      return name
  of_texts = ', '.join(f'{digits[:8]} ({name})' for name, digits in stored.items())
  raise errors.InputError(
    f'{weights}: its sha256 starts with {sha256[:8]}, and captions were embedded by'
    f' weights with {of_texts}; give the file that encode_text was given.'
  )
