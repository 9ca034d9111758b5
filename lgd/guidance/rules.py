"""Rules: what a weight omega does to a conditional and a null prediction c and u.

  (1)  linear:            c + omega (c - u);  of K null ones c + sum_k omega_k (c - u_k)
  (2)  along a direction: c + omega delta(c, u)
  (3)  optimal scale:     delta = c - s* u,  s* = <c, u> / ||u||^2
  (4)  APG:               delta = m_perp + eta m_par,  split along c,
       m = (c - u) min(1, r / ||c - u||)
  (5)  APG with momentum: the same of c - u + momentum m_i-1, m_i-1 as it was uncut
  (6)  angle domain:      cos(a) c + sin(a) / sin(gamma) (c - s* u),
       gamma = angle(c, u),  a = clip(omega gamma, +-pi/3)
  (7)  power normalised:  u + (1 + omega) (c - u) / ||c - u||^power

The predictions are of one kind, which `guided` calls a space: clean ones, eps or
velocities. (1) is the same rule in each; the others were made for one, which their
functions name. The other convention of the field has w = 1 + omega. All but (7) give c
at omega = 0, bit for bit.

(2) is (1) of another pair, (c, c - delta): whatever learns weights for (1), from
statistics too, learns them for (3) and (4) when given that (`guided.pair_along`).

Norms, products and angles are those of an element of the batch, over all its data. So
predictions are `[batch, *data]`; (1) alone, as it acts on every number by itself, would
do the same with an axis of particles in between. Nothing differentiates through the
predictions: only gradients towards omega and the constants, which may be traced, are
kept finite. A prediction that is not finite gives one that is not.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from lgd import arrays
from lgd import checks
from lgd import types

_MAX_ANGLE = jnp.pi / 3.0
_SMALL_SINE = 1e-3


def linear(pred_cond: jax.Array, pred_null: jax.Array, omega: jax.Array) -> jax.Array:
  """Classifier-free guidance, (1) (Ho and Salimans 2022).

  Args:
    pred_cond: c, `[batch, *data]` (or `[batch, particles, *data]`).
    pred_null: u, the same shape; or K of them, for as many directions.
    omega: `[batch]`, or `[batch, K]`.

  Returns:
    The guided prediction, of the shape of `pred_cond`.
  """
  if hasattr(pred_null, 'shape'):
    return _move(pred_cond, omega, pred_cond - pred_null)
  guided = pred_cond
  for omega_k, null in zip(omega.T, pred_null, strict=True):
    guided = _move(guided, omega_k, pred_cond - null)
  return guided


def along(direction: types.Direction) -> types.Rule:
  """The rule that moves the conditional prediction along a direction, (2)."""

  def rule(pred_cond, pred_null, omega):
    return _move(pred_cond, omega, direction(pred_cond, pred_null))

  return rule


def optimal_scale(pred_cond: jax.Array, pred_null: jax.Array) -> jax.Array:
  """The direction of CFG-Zero*, (3), for velocities (Fan et al. 2025).

  What is left of c - u beside u. The paper also sets the velocity of the first steps to
  0; that is a matter of the sampler, and left out.

  Args:
    pred_cond: c, `[batch, *data]`.
    pred_null: u, the same shape. Where it is 0, s* is taken as 0.

  Returns:
    delta, of the same shape.
  """
  # Not c - s* u, which would lose small differences to rounding.
  delta = pred_cond - pred_null
  return delta - _projection(delta, pred_null)


def apg(*, eta: float, max_norm: float) -> types.Direction:
  """The direction of adaptive projected guidance, (4) (Sadat et al. 2024).

  For clean predictions, without momentum: with it, `ApgMomentum`.

  Args:
    eta: how much to keep of what is parallel to c; the paper has 0.
    max_norm: r, in the units of the data: it grows with their dimension. inf cuts
      nothing, and with eta = 1 the rule is `linear`.

  Raises:
    ValueError: eta is not finite, or max_norm not positive.
  """
  checks.require('finite', math.isfinite, eta=eta)
  checks.require('> 0', lambda v: v > 0.0, max_norm=max_norm)

  def direction(pred_cond, pred_null):
    return _project(pred_cond - pred_null, pred_cond, eta, max_norm)

  return direction


@dataclasses.dataclass(frozen=True)
class ApgMomentum:
  """Adaptive projected guidance with momentum, (5); for clean predictions.

  A `types.MemoryRule`, for `guided_with_memory`: its memory is m_i, as it is before the
  cut. The first step has m = c - u.

  Attributes:
    momentum: of m; the paper has -.75 to -.5, so that what two steps share is damped.
    eta: as in `apg`.
    max_norm: as in `apg`.

  Raises:
    ValueError: a constant as in `apg`, or a momentum outside of (-1, 1).
  """

  momentum: float
  eta: float
  max_norm: float

  def __post_init__(self):
    checks.require('in (-1, 1)', lambda v: -1.0 < v < 1.0, momentum=self.momentum)
    apg(eta=self.eta, max_norm=self.max_norm)

  def init(self, shape: tuple[int, ...]) -> jax.Array:
    """The memory before the first step, for predictions of `shape`."""
    return jnp.zeros(shape)

  def apply(
    self,
    pred_cond: jax.Array,
    pred_null: jax.Array,
    omega: jax.Array,
    memory: jax.Array,
  ) -> tuple[jax.Array, jax.Array]:
    """The guided prediction, and the memory for the next step."""
    memory = pred_cond - pred_null + self.momentum * memory
    delta = _project(memory, pred_cond, self.eta, self.max_norm)
    return _move(pred_cond, omega, delta), memory


def angle_domain(
  pred_cond: jax.Array, pred_null: jax.Array, omega: jax.Array
) -> jax.Array:
  """Angle domain guidance, (6), for clean predictions (Jin et al. 2025).

  The paper has a = clip((max(w - 1, 0) + .001) gamma, +-pi/3). Without its .001, omega
  = 0 is the conditional prediction; and omega may be negative. Where sin(gamma) <= .001
  the ratio of sines is omega, its limit for small gamma, as in the paper: so near gamma
  = pi, too, where it is no limit and the rule jumps.

  Args:
    pred_cond: c, `[batch, *data]`.
    pred_null: u, the same shape. Where it is 0, so is the angle.
    omega: `[batch]`.

  Returns:
    The guided prediction, of the same shape.

  Gradient: finite towards omega; 0 where a is clipped and sin(gamma) > .001.
  """
  omega = arrays.expand_right(omega, pred_cond)
  perp = optimal_scale(pred_cond, pred_null)
  # The sine from `perp`: the arc cosine of a number near 1 has no digits in float32.
  gamma = jnp.arctan2(_norm(perp) * _norm(pred_null), _dot(pred_cond, pred_null))
  angle = jnp.clip(omega * gamma, -_MAX_ANGLE, _MAX_ANGLE)
  sine = jnp.sin(gamma)
  small = sine <= _SMALL_SINE
  ratio = jnp.where(small, omega, jnp.sin(angle) / jnp.where(small, 1.0, sine))
  return jnp.cos(angle) * pred_cond + ratio * perp


def power_normalized(power: float) -> types.Rule:
  """The rule of beta-CFG, (7), for eps (Malarz et al. 2025).

  At omega = 0 it does not give c, but u plus the difference at its normalised length;
  `power` = 0 is `linear`. The paper's schedule, a beta density, belongs to the weight.

  Args:
    power: in [0, 1] in the paper, its gamma. Where c = u the result is u.

  Raises:
    ValueError: power is negative or not finite.
  """
  checks.require('finite and >= 0', lambda v: 0.0 <= v < math.inf, power=power)

  def rule(pred_cond, pred_null, omega):
    delta = pred_cond - pred_null
    norm = _norm(delta)
    scale = jnp.where(norm == 0.0, 1.0, norm) ** -power
    return _move(pred_null, 1.0 + omega, scale * delta)

  return rule


def _move(prediction, omega, delta):
  return prediction + arrays.expand_right(omega, prediction) * delta


def _dot(a, b):
  """Inner products, `[batch, 1, ...]`, in float32 or better."""
  dtype = jnp.promote_types(a.dtype, jnp.float32)
  product = a.astype(dtype) * b.astype(dtype)
  return jnp.sum(product, axis=tuple(range(1, a.ndim)), keepdims=True)


def _norm(x):
  return jnp.sqrt(_dot(x, x))


def _projection(x, onto):
  """The part of x along `onto`, 0 where that is 0."""
  square = _dot(onto, onto)
  return _dot(x, onto) / jnp.where(square == 0.0, 1.0, square) * onto


def _project(m, pred_cond, eta, max_norm):
  """Delta of (4) from m before the cut."""
  norm = _norm(m)
  m = m * jnp.where(norm > max_norm, max_norm / norm, 1.0)
  return m + (eta - 1.0) * _projection(m, pred_cond)
