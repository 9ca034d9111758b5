"""Algorithm 1: the particles that a consistency objective compares.

For each datum (x_0, c), with independent noise throughout:

  (1)  s ~ U[s_min, 1 - zeta - gap],  dt ~ U[gap, 1 - zeta - s],  t = s + dt
  (2)  m true particles    x_s ~ q(. | x_0)
  (3)  m noisy particles   x_t ~ q(. | x_0)
  (4)  their predictions   x0_cond = x0_hat(x_t, t, c),  x0_null = x0_hat(x_t, t, null)
  (5)  guided clean        x0_guided = x0_cond + omega(c, s, t) (x0_cond - x0_null)
  (6)  guided particles    xg_s ~ p(. | x_t, x0_guided)

These do not depend on omega: `sample_times` draws (1), `draw_particles` makes (2)-(4)
once, with stopped gradients, and `guided_particles` is the only part that is
differentiated.

Where t is given and s is to be drawn, (1) has, with T = 1 - zeta, the conditional law

  (7)  s = T - gap - (T - gap - s_min)^(1-u) (T - t)^u,  u ~ U[0, 1]
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from lgd import arrays
from lgd import denoiser as denoiser_lib
from lgd import noising
from lgd import statistics
from lgd import transitions
from lgd import types


class Particles(NamedTuple):
  """(1)-(4) for a batch, and its condition; free of omega."""

  s: jax.Array  # [batch]
  t: jax.Array  # [batch]
  xs: jax.Array  # [batch, m, *data], true particles at s
  xt: jax.Array  # [batch, m, *data], noisy particles at t
  x0_cond: jax.Array  # [batch, m, *data]
  x0_null: jax.Array  # [batch, m, *data]
  cond: types.Cond = None  # [batch, ...], for objectives that depend on it


class Predictions(NamedTuple):
  """(3) and (4) for a batch."""

  eps: jax.Array  # [batch, m, *data], the noise in xt
  xt: jax.Array  # [batch, m, *data]
  x0_cond: jax.Array  # [batch, m, *data]
  x0_null: jax.Array  # [batch, m, *data]


def sample_times(
  key: jax.Array, batch: int, *, s_min: float, zeta: float, gap: float
) -> tuple[jax.Array, jax.Array]:
  """Pairs s < t of Algorithm 1, (1).

  Args:
    key: one key.
    batch: number of pairs.
    s_min: smallest s, >= 0.
    zeta: distance that t keeps from 1, >= 0.
    gap: smallest t - s, > 0 (the paper's delta); s_min + gap <= 1 - zeta. The three
      may be traced.

  Returns:
    `s, t`, each `[batch]`, with s_min <= s and s + gap <= t <= 1 - zeta.

  Raises:
    ValueError: the range of s is empty.
  """
  settings = (s_min, zeta, gap)
  traced = any(isinstance(x, jax.core.Tracer) for x in settings)
  if not traced and s_min + gap > 1.0 - zeta + 1e-6:  # The equality is allowed.
    raise ValueError(
      f's_min={s_min}, gap={gap}, zeta={zeta}: s_min + gap must be at most'
      ' 1 - zeta, else no s is left.'
    )
  key_s, key_dt = jax.random.split(key)
  s = jax.random.uniform(key_s, (batch,), minval=s_min, maxval=1.0 - zeta - gap)
  dt = gap + jax.random.uniform(key_dt, (batch,)) * (1.0 - zeta - s - gap)
  return s, jnp.minimum(s + dt, 1.0 - zeta)  # Rounding must not pass 1.


def sample_s(
  key: jax.Array, t: jax.Array, *, s_min: float, zeta: float, gap: float
) -> jax.Array:
  """Draws s given t as `sample_times` does, (7).

  Args:
    key: one key.
    t: any shape, in [s_min + gap, 1 - zeta].
    s_min: smallest s; it may be traced, as may the next two.
    zeta: distance that t keeps from 1.
    gap: smallest t - s.

  Returns:
    s of the shape of `t`, in [s_min, t - gap].
  """
  t_max = 1.0 - zeta
  u = jax.random.uniform(key, t.shape)
  # Rounding must not take s out of its range.
  left, width = jnp.maximum(t_max - t, 0.0), jnp.maximum(t_max - gap - s_min, 0.0)
  s = t_max - gap - width ** (1.0 - u) * left**u
  return jnp.clip(s, s_min, t - gap)


def draw_noise(
  key: jax.Array, shape: tuple[int, ...], *, num_particles: int, antithetic: bool
) -> jax.Array:
  """`[batch, m, *data]` noise of the particles of data of `shape`, (3).

  One key or `[batch]` keys; antithetic as `statistics` defines it.
  """
  own = statistics.num_independent(num_particles) if antithetic else num_particles
  eps = arrays.normal(key, (shape[0], own, *shape[1:]))
  return jnp.concatenate([eps, -eps[:, : num_particles - own]], axis=1)


def predict(
  key: jax.Array,
  pair: denoiser_lib.Pair,
  params: types.Params,
  schedule: types.Schedule,
  x0: jax.Array,
  cond: types.Cond,
  t: jax.Array,
  *,
  num_particles: int,
  antithetic: bool = False,
) -> Predictions:
  """Noisy particles and what the denoiser says of them, (3)-(4).

  Arguments as in `draw_particles`; `key` may also be `[batch]` keys, one per datum. The
  noise may be antithetic, as `statistics` defines it.

  Gradient: stopped in the predictions. Cost: 2 m denoiser evaluations per datum, in
  one call.
  """
  shape = (x0.shape[0], num_particles, *x0.shape[1:])
  eps = draw_noise(key, x0.shape, num_particles=num_particles, antithetic=antithetic)
  xt = noising.add_noise(schedule, x0[:, None], eps, t)

  def per_particle(a):  # [batch, ...] -> [batch * m, ...]
    return jnp.repeat(a, num_particles, axis=0)

  x0_cond, x0_null = pair(
    params,
    xt.reshape(-1, *x0.shape[1:]),
    per_particle(t),
    jax.tree.map(per_particle, cond),
  )
  x0_cond, x0_null = jax.tree.map(lambda x0: x0.reshape(shape), (x0_cond, x0_null))
  return Predictions(eps, xt, x0_cond, x0_null)


def draw_particles(
  key: jax.Array,
  pair: denoiser_lib.Pair,
  params: types.Params,
  schedule: types.Schedule,
  x0: jax.Array,
  cond: types.Cond,
  s: jax.Array,
  t: jax.Array,
  *,
  num_particles: int,
) -> Particles:
  """Everything in Algorithm 1 that does not depend on omega, (2)-(4).

  Args:
    key: one key.
    pair: of the frozen denoiser, such as `denoiser.classifier_free`.
    params: its parameters.
    schedule: noise schedule.
    x0: `[batch, *data]` real data.
    cond: pytree of `[batch, ...]`, its condition.
    s: `[batch]`.
    t: `[batch]`, t > s.
    num_particles: m.

  Returns:
    `Particles`.

  Gradient: stopped. Cost: 2 m denoiser evaluations per datum, in one call.
  """
  shape = (x0.shape[0], num_particles, *x0.shape[1:])
  key_xs, key_xt = jax.random.split(key)
  xs = noising.add_noise(schedule, x0[:, None], jax.random.normal(key_xs, shape), s)
  _, xt, x0_cond, x0_null = predict(
    key_xt,
    pair,
    params,
    schedule,
    x0,
    cond,
    t,
    num_particles=num_particles,
  )
  return jax.lax.stop_gradient(Particles(s, t, xs, xt, x0_cond, x0_null, cond))


def guided_predictions(
  particles: Particles, omega: jax.Array, *, rule: types.Rule
) -> jax.Array:
  """The rule on the predictions of each particle, (5): `[batch, m, *data]`.

  Arguments as in `guided_particles`.
  """
  # A rule may take norms over all data of an element: it must not see the particles.
  guide = jax.vmap(rule, in_axes=(1, 1, None), out_axes=1)
  return guide(particles.x0_cond, particles.x0_null, omega)


def guided_particles(
  key: jax.Array,
  particles: Particles,
  omega: jax.Array,
  *,
  schedule: types.Schedule,
  churn: float,
  rule: types.Rule,
) -> jax.Array:
  """Guides the predictions and steps back to s, (5)-(6).

  Args:
    key: one key, for the noise of the transition.
    particles: from `draw_particles`.
    omega: `[batch]`, one weight for all particles of a datum.
    schedule: noise schedule.
    churn: of the transition, in [0, 1].
    rule: how omega combines the predictions; `guidance.linear` is (5).

  Returns:
    `[batch, m, *data]`, differentiable in `omega`.
  """
  x0_guided = guided_predictions(particles, omega, rule=rule)
  s, t, xt = particles.s, particles.t, particles.xt
  return transitions.sample(key, schedule, x0_guided, xt, s, t, churn)
