"""From stored Gram statistics to a loss: Algorithm 1 without images or denoiser.

  (1)  t* ~ p(t)               of Algorithm 1, `particles`, (1)
  (2)  i                       uniformly one of the stored data with the smallest
                               t_i >= t*, or, if that is beyond 1 - zeta, of those with
                               the largest t_i that is not
  (3)  s ~ p(s | t_i)          `particles`, (7)
  (4)  omega                   the weight to be trained, at (c_i, s, t_i)
  (5)  loss                    an objective of (Gram matrix, omega, s, t)
  (6)  - gamma R(omega)        with a reward: Algorithm 4, R from its profile

With stored times that are evenly spread over [0, t_max], (1)-(3) give (s, t) the law of
Algorithm 1 up to their spacing, for any s_min, zeta and gap. Those at one t, as of a
model with few timesteps, share the mass of the interval below it.

A store carries what its pass was made with: an objective is given that with the Gram
matrices, and cannot be told otherwise.
"""

import dataclasses
import functools
from collections.abc import Callable
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from lgd import arrays
from lgd import checks
from lgd import statistics
from lgd import types
from lgd.objectives import particles as particles_lib


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=('gram', 't', 'cond', 'profile'),
  meta_fields=(
    'schedule', 'dim', 'num_particles', 'antithetic', 'grouped', 'nodes'
  ),
)  # fmt: skip
@dataclasses.dataclass(frozen=True)
class Store:
  """Gram statistics of many data, or of many groups of n data, in order of t.

  Make it by `make_store`, which checks it. A pytree: all but the arrays is static.

  Attributes:
    gram: `[num, p (p + 1) / 2]`, packed.
    t: `[num]`, in order.
    cond: pytree of `[num, ...]`, of groups `[num, n, ...]`.
    schedule: noise schedule of the pass.
    dim: number of elements of a datum.
    num_particles: m of each datum, or n members of each group.
    antithetic: whether the noise of the particles is, as `statistics` defines it.
    grouped: whether the statistics are of groups.
    profile: of a reward, `[num, 2, K + 1]` or `[num, n, 2, K + 1]`, or None.
    nodes: the weights at which it was evaluated.
  """

  gram: jax.Array
  t: jax.Array
  cond: types.Cond
  schedule: types.Schedule
  dim: int
  num_particles: int
  antithetic: bool
  grouped: bool
  profile: jax.Array | None
  nodes: tuple[float, ...]


# (store, gram [batch, p, p], omega, s [batch], t [batch]) -> [batch] losses. The Gram
# matrices are of the data drawn; of the store, what its pass was made with is read.
StatisticsObjective = Callable[
  [Store, jax.Array, jax.Array, jax.Array, jax.Array], jax.Array
]


def make_store(
  gram: jax.Array,
  t: jax.Array,
  cond: types.Cond,
  *,
  schedule: types.Schedule,
  dim: int,
  num_particles: int,
  antithetic: bool = False,
  grouped: bool = False,
  profile: jax.Array | None = None,
  nodes: Sequence[float] = (),
) -> Store:
  """A `Store` from statistics in any order; arguments as its attributes.

  Raises:
    ValueError: arrays of other shapes, times outside [0, 1], or, unless traced,
      statistics that are not finite.
  """
  checks.shape('[num, p (p + 1) / 2], packed', (None, None), gram=gram)
  num = gram.shape[0]
  checks.shape(f'({num},), a time for each row', (num,), t=t)
  checks.times(t=t)
  checks.finite(
    'look at the base model, and at its null condition.',
    gram=gram,
    **({} if profile is None else {'profile': profile}),
  )
  num_vectors = statistics.unpack(gram[:1]).shape[-1]
  if num_particles < 1 or num_vectors % num_particles:
    raise ValueError(
      f'num_particles={num_particles}: must divide the {num_vectors} vectors of a Gram'
      ' matrix.'
    )
  order = jnp.argsort(t)
  gram, t, cond, profile = jax.tree.map(lambda x: x[order], (gram, t, cond, profile))
  return Store(
    gram,
    t,
    cond,
    schedule,
    dim,
    num_particles,
    antithetic and not grouped,
    grouped,
    profile,
    tuple(nodes),
  )


