"""Guided sampling that evaluates the null branch only where a weight needs it.

omega(cond, s, t) does not depend on x_t: it is known before sampling starts, and where
it is 0 guidance is the conditional prediction, whatever the null one is. With n
samples, of which k_i need the null branch at transition i, and k_i rounded up to one of
a few levels,

  (1)  evaluations = sum_i (n + ceil(k_i)),    2 n a transition for plain guidance

Rounding keeps the number of compiled programs small: transition i runs one branch of a
switch, which makes the conditional predictions of all samples, and the null ones of the
first ceil(k_i) in an order that puts those in need first; both at once where all need
them. Samples are those of `guided` to rounding; if all need them at every transition,
the program is that of `guided`, too.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import numpy as np

from lgd import denoiser as denoiser_lib
from lgd import types
from lgd.guidance import rules
from lgd.guidance.guided import in_space


class PlanStep(NamedTuple):
  """The needs of a batch at one transition; fields as in `Plan`."""

  omega: jax.Array  # [n]
  rows: jax.Array  # [n]
  level: jax.Array  # []


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=('omega', 'rows', 'level'),
  meta_fields=('num_shards', 'sizes'),
)
@dataclasses.dataclass(frozen=True)
class Plan:
  """The needs of a batch of n samples, transition by transition.

  Samples lie in equal parts, one for each device that holds some of them, and what a
  part needs is evaluated where it is.

  Attributes:
    omega: `[n, num_steps]`.
    rows: `[n, num_steps]`, the samples of each part by their numbers in it, those in
      need first.
    level: `[num_steps]`, index of `sizes`.
    num_shards: parts.
    sizes: numbers of samples of a part, from none to all, that k_i of (1) is rounded
      up to; all alone, if nothing is left out anywhere.
  """

  omega: jax.Array
  rows: jax.Array
  level: jax.Array
  num_shards: int
  sizes: tuple[int, ...]

  @property
  def steps(self) -> PlanStep:
    """All transitions in a row, `[num_steps, ...]`: `inputs` of `sampling.sample`."""
    return PlanStep(self.omega.T, self.rows.T, self.level)

  @property
  def num_evaluations(self) -> int:
    """Network evaluations of the whole batch, (1)."""
    guided = np.asarray(self.sizes)[np.asarray(self.level)].sum()
    return self.omega.size + int(self.num_shards * guided)


def make_plan(
  omega: np.ndarray,
  *,
  num_levels: int = 4,
  num_shards: int = 1,
  tolerance: float = 0.0,
) -> Plan:
  """Decides, on the host, which samples need the null branch when.

  Args:
    omega: `[n, num_steps]` weights of a batch at the sampler's transitions; any sign.
    num_levels: L; k_i is rounded up to a multiple of 1/L of the batch. Each level is a
      branch of its own: more of them compile longer and evaluate less.
    num_shards: devices over which the samples are split; divides n.
    tolerance: weights of at most this size are taken for 0. Above 0 it changes samples.

  Raises:
    ValueError: weights that are not finite, or settings out of range.
  """
  omega = np.asarray(omega, np.float32)
  if omega.ndim != 2 or not omega.size or not np.isfinite(omega).all():
    raise ValueError(f'omega{omega.shape}: must be finite, [n, num_steps].')
  divides = num_shards >= 1 and len(omega) % num_shards == 0
  if num_levels < 1 or not tolerance >= 0.0 or not divides:
    raise ValueError(
      f'num_levels={num_levels}, tolerance={tolerance}, num_shards={num_shards}: must'
      f' be at least 1, at least 0, and a divisor of the {len(omega)} samples.'
    )
  needed = np.abs(omega) > tolerance
  parts = needed.reshape(num_shards, -1, omega.shape[1])
  num_rows = parts.shape[1]
  sizes = sorted({-(-num_rows * i // num_levels) for i in range(num_levels + 1)})
  rows = np.argsort(~parts, axis=1, kind='stable').reshape(omega.shape)
  most = parts.sum(axis=1).max(axis=0)  # Of the parts: they run the same program.
  if np.all(most > sizes[-2]):  # A switch would cost more than the choice is worth.
    sizes = sizes[-1:]
  return Plan(
    np.where(needed, omega, 0.0),
    rows.astype(np.int32),
    np.searchsorted(sizes, most).astype(np.int32),
    num_shards,
    tuple(sizes),
  )


def similar_first(omega: np.ndarray, *, tolerance: float = 0.0) -> np.ndarray:
  """An order of samples in which those that need the null branch together lie together.

  Args:
    omega: `[n, num_steps]`.
    tolerance: as in `make_plan`.

  Returns:
    `[n]` permutation. Cut into batches, more transitions need no null branch at all.
  """
  needed = np.abs(omega) > tolerance
  return np.lexsort((*needed.T, needed.argmax(axis=1), needed.sum(axis=1)))


def planned(
  pair: denoiser_lib.Pair,
  params: types.Params,
  plan: Plan,
  *,
  rule: types.Rule = rules.linear,
  space: str = 'x0',
  schedule: types.Schedule | None = None,
) -> types.StepDenoise:
  """`guided` for the samples of a plan, in their order.

  It receives the step of the plan: `sampling.sample(..., inputs=plan.steps)`.

  Args:
    pair: of the frozen denoiser.
    params: its parameters.
    plan: of `make_plan`, of which only `num_shards` and `sizes` are looked at: one
      compiled program serves all plans that agree in them.
    rule: what omega does; it must give the conditional prediction where omega is 0.
    space: as in `guided`, and so the next.
    schedule: noise schedule.

  Raises:
    ValueError: as `guided`.
  """
  apply = in_space(rule, space, schedule)

  def split(x):
    return x.reshape(plan.num_shards, -1, *x.shape[1:])

  def guide_some(size, xt, t, cond, omega, rows):
    """Guides the first `size` of `rows` in each part, and leaves the others."""
    rows = split(rows)[:, :size]

    def take(x):
      return jax.vmap(lambda part, i: part[i])(split(x), rows)

    def merge(x):
      return x.reshape(-1, *x.shape[2:])

    x0_cond = pair.conditional(params, xt, t, cond)
    some = jax.tree.map(lambda x: merge(take(x)), (xt, t, cond, x0_cond))
    x0_null = pair.null(params, *some)
    xt_some, t_some, _, x0_some = some
    guided = split(apply(x0_some, x0_null, merge(take(omega)), xt_some, t_some))
    guided = guided.astype(x0_cond.dtype)
    put = jax.vmap(lambda part, i, new: part.at[i].set(new))
    return merge(put(split(x0_cond), rows, guided))

  def guide_all(xt, t, cond, omega, rows):
    del rows
    x0_cond, x0_null = pair(params, xt, t, cond)
    return apply(x0_cond, x0_null, omega, xt, t)

  def guide_none(xt, t, cond, omega, rows):
    del omega, rows
    return pair.conditional(params, xt, t, cond)

  some = [functools.partial(guide_some, size) for size in plan.sizes[1:-1]]
  branches = [guide_none, *some, guide_all] if len(plan.sizes) > 1 else [guide_all]

  def denoise(xt, s, t, cond, step):
    del s
    branches_in_dtype = [_in_dtype_of_xt(fn) for fn in branches]
    return jax.lax.switch(
      step.level, branches_in_dtype, xt, t, cond, step.omega, step.rows
    )

  return denoise


def _in_dtype_of_xt(fn):
  """Branches must agree; a denoiser's dtype and that of the weights may not."""
  return lambda xt, *args: fn(xt, *args).astype(xt.dtype)
