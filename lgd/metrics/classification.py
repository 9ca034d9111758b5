"""What a classifier says of samples with a wanted label.

  (1)  accuracy             mean [argmax_k p(k | x) = c]
  (2)  inverse probability  mean 1 / p(c | x)

Guidance with direction D_c - D_null lowers E[1/p(c|x)] (Jiao, Chen and Li,
arXiv 2512.04985). The mean is heavy-tailed: single samples can dominate it, so its
logarithm, a clipped mean and a bootstrap interval are reported with it.
"""

import numpy as np
from scipy import special


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
    'accuracy', 'inverse_prob', 'log_inverse_prob' (the logarithm of the mean),
    'clipped_inverse_prob', 'inverse_prob_low' and 'inverse_prob_high'.
  """
  log_prob = np.asarray(log_prob, np.float64)
  n = len(label)
  log_inverse = -log_prob[np.arange(n), label]
  rng = np.random.default_rng(seed)
  # A resample is n draws of an index: multinomial counts of every sample.
  counts = rng.multinomial(n, np.full(n, 1.0 / n), size=num_bootstrap)
  inverse = np.exp(log_inverse)
  low, high = np.quantile(counts @ inverse / n, [0.025, 0.975])
  return {
    'accuracy': float(np.mean(np.argmax(log_prob, axis=1) == label)),
    'inverse_prob': float(np.mean(inverse)),
    'log_inverse_prob': float(special.logsumexp(log_inverse) - np.log(n)),
    'clipped_inverse_prob': float(np.mean(np.minimum(inverse, clip))),
    'inverse_prob_low': float(low),
    'inverse_prob_high': float(high),
  }
