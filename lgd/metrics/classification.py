"""The verdict of a classifier on samples with a wanted label.

  (1)  accuracy             mean [argmax_k p(k | x) = c]
  (2)  inverse probability  mean 1 / p(c | x)

Guidance with direction D_c - D_null lowers E[1/p(c|x)] (Jiao, Chen and Li,
arXiv 2512.04985). The mean is heavy-tailed: single samples can dominate it, so its
logarithm, a clipped mean and a bootstrap interval are reported with it.
"""

import functools

import numpy as np
from scipy import special

_BLOCK = 1_000_000  # Resampled values in memory at a time.
_HUGE = 1e200  # Stands for infinity.
_LOST = 1e-250  # Of a sum whose largest term may be 1: float64 ends at 1e-308.


def classification(
  log_prob: np.ndarray,
  label: np.ndarray,
  *,
  clip: float = 100.0,
  num_bootstrap: int = 1000,
  seed: int = 0,
) -> dict[str, float]:
  """Accuracy (1) and mean inverse probability (2) with its companions.

  Args:
    log_prob: `[n, num_classes]` log-probabilities of the classifier.
    label: `[n]` the labels that the samples were drawn for.
    clip: largest value of 1/p that enters the clipped mean.
    num_bootstrap: resamples for the 95% percentile interval of (2).
    seed: of the resampling.

  Returns:
    'accuracy', 'log_inverse_prob' (the logarithm of the mean), 'log_inverse_prob_low'
    and 'log_inverse_prob_high' (of the interval), 'inverse_prob' (the mean itself, at
    most e^700, which float64 can hold) and 'clipped_inverse_prob'.

  Raises:
    ValueError: arrays of other shapes, NaN, or labels that are no classes.
  """
  log_prob, label = np.asarray(log_prob, np.float64), np.asarray(label)
  n = len(label)
  if not n or log_prob.ndim != 2 or label.shape != log_prob.shape[:1]:
    raise ValueError(
      f'log_prob.shape={log_prob.shape}, label.shape={label.shape}: must be [n,'
      ' num_classes] and [n], n >= 1.'
    )
  if np.isnan(log_prob).any():  # argmax would take it for the largest.
    raise ValueError('log_prob: holds NaN; look at the samples.')
  classes = np.arange(log_prob.shape[1])
  if not np.all(np.isin(label, classes)) or label.dtype.kind not in 'iu':
    raise ValueError(f'label={label}: must be integers in 0..{len(classes) - 1}.')
  log_inverse = -log_prob[np.arange(n), label]  # A mean of 1/p would overflow.
  log_means = np.concatenate(
    [_log_sums(log_inverse, counts) for counts in _resamples(n, num_bootstrap, seed)]
  ) - np.log(n)
  low, high = _quantiles(log_means, [0.025, 0.975])
  log_mean = special.logsumexp(log_inverse) - np.log(n)
  return {
    'accuracy': float(np.mean(np.argmax(log_prob, axis=1) == label)),
    'log_inverse_prob': float(log_mean),
    'log_inverse_prob_low': float(low),
    'log_inverse_prob_high': float(high),
    'inverse_prob': float(np.exp(min(log_mean, 700.0))),
    'clipped_inverse_prob': float(
      np.mean(np.exp(np.minimum(log_inverse, np.log(clip))))
    ),
  }


def _quantiles(values, shares):
  """Quantiles of numbers that may be infinite, where NumPy's are NaN."""
  quantiles = np.quantile(np.minimum(values, _HUGE), shares)
  return np.where(quantiles > 1e-9 * _HUGE, np.inf, quantiles)


def _resamples(n, num, seed):
  """Blocks `[size, n]` of how often every sample is in each of `num` resamples."""
  if num * n <= _BLOCK:
    return [_all_resamples(n, num, seed)]
  rng, size = np.random.default_rng(seed), max(1, _BLOCK // n)
  return (_multinomial(rng, n, min(size, num - i)) for i in range(0, num, size))


@functools.lru_cache(maxsize=2)  # An evaluation asks for the same ones for every row.
def _all_resamples(n, num, seed):
  return _multinomial(np.random.default_rng(seed), n, num)


def _multinomial(rng, n, num):
  """A resample is n draws of an index; floats, for a product of matrices."""
  return np.float64(rng.multinomial(n, np.full(n, 1.0 / n), size=num))


def _log_sums(log_values, counts):
  """Logarithms of the sums of e^log_values, each counted as often as a row says."""
  largest = log_values.max()
  with np.errstate(divide='ignore', invalid='ignore'):
    sums = counts @ np.exp(log_values - largest)
    log_sums = largest + np.log(sums)
  lost = ~(sums >= _LOST)  # The largest hides the others, or is infinite.
  if lost.any():
    log_sums[lost] = special.logsumexp(log_values, axis=1, b=counts[lost])
  return log_sums
