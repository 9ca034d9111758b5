"""Layers of image networks in NumPy float64, `[batch, channels, height, width]`."""

import numpy as np
from numpy.lib import stride_tricks


def conv(x, kernel, stride=1, pad=(0, 0)):
  """Correlation with `kernel [out, in, height, width]`, zeros around x."""
  x = np.pad(x, ((0, 0), (0, 0), (pad[0], pad[0]), (pad[1], pad[1])))
  windows = stride_tricks.sliding_window_view(x, kernel.shape[2:], axis=(2, 3))
  windows = windows[:, :, ::stride, ::stride]
  out = np.tensordot(windows, np.float64(kernel), axes=((1, 4, 5), (1, 2, 3)))
  return out.transpose(0, 3, 1, 2)


def max_pool(x, stride, pad=0):
  """3x3 maxima of whole windows, after a border of `pad` that never wins."""
  return _windows(x, stride, pad, -np.inf).max(axis=(4, 5))


def mean_pool(x):
  """3x3 means around every position, of what is inside alone."""
  return np.nanmean(_windows(x, 1, 1, np.nan), axis=(4, 5))


def _windows(x, stride, pad, value):
  around = ((0, 0), (0, 0), (pad, pad), (pad, pad))
  x = np.pad(x, around, constant_values=value)
  windows = stride_tricks.sliding_window_view(x, (3, 3), axis=(2, 3))
  return windows[:, :, ::stride, ::stride]
