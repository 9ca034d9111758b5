"""Broadcasting, times and bounds, named random streams, keys per element, batches."""

import zlib

import jax
import jax.numpy as jnp
import numpy as np

# Of float32 times in [0, 1]: a grid's are an ulp off at many i / N, and so are bounds.
TIME_ROUNDING = 4.0 * float(np.finfo(np.float32).eps)

# The generator is pinned: under `rbg`, a common default on TPUs, what a key of a batch
# draws depends on the batch.
_GENERATOR = 'threefry2x32'


def expand_right(scale: jax.Array, x: jax.Array) -> jax.Array:
  """Appends unit axes to `scale`, `[batch]` or `[]`, until it broadcasts on `x`."""
  scale = jnp.asarray(scale)
  return jnp.reshape(scale, scale.shape + (1,) * (x.ndim - scale.ndim))


def index_or_nan(index: jax.Array, num: int) -> jax.Array:
  """The index where it is in 0..num-1, else one whose row JAX fills with NaN.

  JAX counts a negative index from the end: a label of -1 would be the last class.
  """
  index = index.astype(jnp.promote_types(index.dtype, jnp.int32))
  return jnp.where(index < 0, num, index)


def at_most(t: jax.Array | np.ndarray, bound: float) -> jax.Array | np.ndarray:
  """Whether times are `<= bound`; one within `TIME_ROUNDING` of it is equal to it.

  Every comparison of a time with a bound goes through this: with a plain `<=` the
  rounding of a grid, which differs between devices, decides at times on the bound.

  Args:
    t: times in [0, 1], of any shape; float32 or better once promoted.
    bound: may be traced.
  """
  t = t if hasattr(t, 'dtype') else np.asarray(t)
  t = t.astype(jnp.promote_types(t.dtype, jnp.float32))
  return t <= bound + TIME_ROUNDING


def stream(seed: int, name: str) -> jax.Array:
  """The root key of a named random stream.

  Per-step keys are `jax.random.fold_in(stream(seed, name), step)`: they depend
  on nothing but seed, name and step, so a resumed run needs no saved key, and a
  new consumer of randomness does not shift the draws of the others. The generator is
  threefry whatever `jax_default_prng_impl` is.
  """
  root = jax.random.key(seed, impl=_GENERATOR)
  return jax.random.fold_in(root, zlib.crc32(name.encode()))


def wrap_key_data(data: jax.Array) -> jax.Array:
  """The keys of `jax.random.key_data(keys)`, where these come from a `stream`."""
  return jax.random.wrap_key_data(data, impl=_GENERATOR)


def normal(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Standard normal draws of `shape`, `[batch, ...]`.

  Args:
    key: one key, or `[batch]` keys. With one key per element an element's draw
      depends neither on the batch it is in nor on the devices that hold it.
    shape: `(batch, ...)`.

  Raises:
    ValueError: no typed key; or keys per element of a generator other than threefry,
      whose draws would depend on the batch.
  """
  _require_key(key)
  if key.ndim == 0:
    return jax.random.normal(key, shape)
  return jax.vmap(lambda k: jax.random.normal(k, shape[1:]))(key)


def fold_in(key: jax.Array, data) -> jax.Array:
  """`jax.random.fold_in` for one key or for `[batch]` keys; raises as `normal`."""
  _require_key(key)
  if key.ndim == 0:
    return jax.random.fold_in(key, data)
  return jax.vmap(jax.random.fold_in, in_axes=(0, None))(key, data)


def _require_key(key):
  if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
    raise ValueError(
      f'key of {key.dtype}{list(key.shape)}: must be typed; make it by jax.random.key,'
      ' not by PRNGKey.'
    )
  if key.ndim and str(jax.random.key_impl(key)) != _GENERATOR:
    raise ValueError(
      f'keys of {jax.random.key_impl(key)}: a key per element needs {_GENERATOR}, whose'
      f' draws do not depend on the batch; make it by jax.random.key(seed,'
      f' impl={_GENERATOR!r}).'
    )


def whole_batches(num: int, size: int) -> list[np.ndarray]:
  """Rows 0..num-1 in batches of `size`, so that one compiled program serves all.

  The last batch is filled with its own rows again: results joined and cut to `num` are
  those of the rows in their order.
  """
  firsts = range(0, num, size)
  return [np.resize(np.arange(i, min(i + size, num)), size) for i in firsts]
