"""Converts the published PyTorch weights of FID's InceptionV3 to our .npz, once.

  pip install -r requirements-weights.txt
  python -m experiments.convert_inception \
    --source=pt_inception-2015-12-05-6726825d.pth --output=inception.npz

The source is a release of github.com/mseitzer/pytorch-fid, the same file as
torch-fidelity's `weights-inception-2015-12-05-6726825d.pth`. Its sha256 is checked
against the digits in that name, and the sha256 of the result is logged, for
`lgd.networks.published.inception.load(path, sha256=...)`: the same arrays give the same
bytes under the same version of NumPy.
"""

from absl import flags
from absl import logging

from experiments import app
from lgd import errors
from lgd.networks import published
from lgd.storage import files


def run(source: str, output: str, *, sha256: str) -> None:
  """Writes `output` from `source`.

  Args:
    source: path of the state dict.
    output: path of the .npz.
    sha256: what that of the source must start with.

  Raises:
    errors.InputError: torch is not installed, or not the published file.
  """
  for name, path in (('source', source), ('output', output)):
    if not path:
      raise errors.InputError(f'--{name}: missing; give a file as --{name}=PATH.')
  try:
    published.inception.convert(source, output, sha256=sha256)
  except (ImportError, ValueError) as error:
    raise errors.InputError(str(error)) from error
  logging.info('%s: sha256 %s', output, files.sha256(output))


if __name__ == '__main__':
  SOURCE = flags.DEFINE_string('source', None, 'Published state dict, .pth.')
  OUTPUT = flags.DEFINE_string('output', None, 'Where to write, .npz.')
  SHA256 = flags.DEFINE_string(
    'sha256',
    published.inception.PUBLISHED_SHA256,
    'What the sha256 of the source starts with, 8 digits or more.',
  )
  app.main(
    lambda _: run(SOURCE.value, OUTPUT.value, sha256=SHA256.value),
    needs_config=False,
    needs_workdir=False,
  )
