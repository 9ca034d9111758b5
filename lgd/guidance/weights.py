"""Weights omega(cond, s, t) that are given rather than learned.

  (1)  constant:      omega
  (2)  interval:      omega if lo < t <= hi, else 0   (Kynkaanniemi et al. 2024)
  (3)  clamp-linear:  max(floor, 2 omega (1 - t))     (Wang et al. 2024)
  (4)  clamp-cosine:  max(floor, omega (1 + cos(pi t)))                   (ditto)
  (5)  power-cosine:  omega (1 - cos(pi (1 - t)^power)) / 2               (ditto)
  (6)  triangle:      2 omega (1 - |2 t - 1|)         (Jin et al. 2025)
  (7)  beta-CFG:      w Beta(u; a, b) - 1             (Malarz et al. 2025)
  (8)  CFG++:         l / (1 - r) - 1                 (Chung et al. 2024)

t is the time denoised from, u counts the steps from 0 to 1, Beta is the density, and
r = alpha_t sigma_s / (alpha_s sigma_t). In (7) and (8), w and l are the papers' scales
and 1 is subtracted here; the other scales are omega. Constants may be traced, so that
one compiled program serves a whole grid; what is not traced is checked. omega may be
negative, towards the null prediction, but where a floor would hide it, (3) and (4).
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from lgd import arrays
from lgd import checks
from lgd import types


def constant(omega: float) -> types.Weight:
  """The same omega for every condition and time, (1).

  Raises:
    ValueError: omega is not finite.
  """
  checks.require('finite', math.isfinite, omega=omega)

  return _of_time(lambda t: jnp.broadcast_to(omega, t.shape))


def interval(omega: float, lo: float, hi: float) -> types.Weight:
  """Omega for lo < t <= hi and 0 elsewhere, (2) (arXiv 2404.07724).

  A time within `arrays.TIME_ROUNDING` of a bound is on it: the grid's rounding decides
  nothing.

  Args:
    omega: inside the interval.
    lo: a time in [0, 1]; the paper's bounds are noise levels sigma.
    hi: a time in [0, 1], above `lo`.

  Raises:
    ValueError: omega is not finite, a bound is outside [0, 1], or lo >= hi.
  """
  checks.require('finite', math.isfinite, omega=omega)
  checks.require('a time in [0, 1], not a sigma or a step', _is_time, lo=lo, hi=hi)
  if checks.is_known(lo) and checks.is_known(hi) and lo >= hi:
    raise ValueError(f'lo={lo}, hi={hi}: needs lo < hi; constant(0.0) is no guidance.')

  def inside(t):
    return arrays.at_most(t, hi) & ~arrays.at_most(t, lo)

  return _of_time(lambda t: jnp.where(inside(t), omega, 0.0))


def clamp_linear(omega: float, floor: float = 0.0) -> types.Weight:
  """Rises linearly towards the data, at least `floor`, (3) (arXiv 2404.13040).

  Floor 0 is the paper's `linear`; its mean over t in [0, 1] is omega.

  Raises:
    ValueError: omega or floor is negative or not finite.
  """
  checks.require('finite and >= 0', _is_non_negative, omega=omega, floor=floor)

  return _of_time(lambda t: jnp.maximum(floor, 2.0 * omega * (1.0 - t)))


def clamp_cosine(omega: float, floor: float = 0.0) -> types.Weight:
  """Rises as a cosine towards the data, at least `floor`, (4) (arXiv 2404.13040).

  Floor 0 is the paper's `cosine`; its mean over t in [0, 1] is omega.

  Raises:
    ValueError: omega or floor is negative or not finite.
  """
  checks.require('finite and >= 0', _is_non_negative, omega=omega, floor=floor)

  return _of_time(lambda t: jnp.maximum(floor, omega * (1.0 + jnp.cos(jnp.pi * t))))


def power_cosine(omega: float, power: float) -> types.Weight:
  """Rises from 0 at t = 1 to omega at t = 0, the later the larger `power`, (5).

  Of arXiv 2404.13040, and normalised as there: omega is the maximum and not the mean.
  Its power 1 has the shape of `clamp_cosine` and half the height.

  Raises:
    ValueError: omega is not finite, or power is not finite and positive.
  """
  checks.require('finite', math.isfinite, omega=omega)
  checks.require('finite and > 0', lambda v: 0.0 < v < math.inf, power=power)

  return _of_time(
    lambda t: omega * (0.5 * (1.0 - jnp.cos(jnp.pi * (1.0 - t) ** power)))
  )


def triangle(omega: float) -> types.Weight:
  """0 at both ends of [0, 1], 2 omega in the middle, (6) (arXiv 2509.22007).

  Its mean over t in [0, 1] is omega. The paper has w = 1 + omega rise from 1 to 2w - 1
  and fall back, in the index of the step, and rescales it to mean w on the sampler's
  grid; here it is in t, and `matched_mean` rescales.

  Raises:
    ValueError: omega is not finite.
  """
  checks.require('finite', math.isfinite, omega=omega)

  return _of_time(lambda t: 2.0 * omega * (1.0 - jnp.abs(2.0 * t - 1.0)))


def beta_cfg(scale: float, a: float, b: float, times: jax.Array) -> types.Weight:
  """The schedule of beta-CFG, (7) (arXiv 2502.10574), on a sampler's grid.

  u = i / (num_steps - 1) at transition i, from the noise on, and linear in t between.
  With a, b > 1 omega is -1 at both ends: the null prediction. The paper's division of
  delta by its norm is a matter of the rule and not of the weight.

  Args:
    scale: w; the density has mean 1 over u, so that w is the mean scale.
    a: of the density, at least 1 (below, it is infinite at u = 0).
    b: of the density, at least 1 (below, it is infinite at u = 1).
    times: `[num_steps + 1]` decreasing times; num_steps at least 2.

  Raises:
    ValueError: a constant is out of its range, or there is a single step.
  """
  checks.require('finite and >= 0', _is_non_negative, scale=scale)
  checks.require('finite and >= 1', lambda v: 1.0 <= v < math.inf, a=a, b=b)
  shape = np.shape(times)
  if len(shape) != 1 or shape[0] < 3:
    raise ValueError(
      f'times.shape={shape}: must be (num_steps + 1,) with num_steps >= 2, for u to run'
      ' from 0 to 1.'
    )
  checks.time_grid(times=times)
  increasing = jnp.asarray(times)[-2::-1]

  def omega(t):
    u = jnp.interp(t, increasing, jnp.linspace(1.0, 0.0, shape[0] - 1))
    return scale * jax.scipy.stats.beta.pdf(u, a, b) - 1.0

  return _of_time(omega)


def cfg_plus_plus(scale: float, schedule: types.Schedule) -> types.Weight:
  """CFG++ (arXiv 2406.08070) as a weight, (8): exact at churn 0.

  Its step has the guided clean prediction and the noise of the null prediction,

    x_s = alpha_s (x0_null + l delta) + sigma_s eps_null,

  which is the DDIM step of x0_null + w delta with w = l / (1 - r). w is l at t = 1 and
  at s = 0, where omega = l - 1 <= 0 for l <= 1, and grows as 1 / (t - s) in between:
  omega depends on the step size, and a table of it holds for its own grid only.

  The paper compares w = 2, 5, 7.5, 9, 12.5 with l = .2, .4, .6, .8, 1: about the mean
  of w(s, t) over its 50 steps of Stable Diffusion's noise schedule, which is 12.0 l by
  (8). Over N equidistant steps of rectified flow the mean is l (N + 1)(N + 2) / (6 N),
  8.84 l for 50, so those pairs are no guide to other grids: `mean_in_time` is.

  Args:
    scale: l, in [0, 1] in the paper; larger is allowed.
    schedule: noise schedule of the sampler.

  Raises:
    ValueError: scale is negative or not finite.
  """
  checks.require('finite and >= 0', _is_non_negative, scale=scale)

  def weight(cond, s, t):
    del cond
    # As in `transitions.coefficients`, operation for operation: the sampler multiplies
    # by 1 - r, so that its rounding at small t - s cancels.
    alpha_ratio = schedule.alpha(t) / schedule.alpha(s)
    sigma_ratio = schedule.sigma(s) / schedule.sigma(t)
    return (scale / (1.0 - alpha_ratio * sigma_ratio) - 1.0).astype(t.dtype)

  return weight


def _of_time(omega: Callable[[jax.Array], jax.Array]) -> types.Weight:
  """A weight of t alone, in the dtype of t."""
  return lambda cond, s, t: omega(t).astype(t.dtype)


def _is_non_negative(value: float) -> bool:
  return 0.0 <= value < math.inf


def _is_time(value: float) -> bool:
  return 0.0 <= value <= 1.0
