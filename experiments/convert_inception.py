"""Converts the published PyTorch weights of FID's InceptionV3 to our .npz, once.

  pip install -r requirements-weights.txt
  python -m experiments.convert_inception \
    --source=pt_inception-2015-12-05-6726825d.pth --output=inception.npz

The source is a release of github.com/mseitzer/pytorch-fid, the same file as
torch-fidelity's `weights-inception-2015-12-05-6726825d.pth`. Its sha256 is checked
against the digits in that name, and the sha256 of the result is logged, for
`lgd.metrics.inception_weights.load(path, sha256=...)`: the same arrays give the same
bytes under the same version of NumPy.
"""

import io
import pickle

from absl import flags
from absl import logging
from etils import epath
from etils import epy

from experiments import launch
from lgd import files
from lgd.metrics import inception_weights

with epy.lazy_imports():  # Optional: only this binary and the parity check need it.
  import torch


def run(source: str, output: str, *, sha256: str) -> None:
  """Writes `output` from `source`.

  Args:
    source: path of the state dict.
    output: path of the .npz.
    sha256: what that of the source must start with.

  Raises:
    launch.UserError: torch is not installed, or not the published file.
  """
  for name, path in (('source', source), ('output', output)):
    if not path:
      raise launch.UserError(f'--{name}: missing; give a file as --{name}=PATH.')
  try:
    files.check_sha256(source, sha256)
    state = read_state_dict(source)
    inception_weights.from_torch(state)  # Names what is missing or misshapen.
  except (ImportError, ValueError) as error:
    raise launch.UserError(str(error)) from error
  files.write_npz(output, inception_weights.arrays_from_torch(state))
  logging.info('%s: sha256 %s', output, files.sha256(output))


def read_state_dict(path: epath.PathLike) -> dict:
  """PyTorch's state dict as NumPy arrays; runs no code that the file may hold.

  Raises:
    ImportError: torch is not installed.
    files.FileError: damaged, or not a dictionary of tensors.
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
    raise files.FileError(
      f'{path}: is cut short, damaged or no state dict of tensors; copy it again.'
    ) from error


if __name__ == '__main__':
  SOURCE = flags.DEFINE_string('source', None, 'Published state dict, .pth.')
  OUTPUT = flags.DEFINE_string('output', None, 'Where to write, .npz.')
  SHA256 = flags.DEFINE_string(
    'sha256',
    inception_weights.PUBLISHED_SHA256,
    'What the sha256 of the source starts with, 8 digits or more.',
  )
  launch.main(
    lambda _: run(SOURCE.value, OUTPUT.value, sha256=SHA256.value),
    needs_config=False,
    needs_workdir=False,
  )
