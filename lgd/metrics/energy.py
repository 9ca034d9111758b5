"""Class-conditional energy distance.

  (1)  1/C sum_c MMD^2(samples of class c, data of class c),  beta = 1

with the unbiased estimate of `lgd.mmd`: 0 in the mean when every class is matched,
and it may be negative.
"""

import functools

import jax
import numpy as np

from lgd import mmd


@functools.partial(jax.jit, static_argnames='beta')
def _energy_mmd2(x, y, beta):
  return mmd.energy_mmd2(x, y, beta=beta)


def class_conditional_energy(
  x: np.ndarray,
  label: np.ndarray,
  reference: np.ndarray,
  reference_label: np.ndarray,
  *,
  beta: float = 1.0,
) -> float:
  """Mean over classes of the energy distance of samples to data, (1).

  Args:
    x: `[n, *data]` samples, at least 2 of every class in `reference_label`.
    label: `[n]`.
    reference: `[m, *data]` data.
    reference_label: `[m]`.
    beta: kernel exponent, in (0, 2).

  Cost: compiles once for every size of a class.
  """
  x, reference = x.reshape(len(x), -1), reference.reshape(len(reference), -1)
  return float(
    np.mean(
      [
        _energy_mmd2(x[label == c], reference[reference_label == c], beta)
        for c in np.unique(reference_label)
      ]
    )
  )
