"""From a pair of predictions, a weight and a rule to what the sampler calls.

A rule acts on predictions of a space: 'x0' (clean predictions), 'eps' or 'velocity'.
With the conversions of `noising` between clean predictions and those of the space,

  (1)  x0_guided = to_x0(rule(from_x0(x0_cond), from_x0(x0_null), omega))

At fixed (x_t, t) the conversions are affine: a rule that is linear in omega is `linear`
of another pair of clean predictions,

  (2)  to_x0(c + omega delta) = x0_cond + omega (x0_cond - to_x0(c - delta))

At t = 1, where alpha = 0, eps determines no x_0: (1) is then not finite in the space
'eps', and neither is the sample. Sample from a `t_max` below 1, as with a network that
predicts eps. Velocity has no such time.
"""

import functools
from collections.abc import Callable

import jax

from lgd import denoiser as denoiser_lib
from lgd import noising
from lgd import types
from lgd.guidance import rules


def guided(
  pair: denoiser_lib.Pair,
  params: types.Params,
  weight: types.Weight,
  *,
  rule: types.Rule = rules.linear,
  space: str = 'x0',
  schedule: types.Schedule | None = None,
) -> types.Denoise:
  """`(xt, s, t, cond) -> rule(x0_cond, x0_null, weight(cond, s, t))`, (1).

  Call it inside the jitted function that receives `params` (and the parameters of
  `weight`) as arguments, so that they stay arguments of the compiled program.

  Args:
    pair: of the frozen denoiser, such as `denoiser.classifier_free`.
    params: its parameters.
    weight: `(cond, s, t) -> omega`.
    rule: what omega does to the pair.
    space: what the rule acts on, one of `noising.PREDICTIONS`; 'eps' needs t < 1.
    schedule: noise schedule, for every space but 'x0'.

  Raises:
    ValueError: unknown space, or no schedule for it.

  Cost: 2 network evaluations per call and sample.
  """
  apply = in_space(rule, space, schedule)

  def denoise(xt, s, t, cond):
    x0_cond, x0_null = pair(params, xt, t, cond)
    return apply(x0_cond, x0_null, weight(cond, s, t), xt, t)

  return denoise


def guided_with_memory(
  pair: denoiser_lib.Pair,
  params: types.Params,
  weight: types.Weight,
  *,
  rule: types.MemoryRule,
  space: str = 'x0',
  schedule: types.Schedule | None = None,
) -> types.MemoryDenoise:
  """`guided` for a rule with memory: `(xt, s, t, cond, memory) -> (x0_hat, memory)`.

  The sampler carries the memory: `sampling.sample(..., memory=rule.init(shape))`.
  """
  enter, leave = _conversions(space, schedule)

  def denoise(xt, s, t, cond, memory):
    predictions = (enter(x0, xt, t) for x0 in pair(params, xt, t, cond))
    prediction, memory = rule.apply(*predictions, weight(cond, s, t), memory)
    return leave(prediction, xt, t), memory

  return denoise


def unguided(denoiser: types.Denoiser, params: types.Params) -> types.Denoise:
  """`(xt, s, t, cond) -> x0_cond`: omega = 0 without the null branch.

  Cost: 1 network evaluation per call and sample.
  """

  def denoise(xt, s, t, cond):
    del s
    return jax.lax.stop_gradient(denoiser(params, xt, t, cond))

  return denoise


def pair_along(
  pair: denoiser_lib.Pair,
  direction: types.Direction,
  *,
  space: str = 'x0',
  schedule: types.Schedule | None = None,
) -> denoiser_lib.Pair:
  """The pair of which `linear` makes what `along(direction)` makes of this one, (2).

  With it whatever is written for `linear` serves the direction: objectives on
  particles, statistics, the search along trajectories, planned sampling.

  Args:
    pair: of the frozen denoiser.
    direction: such as `optimal_scale` or `apg(...)`.
    space: what the direction acts on, as in `guided`.
    schedule: noise schedule, for every space but 'x0'.

  Raises:
    ValueError: unknown space, or no schedule for it.
  """
  enter, leave = _conversions(space, schedule)

  def move(x0_cond, x0_null, xt, t):
    pred_cond, pred_null = (enter(x0, xt, t) for x0 in (x0_cond, x0_null))
    return leave(pred_cond - direction(pred_cond, pred_null), xt, t)

  def null(params, xt, t, cond, x0_cond):
    return move(x0_cond, pair.null(params, xt, t, cond, x0_cond), xt, t)

  def both(params, xt, t, cond):
    x0_cond, x0_null = pair(params, xt, t, cond)
    return x0_cond, move(x0_cond, x0_null, xt, t)

  return denoiser_lib.Pair(pair.conditional, null, both)


def in_space(
  rule: types.Rule, space: str, schedule: types.Schedule | None
) -> Callable[..., jax.Array]:
  """`(x0_cond, x0_null, omega, xt, t) -> x0_guided`, (1).

  Raises:
    ValueError: unknown space, or no schedule for it.
  """
  enter, leave = _conversions(space, schedule)

  def apply(x0_cond, x0_null, omega, xt, t):
    pred_cond, pred_null = jax.tree.map(lambda x0: enter(x0, xt, t), (x0_cond, x0_null))
    return leave(rule(pred_cond, pred_null, omega), xt, t)

  return apply


def _conversions(space, schedule):
  """`(prediction, xt, t) -> prediction`, from clean predictions to `space` and back."""
  if space not in noising.PREDICTIONS:
    raise ValueError(f'space={space!r}: must be one of {noising.PREDICTIONS}.')
  if space != 'x0' and schedule is None:
    raise ValueError(f'space={space!r} with schedule=None: needs the noise schedule.')
  return (
    functools.partial(noising.from_x0, schedule, kind=space),
    functools.partial(noising.to_x0, schedule, kind=space),
  )
