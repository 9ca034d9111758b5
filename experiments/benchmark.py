"""Speed, as ratios measured in one run.

  python -m experiments.benchmark --config=configs/digits.py

  update    time of a guidance update over the time of the 2 n m denoiser evaluations
            inside it, n data of m particles each
  sampling  time of sampling with learned weights over sampling with a constant

Both sides of a ratio are timed in turn, A B A B, after a warm-up, and the median of
the ratios of neighbours is printed, so that a machine whose speed drifts does not
favour one. Parameters are untrained: they do not change the arithmetic. Learned
weights are tabulated inside the timed call. `--workdir` is not needed.
"""

import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import config_dict

from experiments import builders
from experiments import launch
from experiments import sampler
from experiments import train_guidance
from experiments import validation
from lgd import denoiser as denoiser_lib
from lgd import guidance
from lgd import training

ROUNDS = 15


def run(config: config_dict.ConfigDict) -> dict[str, float]:
  """Measures, prints and returns both ratios."""
  validation.validate(config)
  logging.info('%s, %d devices', jax.devices()[0].device_kind, jax.device_count())
  results = {'update': update_ratio(config), 'sampling': sampling_ratio(config)}
  for name, ratio in results.items():
    print(f'{name}_ratio {ratio:.3f}')
  return results


def update_ratio(config: config_dict.ConfigDict) -> float:
  """A guidance update over its denoiser evaluations alone."""
  section = config.guidance
  dataset = builders.dataset(config)
  num_classes, shape = dataset.num_classes, dataset.shape
  key = jax.random.key(0)
  denoiser_params = builders.init_network(
    builders.network(config, num_classes), key, shape
  )
  net = builders.guidance_net(config, num_classes)
  tx = builders.optimizer(section)
  train_step = training.make_train_step(
    train_guidance.make_loss_fn(config, num_classes), tx, ema_decay=section.ema_decay
  )
  compiled_step = training.compile_step(train_step, training.make_mesh())
  denoiser = builders.denoiser(config, num_classes)

  @jax.jit
  def evaluations(params, xt, t, label):
    return denoiser_lib.pair(denoiser, params, xt, t, label, num_classes)

  batch = next(builders.batches(config, 'guidance', dataset.train)(0))
  state = training.init_state(builders.init_guidance_net(net, key), tx)
  rows = section.batch_size * section.num_particles
  xt = jax.random.normal(key, (rows, *shape))
  t = jax.random.uniform(key, (rows,))
  label = jnp.repeat(jnp.asarray(batch.label), section.num_particles)

  def update():
    nonlocal state
    state, _ = compiled_step(state, denoiser_params, batch, key)
    return state

  evaluate = functools.partial(evaluations, denoiser_params, xt, t, label)
  ratio, seconds = paired_ratio(update, evaluate, repeats=20)
  logging.info(
    'update: %.2f ms, its %d evaluations alone %.2f ms',
    *(1e3 * seconds[0], 2 * rows, 1e3 * seconds[1]),
  )
  return ratio


def sampling_ratio(config: config_dict.ConfigDict) -> float:
  """Sampling with learned weights over sampling with a constant."""
  dataset = builders.dataset(config)
  num_classes, shape = dataset.num_classes, dataset.shape
  key = jax.random.key(0)
  params = builders.init_network(builders.network(config, num_classes), key, shape)
  net = builders.guidance_net(config, num_classes)
  guidance_params = builders.init_guidance_net(net, key)
  sample_fn = sampler.make_sample_fn(config, num_classes, shape)
  times, cond = builders.time_grid(config), jnp.arange(num_classes)
  tabulate = sampler.make_tabulate(config, config, num_classes)
  constant_table = guidance.tabulate(guidance.constant(0.25), cond, times)
  label = sampler.balanced_labels(num_classes, config.evaluation.samples_per_class)
  label = jnp.asarray(label)
  keys = sampler.sample_keys(0, len(label))

  ratio, seconds = paired_ratio(
    lambda: sample_fn(params, tabulate(guidance_params), keys, label),
    lambda: sample_fn(params, constant_table, keys, label),
    repeats=1,
  )
  nfe = sampler.count_nfe(config, num_classes, shape, params, constant_table)
  logging.info(
    'sampling: %.0f samples/s, %.0f evaluations/s with a constant',
    *(len(label) / seconds[1], nfe * len(label) / seconds[1]),
  )
  return ratio


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


if __name__ == '__main__':
  launch.main(lambda flags: run(flags.config), needs_config=True, needs_workdir=False)
