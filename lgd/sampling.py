"""Sampling: a time grid and one scan over the transitions.

  (1)  1 >= t_max = t_N > ... > t_1 > t_0 = t_min >= 0
  (2)  x_{t_{i-1}} ~ p(. | x_{t_i}, x0_hat(x_{t_i}, t_{i-1}, t_i, c)),  i = N..1

Second order, for churn 0, puts in place of the prediction D_i made at t_i

  (3)  D_i + h_i / (2 h_{i+1}) (D_i - D_{i+1}),  h_i = lambda(t_{i-1}) - lambda(t_i),
       lambda = logsnr / 2

which is DPM-Solver++ (2M) (Lu et al. 2022), from one evaluation a step as before. The
first step has no D_{i+1}. At t = 0 and t = 1 lambda is infinite: the step to 0 and, by
the limit of (3), the one after a step from 1 have no correction either. Equidistant
times down to 0 have last steps in lambda that do not shrink with num_steps: there the
error falls by a logarithm slower than 1 / num_steps^2.

The sampler takes `(xt, s, t, cond) -> x0_hat` and does not know that guidance
exists. `num_steps` counts transitions; the grid has one point more. What differs from
step to step, such as weights that are known before sampling starts, is scanned beside
the times and handed on.
"""

import jax
import jax.numpy as jnp

from lgd import arrays
from lgd import checks
from lgd import transitions
from lgd import types


def time_grid(num_steps: int, *, t_min: float = 0.0, t_max: float = 1.0) -> jax.Array:
  """`[num_steps + 1]` equidistant times from `t_max` down to `t_min`, (1).

  Raises:
    ValueError: no transition, or times that break (1).
  """
  if num_steps < 1:
    raise ValueError(f'num_steps={num_steps}: needs at least 1 transition.')
  if not 0.0 <= t_min < t_max <= 1.0:
    raise ValueError(f't_min={t_min}, t_max={t_max}: must be 0 <= t_min < t_max <= 1.')
  return jnp.linspace(t_max, t_min, num_steps + 1)


def sample(
  key: jax.Array,
  denoise: types.Denoise | types.StepDenoise | types.MemoryDenoise,
  schedule: types.Schedule,
  cond: types.Cond,
  shape: tuple[int, ...],
  *,
  num_steps: int,
  churn: float,
  order: int = 1,
  times: jax.Array | None = None,
  inputs: types.Inputs | None = None,
  memory: types.Memory | None = None,
  return_trajectory: bool = False,
) -> jax.Array:
  """Draws `shape` samples given `cond`, (2).

  Args:
    key: one key, or `[batch]` keys (one per sample: a sample then depends on its
      key and condition only, not on the batch it is drawn in).
    denoise: `(xt, s, t, cond) -> x0_hat`; s and t arrive as `[batch]`. After cond it
      receives the step's `inputs` and the `memory`, if they are given; with memory it
      returns `(x0_hat, memory)`.
    schedule: noise schedule.
    cond: pytree of `[batch, ...]` arrays.
    shape: `(batch, *data)`.
    num_steps: number of transitions.
    churn: in [0, 1]; 0 is DDIM (for rectified flow: Euler), 1 DDPM.
    order: 1, or 2 for (3), which needs churn 0. A weight that depends on s moves the
      prediction by O(t - s), and then the error is of first order again.
    times: `[num_steps + 1]` decreasing times; `time_grid(num_steps)` if None. A
      network that predicts eps needs `t_max` below 1: alpha(1) = 0 hides x_0.
    inputs: pytree of `[num_steps, ...]` arrays, a row for every transition in the order
      of `times`; None for a denoiser without.
    memory: what `denoise` is to receive at the first step, a pytree of arrays that
      keep shapes and types; None for one without memory.
    return_trajectory: also keep every state.

  Returns:
    `[batch, *data]`; with `return_trajectory`, `[num_steps + 1, batch, *data]`
    from noise to sample.

  Raises:
    ValueError: an unknown order or one that the churn rules out, times or inputs that
      are not of `num_steps` transitions or, unless traced, times that do not decrease
      in [0, 1], or a churn outside [0, 1].
  """
  if order not in (1, 2):
    raise ValueError(f'order={order}: must be 1 or 2.')
  if order == 2 and not (isinstance(churn, (int, float)) and churn == 0):
    raise ValueError(
      f'order=2 with churn={churn}: is of the deterministic sampler; use churn=0.0'
      ' (a Python number), or order=1.'
    )
  if times is None:
    times = time_grid(num_steps)
  times = jnp.asarray(times)
  checks.shape(
    f'({num_steps + 1},), for {num_steps} transitions', (num_steps + 1,), times=times
  )
  checks.time_grid(times=times)
  for leaf in jax.tree.leaves(inputs):
    if jnp.shape(leaf)[:1] != (num_steps,):
      raise ValueError(
        f'inputs: an array has shape {jnp.shape(leaf)}; must be ({num_steps}, ...), for'
        f' {num_steps} transitions.'
      )
  # x_{t_N} has the marginal of pure noise, up to alpha(t_N) x_0 with t_N ~ 1.
  x_init = schedule.sigma(times[0]) * arrays.normal(arrays.fold_in(key, 0), shape)

  def transition(carry, step):
    xt, previous, memory = carry
    index, t, s, gain, of_step = step
    s, t = jnp.broadcast_to(s, shape[:1]), jnp.broadcast_to(t, shape[:1])
    extra = [x for x in (of_step, memory) if x is not None]
    x0_hat = denoise(xt, s, t, cond, *extra)
    if memory is not None:
      x0_hat, memory = x0_hat
    if order == 2:
      x0_hat = x0_hat.astype(xt.dtype)
      previous, x0_hat = x0_hat, x0_hat + gain * (x0_hat - previous)
    xs = transitions.sample(
      arrays.fold_in(key, index), schedule, x0_hat, xt, s, t, churn
    )
    return (xs, previous, memory), xs if return_trajectory else None

  previous = jnp.zeros_like(x_init) if order == 2 else None
  gains = _second_order_gains(schedule, times) if order == 2 else None
  steps = (jnp.arange(1, num_steps + 1), times[:-1], times[1:], gains, inputs)
  (xs, _, _), trajectory = jax.lax.scan(transition, (x_init, previous, memory), steps)
  if return_trajectory:
    return jnp.concatenate([x_init[None], trajectory])
  return xs


def _second_order_gains(schedule, times):
  """`[num_steps]`: what (3) multiplies D_i - D_{i+1} by; 0 where it does not apply."""
  h = jnp.diff(0.5 * schedule.logsnr(times))
  infinite = jnp.isinf(h)
  h = jnp.where(infinite, 1.0, h)  # Of the step from t = 1 or to 0: no inf / inf.
  gains = jnp.where(infinite[1:] | infinite[:-1], 0.0, h[1:] / (2.0 * h[:-1]))
  return jnp.concatenate([jnp.zeros(1, gains.dtype), gains])
