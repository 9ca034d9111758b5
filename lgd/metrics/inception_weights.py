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
`experiments/convert_inception.py` writes the .npz that `load` reads.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from lgd import files
from lgd import networks
from lgd import types

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
    files.FileError: an array is missing, extra, or of another shape or dtype.
  """
  return files.to_params(arrays_from_torch(state), _abstract(), 'state dict')


def arrays_from_torch(state: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The same arrays as `from_torch`, by name: what the .npz holds; not yet checked.

  Raises:
    files.FileError: a name that is not one of this network's.
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
      raise files.FileError(f'state dict: {key} is no array of InceptionV3.')
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
    files.FileError: no such file, another sha256, damaged, or not these arrays; one
      line that names the array.
  """
  arrays = files.read_npz(path, sha256=sha256)
  return files.to_params(arrays, _abstract(), str(path))


def _abstract() -> types.Params:
  x = jnp.zeros((1, 75, 75, 3))  # Parameters do not depend on the size.
  return jax.eval_shape(networks.InceptionV3().init, jax.random.key(0), x)
