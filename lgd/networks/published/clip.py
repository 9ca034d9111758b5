"""Published weights of CLIP, as arrays of our own names.

The source is the state dict of transformers' CLIPModel (`model.safetensors`), whose
names map one by one:

  vision_model.encoder.layers.0.           image/block_0/
    self_attn.q_proj.weight [width, width]   attention/query/kernel [width, heads, d]
    self_attn.out_proj.weight                attention/out/kernel [heads, d, width]
    layer_norm1.weight                       attention_norm/scale
    mlp.fc1.weight [4 width, width]          mlp_hidden/kernel [width, 4 width]
  visual_projection.weight [dim, width]    image/projection/kernel [width, dim]

and so on, text_model to text/. Buffers of positions' numbers, which older files hold,
are left out. `convert` writes the .npz that `load` reads.
"""

import functools
import math
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from etils import epy

from lgd import errors
from lgd import networks
from lgd import types
from lgd.storage import files

with epy.lazy_imports():  # Optional: nothing else reads this format.
  import safetensors
  import safetensors.numpy

_HEAD_DIM = 64  # Of all published models; shapes do not tell.
_IMAGE, _TEXT = 'vision_model', 'text_model'
_IGNORED = tuple(f'{tower}.embeddings.position_ids' for tower in (_IMAGE, _TEXT))


class _Entry(NamedTuple):
  """Where an array of the state dict goes."""

  name: str
  shape: tuple[int, ...]  # In the state dict.
  axes: tuple[int, ...]  # Of its transpose,
  new_shape: tuple[int, ...]  # which is given this shape.


def infer_config(state: Mapping[str, np.ndarray]) -> networks.ClipConfig:
  """The sizes of a published model: 64 per head, texts end with the last token.

  Args:
    state: arrays under transformers' names.

  Raises:
    errors.FileError: an array that says a size is missing or of another rank.
  """

  def shape(name, wanted=2):
    if name not in state or state[name].ndim != wanted:
      raise errors.FileError(
        f'state dict: has no array {name} of rank {wanted}; must be that of a'
        ' CLIPModel, with both towers.'
      )
    return state[name].shape

  def layers(tower):
    prefix = f'{tower}.encoder.layers.'
    return len({k.split('.')[3] for k in state if k.startswith(prefix)})

  positions, image_width = shape(f'{_IMAGE}.embeddings.position_embedding.weight')
  patch = shape(f'{_IMAGE}.embeddings.patch_embedding.weight', 4)[-1]
  length, text_width = shape(f'{_TEXT}.embeddings.position_embedding.weight')
  vocab_size, _ = shape(f'{_TEXT}.embeddings.token_embedding.weight')
  dim, _ = shape('text_projection.weight')
  try:
    return networks.ClipConfig(
      dim=dim,
      size=math.isqrt(positions - 1) * patch,
      patch=patch,
      image_width=image_width,
      image_layers=layers(_IMAGE),
      text_width=text_width,
      text_layers=layers(_TEXT),
      length=length,
      vocab_size=vocab_size,
      eot=vocab_size - 1,
      head_dim=_HEAD_DIM,
    )
  except ValueError as error:
    raise errors.FileError(f'state dict: no published layout: {error}') from error


def from_transformers(
  state: Mapping[str, np.ndarray], config: networks.ClipConfig
) -> types.Params:
  """Parameters of `networks.CLIP(config)` from transformers' state dict.

  Args:
    state: float32 arrays under transformers' names.
    config: of the network, such as `infer_config` finds.

  Raises:
    errors.FileError: as in `arrays_from_transformers`.
  """
  arrays = arrays_from_transformers(state, config)
  return files.to_params(arrays, _abstract(config), 'state dict')


def arrays_from_transformers(
  state: Mapping[str, np.ndarray], config: networks.ClipConfig
) -> dict[str, np.ndarray]:
  """The same arrays as `from_transformers`, by name: what the .npz holds.

  Raises:
    errors.FileError: an array is missing, extra, or of another shape or dtype; names it
      as the state dict does.
  """
  entries = _entries(config)
  arrays = {}
  for key in sorted(entries.keys() | state.keys() - set(_IGNORED)):
    entry, array = entries.get(key), state.get(key)
    if entry is None:
      raise errors.FileError(
        f'state dict: {key} is no array of CLIP with {config.image_layers} layers for'
        f' images and {config.text_layers} for texts.'
      )
    if array is None:
      raise errors.FileError(
        f'state dict: has no array {key}, which the network needs.'
      )
    if (array.shape, array.dtype) != (entry.shape, np.float32):
      raise errors.FileError(
        f'state dict: array {key} is {array.dtype} {array.shape}; the network has'
        f' float32 {entry.shape}.'
      )
    array = array.transpose(entry.axes).reshape(entry.new_shape)
    arrays[entry.name] = array.copy()  # Contiguous.
  return arrays


def load(
  path: epath.PathLike, config: networks.ClipConfig, *, sha256: str | None = None
) -> types.Params:
  """Parameters of `networks.CLIP(config)` from an .npz of `arrays_from_transformers`.

  Args:
    path: of the file.
    config: of the network, such as `networks.CLIP_B32`.
    sha256: if given, what that of the file must start with: 8 to 64 digits.

  Raises:
    errors.FileError: no such file, another sha256, damaged, or not these arrays; one
      line that names the array.
  """
  arrays = files.read_npz(path, sha256=sha256)
  return files.to_params(arrays, _abstract(config), str(path))


