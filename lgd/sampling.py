"""Sampling: a time grid and one scan over the transitions.

  (1)  1 >= t_max = t_N > ... > t_1 > t_0 = t_min >= 0
  (2)  x_{t_{i-1}} ~ p(. | x_{t_i}, x0_hat(x_{t_i}, t_{i-1}, t_i, c)),  i = N..1

The sampler takes `(xt, s, t, cond) -> x0_hat` and does not know that guidance
exists. `num_steps` counts transitions; the grid has one point more.
"""

import jax
import jax.numpy as jnp

from lgd import arrays
from lgd import transitions
from lgd import types


def time_grid(num_steps: int, *, t_min: float = 0.0, t_max: float = 1.0) -> jax.Array:
  """`[num_steps + 1]` equidistant times from `t_max` down to `t_min`, (1)."""
  if num_steps < 1:
    raise ValueError(f'num_steps={num_steps}: needs at least 1 transition.')
  return jnp.linspace(t_max, t_min, num_steps + 1)


def sample(
  key: jax.Array,
  denoise: types.Denoise,
  schedule: types.Schedule,
  cond: types.Cond,
  shape: tuple[int, ...],
  *,
  num_steps: int,
  churn: float,
  times: jax.Array | None = None,
  return_trajectory: bool = False,
) -> jax.Array:
  """Draws `shape` samples given `cond`, (2).

  Args:
    key: one key, or `[batch]` keys (one per sample: a sample then depends on its
      key and condition only, not on the batch it is drawn in).
    denoise: `(xt, s, t, cond) -> x0_hat`; s and t arrive as `[batch]`.
    schedule: noise schedule.
    cond: pytree of `[batch, ...]` arrays.
    shape: `(batch, *data)`.
    num_steps: number of transitions.
    churn: in [0, 1]; 0 is DDIM (for rectified flow: Euler), 1 DDPM.
    times: `[num_steps + 1]` decreasing times; `time_grid(num_steps)` if None. A
      network that predicts eps needs `t_max` below 1: alpha(1) = 0 hides x_0.
    return_trajectory: also keep every state.

  Returns:
    `[batch, *data]`; with `return_trajectory`, `[num_steps + 1, batch, *data]`
    from noise to sample.
  """
  if times is None:
    times = time_grid(num_steps)
  if times.shape != (num_steps + 1,):
    raise ValueError(
      f'times.shape={times.shape}: {num_steps} transitions need'
      f' ({num_steps + 1},) times.'
    )
  # x_{t_N} has the marginal of pure noise, up to alpha(t_N) x_0 with t_N ~ 1.
  x_init = schedule.sigma(times[0]) * arrays.normal(arrays.fold_in(key, 0), shape)

  def transition(xt, step):
    index, t, s = step
    s, t = jnp.broadcast_to(s, shape[:1]), jnp.broadcast_to(t, shape[:1])
    x0_hat = denoise(xt, s, t, cond)
    xs = transitions.sample(
      arrays.fold_in(key, index), schedule, x0_hat, xt, s, t, churn
    )
    return xs, xs if return_trajectory else None

  steps = (jnp.arange(1, num_steps + 1), times[:-1], times[1:])
  xs, trajectory = jax.lax.scan(transition, x_init, steps)
  if return_trajectory:
    return jnp.concatenate([x_init[None], trajectory])
  return xs
