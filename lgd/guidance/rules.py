"""Rules: what a weight omega does to the pair of predictions.

  (1)  linear:  x0_cond + omega delta,  delta = x0_cond - x0_null

omega = 0 is the conditional prediction, bit for bit. The other convention of the
field writes x0_null + w delta, with w = 1 + omega.
"""

import jax

from lgd import arrays


def linear(x0_cond: jax.Array, x0_null: jax.Array, omega: jax.Array) -> jax.Array:
  """Classifier-free guidance, (1) (Ho and Salimans 2022).

  Args:
    x0_cond: `[batch, *data]` (or `[batch, particles, *data]`).
    x0_null: the same shape.
    omega: `[batch]`.

  Returns:
    The guided clean prediction, of the shape of `x0_cond`.
  """
  return x0_cond + arrays.expand_right(omega, x0_cond) * (x0_cond - x0_null)
