"""Tables of weights: omega on the transitions of a sampler's time grid.

With transition i from t_i to t_{i+1}, i = 0..N-1, and omega_i its weight:

  (1)  table:         rows by condition, linear in t between the t_i
  (2)  per sample:    the same with a row for every sample of a batch
  (3)  mean in time:  m = sum_i (t_i - t_{i+1}) omega_i / (t_0 - t_N)
  (4)  matched mean:  omega_i mean / m
  (5)  covered:       t_N <= t <= t_0 + (t_0 - t_1)

Since omega never sees x_t, any weight can be tabulated before sampling starts:
`tabulate`, whose inverse is `table`. On an equidistant grid (3) is the plain mean.
"""

import jax
import jax.numpy as jnp
import numpy as np

from lgd import arrays
from lgd import checks
from lgd import types

_ROUNDING = 1e-6  # Of float32 sums and times, relative to terms of the order of 1.


def table(values: jax.Array, times: jax.Array) -> types.Weight:
  """Weights stored per condition and time, (1).

  Args:
    values: `[num_conds, num_steps]`, as from `tabulate`.
    times: `[num_steps + 1]` decreasing times of the same grid.

  Returns:
    A weight whose `cond` are integers, `[batch]`, that index the rows (NaN for a row
    that is not there): exact at the grid's transitions, linear in t between them,
    constant beyond the first and last.
    `require_cover` says whether another grid goes too far beyond.

  Raises:
    ValueError: shapes that do not match.
  """
  _check_shapes(values, times)
  values = jnp.asarray(values)

  def weight(cond, s, t):
    rows = arrays.index_or_nan(cond, len(values))
    rows = values.at[rows].get(mode='fill', fill_value=jnp.nan)
    return per_sample(rows, times)(cond, s, t)

  return weight


def per_sample(values: jax.Array, times: jax.Array) -> types.Weight:
  """Weights of the samples of one batch, whatever their conditions are, (2).

  Args:
    values: `[batch, num_steps]`, as from `tabulate`.
    times: as in `table`.

  Returns:
    A weight for batches of these samples, in this order; in t like `table`.

  Raises:
    ValueError: shapes that do not match.
  """
  _check_shapes(values, times)
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
    times: `[num_steps + 1]` decreasing times, as in `sampling.time_grid`.

  Returns:
    `[num_conds, num_steps]`: omega(cond, s = times[i + 1], t = times[i]).
  """
  num_conds = jax.tree.leaves(cond)[0].shape[0]

  def at_transition(t, s):
    return weight(cond, jnp.full(num_conds, s), jnp.full(num_conds, t))

  return jax.vmap(at_transition, out_axes=1)(times[:-1], times[1:])


def mean_in_time(values: jax.Array, times: jax.Array) -> jax.Array:
  """Mean weight of every row, (3), each transition counted by its length.

  Args:
    values: `[num_conds, num_steps]`, as from `tabulate`.
    times: `[num_steps + 1]` decreasing times of the same grid.

  Returns:
    `[num_conds]`.

  Raises:
    ValueError: shapes that do not match.
  """
  _check_shapes(values, times)
  values, times = jnp.asarray(values), jnp.asarray(times)
  lengths = times[:-1] - times[1:]
  return jnp.sum(lengths * values, axis=1) / jnp.sum(lengths)


def matched_mean(values: jax.Array, mean: jax.Array, times: jax.Array) -> jax.Array:
  """A table of the same shape in time whose every row has the given mean, (4).

  The fairness protocol of Jin et al. 2025 (arXiv 2509.22007): schedules are compared
  at equal mean strength on the sampler's own grid. It takes a table rather than a
  weight because the mean belongs to a grid and a condition: a table has both, while a
  rescaled weight would have to evaluate itself at all transitions on every call.

  Their code scales omega for the interval, as here, and w = 1 + omega for the triangle,
  which moves its unguided ends as well. The latter is
  `matched_mean(1.0 + values, 1.0 + mean, times) - 1.0`, also the form for schedules
  that are proportional to w (`beta_cfg`, `cfg_plus_plus`).

  Args:
    values: `[num_conds, num_steps]`, as from `tabulate`.
    mean: scalar or `[num_conds]`, as in `mean_in_time` of a learned table.
    times: `[num_steps + 1]` decreasing times of the same grid.

  Returns:
    `[num_conds, num_steps]`.

  Raises:
    ValueError: shapes that do not match; or, unless traced, a row whose own mean is 0
      (up to rounding), of the other sign, or not finite.
  """
  means = mean_in_time(values, times)
  mean = jnp.broadcast_to(jnp.asarray(mean, means.dtype), means.shape)
  factor = mean / means
  if not isinstance(factor, jax.core.Tracer):
    size = mean_in_time(jnp.abs(jnp.asarray(values)), times)
    usable = (jnp.abs(means) > _ROUNDING * size) & (0.0 <= factor) & (factor < jnp.inf)
    if not jnp.all(usable):
      row = int(jnp.argmin(usable))
      raise ValueError(
        f'values: row {row} has mean {means[row]:.3g}, which no factor >= 0 takes to'
        f' {mean[row]:.3g}; start from a schedule whose mean has that sign.'
      )
  return factor[:, None] * jnp.asarray(values)


def require_cover(times: jax.Array, wanted: jax.Array) -> None:
  """Refuses a table for a sampler that would leave its times, (5).

  Where a table ends it goes on as a constant. That is sound for one of its steps:
  below its last t that reaches t_N, where its own sampler stopped, and above its first
  as far as the next t of its grid would be. So a table of 50 steps serves 10 or 250 on
  the same range of times, and one of t in [0.2, 0.8] does not serve t = 0.1.

  Args:
    times: `[num_steps + 1]` decreasing times of the table; concrete, not traced.
    wanted: the sampler's `[wanted_steps + 1]` decreasing times, concrete; the last is
      not denoised from and may be anything.

  Raises:
    ValueError: a wanted t breaks (5), or grids that are none.
  """
  times, wanted = np.float64(times), np.float64(wanted)
  for name, grid in (('times', times), ('wanted', wanted)):
    if grid.ndim != 1 or len(grid) < 2:
      raise ValueError(f'{name}.shape={grid.shape}: must be (num_steps + 1,).')
  checks.time_grid(times=times, wanted=wanted[:-1])
  low, high = times[-1], 2.0 * times[0] - times[1]
  for t in (wanted[0], wanted[-2]):
    if not low - _ROUNDING <= t <= high + _ROUNDING:
      raise ValueError(
        f't={t:.4g}: outside of [{low:.4g}, {high:.4g}], which a table on t in'
        f' [{times[-1]:.4g}, {times[0]:.4g}] covers; make the table on a grid with the'
        " sampler's range."
      )


def _check_shapes(values, times):
  shape, num_times = np.shape(values), np.shape(times)
  if len(shape) != 2 or num_times != (shape[1] + 1,) or shape[1] < 1:
    raise ValueError(
      f'values.shape={shape}, times.shape={num_times}: must be (rows, num_steps) and'
      " (num_steps + 1,), the sampler's whole grid, of at least 1 step."
    )
  checks.time_grid(times=times)
