"""The jackknife: an estimate without each part of its data, and its error from these.

Row i of n is in block i mod B. With v_b the estimate without block b,

  (1)  variance = (B - 1) / B sum_b (v_b - mean v)^2

also of a difference of two estimates whose blocks are paired.
"""

import jax
import numpy as np


def kept(num: int, num_blocks: int) -> np.ndarray:
  """`[1 + num_blocks, num]` bool: all rows, and all but those of each block."""
  blocks = np.arange(num_blocks)[:, None]
  in_block = np.arange(num) % max(num_blocks, 1) == blocks
  return np.concatenate([np.ones((1, num), bool), ~in_block])


def variance(values: jax.Array | np.ndarray) -> jax.Array | np.ndarray:
  """(1) of `[..., 1 + B]`, the estimate and those without each block: `[...]`.

  Without blocks it is 0.
  """
  num_blocks = values.shape[-1] - 1
  if not num_blocks:
    return 0.0 * values[..., 0]
  return (num_blocks - 1) * values[..., 1:].var(axis=-1)
