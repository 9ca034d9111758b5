"""A frozen denoiser, and the pairs of predictions that guidance extrapolates.

  (1)  x0_hat(x_t, t, c) ~ E[x_0 | x_t, c]
  (2)  classifier-free:  x0_hat(x_t, t, c), x0_hat(x_t, t, null)
  (3)  autoguidance:     x0_hat_strong(x_t, t, c), x0_hat_weak(x_t, t, c)

A denoiser is a pure function `(params, xt, t, cond) -> x0_hat`. Its parameters
are an argument, never captured, and nothing differentiates through it: x_t does
not depend on the guidance parameters, so (2) and (3) stop the gradient.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import experimental

from lgd import noising
from lgd import types


def from_network(
  apply: Callable[..., jax.Array], schedule: types.Schedule, prediction: str
) -> types.Denoiser:
  """A denoiser from a network that predicts x0, eps or velocity.

  Args:
    apply: `(params, xt, t, cond) -> prediction`, all `[batch, ...]`.
    schedule: the noise schedule that the network was trained with.
    prediction: 'x0', 'eps' or 'velocity'.
  """

  def denoise(params, xt, t, cond):
    return noising.to_x0(schedule, apply(params, xt, t, cond), xt, t, prediction)

  return denoise


def pair(
  denoiser: types.Denoiser,
  params: types.Params,
  xt: jax.Array,
  t: jax.Array,
  cond: types.Cond,
  null_cond: types.Cond,
) -> tuple[jax.Array, jax.Array]:
  """Conditional and null predictions (2), in one call of twice the batch.

  Args:
    denoiser: the frozen denoiser.
    params: its parameters.
    xt: `[batch, *data]`.
    t: `[batch]`.
    cond: pytree of `[batch, ...]` arrays.
    null_cond: the null condition, the same pytree without the batch axis.

  Returns:
    `x0_cond, x0_null`, each `[batch, *data]`.

  Gradient: stopped, towards the parameters and towards `xt`.
  """
  batch = xt.shape[0]

  # The two branches of an element lie side by side, [batch, 2, ...] flattened, so
  # that a sharded batch axis stays where it is (halves end to end would not).
  def interleave(a, b):
    b = jnp.broadcast_to(jnp.asarray(b, a.dtype), a.shape)
    return jnp.stack([a, b], axis=1).reshape(2 * batch, *a.shape[1:])

  both = denoiser(
    params,
    interleave(xt, xt),
    interleave(t, t),
    jax.tree.map(interleave, cond, null_cond),
  )
  both = jax.lax.stop_gradient(both).reshape(batch, 2, *xt.shape[1:])
  return both[:, 0], both[:, 1]


def classifier_free(denoiser: types.Denoiser, null_cond: types.Cond) -> types.Pair:
  """The pair (2) as a function of the parameters, of one network.

  Args:
    denoiser: the frozen denoiser.
    null_cond: the null condition, without the batch axis.

  Returns:
    `(params, xt, t, cond) -> x0_cond, x0_null`; gradient and cost as of `pair`.
  """

  def predict(params, xt, t, cond):
    return pair(denoiser, params, xt, t, cond, null_cond)

  return predict


def autoguidance(strong: types.Denoiser, weak: types.Denoiser) -> types.Pair:
  """The pair (3), of two networks at one condition (Karras et al. 2024).

  The second may be any model to be guided away from: a smaller or less trained one,
  another checkpoint of the same, or the reweighted one of `objectives.denoising`. The
  papers' scale is w = 1 + omega.

  Args:
    strong: the frozen denoiser that omega = 0 samples from.
    weak: the frozen denoiser to be guided away from.

  Returns:
    `((strong_params, weak_params), xt, t, cond) -> x0_strong, x0_weak`.

  Gradient: stopped, towards the parameters and towards `xt`. Cost: one evaluation of
  each network per element.
  """

  def predict(params, xt, t, cond):
    strong_params, weak_params = params
    both = strong(strong_params, xt, t, cond), weak(weak_params, xt, t, cond)
    return jax.lax.stop_gradient(both)

  return predict


class EvaluationCounter:
  """Counts the network evaluations that a compiled program actually makes.

  `counter.wrap(denoiser)` reports every executed call to the host, from inside
  `jit`, `scan` and `cond` alike, so that NFE is counted and never assumed. The
  report costs a host callback: count on a small batch, sample without it.
  """

  def __init__(self):
    self._count = 0

  def wrap(self, denoiser: types.Denoiser) -> types.Denoiser:
    """The same denoiser; each executed call adds its batch size to `count`."""

    def counted(params, xt, t, cond):
      experimental.io_callback(self._add, None, xt.shape[0])
      return denoiser(params, xt, t, cond)

    return counted

  @property
  def count(self) -> int:
    """Evaluations so far; waits for the reports of programs still running."""
    jax.effects_barrier()
    return self._count

  def _add(self, num: jax.Array) -> None:
    self._count += int(num)
