"""Speed as a ratio of two measurements in one run, and the size of networks."""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from lgd.data import splits

ROUNDS = 15


def count_network(net: nn.Module, spec: splits.Spec) -> tuple[int, float]:
  """Parameters of a base model's network, and operations of one evaluation by XLA."""
  args = jnp.zeros((1, *spec.shape)), jnp.zeros(1), spec.conditions.zeros(1)
  params = jax.eval_shape(net.init, jax.random.key(0), *args)
  flops = jax.jit(net.apply).lower(params, *args).cost_analysis()['flops']
  return sum(leaf.size for leaf in jax.tree.leaves(params)), flops


def paired_ratio(
  a: Callable[[], Any], b: Callable[[], Any], *, repeats: int
) -> tuple[float, tuple[float, float]]:
  """Median of time(a) / time(b) over rounds, and the median seconds of each."""

  def timed(fn):
    start = time.perf_counter()
    for _ in range(repeats):
      out = fn()
    jax.block_until_ready(out)
    return (time.perf_counter() - start) / repeats

  timed(a), timed(b)  # Compiles.
  seconds = np.array([(timed(a), timed(b)) for _ in range(ROUNDS)])
  ratio = float(np.median(seconds[:, 0] / seconds[:, 1]))
  return ratio, tuple(np.median(seconds, axis=0))
