"""Rewards R(x0_hat, c), to be raised: as a sampler goes, and along a direction.

Training-free guidance improves the clean estimate at every transition. With
x_i = x0_hat(x_t^i, t, c), detached, and a rate eta(c, s, t), which is a weight like any
other:

  (1)  MPGD:   x_i <- x_i + eta alpha_s / coef_x0 grad R(x_i)
  (2)  Stein:  x_i <- x_i + eta / n sum_j [k_ij grad R(x_j) + grad_{x_j} k_ij]
  (3)  k_ij = exp(-||x_i - x_j||^2 / h),  grad_{x_j} k_ij = 2 / h (x_i - x_j) k_ij

(1) is manifold-preserving guided diffusion (He et al. 2023, arXiv 2311.16424): its step
keeps the noise eps(x_t) of the estimate that was not moved,

  (6)  x_s = alpha_s (x_i + eta grad R(x_i)) + coef_xt sigma_t eps(x_t) + std z

which is the transition (`transitions`, (1)) of the x_i of (1). (2) is a
step of Stein variational gradient descent (Liu and Wang 2016) towards the density
exp(R), of n particles of one condition, which its second term drives apart. In Stein
diffusion guidance (Nguyen et al. 2025, arXiv 2507.05482) an estimate of the score of
p(x_0 | x_t) stands for grad R in (2) and the reward acts beside it; here the estimates
return to the data by the next evaluation of the denoiser alone.

The transition of the sampler treats the outcome of (2) as any clean prediction: it
takes the noise that goes with it, at churn 1 new noise. So for one particle (2) is (1)
without alpha_s / coef_x0, at churn 0 without 1 / (1 - r), r = alpha_t sigma_s /
(alpha_s sigma_t).

Learned guidance moves along a line, on which a reward is a function of one number:

  (4)  R(omega)  = R(x0_cond + omega delta, c)
  (5)  R'(omega) = <grad R(x0_cond + omega delta, c), delta>

(5) is a derivative forward, one `jax.jvp` with tangent delta: it costs a second
evaluation of R, and keeps nothing of the first. Nothing here differentiates through the
denoiser.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from lgd import arrays
from lgd import checks
from lgd import transitions
from lgd import types

# Of an estimate's norm. Repulsion is as 1 / distance; nearer ones may be equal but for
# rounding, as all are at t = 1, and would fly apart.
_RESOLUTION = 1e-3


def mpgd(
  denoise: types.Denoise,
  reward: types.Reward,
  rate: types.Weight,
  *,
  schedule: types.Schedule,
  churn: float,
) -> types.Denoise:
  """`(xt, s, t, cond) -> x0_hat` moved by (1): the sampler then makes the step (6).

  Args:
    denoise: guided or not.
    reward: `(x0_hat, cond) -> [batch]`, to be raised; differentiable in x0_hat.
    rate: eta, size of the step, in squared units of the data per unit of reward, such
      as `guidance.constant`.
    schedule: noise schedule of the sampler, which is of first order: the second
      extrapolates the moves of two steps.
    churn: of the sampler.

  Raises:
    ValueError: on the first call or trace, the reward is not `[batch]`.

  Gradient: stopped at x0_hat. Cost: one gradient of the reward per call and sample, and
  what `denoise` costs.
  """

  def rewarded(xt, s, t, cond):
    x0_hat = jax.lax.stop_gradient(denoise(xt, s, t, cond))
    coef_x0 = transitions.coefficients(schedule, s, t, churn).coef_x0
    eta = arrays.expand_right(rate(cond, s, t) * schedule.alpha(s) / coef_x0, x0_hat)
    return x0_hat + eta * _reward_gradient(reward, x0_hat, cond)

  return rewarded


def stein(
  denoise: types.Denoise,
  reward: types.Reward,
  rate: types.Weight,
  num_particles: int,
  bandwidth: jax.Array | float | None = None,
) -> types.Denoise:
  """A Stein variational step on the estimates of every group of particles, (2).

  The batch is `[groups * num_particles]`: a group is `num_particles` consecutive rows,
  of the same condition and the same time.

  Args:
    denoise: guided or not.
    reward: `(x0_hat, cond) -> [batch]`, to be raised; differentiable in x0_hat.
    rate: size of the step, in squared units of the data per unit of reward. k averages
      over the group: far from each other, particles move 1 / n of what one would.
    num_particles: n.
    bandwidth: h of (3), in squared units of the data; None is the median of the squared
      distances in the group over log n, no less than 1e-6 of the mean squared norm.

  Raises:
    ValueError: bandwidth is not positive; on the first call or trace, the reward is not
      `[batch]`, or the batch is not a multiple of `num_particles`.

  Gradient: stopped at x0_hat. Cost: as in `mpgd`, and batch * n * dim memory.
  """
  if bandwidth is not None:
    checks.require('> 0', lambda v: v > 0.0, bandwidth=bandwidth)

  def rewarded(xt, s, t, cond):
    batch = xt.shape[0]
    if num_particles < 1 or batch % num_particles:
      raise ValueError(
        f'num_particles={num_particles}: must divide the batch of {batch}, whose groups'
        ' are as many consecutive rows.'
      )
    x0_hat = jax.lax.stop_gradient(denoise(xt, s, t, cond))
    groups = (batch // num_particles, num_particles, -1)
    direction = jax.vmap(functools.partial(_stein_direction, bandwidth=bandwidth))(
      x0_hat.reshape(groups),
      _reward_gradient(reward, x0_hat, cond).reshape(groups),
    )
    eta = arrays.expand_right(rate(cond, s, t), x0_hat)
    return x0_hat + eta * direction.reshape(x0_hat.shape)

  return rewarded


def along(
  reward: types.Reward,
  x0_cond: jax.Array,
  delta: jax.Array,
  omega: jax.Array,
  cond: types.Cond,
) -> jax.Array:
  """R(omega) of each row, (4), with the derivative (5).

  For every rule that is linear along a direction: classifier-free guidance and
  autoguidance with delta = x0_cond - x0_null, and whatever `guidance.pair_along` makes.

  Args:
    reward: `(x0_hat, cond) -> [batch]`; differentiable forward, by `jax.jvp`.
    x0_cond: `[batch, *data]`, the conditional prediction.
    delta: `[batch, *data]`, the direction.
    omega: `[batch]`.
    cond: pytree of `[batch, ...]`.

  Returns:
    `[batch]` rewards.

  Raises:
    ValueError: while tracing, the reward is not `[batch]`.

  Gradient: towards omega alone, and once: (5) is a constant to a second derivative.
  Cost: two evaluations of the reward, with the gradient.
  """
  return _with_slope(omega, *value_and_slope(reward, x0_cond, delta, omega, cond))


def value_and_slope(
  reward: types.Reward,
  x0_cond: jax.Array,
  delta: jax.Array,
  omega: jax.Array,
  cond: types.Cond,
) -> tuple[jax.Array, jax.Array]:
  """R(omega) and R'(omega) of each row, (4) and (5): two `[batch]`, without gradients.

  Arguments as in `along`.
  """
  x0_cond, delta, omega = jax.lax.stop_gradient((x0_cond, delta, omega))
  x0_hat = x0_cond + arrays.expand_right(omega, x0_cond) * delta
  return jax.jvp(
    lambda x0_hat: evaluate(reward, x0_hat, cond),
    (x0_hat,),
    (delta.astype(x0_hat.dtype),),
  )


def evaluate(reward: types.Reward, x0_hat: jax.Array, cond: types.Cond) -> jax.Array:
  """The reward of each row, `[batch]`, in float32 or more.

  Raises:
    ValueError: while tracing, it is of another shape, or of no floats.
  """
  values = jnp.asarray(reward(x0_hat, cond))
  if values.shape != x0_hat.shape[:1]:
    raise ValueError(
      f'reward: is of shape {values.shape} for x0_hat of {x0_hat.shape}; must be'
      f' {x0_hat.shape[:1]}, one number per sample.'
    )
  if not jnp.issubdtype(values.dtype, jnp.floating):
    raise ValueError(
      f'reward: is {values.dtype}, must be floats: what counts has no slope to follow.'
    )
  # Profiles take its type: in bfloat16 their nodes and means would be rounded.
  return values.astype(jnp.promote_types(values.dtype, jnp.float32))


@jax.custom_jvp
def _with_slope(omega: jax.Array, value: jax.Array, slope: jax.Array) -> jax.Array:
  """`value`, as a function of omega whose derivative is `slope`."""
  del omega, slope
  return value


@_with_slope.defjvp
def _with_slope_jvp(primals, tangents):
  _, value, slope = primals
  return value, (slope * tangents[0]).astype(value.dtype)


def _reward_gradient(
  reward: types.Reward, x0_hat: jax.Array, cond: types.Cond
) -> jax.Array:
  """grad R of each row, of the shape of `x0_hat`."""
  return jax.grad(lambda x0_hat: jnp.sum(evaluate(reward, x0_hat, cond)))(x0_hat)


def _stein_direction(
  x: jax.Array, gradient: jax.Array, bandwidth: jax.Array | float | None
) -> jax.Array:
  """The bracket of (2) over n, for the particles of one group: `[n, dim]`."""
  dtype = jnp.promote_types(x.dtype, jnp.float32)
  x, gradient = x.astype(dtype), gradient.astype(dtype)
  diff = x[:, None] - x[None]  # Explicit: a product of matrices would cancel.
  sq_dist = jnp.sum(jnp.square(diff), axis=-1)  # [n, n]
  h = _median_bandwidth(x, sq_dist) if bandwidth is None else bandwidth
  kernel = jnp.exp(-sq_dist / h)
  drift = jnp.matmul(kernel, gradient, precision=jax.lax.Precision.HIGHEST)
  repulsion = 2.0 / h * jnp.sum(kernel[..., None] * diff, axis=1)
  return (drift + repulsion) / x.shape[0]


def _median_bandwidth(x: jax.Array, sq_dist: jax.Array) -> jax.Array:
  """h at which a particle's kernels with the n - 1 others sum to about 1."""
  n = x.shape[0]
  smallest = _RESOLUTION**2 * jnp.mean(jnp.sum(jnp.square(x), axis=-1))
  smallest = jnp.maximum(smallest, jnp.finfo(x.dtype).tiny)  # All may be 0.
  if n == 1:  # No pairs, and no say: k is 1.
    return smallest
  return jnp.maximum(jnp.median(sq_dist[np.triu_indices(n, 1)]) / math.log(n), smallest)
