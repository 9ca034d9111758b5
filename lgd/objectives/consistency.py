"""Consistency of the guided particles with the true ones, and of predictions with data.

With guided particles xg_j ~ P and true particles x_k ~ Q = q(x_s | x_0),
j, k = 1..m:

  (1)  L = 1/m^2 sum_jk ||xg_j - x_k||^beta
           - lambda/2 1/(m(m-1)) sum_{j != k} ||xg_j - xg_k||^beta
  (2)  l2 = 1/m^2 sum_jk ||xg_j - x_k||^2

(1) is Eq. (22), the estimate of Eq. (20): at lambda = 1 its mean is half the
squared energy MMD of P and Q, plus a term that does not depend on P. (2) is
Eq. (21): (1) at beta = 2, lambda = 0. It holds all spread of P
against it, also that which P should have, and so over-guides at a good base.

Within a group of n data at one (s, t), a guided and a true particle of each, the
marginals are compared instead, Eq. (15):

  (3)  L = 1/(n(n-1)) sum_{i != k} ||xg_i - x_k||^beta
           - lambda/2 1/(n(n-1)) sum_{i != k} ||xg_i - xg_k||^beta

class-conditional if the group shares its condition, pooled if not. i = k is left out
of the first sum: the two particles share their datum and are not independent.

Guided score matching takes the guided prediction as a denoiser:

  (4)  L = 1/m sum_j ||x_0 - x0_guided(x_t^j)||^2

It sees neither s nor the transition; its minimiser over omega is a regression on delta.
"""

import jax
import jax.numpy as jnp

from lgd import checks
from lgd import mmd


def self_consistency(
  x_guided: jax.Array, x_true: jax.Array, *, beta: float, interaction: float
) -> jax.Array:
  """Self-consistency loss of each datum, (1); Eq. (22).

  Args:
    x_guided: `[batch, m, *data]` guided particles at s.
    x_true: `[batch, m, *data]` true particles at s.
    beta: kernel exponent, in (0, 2].
    interaction: lambda, in [0, 1]; needs m >= 2 unless 0.

  Returns:
    `[batch]` losses.

  Raises:
    ValueError: particles of different shapes, beta outside (0, 2], or one particle and
      a non-zero interaction.

  Cost: O(m^2 dim) memory per datum.
  """
  checks.same_shape(x_guided=x_guided, x_true=x_true)
  if not 0.0 < beta <= 2.0:
    raise ValueError(f'beta={beta}: must be in (0, 2].')
  batch, m = x_guided.shape[:2]
  x_guided = x_guided.reshape(batch, m, -1)
  x_true = x_true.reshape(batch, m, -1)
  pairwise = jax.vmap(mmd.pairwise_energy, in_axes=(0, 0, None))
  attraction = jnp.mean(pairwise(x_guided, x_true, beta), axis=(1, 2))
  if interaction == 0.0:
    return attraction
  if m < 2:
    raise ValueError(
      f'interaction={interaction} with 1 particle: the sum over pairs needs at'
      ' least 2; use interaction=0 for single-particle training.'
    )
  repulsion = jnp.sum(pairwise(x_guided, x_guided, beta), axis=(1, 2))
  return attraction - 0.5 * interaction * repulsion / (m * (m - 1))


def l2(x_guided: jax.Array, x_true: jax.Array) -> jax.Array:
  """Mean squared distance of guided to true particles, (2); Eq. (21).

  Shapes as in `self_consistency`.
  """
  return self_consistency(x_guided, x_true, beta=2.0, interaction=0.0)


def marginal(
  x_guided: jax.Array, x_true: jax.Array, *, beta: float, interaction: float
) -> jax.Array:
  """Marginal consistency of each group, (3); Eq. (15).

  Args:
    x_guided: `[groups, n, *data]`, one guided particle of each of n >= 2 data, all at
      one (s, t).
    x_true: `[groups, n, *data]`, one true particle of each.
    beta: kernel exponent, in (0, 2].
    interaction: lambda, in [0, 1].

  Returns:
    `[groups]` losses.

  Raises:
    ValueError: particles of different shapes, or a group of one datum.
  """
  checks.same_shape(x_guided=x_guided, x_true=x_true)
  groups, n = x_guided.shape[:2]
  if n < 2:
    raise ValueError(f'{n} datum in a group: a marginal needs at least 2.')
  x_guided = x_guided.reshape(groups, n, -1)
  x_true = x_true.reshape(groups, n, -1)
  pairwise = jax.vmap(mmd.pairwise_energy, in_axes=(0, 0, None))
  others = ~jnp.eye(n, dtype=bool)
  attraction, repulsion = (
    jnp.mean(pairwise(x_guided, y, beta), axis=(1, 2), where=others)
    for y in (x_true, x_guided)
  )
  return attraction - 0.5 * interaction * repulsion


def group_marginal(
  x_guided: jax.Array,
  x_true: jax.Array,
  *,
  group_size: int,
  beta: float,
  interaction: float,
) -> jax.Array:
  """`marginal` of a batch whose consecutive `group_size` data form a group.

  Args:
    x_guided: `[batch, m, *data]`; batch a multiple of `group_size`.
    x_true: the same shape.
    group_size: n.
    beta: as in `marginal`.
    interaction: as in `marginal`.

  Returns:
    `[batch / n * m]` losses: particle j of all members makes a group of its own.
  """

  def regroup(x):
    x = x.reshape(-1, group_size, *x.shape[1:])  # [groups, n, m, *data]
    x = jnp.swapaxes(x, 1, 2)
    return x.reshape(-1, *x.shape[2:])

  return marginal(
    regroup(x_guided), regroup(x_true), beta=beta, interaction=interaction
  )


def score_matching(x0: jax.Array, x0_guided: jax.Array) -> jax.Array:
  """Squared error of the guided prediction, (4).

  Args:
    x0: `[batch, *data]` real data.
    x0_guided: `[batch, m, *data]` guided predictions at m noisy particles.

  Returns:
    `[batch]` losses.
  """
  sq_error = jnp.square(x0_guided - x0[:, None])
  return jnp.mean(jnp.sum(sq_error.reshape(*sq_error.shape[:2], -1), axis=2), axis=1)
