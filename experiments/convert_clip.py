"""Converts published weights of CLIP, in transformers' layout, to our .npz, once.

  pip install -r requirements-text.txt
  python -m experiments.convert_clip --source=model.safetensors --output=clip.npz

The source is the `model.safetensors` of openai/clip-vit-base-patch32, -base-patch16 or
-large-patch14 on huggingface.co, float32. Sizes are found from its shapes and logged,
and so is the sha256 of the result, for
`lgd.metrics.clip_weights.load(path, config, sha256=...)`: the same arrays give the same
bytes under the same version of NumPy.

Models of another activation than quick_gelu have the same layout; their config.json
says so (`hidden_act`), and a network of ours would run them wrongly.
"""

import numpy as np
from absl import flags
from absl import logging
from etils import epath
from etils import epy

from experiments import launch
from lgd import files
from lgd.metrics import clip_weights

with epy.lazy_imports():  # Optional: only this binary reads the format.
  import safetensors
  import safetensors.numpy


def run(source: str, output: str, *, sha256: str | None) -> None:
  """Writes `output` from `source`.

  Args:
    source: path of the .safetensors.
    output: path of the .npz.
    sha256: what that of the source must start with; None checks nothing.

  Raises:
    launch.UserError: safetensors is not installed, or not such a file.
  """
  for name, path in (('source', source), ('output', output)):
    if not path:
      raise launch.UserError(f'--{name}: missing; give a file as --{name}=PATH.')
  try:
    if sha256 is not None:
      files.check_sha256(source, sha256)
    state = read_safetensors(source)
    config = clip_weights.infer_config(state)
    arrays = clip_weights.arrays_from_transformers(state, config)
  except (ImportError, ValueError) as error:
    raise launch.UserError(str(error)) from error
  files.write_npz(output, arrays)
  logging.info('%s: %s', source, config)
  logging.info('%s: sha256 %s', output, files.sha256(output))


def read_safetensors(path: epath.PathLike) -> dict[str, np.ndarray]:
  """All arrays of a .safetensors file.

  Raises:
    ImportError: safetensors is not installed.
    files.FileError: no such file, or cut short or damaged.
  """
  try:
    load, damaged = safetensors.numpy.load, safetensors.SafetensorError
  except ImportError as error:
    raise ImportError(
      f'{path}: safetensors is needed to read it; pip install -r requirements-text.txt.'
    ) from error
  try:
    return load(files.user_path(path).read_bytes())
  except KeyError as error:
    raise files.FileError(
      f'{path}: holds arrays of type {error}, which NumPy lacks; save it in float32.'
    ) from error
  except (OSError, damaged) as error:
    raise files.FileError(
      f'{path}: is missing, cut short, damaged or no safetensors ({error}); copy it'
      ' again.'
    ) from error


if __name__ == '__main__':
  SOURCE = flags.DEFINE_string('source', None, 'Published weights, .safetensors.')
  OUTPUT = flags.DEFINE_string('output', None, 'Where to write, .npz.')
  SHA256 = flags.DEFINE_string(
    'sha256', None, 'What the sha256 of the source starts with, 8 digits or more.'
  )
  launch.main(
    lambda _: run(SOURCE.value, OUTPUT.value, sha256=SHA256.value),
    needs_config=False,
    needs_workdir=False,
  )
