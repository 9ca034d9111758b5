"""Downloads a data set once, into a format that is read without TensorFlow.

  pip install -r requirements-data.txt
  python -m experiments.prepare_data --name=imagenet_resized/64x64 --data_dir=DIR

Names are those of `lgd/data/tfds/catalog.py`. imagenet2012 has to be downloaded by
hand; the error says which files go where. What is prepared already is left alone.
"""

import importlib.util

import tensorflow_datasets as tfds
from absl import flags
from absl import logging

from experiments import app
from lgd import errors
from lgd.data.tfds import catalog
from lgd.data.tfds import prepared

NEEDED = ('tensorflow', 'importlib_resources')


def run(name: str, data_dir: str) -> None:
  """Prepares `name` in `data_dir`, empty for TFDS's default.

  Raises:
    errors.InputError: an unknown name, packages or files that are missing, no network,
      or data that are there already in another format.
  """
  if name not in catalog.DATA_SETS:
    raise errors.InputError(
      f'--name={name}: must be one of {", ".join(catalog.DATA_SETS)}.'
    )
  if _is_prepared(name, data_dir):
    logging.info('%s: already prepared', name)
    return
  missing = [package for package in NEEDED if not importlib.util.find_spec(package)]
  if missing:
    raise errors.InputError(
      f'preparing needs {" and ".join(missing)}; install with: pip install -r'
      ' requirements-data.txt (reading does not need them).'
    )
  try:
    tfds.builder(name, data_dir=data_dir or None).download_and_prepare(
      file_format='array_record'
    )
  except (AssertionError, OSError) as error:  # Manual downloads; network and disk.
    raise errors.InputError(f'--name={name}: {error}') from error
  try:
    builder = prepared.builder(name, data_dir)
  except errors.NotPreparedError as error:  # TFDS reuses what it finds, as it is.
    raise errors.InputError(f'--data_dir={data_dir}: {error}') from error
  logging.info('%s: prepared in %s', name, builder.data_dir)


def _is_prepared(name: str, data_dir: str) -> bool:
  try:
    prepared.builder(name, data_dir)
  except errors.NotPreparedError:
    return False
  return True


if __name__ == '__main__':
  NAME = flags.DEFINE_string('name', '', 'The data set.')
  DATA_DIR = flags.DEFINE_string('data_dir', '', "Where to; empty is TFDS's default.")
  app.main(
    lambda _: run(NAME.value, DATA_DIR.value), needs_config=False, needs_workdir=False
  )