def image_tower(
  arrays: Mapping[str, np.ndarray], config: networks.ClipConfig, source: str
) -> types.Params:
  """Parameters that `encode_image` needs, from what is in the .npz.

  Args:
    arrays: those of `load`.
    config: of the network.
    source: what errors call them.

  Raises:
    errors.FileError: not these arrays.
  """
  net, images = networks.CLIP(config), jnp.zeros((1, config.size, config.size, 3))
  init = functools.partial(net.init, method='encode_image')
  abstract = jax.eval_shape(init, jax.random.key(0), images)
  arrays = {k: array for k, array in arrays.items() if not k.startswith('text/')}
  return files.to_params(arrays, abstract, source)


def _entries(config: networks.ClipConfig) -> dict[str, _Entry]:
  """Every array of the state dict, by its name there."""
  image, text, dim = config.image_width, config.text_width, config.dim
  patch, positions = config.patch, (config.size // config.patch) ** 2 + 1

  def same(name, *shape):
    return _Entry(name, shape, tuple(range(len(shape))), shape)

  return {
    'logit_scale': same('logit_scale'),
    f'{_IMAGE}.embeddings.class_embedding': same('image/class_token', image),
    f'{_IMAGE}.embeddings.patch_embedding.weight': _Entry(
      'image/patches/kernel',
      (image, 3, patch, patch),
      (2, 3, 1, 0),
      (patch, patch, 3, image),
    ),
    f'{_IMAGE}.embeddings.position_embedding.weight': same(
      'image/positions', positions, image
    ),
    f'{_TEXT}.embeddings.token_embedding.weight': same(
      'text/tokens/embedding', config.vocab_size, text
    ),
    f'{_TEXT}.embeddings.position_embedding.weight': same(
      'text/positions', config.length, text
    ),
    # Spelt so in transformers.
    **_norm_entries(f'{_IMAGE}.pre_layrnorm', 'image/pre_norm', image),
    **_norm_entries(f'{_IMAGE}.post_layernorm', 'image/post_norm', image),
    **_norm_entries(f'{_TEXT}.final_layer_norm', 'text/final_norm', text),
    'visual_projection.weight': _matrix('image/projection/kernel', image, dim),
    'text_projection.weight': _matrix('text/projection/kernel', text, dim),
    **_tower_entries(_IMAGE, 'image', image, config.image_layers, config.head_dim),
    **_tower_entries(_TEXT, 'text', text, config.text_layers, config.head_dim),
  }


def _tower_entries(tower, name, width, layers, head_dim):
  heads = (width // head_dim, head_dim)
  entries = {}
  for i in range(layers):
    key, block = f'{tower}.encoder.layers.{i}', f'{name}/block_{i}'
    for norm, ours in (('layer_norm1', 'attention'), ('layer_norm2', 'mlp')):
      entries |= _norm_entries(f'{key}.{norm}', f'{block}/{ours}_norm', width)
    for theirs, ours, fan_in, fan_out in (
      ('self_attn.q_proj', 'attention/query', (width,), heads),
      ('self_attn.k_proj', 'attention/key', (width,), heads),
      ('self_attn.v_proj', 'attention/value', (width,), heads),
      ('self_attn.out_proj', 'attention/out', heads, (width,)),
      ('mlp.fc1', 'mlp_hidden', (width,), (4 * width,)),
      ('mlp.fc2', 'mlp_out', (4 * width,), (width,)),
    ):
      rows, columns = math.prod(fan_out), math.prod(fan_in)
      entries[f'{key}.{theirs}.weight'] = _Entry(
        f'{block}/{ours}/kernel', (rows, columns), (1, 0), fan_in + fan_out
      )
      entries[f'{key}.{theirs}.bias'] = _Entry(
        f'{block}/{ours}/bias', (rows,), (0,), fan_out
      )
  return entries


def _norm_entries(key, name, width):
  return {
    f'{key}.weight': _Entry(f'{name}/scale', (width,), (0,), (width,)),
    f'{key}.bias': _Entry(f'{name}/bias', (width,), (0,), (width,)),
  }


def _matrix(name, fan_in, fan_out):
  return _Entry(name, (fan_out, fan_in), (1, 0), (fan_in, fan_out))


def _abstract(config: networks.ClipConfig) -> types.Params:
  images = jnp.zeros((1, config.size, config.size, 3))
  tokens = jnp.zeros((1, config.length), jnp.int32)
  return jax.eval_shape(networks.CLIP(config).init, jax.random.key(0), images, tokens)


def convert(
  source: epath.PathLike, output: epath.PathLike, *, sha256: str | None
) -> networks.ClipConfig:
  """Writes the .npz of `load` from a published .safetensors.

  Args:
    source: path of the .safetensors.
    output: path of the .npz.
    sha256: what that of the source must start with; None checks nothing.

  Returns:
    The sizes of the model.

  Raises:
    ImportError: safetensors is not installed.
    errors.FileError: the source is not such a file.
  """
  if sha256 is not None:
    files.check_sha256(source, sha256)
  state = read_safetensors(source)
  config = infer_config(state)
  files.write_npz(output, arrays_from_transformers(state, config))
  return config


def read_safetensors(path: epath.PathLike) -> dict[str, np.ndarray]:
  """All arrays of a .safetensors file.

  Raises:
    ImportError: safetensors is not installed.
    errors.FileError: no such file, or cut short or damaged.
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
    raise errors.FileError(
      f'{path}: holds arrays of type {error}, which NumPy lacks; save it in float32.'
    ) from error
  except (OSError, damaged) as error:
    raise errors.FileError(
      f'{path}: is missing, cut short, damaged or no safetensors ({error}); copy it'
      ' again.'
    ) from error
