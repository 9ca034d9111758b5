"""From a frozen denoiser and a weight to what the sampler calls."""

import jax

from lgd import denoiser as denoiser_lib
from lgd import types
from lgd.guidance import rules


def guided(
  denoiser: types.Denoiser,
  params: types.Params,
  weight: types.Weight,
  null_cond: types.Cond,
  *,
  rule: types.Rule = rules.linear,
) -> types.Denoise:
  """`(xt, s, t, cond) -> rule(x0_cond, x0_null, weight(cond, s, t))`.

  Call it inside the jitted function that receives `params` (and the parameters of
  `weight`) as arguments, so that they stay arguments of the compiled program.

  Cost: 2 network evaluations per call and sample, batched into one.
  """

  def denoise(xt, s, t, cond):
    x0_cond, x0_null = denoiser_lib.pair(denoiser, params, xt, t, cond, null_cond)
    return rule(x0_cond, x0_null, weight(cond, s, t))

  return denoise


def unguided(denoiser: types.Denoiser, params: types.Params) -> types.Denoise:
  """`(xt, s, t, cond) -> x0_cond`: omega = 0 without the null branch.

  Cost: 1 network evaluation per call and sample.
  """

  def denoise(xt, s, t, cond):
    del s
    return jax.lax.stop_gradient(denoiser(params, xt, t, cond))

  return denoise
