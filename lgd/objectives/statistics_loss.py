"""From stored Gram statistics to a loss: Algorithm 1 without images or denoiser.

  (1)  t* ~ p(t)               of Algorithm 1, `particles`, (1)
  (2)  i                       the stored datum with the smallest t_i >= t*, or, if it
                               is beyond 1 - zeta, the last one that is not
  (3)  s ~ p(s | t_i)          `particles`, (7)
  (4)  omega                   the weight to be trained, at (c_i, s, t_i)
  (5)  loss                    an objective of (Gram matrix, omega, s, t)
  (6)  - gamma R(omega)        with a reward: Algorithm 4, R from its profile

The stored times are evenly spread over [0, t_max], so (1)-(3) give (s, t) the law of
Algorithm 1 up to the spacing of the store, for any s_min, zeta and gap. A datum is
drawn in proportion to its distance from the t_i below; of several at one t, the first
alone, which float32 makes common only beyond some millions of them.
"""

from collections.abc import Callable
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lgd import statistics
from lgd import types
from lgd.objectives import particles as particles_lib

# (gram, omega, s [batch], t [batch]) -> [batch] losses; `lgd.statistics` has them.
StatisticsObjective = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]


class Store(NamedTuple):
  """Gram statistics of many data, or of many groups of n data, in order of t."""

  gram: jax.Array  # [num, p (p + 1) / 2], packed
  t: jax.Array  # [num], in order
  cond: types.Cond  # [num, ...], of groups [num, n, ...]
  profile: jax.Array | None = None  # Of a reward: [num, 2, K + 1] or [num, n, 2, K + 1]


def make_store(
  gram: jax.Array,
  t: jax.Array,
  cond: types.Cond,
  profile: jax.Array | None = None,
) -> Store:
  """A `Store` from statistics in any order."""
  order = jnp.argsort(t)
  return jax.tree.map(lambda x: x[order], Store(gram, t, cond, profile))


def statistics_loss(
  key: jax.Array,
  weight: types.Weight,
  objective: StatisticsObjective,
  store: Store,
  *,
  batch: int,
  num_stored: int,
  num_used: int,
  grouped: bool,
  antithetic: bool = False,
  s_min: float,
  zeta: float,
  gap: float,
  gamma: jax.Array | float | None = None,
  nodes: Sequence[float] = (),
) -> tuple[jax.Array, jax.Array]:
  """Losses and weights of a batch, (1)-(6).

  Args:
    key: one key.
    weight: `(cond, s, t) -> omega`; the loss is differentiable in its parameters.
    objective: such as `statistics.self_consistency` with its settings bound.
    store: the statistics; some of them must have s_min + gap < t <= 1 - zeta.
    batch: how many data (groups) to draw.
    num_stored: m particles (n members) that the store holds of each.
    num_used: how many of them to use.
    grouped: whether the store is of groups.
    antithetic: whether the noise of the particles is; the objective must know, too.
    s_min: smallest s; it may be traced, as may the next two.
    zeta: distance that t keeps from 1.
    gap: smallest t - s.
    gamma: of (6), in units of loss per unit of reward; it may be traced, too. None
      leaves the reward out.
    nodes: of the store's profiles, whose rewards are means over all `num_stored`
      particles.

  Returns:
    losses `[batch]` and omega, `[batch]` or of groups `[batch, num_used]`.

  Raises:
    ValueError: a gamma, and a store without profiles.
  """
  if gamma is not None and store.profile is None:
    raise ValueError(f'gamma={gamma}: the store holds no reward profiles.')
  key_t, key_s = jax.random.split(key)
  times = {'s_min': s_min, 'zeta': zeta, 'gap': gap}
  _, t_wanted = particles_lib.sample_times(key_t, batch, **times)
  index = jnp.searchsorted(store.t, t_wanted)
  last = jnp.searchsorted(store.t, 1.0 - zeta, side='right') - 1
  index = jnp.minimum(index, last)
  t = store.t[index]
  s = particles_lib.sample_s(key_s, t, **times)
  gram = statistics.unpack(store.gram[index])
  if num_used < num_stored:
    gram = statistics.subset(gram, num_stored, num_used, antithetic=antithetic)
  cond = jax.tree.map(lambda c: c[index], store.cond)
  if grouped:  # A weight for every member.
    cond = jax.tree.map(lambda c: c[:, :num_used].reshape(-1, *c.shape[2:]), cond)
    omega = weight(cond, jnp.repeat(s, num_used), jnp.repeat(t, num_used))
    omega = omega.reshape(batch, num_used)
  else:
    omega = weight(cond, s, t)
  losses = objective(gram, omega, s, t)
  if gamma is None:
    return losses, omega
  profile = store.profile[index]
  if grouped:
    profile = profile[:, :num_used]
  rewards = statistics.reward_at(profile, omega, nodes=nodes)
  return losses - gamma * rewards.reshape(batch, -1).mean(axis=1), omega
