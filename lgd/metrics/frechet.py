"""Frechet distance between Gaussians fitted to two sets.

  (1)  ||m_1 - m_2||^2 + tr(S_1 + S_2 - 2 (S_1 S_2)^(1/2))   (Dowson and Landau 1982)

FID is (1) in Inception features (Heusel et al. 2017); here the features are the
caller's, and `metrics.features` names the distance after them. The trace of the root
is that of (S_1^(1/2) S_2 S_1^(1/2))^(1/2), which is symmetric, so eigenvalues of
symmetric matrices suffice, for singular ones too.
"""

import numpy as np

from lgd.metrics.moments import Gaussian


def frechet_distance(x: Gaussian, y: Gaussian) -> float:
  """Frechet distance (1); biased upwards for moments of small sets.

  Raises:
    ValueError: moments of different dimensions.
  """
  if x.mean.shape != y.mean.shape:
    raise ValueError(
      f'moments of dimensions {len(x.mean)} and {len(y.mean)}: must be of the same'
      ' features.'
    )
  eigval, eigvec = np.linalg.eigh(x.cov)
  root_x = (eigvec * np.sqrt(np.maximum(eigval, 0.0))) @ eigvec.T
  cross = np.linalg.eigvalsh(root_x @ y.cov @ root_x)
  trace_root = np.sum(np.sqrt(np.maximum(cross, 0.0)))
  mean_term = np.sum((x.mean - y.mean) ** 2)
  return float(mean_term + np.trace(x.cov) + np.trace(y.cov) - 2.0 * trace_root)