def stored_consistency(
  *, churn: float, beta: float, interaction: float
) -> StatisticsObjective:
  """Self-consistency of each datum, or marginal consistency of each group.

  Arguments as in `statistics.self_consistency` and `statistics.marginal`.
  """

  def objective(store, gram, omega, s, t):
    settings = {
      'schedule': store.schedule,
      'dim': store.dim,
      'churn': churn,
      'beta': beta,
      'interaction': interaction,
    }
    if store.grouped:
      return statistics.marginal(gram, omega, s, t, **settings)
    return statistics.self_consistency(
      gram, omega, s, t, antithetic=store.antithetic, **settings
    )

  return objective


def stored_l2(*, churn: float) -> StatisticsObjective:
  """The l2 objective of each datum, as `statistics.l2`."""

  def objective(store, gram, omega, s, t):
    return statistics.l2(
      gram, omega, s, t, schedule=store.schedule, dim=store.dim, churn=churn
    )

  return objective


def stored_score_matching(
  store: Store, gram: jax.Array, omega: jax.Array, s: jax.Array, t: jax.Array
) -> jax.Array:
  """Guided score matching of each datum, as `statistics.score_matching`."""
  del store, s, t
  return statistics.score_matching(gram, omega)


def in_reach(t: jax.Array, *, s_min: float, zeta: float, gap: float) -> jax.Array:
  """Which times have an s that Algorithm 1 draws with these settings."""
  return arrays.at_most(t, 1.0 - zeta) & ~arrays.at_most(t, s_min + gap)


def statistics_loss(
  key: jax.Array,
  weight: types.Weight,
  objective: StatisticsObjective,
  store: Store,
  *,
  batch: int,
  num_used: int | None = None,
  s_min: float,
  zeta: float,
  gap: float,
  gamma: jax.Array | float | None = None,
) -> tuple[jax.Array, jax.Array]:
  """Losses and weights of a batch, (1)-(6).

  Args:
    key: one key.
    weight: `(cond, s, t) -> omega`; the loss is differentiable in its parameters.
    objective: such as `stored_consistency(...)`.
    store: the statistics; some of them must be `in_reach`.
    batch: how many data (groups) to draw.
    num_used: how many of the store's particles (members) to use; None is all.
    s_min: smallest s; it may be traced, as may the next two.
    zeta: distance that t keeps from 1.
    gap: smallest t - s.
    gamma: of (6), in units of loss per unit of reward; it may be traced, too. None
      leaves the reward out. Rewards are means over all particles of the store.

  Returns:
    losses `[batch]` and omega, `[batch]` or of groups `[batch, num_used]`.

  Raises:
    ValueError: a gamma, and a store without profiles.
  """
  if gamma is not None and store.profile is None:
    raise ValueError(f'gamma={gamma}: the store holds no reward profiles.')
  num_used = num_used or store.num_particles
  index, s = _draw(key, store.t, batch, s_min=s_min, zeta=zeta, gap=gap)
  t = store.t[index]
  gram = statistics.unpack(store.gram[index])
  if num_used < store.num_particles:
    gram = statistics.subset(
      gram, store.num_particles, num_used, antithetic=store.antithetic
    )
  cond = jax.tree.map(lambda c: c[index], store.cond)
  if store.grouped:  # A weight for every member.
    cond = jax.tree.map(lambda c: c[:, :num_used].reshape(-1, *c.shape[2:]), cond)
    omega = weight(cond, jnp.repeat(s, num_used), jnp.repeat(t, num_used))
    omega = omega.reshape(batch, num_used)
  else:
    omega = weight(cond, s, t)
  losses = objective(store, gram, omega, s, t)
  if gamma is None:
    return losses, omega
  profile = store.profile[index]
  if store.grouped:
    profile = profile[:, :num_used]
  rewards = statistics.reward_at(profile, omega, nodes=store.nodes)
  return losses - gamma * rewards.reshape(batch, -1).mean(axis=1), omega


def _draw(key, stored_t, batch, **settings):
  """(1)-(3): which data, `[batch]`, and their s."""
  key_t, key_s, key_i = jax.random.split(key, 3)
  _, t_wanted = particles_lib.sample_times(key_t, batch, **settings)
  t_max = 1.0 - settings['zeta'] + arrays.TIME_ROUNDING
  last_t = stored_t[jnp.searchsorted(stored_t, t_max, side='right') - 1]
  first = jnp.searchsorted(stored_t, jnp.minimum(t_wanted, last_t))
  t = stored_t[first]
  num_equal = jnp.searchsorted(stored_t, t, side='right') - first
  u = jax.random.uniform(key_i, (batch,))
  index = first + jnp.minimum((u * num_equal).astype(first.dtype), num_equal - 1)
  return index, particles_lib.sample_s(key_s, t, **settings)
