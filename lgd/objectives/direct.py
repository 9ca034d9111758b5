"""Algorithm 1 from a batch of data to a loss, for any objective on its particles.

  (1)  s, t           random times
  (2)  particles      true ones at s, noisy ones at t and their two predictions
  (3)  omega          the weight to be trained, at (c, s, t)
  (4)  loss           an objective of (x_0, particles, omega)

Objectives are functions `(key, x0, particles, omega) -> [batch]`; the two factories
below make them from a comparison of particles, or of clean predictions, and those of
`reward` from a reward.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from lgd import denoiser as denoiser_lib
from lgd import types
from lgd.objectives import consistency as consistency_lib
from lgd.objectives import particles as particles_lib

# (key, x0 [batch, *data], particles, omega [batch]) -> [batch] losses.
Objective = Callable[
  [jax.Array, jax.Array, particles_lib.Particles, jax.Array], jax.Array
]


def consistency_objective(
  compare: Callable[[jax.Array, jax.Array], jax.Array],
  *,
  schedule: types.Schedule,
  churn: float,
  rule: types.Rule,
) -> Objective:
  """Guides the particles, steps them back to s, and compares them with true ones.

  Args:
    compare: `(x_guided, x_true) -> [batch]`, such as `l2` or `self_consistency`
      with its exponents bound.
    schedule: noise schedule.
    churn: of the transition, in [0, 1].
    rule: how omega combines the predictions, such as `guidance.linear`.
  """

  def objective(key, x0, particles, omega):
    del x0
    x_guided = particles_lib.guided_particles(
      key, particles, omega, schedule=schedule, churn=churn, rule=rule
    )
    return compare(x_guided, particles.xs)

  return objective


def score_matching_objective(*, rule: types.Rule) -> Objective:
  """Compares the guided clean predictions with the data."""

  def objective(key, x0, particles, omega):
    del key
    x0_guided = particles_lib.guided_predictions(particles, omega, rule=rule)
    return consistency_lib.score_matching(x0, x0_guided)

  return objective


def guidance_loss(
  key: jax.Array,
  weight: types.Weight,
  objective: Objective,
  pair: denoiser_lib.Pair,
  params: types.Params,
  schedule: types.Schedule,
  x0: jax.Array,
  cond: types.Cond,
  *,
  num_particles: int,
  s_min: float,
  zeta: float,
  gap: float,
  group_size: int = 1,
) -> tuple[jax.Array, jax.Array]:
  """Losses and weights of a batch, (1)-(4); Algorithm 1.

  Args:
    key: one key.
    weight: `(cond, s, t) -> omega`; the loss is differentiable in its parameters.
    objective: from one of the factories above.
    pair: of the frozen denoiser, such as `denoiser.classifier_free`.
    params: its parameters; no gradient reaches them.
    schedule: noise schedule.
    x0: `[batch, *data]` real data.
    cond: pytree of `[batch, ...]`, its condition.
    num_particles: m.
    s_min: smallest s.
    zeta: distance that t keeps from 1.
    gap: smallest t - s.
    group_size: consecutive data that share (s, t), for a marginal objective.

  Returns:
    Losses, one for each datum or group, and omega, `[batch]`.

  Cost: 2 m denoiser evaluations per datum, in one call.
  """
  key_times, key_particles, key_objective = jax.random.split(key, 3)
  s, t = particles_lib.sample_times(
    key_times, x0.shape[0] // group_size, s_min=s_min, zeta=zeta, gap=gap
  )
  s, t = (jnp.repeat(time, group_size) for time in (s, t))
  particles = particles_lib.draw_particles(
    key_particles,
    pair,
    params,
    schedule,
    x0,
    cond,
    s,
    t,
    num_particles=num_particles,
  )
  omega = weight(cond, s, t)
  return objective(key_objective, x0, particles, omega), omega
