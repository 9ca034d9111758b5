"""Weights omega(cond, s, t) that are given rather than learned.

  (1)  constant:      omega
  (2)  interval:      omega if lo < t <= hi, else 0   (Kynkaanniemi et al. 2024)
  (3)  clamp-linear:  max(floor, 2 omega (1 - t))      (Wang et al. 2024)

t is the time denoised from. Constants may be traced, so that one compiled program
serves a whole grid.
"""

import jax.numpy as jnp

from lgd import types


def constant(omega: float) -> types.Weight:
  """The same omega for every condition and time, (1)."""

  def weight(cond, s, t):
    del cond, s
    return jnp.broadcast_to(jnp.asarray(omega, t.dtype), t.shape)

  return weight


def interval(omega: float, lo: float, hi: float) -> types.Weight:
  """Omega for lo < t <= hi and 0 elsewhere, (2)."""

  def weight(cond, s, t):
    del cond, s
    return jnp.where((lo < t) & (t <= hi), omega, 0.0).astype(t.dtype)

  return weight


def clamp_linear(omega: float, floor: float) -> types.Weight:
  """Rises linearly towards the data, at least `floor`, (3); mean omega at floor 0."""

  def weight(cond, s, t):
    del cond, s
    return jnp.maximum(floor, 2.0 * omega * (1.0 - t)).astype(t.dtype)

  return weight
