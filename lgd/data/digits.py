"""scikit-learn's bundled digits: 1,797 real 8x8 images, no download."""

import numpy as np
from etils import epy

with epy.lazy_imports():  # Seconds that users of other data need not wait.
  from sklearn import datasets
  from sklearn import model_selection

from lgd import conditions
from lgd.data import splits


def load() -> splits.Dataset:
  """Handwritten digits `[n, 8, 8, 1]` in [-1, 1], split 60/20/20.

  The UCI test set of optical digits. The split is stratified by class and does not
  depend on any seed of an experiment, so no result was ever selected on test data
  of another run.
  """
  images, label = datasets.load_digits(return_X_y=True)
  x = (images / 8.0 - 1.0).astype(np.float32).reshape(-1, 8, 8, 1)
  label = label.astype(np.int32)

  def split(x, label, fraction):
    return model_selection.train_test_split(
      x, label, test_size=fraction, stratify=label, random_state=0
    )

  x, test_x, label, test_label = split(x, label, 0.2)
  train_x, validation_x, train_label, validation_label = split(x, label, 0.25)
  return splits.Dataset(
    splits.Split(train_x, train_label),
    splits.Split(validation_x, validation_label),
    splits.Split(test_x, test_label),
    conditions.Labels(10),
  )
