"""One compiled sampler for every method: weights are tabulated, hence an argument."""

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
from lgd.data import splits

# (denoiser_params, omega [n, num_steps] or None, keys [n], cond [n, ...])
# -> samples [n, *data], on the host.
SampleFn = Callable[
  [types.Params, jax.typing.ArrayLike | None, jax.Array, types.Cond], np.ndarray
]

_CHUNK = 256  # Conditions tabulated in a call.


def make_sample_fn(
  config: config_dict.ConfigDict,
  spec: splits.Spec,
  *,
  counter: denoiser_lib.EvaluationCounter | None = None,
) -> SampleFn:
  """The sampler of `config.evaluation`, compiled and split over all devices.

  omega holds every sample's weights at the sampler's transitions; without them the
  null branch is not evaluated. With a `counter`, every network evaluation is counted.
  """
  denoiser = builders.denoiser(config, spec)
  if counter is not None:
    denoiser = counter.wrap(denoiser)
  times = builders.time_grid(config)

  def sample(params, omega, key_data, cond):
    if omega is None:
      denoise = guidance.unguided(denoiser, params)
    else:
      weight = guidance.per_sample(omega, times)
      denoise = guidance.guided(denoiser, params, weight, spec.conditions.null)
    return sampling.sample(
      jax.random.wrap_key_data(key_data),
      denoise,
      builders.schedule(config),
      cond,
      (len(key_data), *spec.shape),
      num_steps=config.evaluation.num_steps,
      churn=config.evaluation.churn,
      times=times,
    )

  mesh = builders.mesh(config)
  split = sharding.split(mesh)
  compiled = jax.jit(
    sample, in_shardings=(None, split, split, split), out_shardings=split
  )

  def sample_padded(params, omega, keys, cond):
    n = len(keys)
    index = np.arange(n + -n % mesh.size) % n  # A multiple of the device count.
    batch = jax.tree.map(
      lambda x: np.asarray(x)[index], (omega, jax.random.key_data(keys), cond)
    )
    share = sharding.global_batch(sharding.process_share(batch), mesh)
    return sharding.to_host(compiled(params, *share))[:n]

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
  spec: splits.Spec,
  params: types.Params,
  *,
  guided: bool,
) -> float:
  """Network evaluations per sample, counted while one sample per device is drawn."""
  counter = denoiser_lib.EvaluationCounter()
  sample_fn = make_sample_fn(config, spec, counter=counter)
  n = jax.device_count()
  omega = np.ones((n, config.evaluation.num_steps), np.float32) if guided else None
  sample_fn(params, omega, sample_keys(0, n), spec.conditions.zeros(n))
  return counter.count / n


def make_tabulate(
  config: config_dict.ConfigDict, model: builders.WeightModel
) -> Callable[[types.Params, np.ndarray], jax.Array]:
  """`(params, cond [n, ...]) -> omega [n, num_steps]` at the sampler's transitions.

  Every distinct condition is looked at once.
  """
  times = builders.time_grid(config)

  @jax.jit
  def compiled(params, cond):
    return guidance.tabulate(functools.partial(model.apply, params), cond, times)

  def tabulate(params, cond):
    distinct, index = np.unique(cond, axis=0, return_inverse=True)
    n = len(distinct)
    size = min(n, _CHUNK)
    rows = np.arange(n + -n % size) % n  # Whole chunks: one compiled program.
    chunks = [
      compiled(params, distinct[rows[i : i + size]]) for i in range(0, len(rows), size)
    ]
    return jnp.concatenate(chunks)[index.reshape(-1)]

  return tabulate
