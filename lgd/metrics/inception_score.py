"""Inception Score (Salimans et al. 2016).

  (1)  exp(mean_x KL(p(k | x) || p(k))),  p(k) = mean_x p(k | x)

of each of several splits of the samples. It is published for InceptionV3's 1008 logits
without bias (`networks.inception`); with another classifier it is another score.
"""

import numpy as np
from scipy import special

from lgd.metrics.estimate import Estimate


def inception_score(
  log_prob: np.ndarray, num_splits: int = 10, *, seed: int = 0
) -> Estimate:
  """Mean and standard deviation of (1) over splits.

  Args:
    log_prob: `[n, num_classes]` log-probabilities; -inf is a probability of 0.
    num_splits: parts of as equal sizes as can be, 1..n.
    seed: of the order in which samples are split: ours come sorted by class.

  Returns:
    Each score is in [1, num_classes].

  Raises:
    ValueError: more splits than samples, or none; or NaN.
  """
  log_prob = np.asarray(log_prob)
  n = len(log_prob)
  if not 1 <= num_splits <= n:
    raise ValueError(f'num_splits={num_splits}: must be in 1..{n}, the samples.')
  if np.isnan(log_prob).any():
    raise ValueError('log_prob: holds NaN; look at the samples.')
  order = np.random.default_rng(seed).permutation(n)
  scores = [
    _score(np.asarray(log_prob[part], np.float64))
    # Where the parts cannot be equal, those of the published code.
    for part in np.split(order, [i * n // num_splits for i in range(1, num_splits)])
  ]
  return Estimate(float(np.mean(scores)), float(np.std(scores)))


def _score(log_prob: np.ndarray) -> float:
  """(1) of one split; `rel_entr` takes 0 log 0 = 0."""
  prob = np.exp(log_prob)
  divergence = np.sum(special.rel_entr(prob, np.mean(prob, axis=0)), axis=1)
  return np.exp(np.mean(divergence))
