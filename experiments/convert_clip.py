"""Converts published weights of CLIP, in transformers' layout, to our .npz, once.

  pip install -r requirements-text.txt
  python -m experiments.convert_clip --source=model.safetensors --output=clip.npz

The source is the `model.safetensors` of openai/clip-vit-base-patch32, -base-patch16 or
-large-patch14 on huggingface.co, float32. Sizes are found from its shapes and logged,
and so is the sha256 of the result, for
`lgd.networks.published.clip.load(path, config, sha256=...)`: the same arrays give the
same bytes under the same version of NumPy.

Models of another activation than quick_gelu have the same layout; their config.json
says so (`hidden_act`), and a network of ours would run them wrongly.
"""

from absl import flags
from absl import logging

from experiments import app
from lgd import errors
from lgd.networks import published
from lgd.storage import files


def run(source: str, output: str, *, sha256: str | None) -> None:
  """Writes `output` from `source`.

  Args:
    source: path of the .safetensors.
    output: path of the .npz.
    sha256: what that of the source must start with; None checks nothing.

  Raises:
    errors.InputError: safetensors is not installed, or not such a file.
  """
  for name, path in (('source', source), ('output', output)):
    if not path:
      raise errors.InputError(f'--{name}: missing; give a file as --{name}=PATH.')
  try:
    config = published.clip.convert(source, output, sha256=sha256)
  except (ImportError, ValueError) as error:
    raise errors.InputError(str(error)) from error
  logging.info('%s: %s', source, config)
  logging.info('%s: sha256 %s', output, files.sha256(output))


if __name__ == '__main__':
  SOURCE = flags.DEFINE_string('source', None, 'Published weights, .safetensors.')
  OUTPUT = flags.DEFINE_string('output', None, 'Where to write, .npz.')
  SHA256 = flags.DEFINE_string(
    'sha256', None, 'What the sha256 of the source starts with, 8 digits or more.'
  )
  app.main(
    lambda _: run(SOURCE.value, OUTPUT.value, sha256=SHA256.value),
    needs_config=False,
    needs_workdir=False,
  )
