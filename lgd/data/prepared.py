"""Data sets as TensorFlow Datasets prepares them.

Reading needs neither TensorFlow nor a network; preparing needs both, once:

  python -m experiments.prepare_data --name=imagenet_resized/64x64 --data_dir=DIR

Only array_record can be read at random.
"""

import re
from typing import Any

from etils import epath
from etils import epy

with epy.lazy_imports():  # Half a second that users of other data need not wait.
  import tensorflow_datasets as tfds


class NotPreparedError(ValueError):
  """The data set is not on this machine, or not in a format that can be read here."""


def builder(name: str, data_dir: str = '') -> Any:
  """TFDS's builder of the newest version prepared in `data_dir`, ready to read.

  Built from the directory: asked by name for a data set that is not there, TFDS looks
  for it in the network first, for minutes if there is none.

  Args:
    name: of the data set, with its config: mnist, imagenet_resized/64x64.
    data_dir: the TFDS directory, with `NAME/VERSION/`. Empty means TFDS's default,
      `$TFDS_DATA_DIR` or ~/tensorflow_datasets.

  Raises:
    NotPreparedError: nothing there that can be read; says how to prepare it.
  """
  root = epath.Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()
  command = f'python -m experiments.prepare_data --name={name}'
  versions = [
    path.parent
    for path in (root / name).glob('*/dataset_info.json')
    if re.fullmatch(r'\d+\.\d+\.\d+', path.parent.name)
  ]
  if not versions:
    raise NotPreparedError(
      f'no {name} in {root / name}; prepare it with: {command} --data_dir={root}'
    )
  newest = max(versions, key=lambda path: [int(n) for n in path.name.split('.')])
  found = tfds.builder_from_directory(newest)
  formats = {str(f.value) for f in found.info.available_file_formats()}
  if 'array_record' not in formats:
    raise NotPreparedError(
      f'{newest} is {" and ".join(sorted(formats))}, which only TensorFlow reads;'
      f' prepare it as array_record elsewhere with: {command} --data_dir=DIR'
    )
  return found
