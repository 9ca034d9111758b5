"""Sampling: a time grid and one scan over the transitions.

  (1)  1 >= t_max = t_N > ... > t_1 > t_0 = t_min >= 0
  (2)  x_{t_{i-1}} ~ p(. | x_{t_i}, x0_hat(x_{t_i}, t_{i-1}, t_i, c)),  i = N..1

The solvers of second order, for churn 0, put another in place of the prediction D_i
that is made at t_i. With h_i = lambda(t_{i-1}) - lambda(t_i), lambda = logsnr / 2,

  (3)  D_i + h_i / (2 h_{i+1}) (D_i - D_{i+1})

is DPM-Solver++ (2M) (Lu et al. 2022), from one evaluation a step as before. The first
step has no D_{i+1}. At t = 0 and alpha(t) = 0 lambda is infinite: the step to 0 and, by
the limit of (3), the one after a step from there have no correction either. Equidistant
times down to 0 have last steps in lambda that do not shrink with num_steps: there the
error falls by a logarithm slower than 1 / num_steps^2.

  (4)  D_i + exp(h_i) / 2 (D'_i - D_i),  D'_i predicted at x_{t_{i-1}} of (2) with D_i

is Heun's method in sigma / alpha, for alpha = 1 the sampler of EDM (Karras et al. 2022,
Algorithm 1). D'_i is of the next step: it has its weight and its inputs. The last step,
which has no next one, and steps with infinite lambda are of first order; the others
cost two evaluations.

The sampler takes `(xt, s, t, cond) -> x0_hat` and does not know that guidance
exists. `num_steps` counts transitions; the grid has one point more. What differs from
step to step, such as weights that are known before sampling starts, is scanned beside
the times and handed on.
"""

import functools

import jax
import jax.numpy as jnp

from lgd import arrays
from lgd import checks
from lgd import transitions
from lgd import types

SOLVERS = ('first_order', '2m', 'heun')


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
  solver: str = 'first_order',
  times: jax.Array | None = None,
  noise: jax.Array | None = None,
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
    solver: 'first_order', (2); or of second order and with churn 0, '2m', (3), or
      'heun', (4). A weight that depends on s moves the prediction by O(t - s), and then
      the error is of first order again.
    times: `[num_steps + 1]` decreasing times; `time_grid(num_steps)` if None. A
      network that predicts eps needs `t_max` below 1: alpha(1) = 0 hides x_0.
    noise: `shape`, standard normal, what the samples start from at sigma(t_N) times its
      size; None draws it from `key`. Others' samplers start from the same samples.
    inputs: pytree of `[num_steps, ...]` arrays, a row for every transition in the order
      of `times`; None for a denoiser without.
    memory: what `denoise` is to receive at the first step, a pytree of arrays that
      keep shapes and types; None for one without memory.
    return_trajectory: also keep every state.

  Returns:
    `[batch, *data]`; with `return_trajectory`, `[num_steps + 1, batch, *data]`
    from noise to sample.

  Raises:
    ValueError: an unknown solver or one that churn or memory rule out, times, noise or
      inputs of another shape or, unless traced, times that do not decrease in [0, 1],
      or a churn outside [0, 1].
  """
  if solver not in SOLVERS:
    raise ValueError(f'solver={solver!r}: must be one of {SOLVERS}.')
  if solver != 'first_order' and not (isinstance(churn, (int, float)) and churn == 0):
    raise ValueError(
      f'solver={solver!r} with churn={churn}: is of the deterministic sampler; use'
      " churn=0.0 (a Python number), or solver='first_order'."
    )
  if solver == 'heun' and memory is not None:
    raise ValueError(
      "solver='heun' with memory: predicts twice a step; what a step remembers is of"
      " one prediction. Use solver='2m' or 'first_order'."
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
  if noise is None:
    noise = arrays.normal(arrays.fold_in(key, 0), shape)
  checks.shape(f'{shape}, as the samples', shape, noise=noise)
  # x_{t_N} has the marginal of pure noise, up to alpha(t_N) x_0 with t_N ~ 1.
  x_init = schedule.sigma(times[0]) * noise

  def predict(xt, s, t, of_step, memory):
    s, t = jnp.broadcast_to(s, shape[:1]), jnp.broadcast_to(t, shape[:1])
    extra = [x for x in (of_step, memory) if x is not None]
    prediction = denoise(xt, s, t, cond, *extra)
    x0_hat, memory = prediction if memory is not None else (prediction, None)
    return (x0_hat if solver == 'first_order' else x0_hat.astype(xt.dtype)), memory

  def transition(carry, step):
    xt, previous, memory = carry
    index, times_here, (of_step, of_next), gain = step
    t, s, next_s = times_here
    move = functools.partial(transitions.sample, arrays.fold_in(key, index), schedule)
    x0_hat, memory = predict(xt, s, t, of_step, memory)
    if solver == '2m':
      previous, x0_hat = x0_hat, x0_hat + gain * (x0_hat - previous)
    if solver == 'heun':

      def corrected(x0_hat):
        xs = move(x0_hat, xt, s, t, churn)
        at_s, _ = predict(xs, next_s, s, of_next, None)
        return x0_hat + gain * (at_s - x0_hat)

      x0_hat = jax.lax.cond(gain > 0.0, corrected, lambda x0_hat: x0_hat, x0_hat)
    xs = move(x0_hat, xt, s, t, churn)
    return (xs, previous, memory), xs if return_trajectory else None

  def shifted(a):  # To the next step; that of the last one is not looked at.
    return jnp.concatenate([a[1:], a[-1:]])

  steps = (
    jnp.arange(1, num_steps + 1),
    (times[:-1], times[1:], shifted(times[1:])),
    (inputs, jax.tree.map(shifted, inputs)),
    _gains(schedule, times, solver),
  )
  previous = jnp.zeros_like(x_init) if solver == '2m' else None
  (xs, _, _), trajectory = jax.lax.scan(transition, (x_init, previous, memory), steps)
  if return_trajectory:
    return jnp.concatenate([x_init[None], trajectory])
  return xs


def _gains(schedule, times, solver):
  """`[num_steps]`: the factors of the differences in (3) or (4); 0 for none."""
  if solver == 'first_order':
    return None
  h = jnp.diff(0.5 * schedule.logsnr(times))
  infinite = jnp.isinf(h)
  h = jnp.where(infinite, 1.0, h)  # Of the step from t = 1 or to 0: no inf / inf.
  if solver == 'heun':
    return jnp.where(infinite, 0.0, 0.5 * jnp.exp(h)).at[-1].set(0.0)
  gains = jnp.where(infinite[1:] | infinite[:-1], 0.0, h[1:] / (2.0 * h[:-1]))
  return jnp.concatenate([jnp.zeros(1, gains.dtype), gains])
