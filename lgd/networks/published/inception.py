"""The published weights of FID's InceptionV3, as arrays of our own names.

PyTorch's state dict (`pt_inception-2015-12-05-6726825d.pth`, the same file for
pytorch-fid and torch-fidelity) maps name by name:

  Mixed_5b.branch1x1.conv.weight [o, i, h, w]  mixed_5b/branch1x1/kernel [h, w, i, o]
  Mixed_5b.branch1x1.bn.weight                 mixed_5b/branch1x1/scale
                       bias                                       bias
                       running_mean                               mean
                       running_var                                var
  fc.weight [o, i]                             fc/kernel [i, o]

`fc.bias` is left out (`networks.inception` says why), and counters of batches.
`convert` writes the .npz that `load` reads.
"""

import io
import pickle
from collections.abc import Mapping

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
  import torch

PUBLISHED_SHA256 = '6726825d'  # Its first digits, which the file is named after.

_SUFFIXES = {
  'conv.weight': 'kernel',
  'bn.weight': 'scale',
  'bn.bias': 'bias',
  'bn.running_mean': 'mean',
  'bn.running_var': 'var',
}


def from_torch(state: Mapping[str, np.ndarray]) -> types.Params:
  """Parameters of `networks.InceptionV3` from PyTorch's state dict.

  Args:
    state: float32 NumPy arrays under PyTorch's names.

  Raises:
    errors.FileError: an array is missing, extra, or of another shape or dtype.
  """
  return files.to_params(arrays_from_torch(state), _abstract(), 'state dict')


def arrays_from_torch(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The same arrays as `from_torch`, by name: what the .npz holds; not yet checked.

  Raises:
    errors.FileError: a name that is not one of this network's.
  """
  arrays = {}
  for key, array in state.items():
    block, _, suffix = key.rpartition('.')
    if key == 'fc.bias' or suffix == 'num_batches_tracked':
      continue
    if key == 'fc.weight':
      arrays['fc/kernel'] = np.ascontiguousarray(array.T)
      continue
    block, _, layer = block.rpartition('.')
    name = _SUFFIXES.get(f'{layer}.{suffix}')
    if name is None:
      raise errors.FileError(f'state dict: {key} is no array of InceptionV3.')
    is_kernel = name == 'kernel' and array.ndim == 4
    arrays[f'{block.lower().replace(".", "/")}/{name}'] = (
      np.ascontiguousarray(np.transpose(array, (2, 3, 1, 0))) if is_kernel else array
    )
  return arrays


def load(path: epath.PathLike, *, sha256: str | None = None) -> types.Params:
  """Parameters of `networks.InceptionV3` from an .npz of `arrays_from_torch`.

  Args:
    path: of the file.
    sha256: if given, what that of the file must start with: 8 to 64 digits.

  Raises:
    errors.FileError: no such file, another sha256, damaged, or not these arrays; one
      line that names the array.
  """
  arrays = files.read_npz(path, sha256=sha256)
  return files.to_params(arrays, _abstract(), str(path))


def _abstract() -> types.Params:
  x = jnp.zeros((1, 75, 75, 3))  # Parameters do not depend on the size.
  return jax.eval_shape(networks.InceptionV3().init, jax.random.key(0), x)


def convert(source: epath.PathLike, output: epath.PathLike, *, sha256: str) -> None:
  """Writes the .npz of `load` from PyTorch's state dict.

  Args:
    source: path of the state dict.
    output: path of the .npz.
    sha256: what that of the source must start with.

  Raises:
    ImportError: torch is not installed.
    errors.FileError: the source is not the published file.
  """
  files.check_sha256(source, sha256)
  state = read_state_dict(source)
  from_torch(state)  # Names what is missing or misshapen.
  files.write_npz(output, arrays_from_torch(state))


def read_state_dict(path: epath.PathLike) -> dict:
  """PyTorch's state dict as NumPy arrays; runs no code that the file may hold.

  Raises:
    ImportError: torch is not installed.
    errors.FileError: damaged, or not a dictionary of tensors.
  """
  try:
    load = torch.load
  except ImportError as error:
    raise ImportError(
      f'{path}: torch is needed to read it; pip install -r requirements-weights.txt.'
    ) from error
  try:
    content = io.BytesIO(files.user_path(path).read_bytes())
    state = load(content, map_location='cpu', weights_only=True)
    return {key: tensor.numpy() for key, tensor in state.items()}
  except (
    AttributeError,
    EOFError,
    OSError,
    RuntimeError,
    pickle.UnpicklingError,
  ) as error:
    # PyTorch's own message advises to run what the file holds.
    raise errors.FileError(
      f'{path}: is cut short, damaged or no state dict of tensors; copy it again.'
    ) from error
