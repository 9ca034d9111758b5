"""Data sets as TensorFlow Datasets prepares them.

Reading needs neither TensorFlow nor a network; preparing needs both, once:

  python -m experiments.prepare_data --name=imagenet_resized/64x64 --data_dir=DIR

Only array_record can be read at random.

TFDS imports the modules that a data set's features.json names, whatever they are. Here
they must be its own: what a file says is never imported.
"""

import json
import re
from typing import Any

from etils import epath
from etils import epy

from lgd import errors
from lgd.storage import files

with epy.lazy_imports():  # Half a second that users of other data need not wait.
  import tensorflow_datasets as tfds


# Where a feature has its class: both spellings of its proto, and that of older files.
_CLASS_KEYS = ('pythonClassName', 'python_class_name', 'type')


def builder(name: str, data_dir: str = '') -> Any:
  """TFDS's builder of the newest version prepared in `data_dir`, ready to read.

  Built from the directory: asked by name for a data set that is not there, TFDS looks
  for it in the network first, for minutes if there is none.

  Args:
    name: of the data set, with its config: mnist, imagenet_resized/64x64.
    data_dir: the TFDS directory, with `NAME/VERSION/`. Empty means TFDS's default,
      `$TFDS_DATA_DIR` or ~/tensorflow_datasets.

  Raises:
    errors.NotPreparedError: nothing there that can be read; says how to prepare it.
  """
  root = files.user_path(data_dir or tfds.core.constants.DATA_DIR)
  command = f'python -m experiments.prepare_data --name={name}'
  versions = [
    path.parent
    for path in (root / name).glob('*/dataset_info.json')
    if re.fullmatch(r'\d+\.\d+\.\d+', path.parent.name)
  ]
  if not versions:
    raise errors.NotPreparedError(
      f'no {name} in {root / name}; prepare it with: {command} --data_dir={root}'
    )
  newest = max(versions, key=lambda path: [int(n) for n in path.name.split('.')])
  _require_known_features(newest / 'features.json')
  try:
    found = tfds.builder_from_directory(newest)
  except Exception as error:  # Whatever damaged files make of TFDS.
    reason = f'{type(error).__name__}: {" ".join(str(error).split())}'
    raise errors.NotPreparedError(
      f'{newest}: cannot be read by TFDS ({reason}); delete it and prepare it again'
      f' with: {command} --data_dir={root}'
    ) from error
  formats = {str(f.value) for f in found.info.available_file_formats()}
  if 'array_record' not in formats:
    raise errors.NotPreparedError(
      f'{newest} is {" and ".join(sorted(formats))}, which only TensorFlow reads;'
      f' prepare it as array_record elsewhere with: {command} --data_dir=DIR'
    )
  return found


def _require_known_features(path: epath.Path) -> None:
  """Refuses features of other packages, which TFDS would import.

  Raises:
    errors.NotPreparedError: there are some, or the file is damaged.
  """
  try:
    classes = _feature_classes(files.read_json(path))
  except (errors.FileError, RecursionError) as error:
    raise errors.NotPreparedError(
      f'{error} Delete {path.parent} and prepare it.'
    ) from error
  foreign = [c for c in classes if not str(c).startswith('tensorflow_datasets.')]
  if foreign:
    raise errors.NotPreparedError(
      f'{path}: names the feature {foreign[0]!r}, whose module would be imported; only'
      ' those of tensorflow_datasets are. Prepare the data set anew.'
    )


def _feature_classes(node: Any) -> list[Any]:
  """All that TFDS takes for names of classes, in JSON within JSON too."""
  if isinstance(node, str):
    try:
      node = json.loads(node)
    except ValueError:
      return []
  if isinstance(node, list):
    return [name for value in node for name in _feature_classes(value)]
  if not isinstance(node, dict):
    return []
  own = [node[key] for key in _CLASS_KEYS if key in node]
  return own + [name for value in node.values() for name in _feature_classes(value)]
