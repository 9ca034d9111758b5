"""Tables of weights: omega on the transitions of a sampler's time grid.

  (1)  table:       rows by condition, linear in t in between
  (2)  per sample:  the same with a row for every sample of a batch

Since omega never sees x_t, any weight can be tabulated before sampling starts:
`tabulate`, whose inverse is `table`.
"""

import jax
import jax.numpy as jnp

from lgd import types


def table(values: jax.Array, times: jax.Array) -> types.Weight:
  """Weights stored per condition and time, (1).

  Args:
    values: `[num_conds, num_steps]`, as from `tabulate`.
    times: `[num_steps + 1]` decreasing times of the same grid.

  Returns:
    A weight whose `cond` are integers, `[batch]`, that index the rows: exact at the
    grid's transitions, linear in t between them, constant beyond the first and last.
  """
  values = jnp.asarray(values)

  def weight(cond, s, t):
    return per_sample(values[cond], times)(cond, s, t)

  return weight


def per_sample(values: jax.Array, times: jax.Array) -> types.Weight:
  """Weights of the samples of one batch, whatever their conditions are, (2).

  Args:
    values: `[batch, num_steps]`, as from `tabulate`.
    times: as of `table`.

  Returns:
    A weight for batches of these samples, in this order; in t like `table`.
  """
  increasing = jnp.asarray(times)[-2::-1]

  def weight(cond, s, t):
    del cond, s
    interpolate = jax.vmap(lambda row, time: jnp.interp(time, increasing, row))
    return interpolate(jnp.asarray(values)[:, ::-1], t)

  return weight


def tabulate(weight: types.Weight, cond: types.Cond, times: jax.Array) -> jax.Array:
  """Omega at every transition of a sampler's time grid.

  Args:
    weight: the weight.
    cond: pytree of `[num_conds, ...]` conditions.
    times: `[num_steps + 1]` decreasing times, as of `sampling.time_grid`.

  Returns:
    `[num_conds, num_steps]`: omega(cond, s = times[i + 1], t = times[i]).
  """
  num_conds = jax.tree.leaves(cond)[0].shape[0]

  def at_transition(t, s):
    return weight(cond, jnp.full(num_conds, s), jnp.full(num_conds, t))

  return jax.vmap(at_transition, out_axes=1)(times[:-1], times[1:])
