"""The Gram matrix of one denoiser pass, its storage and its subsets."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from lgd import checks

# On accelerators the default is a reduced precision, which makes squared distances of
# close particles negative.
HIGHEST = jax.lax.Precision.HIGHEST


def gram(
  eps: jax.Array,
  x0: jax.Array,
  x0_cond: jax.Array,
  x0_null: jax.Array | Sequence[jax.Array],
) -> jax.Array:
  """Inner products of the vectors (1) of each datum.

  Args:
    eps: `[batch, m, *data]`, the noise of the particles.
    x0: `[batch, *data]`.
    x0_cond: `[batch, m, *data]`, conditional predictions.
    x0_null: `[batch, m, *data]`, null predictions; or K of them, one for each guidance
      direction x0_cond - x0_null.

  Returns:
    `[batch, 3m, 3m]`, in general `[batch, (2 + K) m, (2 + K) m]`: e_1..e_m, r_1..r_m,
    then the delta of each direction. Symmetric.

  Raises:
    ValueError: arrays of other shapes, or, unless traced, not finite.

  Cost: O(batch m dim) memory.
  """
  eps, x0, x0_cond = (x.astype(jnp.float32) for x in (eps, x0, x0_cond))
  directions = _directions(x0_cond, x0_null)
  _check(directions, eps=eps, x0_cond=x0_cond)
  checks.same_shape(x0=x0, datum_of_eps=eps[:, 0])
  return _inner_products([eps, x0_cond - x0[:, None], *directions])


def group_gram(
  eps: jax.Array,
  x0: jax.Array,
  x0_cond: jax.Array,
  x0_null: jax.Array | Sequence[jax.Array],
) -> jax.Array:
  """Inner products of the vectors (1) and the data, within groups that share a t.

  Args:
    eps: `[groups, n, *data]`, the noise of each member.
    x0: `[groups, n, *data]`.
    x0_cond: `[groups, n, *data]`.
    x0_null: `[groups, n, *data]`, or K of them.

  Returns:
    `[groups, (3 + K) n, (3 + K) n]`: x_1..x_n about their mean, then as in `gram`.

  Raises:
    ValueError: arrays of other shapes, or, unless traced, not finite.
  """
  eps, x0, x0_cond = (x.astype(jnp.float32) for x in (eps, x0, x0_cond))
  directions = _directions(x0_cond, x0_null)
  _check(directions, eps=eps, x0=x0, x0_cond=x0_cond)
  centred = x0 - jnp.mean(x0, axis=1, keepdims=True)  # Only differences matter.
  return _inner_products([centred, eps, x0_cond - x0, *directions])


def _directions(x0_cond, x0_null):
  nulls = [x0_null] if hasattr(x0_null, 'shape') else x0_null
  return [x0_cond - null.astype(jnp.float32) for null in nulls]


def _check(directions, **arrays):
  named = {f'x0_null[{i}]': x for i, x in enumerate(directions)}
  checks.same_shape(**arrays, **named)
  shape = arrays['eps'].shape
  if len(shape) < 2 or shape[1] < 1:
    raise ValueError(f'eps.shape={shape}: must have an axis of at least 1 particle.')
  checks.finite('look at the base model, and its null condition.', **arrays, **named)


def _inner_products(vectors):
  flat = jnp.concatenate([v.reshape(*v.shape[:2], -1) for v in vectors], axis=1)
  return jnp.einsum(
    'bid,bjd->bij',
    flat,
    flat,
    precision=HIGHEST,
    preferred_element_type=jnp.float32,
  )


def require_square(gram: jax.Array, **of_batch: jax.Array) -> None:
  """Checks Gram matrices, and arrays of a row for each, given by name.

  Raises:
    ValueError: not `[batch, p, p]`, or an array not `[batch, ...]`.
  """
  checks.shape('[batch, p, p]', (None, *2 * gram.shape[-1:]), gram=gram)
  for name, x in of_batch.items():
    checks.shape(f'[{len(gram)}, ...]', (len(gram), ...), **{name: x})


def pack(gram: jax.Array) -> jax.Array:
  """The upper triangle: `[batch, p, p]` -> `[batch, p (p + 1) / 2]`.

  Raises:
    ValueError: another shape.
  """
  require_square(gram)
  return gram[:, *np.triu_indices(gram.shape[-1])]


def unpack(packed: jax.Array) -> jax.Array:
  """The inverse of `pack`.

  Raises:
    ValueError: rows that no `pack` gives.
  """
  p = (math.isqrt(8 * packed.shape[-1] + 1) - 1) // 2 if packed.ndim == 2 else 0
  if packed.ndim != 2 or p * (p + 1) // 2 != packed.shape[1]:
    raise ValueError(f'packed.shape={packed.shape}: must be [batch, p (p + 1) / 2].')
  index = np.zeros((p, p), int)
  index[np.triu_indices(p)] = np.arange(packed.shape[-1])
  return packed[:, np.maximum(index, index.T)]


def num_independent(num_particles: int) -> int:
  """k: how many of m antithetic particles have noise of their own; 2 both have."""
  return num_particles if num_particles < 3 else (num_particles + 1) // 2


def subset(
  gram: jax.Array, m: int, num_particles: int, *, antithetic: bool = False
) -> jax.Array:
  """The Gram matrix of `num_particles` of the m particles (members).

  They are the first ones; of antithetic particles, the first with noise of their own
  and as many of their mirror images as are wanted.

  Raises:
    ValueError: more than m, or none; or a matrix that is not of m particles.
  """
  require_square(gram)
  if not 1 <= num_particles <= m or gram.shape[-1] % m:
    raise ValueError(
      f'num_particles={num_particles}: must be in 1..m={m}, which divides the'
      f' {gram.shape[-1]} vectors of the Gram matrix.'
    )
  kept = np.arange(num_particles)
  if antithetic:
    own = num_independent(num_particles)
    kept = np.where(kept < own, kept, kept - own + num_independent(m))
  batch, p = gram.shape[:2]
  blocks = gram.reshape(batch, p // m, m, p // m, m)
  blocks = blocks[:, :, kept][:, :, :, :, kept]
  return blocks.reshape(batch, *(2 * [p // m * num_particles]))
