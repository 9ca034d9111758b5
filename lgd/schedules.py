"""Noise schedules.

  (1)  x_t = alpha(t) x_0 + sigma(t) eps,  eps ~ N(0, I),  t in [0, 1]
  (2)  logsnr(t) = log alpha(t)^2 / sigma(t)^2, decreasing in t

alpha is the scale of the signal (not the alpha-bar of DDPM, which is its
square). A schedule is hashable, so it can be a static argument of `jit`.
"""

import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class RectifiedFlow:
  """alpha = 1 - t, sigma = t (Liu et al. 2022; Lipman et al. 2022)."""

  def alpha(self, t: jax.Array) -> jax.Array:
    return 1.0 - jnp.asarray(t)

  def sigma(self, t: jax.Array) -> jax.Array:
    return jnp.asarray(t)

  def logsnr(self, t: jax.Array) -> jax.Array:
    """`log alpha^2 / sigma^2`: +inf at t = 0, -inf at t = 1."""
    return 2.0 * (jnp.log1p(-t) - jnp.log(t))


@dataclasses.dataclass(frozen=True)
class Cosine:
  """alpha = cos(pi t / 2), sigma = sin(pi t / 2): variance preserving.

  The unshifted cosine schedule of Salimans and Ho (2022).
  """

  def alpha(self, t: jax.Array) -> jax.Array:
    # sin(pi (1 - t) / 2) is cos(pi t / 2), and exactly 0 at t = 1 in float32.
    return jnp.sin(0.5 * jnp.pi * (1.0 - t))

  def sigma(self, t: jax.Array) -> jax.Array:
    return jnp.sin(0.5 * jnp.pi * t)

  def logsnr(self, t: jax.Array) -> jax.Array:
    """`log alpha^2 / sigma^2`: +inf at t = 0, -inf at t = 1."""
    return 2.0 * (jnp.log(self.alpha(t)) - jnp.log(self.sigma(t)))
