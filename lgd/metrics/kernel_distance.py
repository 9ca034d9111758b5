"""Kernel distance: the unbiased MMD^2 with a cubic kernel (KID, Binkowski et al. 2018).

  (1)  k(x, y) = (x.y / dim + 1)^3
  (2)  1/(n(n-1)) sum_{i != j} [k(x_i, x_j) + k(y_i, y_j)] - 2/n^2 sum_ij k(x_i, y_j)

averaged over random subsets of n. Unbiased, so 0 in the mean for equal laws at any n,
unlike the Frechet distance, and possibly negative.
"""

import numpy as np

from lgd import checks
from lgd.metrics.estimate import Estimate


def kernel_distance(
  x: np.ndarray,
  reference: np.ndarray,
  *,
  subset_size: int = 1000,
  num_subsets: int = 100,
  seed: int = 0,
) -> Estimate:
  """Mean and standard deviation of (2) over pairs of subsets, without replacement.

  Args:
    x: `[n, dim]` features of samples.
    reference: `[m, dim]` of data.
    subset_size: of each; at least 2, at most n and m.
    num_subsets: at least 1.
    seed: of the subsets.

  Returns:
    The mean, and the deviation *of single subsets* (the usual report): not the error of
    the mean, as subsets overlap.

  Raises:
    ValueError: a size out of range, or features of different dimensions.

  Cost: `num_subsets` products O(subset_size^2 dim); memory O(subset_size^2 + (n + m)
  dim).
  """
  x, reference = np.asarray(x), np.asarray(reference)
  checks.matrices(x=x, reference=reference)
  smallest = min(len(x), len(reference))
  if not 2 <= subset_size <= smallest:
    raise ValueError(
      f'subset_size={subset_size}: must be in 2..{smallest}, the size of the smaller'
      ' set.'
    )
  if num_subsets < 1:
    raise ValueError(f'num_subsets={num_subsets}: must be at least 1.')
  rng = np.random.default_rng(seed)
  values = np.empty(num_subsets)
  for i in range(num_subsets):
    own, other = (
      np.asarray(z[rng.choice(len(z), subset_size, replace=False)], np.float64)
      for z in (x, reference)
    )
    values[i] = _within(own) + _within(other) - 2.0 * np.mean(_kernel(own, other))
  return Estimate(float(np.mean(values)), float(np.std(values)))


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """(1) for every pair."""
  return (x @ y.T / x.shape[1] + 1.0) ** 3


def _within(x: np.ndarray) -> float:
  """Mean of the kernel over pairs of different points."""
  kernel = _kernel(x, x)
  return (np.sum(kernel) - np.trace(kernel)) / (len(x) * (len(x) - 1))
