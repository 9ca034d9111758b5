"""Means and covariances: of arrays, of streams of batches, and in files.

A batch with n_b points, mean m_b and scatter M_b = sum (x - m_b)(x - m_b)^T joins as
(Chan, Golub and LeVeque 1983)

  (1)  d = m_b - m_a,  n = n_a + n_b
       m = m_a + d n_b / n,  M = M_a + M_b + d d^T n_a n_b / n

which, unlike sums of squares, loses nothing when the mean is far from 0.
"""

from typing import NamedTuple

import numpy as np
from etils import epath

from lgd import checks
from lgd import errors
from lgd.storage import files


class Gaussian(NamedTuple):
  """The moments of a set, float64."""

  mean: np.ndarray  # [dim]
  cov: np.ndarray  # [dim, dim], with n - 1


class Moments(NamedTuple):
  """Count, mean and scatter of the points so far, for (1); float64."""

  count: int
  mean: np.ndarray  # [dim]
  scatter: np.ndarray  # [dim, dim]


def moments(x: np.ndarray) -> Moments:
  """Moments of `x [n, *data]`, flattened; n >= 1.

  Raises:
    ValueError: a point that is not finite.
  """
  x = np.asarray(x).reshape(len(x), -1)
  checks.finite('look at what they are points of.', x=x)
  mean = np.mean(x, axis=0, dtype=np.float64)
  centered = x - mean
  return Moments(len(x), mean, centered.T @ centered)


def merge(a: Moments | None, b: Moments) -> Moments:
  """Moments of both sets together, (1); None is the empty set."""
  if a is None:
    return b
  count = a.count + b.count
  shift = b.mean - a.mean
  return Moments(
    count,
    a.mean + shift * (b.count / count),
    a.scatter + b.scatter + np.outer(shift, shift) * (a.count * b.count / count),
  )


def gaussian(of: Moments) -> Gaussian:
  """Mean and unbiased covariance.

  Raises:
    ValueError: a single point.
  """
  if of.count < 2:
    raise ValueError(f'n={of.count} points: a covariance needs at least 2.')
  return Gaussian(of.mean, of.scatter / (of.count - 1))


def fit_gaussian(x: np.ndarray) -> Gaussian:
  """Mean and covariance of `x [n, *data]`, flattened; n >= 2."""
  return gaussian(moments(x))


def save_gaussian(path: epath.PathLike, of: Gaussian) -> None:
  """Writes reference statistics as an .npz of 'mu' and 'sigma', the usual form."""
  files.write_npz(path, {'mu': of.mean, 'sigma': of.cov})


def load_gaussian(path: epath.PathLike) -> Gaussian:
  """Reads reference statistics: 'mu' `[dim]` and 'sigma' `[dim, dim]`; others are left.

  Raises:
    errors.FileError: no such file, damaged, or not of this form.
  """
  arrays = files.read_npz(path)
  for name in ('mu', 'sigma'):
    if name not in arrays:
      raise errors.FileError(
        f'{path}: has no array {name}; reference statistics are mu and sigma.'
      )
  mean, cov = arrays['mu'], arrays['sigma']
  if mean.ndim != 1 or cov.shape != 2 * mean.shape:
    raise errors.FileError(
      f'{path}: mu {mean.shape} and sigma {cov.shape}: must be [dim] and [dim, dim].'
    )
  mean, cov = np.asarray(mean, np.float64), np.asarray(cov, np.float64)
  if not (np.all(np.isfinite(mean)) and np.all(np.isfinite(cov))):
    raise errors.FileError(f'{path}: mu or sigma is not finite.')
  return Gaussian(mean, cov)
