"""A reward in the loss: Algorithm 4, and the reward without consistency.

With the particles x_t^j of a datum, their predictions, and
delta_j = x0_cond_j - x0_null_j:

  (1)  R = 1/m sum_j R(x0_cond_j + omega delta_j, c)
  (2)  L - gamma R        of any objective L; Algorithm 4
  (3)  -R

The reward is raised, hence the signs. Alone, (3), it is paid for whatever the guided
particles lose: L is what holds them to the data. (1) and its derivative in omega are
those of `rewards.along`; neither s nor the transition enters.
"""

import functools

import jax
import jax.numpy as jnp

from lgd import rewards
from lgd import types
from lgd.objectives import particles as particles_lib
from lgd.objectives.direct import Objective


def reward_objective(reward: types.Reward) -> Objective:
  """The reward alone, (3): `[batch]` losses.

  Args:
    reward: `(x0_hat [batch, *data], cond) -> [batch]`, as in `rewards.along`.
  """

  def objective(key, x0, particles, omega):
    del key, x0
    return -_rewards(reward, particles, omega)

  return objective


def rewarded(
  objective: Objective,
  reward: types.Reward,
  *,
  gamma: jax.Array | float,
  group_size: int = 1,
) -> Objective:
  """An objective and the reward, (2).

  Args:
    objective: L, whose losses are of one datum or one group each, or several of each,
      in order.
    reward: as in `reward_objective`.
    gamma: in units of loss per unit of reward; it may be traced.
    group_size: consecutive data that L takes together; their rewards are averaged.

  Raises:
    ValueError: while tracing, losses that do not belong to such groups.
  """

  def combined(key, x0, particles, omega):
    losses = objective(key, x0, particles, omega)
    of_groups = _rewards(reward, particles, omega).reshape(-1, group_size).mean(axis=1)
    each, rest = divmod(len(losses), len(of_groups))
    if rest or not each:
      raise ValueError(
        f'group_size={group_size}: makes {len(of_groups)} groups, of which there are'
        f' {len(losses)} losses; must be as many of each.'
      )
    return losses - gamma * jnp.repeat(of_groups, each)

  return combined


def _rewards(
  reward: types.Reward, particles: particles_lib.Particles, omega: jax.Array
) -> jax.Array:
  """Means over the particles, (1), `[batch]`."""
  delta = particles.x0_cond - particles.x0_null
  along = functools.partial(rewards.along, reward)
  along = jax.vmap(along, in_axes=(1, 1, None, None))  # The particles of a datum.
  return jnp.mean(along(particles.x0_cond, delta, omega, particles.cond), axis=0)
