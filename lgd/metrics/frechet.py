"""Frechet distance between Gaussians fitted to two sets.

  (1)  ||m_1 - m_2||^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2))   (Dowson and Landau 1982)

FID is (1) in Inception features (Heusel et al. 2017); here the features are the
caller's. The trace of the root is that of (S_1^(1/2) S_2 S_1^(1/2))^(1/2), which is
symmetric, so eigenvalues of symmetric matrices suffice, for singular ones too.
"""

import numpy as np


def frechet_distance(x: np.ndarray, y: np.ndarray) -> float:
  """Frechet distance (1) in float64; biased upwards for small sets.

  Args:
    x: `[n, dim]` features, n >= 2.
    y: `[m, dim]` features, m >= 2.
  """
  x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
  cov_x, cov_y = (np.atleast_2d(np.cov(z, rowvar=False)) for z in (x, y))
  eigval, eigvec = np.linalg.eigh(cov_x)
  root_x = (eigvec * np.sqrt(np.maximum(eigval, 0.0))) @ eigvec.T
  cross = np.linalg.eigvalsh(root_x @ cov_y @ root_x)
  trace_root = np.sum(np.sqrt(np.maximum(cross, 0.0)))
  mean_term = np.sum((x.mean(axis=0) - y.mean(axis=0)) ** 2)
  return float(mean_term + np.trace(cov_x) + np.trace(cov_y) - 2.0 * trace_root)
