"""SqueezeNet v1.1's published Keras weights, `squeezenet_v1.1_notop.h5`.

A layer 'fire2/squeeze1x1' holds a kernel [h, w, in, out] and a bias, told apart by
their rank: their names in the file mean nothing ('uniform2').
"""

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

with epy.lazy_imports():  # Optional: nothing else reads HDF5.
  import h5py


def from_keras(
  layers: Mapping[str, list[np.ndarray]], source: str = 'layers'
) -> types.Params:
  """Parameters of `networks.SqueezeNet` from the arrays of every layer.

  Args:
    layers: name -> kernel and bias in either order, float32.
    source: what the error calls them.

  Raises:
    errors.FileError: an array is missing, extra, or of another shape or dtype.
  """
  arrays = {
    f'{layer}/{"bias" if array.ndim == 1 else "kernel"}': array
    for layer, own in layers.items()
    for array in own
  }
  x = jnp.zeros((1, 31, 31, 3))
  abstract = jax.eval_shape(networks.SqueezeNet().init, jax.random.key(0), x)
  return files.to_params(arrays, abstract, source)


def load(path: epath.PathLike, *, sha256: str | None = None) -> types.Params:
  """Parameters of `networks.SqueezeNet` from the published .h5.

  Args:
    path: of the file.
    sha256: if given, what that of the file must start with: 8 to 64 digits.

  Raises:
    errors.FileError: no such file, another sha256, damaged, or not these arrays.
    ImportError: h5py is not installed.
  """
  path = files.user_path(path)
  if not path.exists():
    raise errors.FileError(f'{path}: no such file.')
  if sha256 is not None:
    files.check_sha256(path, sha256)
  try:
    open_file = h5py.File
  except ImportError as error:
    raise ImportError(
      f'{path}: h5py is needed to read it; pip install -r requirements-weights.txt.'
    ) from error
  layers = {}

  def visit(name, node):
    if not isinstance(node, h5py.Dataset):
      return
    depth = 1 if name.startswith('conv') else 2
    layers.setdefault('/'.join(name.split('/')[:depth]), []).append(node[()])

  try:
    with path.open('rb') as f, open_file(f, 'r') as archive:
      archive.visititems(visit)
  except (OSError, KeyError, RuntimeError) as error:
    raise errors.FileError(
      f'{path}: is cut short, damaged or no HDF5 ({error}); copy it again.'
    ) from error
  return from_keras(layers, str(path))
