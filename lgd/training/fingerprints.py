"""A number for what an array holds: any one changed element changes it.

With the bits of its elements read as unsigned integers b_i, i their number in C order,

  (1)  f(x) = sum_i w_i b_i  mod 2^32,   w_i = (k i) | 1

w_i is odd, so it has an inverse mod 2^32: an element that differs by a nonzero integer
changes the sum, whichever it is; several that differ leave it by a chance of 2^-32. The
sum does not depend on its order: it is the same on any number of devices and under any
sharding. It costs one reading of the array where it lies.
"""

import hashlib
import json
from typing import Any

import jax
import jax.numpy as jnp

from lgd.training import sharding

_K = 0x9E3779B1  # Odd, its bits spread: neighbours that swap places are told apart.


def of_json(tree: Any) -> str:
  """The sha256 of a tree that JSON holds, as text with sorted keys."""
  return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()


def of_arrays(tree: Any) -> dict[str, int]:
  """(1) of every array, by its name in the tree; all processes must call this.

  Args:
    tree: pytree of arrays of booleans or of numbers of 8, 16 or 32 bits, each of fewer
      than 2^32 elements.
  """
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  sums = [(leaf_name(path), _fingerprint(x)) for path, x in leaves]
  return {name: int(sharding.to_host(x)) for name, x in sums}


def leaf_name(path: Any) -> str:
  """'params/hidden/kernel', whether a container is a dict, a tuple or a class."""
  names = (
    next(str(getattr(k, a)) for a in ('key', 'name', 'idx') if hasattr(k, a))
    for k in path
  )
  return '/'.join(names)


@jax.jit
def _fingerprint(x):
  index = jnp.zeros(x.shape, jnp.uint32)
  for axis, size in enumerate(x.shape):
    index = index * jnp.uint32(size)
    index += jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
  return jnp.sum(_bits(x) * (index * jnp.uint32(_K) | 1), dtype=jnp.uint32)


def _bits(x):
  if x.dtype == jnp.bool:
    return x.astype(jnp.uint32)
  unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize]
  return jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)
