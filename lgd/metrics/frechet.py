"""Frechet distance between Gaussians fitted to two sets.

  (1)  ||m_1 - m_2||^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2))   (Dowson and Landau 1982)

FID is (1) in Inception features (Heusel et al. 2017); here the features are the
caller's. The trace of the root is that of (S_1^(1/2) S_2 S_1^(1/2))^(1/2), which is
symmetric, so eigenvalues of symmetric matrices suffice, for singular ones too.
"""

from typing import NamedTuple

import numpy as np


class Gaussian(NamedTuple):
  """The moments of a set, float64."""

  mean: np.ndarray  # [dim]
  cov: np.ndarray  # [dim, dim], with n - 1


def fit_gaussian(x: np.ndarray) -> Gaussian:
  """Mean and covariance of `x [n, *data]`, flattened; n >= 2."""
  x = x.reshape(len(x), -1)
  mean = np.mean(x, axis=0, dtype=np.float64)
  centered = x - mean
  return Gaussian(mean, centered.T @ centered / (len(x) - 1))


def frechet_distance(x: Gaussian, y: Gaussian) -> float:
  """Frechet distance (1); biased upwards for moments of small sets."""
  eigval, eigvec = np.linalg.eigh(x.cov)
  root_x = (eigvec * np.sqrt(np.maximum(eigval, 0.0))) @ eigvec.T
  cross = np.linalg.eigvalsh(root_x @ y.cov @ root_x)
  trace_root = np.sum(np.sqrt(np.maximum(cross, 0.0)))
  mean_term = np.sum((x.mean - y.mean) ** 2)
  return float(mean_term + np.trace(x.cov) + np.trace(y.cov) - 2.0 * trace_root)
