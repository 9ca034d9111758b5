"""Guided score matching: the guided prediction as a denoiser.

  (1)  L = 1/m sum_j ||x_0 - x0_guided(x_t^j)||^2

It sees neither s nor the transition; its minimiser over omega is a regression on
delta.
"""

import jax
import jax.numpy as jnp


def score_matching(x0: jax.Array, x0_guided: jax.Array) -> jax.Array:
  """Squared error of the guided prediction, (1).

  Args:
    x0: `[batch, *data]` real data.
    x0_guided: `[batch, m, *data]` guided predictions at m noisy particles.

  Returns:
    `[batch]` losses.
  """
  sq_error = jnp.square(x0_guided - x0[:, None])
  return jnp.mean(jnp.sum(sq_error.reshape(*sq_error.shape[:2], -1), axis=2), axis=1)
