"""The jackknife: an estimate without each part of its data, and its error from these.

Row i of n is in block i mod B. With v_b the estimate without block b,

  (1)  variance = (B - 1) / B sum_b (v_b - mean v)^2

also of a difference of two estimates whose blocks are paired. What was found to gain
over something plain is taken only if

  (2)  gain > confidence sqrt(variance(gain))

so that noise is not taken for a gain. Of a parabola the gain of the minimum x over 0 is
in proportion to x^2 / 2, its deviation at the fixed x to x sd(x): there (2) asks for
x > 2 confidence sd(x).
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


def is_clear(gain: jax.Array | np.ndarray, confidence: float) -> jax.Array | np.ndarray:
  """(2) of `[..., 1 + B]`, a gain and those without each block: `[...]`.

  Args:
    gain: at what was chosen with all blocks.
    confidence: standard errors, >= 0.
  """
  return gain[..., 0] > confidence * variance(gain) ** 0.5
