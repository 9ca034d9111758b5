"""The best that any schedule can do: weights from gradients through the whole sampler.

One-step objectives and the search along trajectories look at single steps. Here x_i is
where the sampler ends, a function of all its weights and of noise that stays the same:

  (1)  L(omega) = mean_c [ 1/(N R) sum_ik ||x_i - y_k||^beta
                           - 1/2 1/(N(N-1)) sum_{i != j} ||x_i - x_j||^beta ],
       omega [conds, num_steps], y_k data of c

half the class-conditional energy distance up to a constant. Its gradient goes back
through all steps; each is computed again on the way, so that memory holds the states
alone. Minimised over omega, (1) is the yardstick for whatever is cheaper.
"""

import jax
import jax.numpy as jnp
import numpy as np

from lgd import arrays
from lgd import denoiser as denoiser_lib
from lgd import mmd
from lgd import sampling
from lgd import types


def loss(
  key: jax.Array,
  omega: jax.Array,
  pair: denoiser_lib.Pair,
  params: types.Params,
  schedule: types.Schedule,
  cond: types.Cond,
  reference: jax.Array,
  *,
  times: jax.Array,
  churn: float,
  num_particles: int,
  beta: float,
  num_references: jax.Array | None = None,
) -> jax.Array:
  """(1), differentiable in `omega`.

  Args:
    key: one key: of all noise.
    omega: `[num_conds, num_steps]` weights.
    pair: of the frozen denoiser, made with `stops_gradient=False`.
    params: its parameters.
    schedule: noise schedule.
    cond: pytree of `[num_conds, ...]`.
    reference: `[num_conds, R, *data]` data of each condition.
    times: `[num_steps + 1]` decreasing times, the sampler's.
    churn: of the sampler, in [0, 1].
    num_particles: N, at least 2.
    beta: kernel exponent, in (0, 2).
    num_references: `[num_conds]`, how many of the R are data, the first; None is all.

  Raises:
    ValueError: one particle, or weights of another grid.

  Cost: 2 N num_steps denoiser evaluations per condition, with the gradient 4 and as
  many backward.
  """
  if num_particles < 2:
    raise ValueError(f'num_particles={num_particles}: their distances need at least 2.')
  num_conds, num_data = reference.shape[:2]
  particle_cond = jax.tree.map(lambda c: jnp.repeat(c, num_particles, axis=0), cond)

  def denoise(xt, s, t, cond, omega):
    del s
    x0_cond, x0_null = pair(params, xt, t, cond)
    return x0_cond + arrays.expand_right(omega, xt) * (x0_cond - x0_null)

  x = sampling.sample(
    key,
    jax.checkpoint(denoise),
    schedule,
    particle_cond,
    (num_conds * num_particles, *reference.shape[2:]),
    num_steps=omega.shape[1],
    churn=churn,
    times=times,
    inputs=jnp.repeat(omega, num_particles, axis=0).T,
  )
  if num_references is None:
    num_references = jnp.full(num_conds, num_data)
  others = ~np.eye(num_particles, dtype=bool)

  def of_condition(args):
    x, y, num = args
    is_data = jnp.arange(num_data) < num
    attraction = mmd.pairwise_energy(x, y, beta).mean(where=is_data)
    return attraction - 0.5 * mmd.pairwise_energy(x, x, beta).mean(where=others)

  flat = (
    x.reshape(num_conds, num_particles, -1),
    reference.reshape(*reference.shape[:2], -1),
  )
  return jnp.mean(jax.lax.map(jax.checkpoint(of_condition), (*flat, num_references)))
