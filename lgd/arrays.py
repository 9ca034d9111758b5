"""Broadcasting, named random streams, draws from one key per element, whole batches."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np


def expand_right(scale: jax.Array, x: jax.Array) -> jax.Array:
  """Appends unit axes to `scale`, `[batch]` or `[]`, until it broadcasts on `x`."""
  scale = jnp.asarray(scale)
  return jnp.reshape(scale, scale.shape + (1,) * (x.ndim - scale.ndim))


def stream(seed: int, name: str) -> jax.Array:
  """The root key of a named random stream.

  Per-step keys are `jax.random.fold_in(stream(seed, name), step)`: they depend
  on nothing but seed, name and step, so a resumed run needs no saved key, and a
  new consumer of randomness does not shift the draws of the others.
  """
  return jax.random.fold_in(jax.random.key(seed), zlib.crc32(name.encode()))


def normal(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Standard normal draws of `shape`, `[batch, ...]`.

  Args:
    key: one key, or `[batch]` keys. With one key per element an element's draw
      depends neither on the batch it is in nor on the devices that hold it.
    shape: `(batch, ...)`.
  """
  if key.ndim == 0:
    return jax.random.normal(key, shape)
  return jax.vmap(lambda k: jax.random.normal(k, shape[1:]))(key)


def fold_in(key: jax.Array, data) -> jax.Array:
  """`jax.random.fold_in` for one key or for `[batch]` keys."""
  if key.ndim == 0:
    return jax.random.fold_in(key, data)
  return jax.vmap(jax.random.fold_in, in_axes=(0, None))(key, data)


def whole_batches(num: int, size: int) -> list[np.ndarray]:
  """Rows 0..num-1 in batches of `size`, so that one compiled program serves all.

  The last batch is filled with its own rows again: results joined and cut to `num` are
  those of the rows in their order.
  """
  firsts = range(0, num, size)
  return [np.resize(np.arange(i, min(i + size, num)), size) for i in firsts]
