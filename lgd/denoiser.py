"""A frozen denoiser, and the pairs of predictions that guidance extrapolates.

  (1)  x0_hat(x_t, t, c) ~ E[x_0 | x_t, c]
  (2)  classifier-free:  x0_hat(x_t, t, c), x0_hat(x_t, t, null)
  (3)  autoguidance:     x0_hat_strong(x_t, t, c), x0_hat_weak(x_t, t, c)

A denoiser is a pure function `(params, xt, t, cond) -> x0_hat`. Its parameters
are an argument, never captured, and nothing that learns from true x_t differentiates
through it: x_t does not depend on the guidance parameters, so (2) and (3) stop the
gradient. Only where a sampler is differentiated as a whole (`endpoint`) they must not.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import experimental

from lgd import noising
from lgd import types


def from_network(
  apply: Callable[..., jax.Array],
  schedule: types.Schedule,
  prediction: str,
  *,
  clip: float | None = None,
) -> types.Denoiser:
  """A denoiser from a network that predicts x0, eps, velocity or v.

  Args:
    apply: `(params, xt, t, cond) -> prediction`, all `[batch, ...]`.
    schedule: the noise schedule that the network was trained with.
    prediction: one of `noising.PREDICTIONS`. What others call v-prediction is 'v';
      'velocity' is dx_t/dt, which differs from it (`noising`, (3) and (5)).
    clip: clean predictions are clipped to [-clip, clip], as samplers of such models
      do; None leaves them. An error of eps is sigma / alpha times as large in x_0: near
      t = 1 such predictions are far from all data, and weights learned from them are
      large and say nothing.

  Raises:
    ValueError: an unknown prediction, or a clip that is not positive.
  """
  if prediction not in noising.PREDICTIONS:
    raise ValueError(
      f'prediction={prediction!r}: must be one of {noising.PREDICTIONS}.'
    )
  if clip is not None and not clip > 0.0:
    raise ValueError(f'clip={clip}: must be above 0, or None.')

  if clip is not None and not clip > 0.0:
    raise ValueError(f'clip={clip}: must be above 0, or None.')

  def denoise(params, xt, t, cond):
    x0 = noising.to_x0(schedule, apply(params, xt, t, cond), xt, t, prediction)
    return x0 if clip is None else jnp.clip(x0, -clip, clip)

  return denoise


@dataclasses.dataclass(frozen=True)
class Pair:
  """The two predictions whose difference guidance extrapolates; a call gives both.

  Gradients are stopped, towards the parameters and towards `xt`, unless it is made
  otherwise.

  Attributes:
    conditional: the denoiser that omega = 0 samples from.
    null: `(params, xt, t, cond, x0_cond) -> x0_null`, what to be guided away from;
      `x0_cond` is the other prediction, which has been made before.
    both: `(params, xt, t, cond) -> (x0_cond, x0_null)`.
  """

  conditional: types.Denoiser
  null: Callable[..., jax.Array]
  both: Callable[..., tuple[jax.Array, jax.Array]]

  def __call__(
    self, params: types.Params, xt: jax.Array, t: jax.Array, cond: types.Cond
  ) -> tuple[jax.Array, jax.Array]:
    """`x0_cond, x0_null`, each `[batch, *data]`, at `xt`, t `[batch]` and `cond`."""
    return self.both(params, xt, t, cond)


def classifier_free(
  denoiser: types.Denoiser, null_cond: types.Cond, *, stops_gradient: bool = True
) -> Pair:
  """The pair (2), of one network with and without its condition.

  Args:
    denoiser: the frozen denoiser.
    null_cond: the null condition, without the batch axis.
    stops_gradient: False lets gradients pass through the predictions.

  Raises (when called):
    ValueError: a null value that the dtype of the conditions cannot hold.

  Cost: `both` is one call of twice the batch.
  """
  if stops_gradient:
    denoiser = _frozen(denoiser)

  # The two branches of an element lie side by side, [batch, 2, ...] flattened, so
  # that a sharded batch axis stays where it is (halves end to end would not).
  def interleave(a, b):
    return jnp.stack([a, b], axis=1).reshape(2 * a.shape[0], *a.shape[1:])

  def nulls(cond):
    return null_like(cond, null_cond)

  def null(params, xt, t, cond, x0_cond):
    del x0_cond
    return denoiser(params, xt, t, nulls(cond))

  def both(params, xt, t, cond):
    x0 = denoiser(
      params,
      interleave(xt, xt),
      interleave(t, t),
      jax.tree.map(interleave, cond, nulls(cond)),
    )
    x0 = x0.reshape(xt.shape[0], 2, *xt.shape[1:])
    return x0[:, 0], x0[:, 1]

  return Pair(denoiser, null, both)


def autoguidance(
  strong: types.Denoiser, weak: types.Denoiser, *, stops_gradient: bool = True
) -> Pair:
  """The pair (3), of two networks at one condition (Karras et al. 2024).

  The second may be any model to be guided away from: a smaller or less trained one,
  another checkpoint of the same, or the reweighted one of `objectives.denoising`. The
  papers' scale is w = 1 + omega.

  Args:
    strong: the frozen denoiser that omega = 0 samples from.
    weak: the frozen denoiser to be guided away from.
    stops_gradient: as in `classifier_free`.

  Returns:
    A pair whose parameters are `(strong_params, weak_params)`.
  """
  if stops_gradient:
    strong, weak = _frozen(strong), _frozen(weak)

  def cond(params, xt, t, cond):
    return strong(params[0], xt, t, cond)

  def null(params, xt, t, cond, x0_cond):
    del x0_cond
    return weak(params[1], xt, t, cond)

  return _one_after_the_other(cond, null)


def several(*pairs: Pair) -> Pair:
  """Several directions away from one prediction, such as (2) and (3) together.

  Args:
    *pairs: K of them; the conditional prediction is that of the first.

  Returns:
    A pair whose parameters are the tuple of theirs, and whose null predictions a tuple
    of K. Weights for it have omega `[batch, K]`.
  """

  def cond(params, xt, t, cond):
    return pairs[0].conditional(params[0], xt, t, cond)

  def null(params, xt, t, cond, x0_cond):
    each = zip(pairs, params, strict=True)
    return tuple(pair.null(p, xt, t, cond, x0_cond) for pair, p in each)

  return _one_after_the_other(cond, null)


def _one_after_the_other(cond, null):
  """A pair whose two predictions share no call."""

  def both(params, xt, t, c):
    x0_cond = cond(params, xt, t, c)
    return x0_cond, null(params, xt, t, c, x0_cond)

  return Pair(cond, null, both)


def null_like(cond: types.Cond, null: types.Cond) -> types.Cond:
  """The null condition for every row of conditions; of NumPy where they are.

  Args:
    cond: pytree of `[batch, ...]`.
    null: the same without the batch axis.

  Raises:
    ValueError: a value that the dtype of the conditions cannot hold.
  """
  return jax.tree.map(_broadcast_null, cond, null)


def _broadcast_null(c, null):
  null = np.asarray(null)
  held = null.astype(c.dtype)
  # Floats may round it; integers must hold it exactly.
  if not jnp.issubdtype(c.dtype, jnp.floating) and np.any(held != null):
    raise ValueError(
      f'null_cond={null}: conditions of {c.dtype} cannot hold it; give both in a type'
      f' that does, as {np.promote_types(null.dtype, c.dtype)}.'
    )
  np_ = np if isinstance(c, np.ndarray) else jnp
  return np_.broadcast_to(np_.asarray(held), c.shape)


def _frozen(denoiser):
  return lambda *args: jax.lax.stop_gradient(denoiser(*args))


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
