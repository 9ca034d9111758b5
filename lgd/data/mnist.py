"""MNIST: 70,000 handwritten digits of 28x28, as TensorFlow Datasets prepares them.

Reading needs neither TensorFlow nor a network; preparing needs both, once:

  tfds build mnist --file_format=array_record
"""

import numpy as np
from etils import epath
from etils import epy

from lgd.data import splits

with epy.lazy_imports():  # Half a second that users of other data need not wait.
  import tensorflow_datasets as tfds

NUM_TRAIN = 55_000  # The first of the official 60,000; the last 5,000 validate.


class NotPreparedError(ValueError):
  """The data set is not on this machine, or not in a format that can be read here."""


def load(data_dir: str = '') -> splits.Dataset:
  """Handwritten digits `[n, 28, 28, 1]` in [-1, 1], split 55,000/5,000/10,000.

  Test is the official test split. Training and validation are the first 55,000 and
  the last 5,000 of the official training split, in its stored order: no seed.

  Args:
    data_dir: the TFDS directory, with `mnist/VERSION/`. Empty means its default,
      `$TFDS_DATA_DIR` or ~/tensorflow_datasets.

  Raises:
    NotPreparedError: nothing there that can be read; says how to prepare it.
  """
  root = epath.Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()
  not_prepared = NotPreparedError(
    f'no mnist as array_record in {root / "mnist"}; prepare it with: tfds build mnist'
    f' --file_format=array_record --data_dir={root} (needs tensorflow and'
    ' importlib_resources; reading does not).'
  )
  # Asked for a data set that is not there, TFDS looks for it in the network first.
  if not any((root / 'mnist').glob('*/dataset_info.json')):
    raise not_prepared
  try:
    train, test = tfds.data_source(
      'mnist', split=['train', 'test'], data_dir=root, download=False
    )
  except NotImplementedError as error:  # Prepared as tfrecord, TFDS's own default.
    raise not_prepared from error
  train, test = _read(train), _read(test)
  return splits.Dataset(
    splits.Split(train.x[:NUM_TRAIN], train.label[:NUM_TRAIN]),
    splits.Split(train.x[NUM_TRAIN:], train.label[NUM_TRAIN:]),
    test,
    num_classes=10,
  )


def _read(source) -> splits.Split:
  """All examples, in one batch: twice as fast as one by one."""
  examples = source.__getitems__(range(len(source)))
  x = np.stack([example['image'] for example in examples]) / np.float32(127.5) - 1.0
  label = np.asarray([example['label'] for example in examples], np.int32)
  return splits.Split(x, label)
