"""One compiled sampler for every method: the weight is a table, hence an argument."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import config_dict

from experiments import builders
from lgd import arrays
from lgd import denoiser as denoiser_lib
from lgd import guidance
from lgd import sampling
from lgd import sharding
from lgd import types

# (denoiser_params, table or None, keys [n], label [n]) -> samples [n, *data], on host.
SampleFn = Callable[[types.Params, jax.Array | None, jax.Array, np.ndarray], np.ndarray]


def make_sample_fn(
  config: config_dict.ConfigDict,
  num_classes: int,
  shape: tuple[int, ...],
  *,
  counter: denoiser_lib.EvaluationCounter | None = None,
) -> SampleFn:
  """The sampler of `config.evaluation`, compiled and split over all devices.

  A table `[num_classes, num_steps]` holds omega at the sampler's transitions;
  without one the null branch is not evaluated. With a `counter`, every network
  evaluation is counted.
  """
  denoiser = builders.denoiser(config, num_classes)
  if counter is not None:
    denoiser = counter.wrap(denoiser)
  times = builders.time_grid(config)

  def sample(params, table, key_data, label):
    keys = jax.random.wrap_key_data(key_data)
    if table is None:
      denoise = guidance.unguided(denoiser, params)
    else:
      weight = guidance.table(table, times)
      denoise = guidance.guided(denoiser, params, weight, num_classes)
    return sampling.sample(
      keys,
      denoise,
      builders.schedule(config),
      label,
      (label.shape[0], *shape),
      num_steps=config.evaluation.num_steps,
      churn=config.evaluation.churn,
      times=times,
    )

  mesh = builders.mesh(config)
  whole, split = sharding.replicated(mesh), sharding.split(mesh)
  compiled = jax.jit(
    sample, in_shardings=(None, whole, split, split), out_shardings=split
  )

  def sample_padded(params, table, keys, label):
    n = len(label)
    index = np.arange(n + -n % mesh.size) % n  # A multiple of the device count.
    batch = np.asarray(jax.random.key_data(keys))[index], np.asarray(label)[index]
    share = sharding.global_batch(sharding.process_share(batch), mesh)
    return sharding.to_host(compiled(params, table, *share))[:n]

  return sample_padded


def sample_keys(seed: int, n: int, *, start: int = 0) -> jax.Array:
  """`[n]` keys: sample start + i of a seed is the same whatever the batch it is in."""
  root = arrays.stream(seed, 'samples')
  return jax.vmap(lambda i: jax.random.fold_in(root, i))(start + jnp.arange(n))


def balanced_labels(num_classes: int, per_class: int) -> np.ndarray:
  """`[num_classes * per_class]`, sorted."""
  return np.repeat(np.arange(num_classes, dtype=np.int32), per_class)


def count_nfe(
  config: config_dict.ConfigDict,
  num_classes: int,
  shape: tuple[int, ...],
  params: types.Params,
  table: jax.Array | None,
) -> float:
  """Network evaluations per sample, counted while one sample per device is drawn."""
  counter = denoiser_lib.EvaluationCounter()
  sample_fn = make_sample_fn(config, num_classes, shape, counter=counter)
  n = jax.device_count()
  sample_fn(params, table, sample_keys(0, n), np.zeros(n, np.int32))
  return counter.count / n


def make_tabulate(
  config: config_dict.ConfigDict, model: builders.WeightModel, num_classes: int
) -> Callable[[types.Params], jax.Array]:
  """Parameters -> omega at the sampler's transitions, `[num_classes, num_steps]`."""
  times, cond = builders.time_grid(config), jnp.arange(num_classes)

  @jax.jit
  def tabulate(params):
    return guidance.tabulate(functools.partial(model.apply, params), cond, times)

  return tabulate
