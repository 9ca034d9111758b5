"""Speed, as ratios measured in one run.

  python -m experiments.benchmark --config=configs/digits.py

  update      time of a direct guidance update over the time of the 2 n m denoiser
              evaluations inside it, n data of m particles each
  sampling    time of sampling with learned weights over sampling with a constant
  statistics  time of a direct update over one from stored statistics
  unet        the same for a U-Net at 64x64: time that the 2 n m evaluations of a small
              one take over that of an update from statistics
  unet_260m   the same for the 260M parameters of the paper's: its evaluations at the
              rate of the small one, by operations that the compiler counts

Both sides of a ratio are timed in turn, A B A B, after a warm-up, and the median of
the ratios of neighbours is printed, so that a machine whose speed drifts does not
favour one. Parameters are untrained: they do not change the arithmetic. Learned
weights are tabulated inside the timed call. `--workdir` is not needed.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import config_dict

from experiments import app
from experiments import builders
from experiments import learning
from experiments import report
from experiments import sampling
from experiments import validation
from lgd import conditions
from lgd import networks
from lgd import objectives
from lgd import statistics
from lgd import training
from lgd.data import splits
from lgd.training import sharding


def run(config: config_dict.ConfigDict) -> dict[str, float]:
  """Measures, prints and returns all ratios."""
  spec = validation.validate(config)
  logging.info('%s, %d devices', jax.devices()[0].device_kind, jax.device_count())
  results = {
    'update': update_ratio(config),
    'sampling': sampling_ratio(config, spec),
    'statistics': statistics_ratio(config, spec),
    **unet_ratios(config, spec),
  }
  for name, ratio in results.items():
    print(f'{name}_ratio {ratio:.3f}')
  return results


def update_ratio(config: config_dict.ConfigDict) -> float:
  """A guidance update over its denoiser evaluations alone."""
  section = config.guidance
  dataset = builders.data.load(config)
  key = jax.random.key(0)
  update, denoiser_params, batch = direct_update(config, dataset)
  evaluations = jax.jit(builders.rules.pair(config, dataset.spec).both)

  rows = section.batch_size * section.num_particles
  xt = jax.random.normal(key, (rows, *dataset.shape))
  t = jax.random.uniform(key, (rows,))
  cond = jax.tree.map(
    lambda c: jnp.repeat(c, section.num_particles, axis=0), batch.cond
  )
  evaluate = functools.partial(evaluations, denoiser_params, xt, t, cond)
  ratio, seconds = report.timing.paired_ratio(update, evaluate, repeats=20)
  logging.info(
    'update: %.2f ms, its %d evaluations alone %.2f ms',
    *(1e3 * seconds[0], 2 * rows, 1e3 * seconds[1]),
  )
  return ratio


def direct_update(config: config_dict.ConfigDict, dataset: splits.Dataset):
  """A function that makes one direct update, its base's parameters, and its batch."""
  key = jax.random.key(0)
  net = builders.models.network(config, dataset.spec)
  params = builders.models.init_network(net, key, dataset.spec)
  batch = next(builders.data.batches(config, 'guidance', dataset.train)(0))
  loss_fn = learning.losses.make_direct_loss_fn(config, dataset.spec)
  return make_update(config, dataset.spec, loss_fn, params, batch), params, batch


def make_update(config, spec, loss_fn, frozen, batch) -> Callable[[], Any]:
  """A function that makes one update of an untrained weight, compiled."""
  key = jax.random.key(0)
  tx = builders.models.optimizer(config.guidance)
  mesh = builders.models.mesh(config)
  step = training.compile_step(
    training.make_train_step(loss_fn, tx, ema_decay=config.guidance.ema_decay),
    mesh,
    sharding.replicated(mesh),
  )
  model = builders.models.weight_model(config, spec)
  state = training.init_state(model.init(key), tx)

  def update():
    nonlocal state
    state, _ = step(state, frozen, batch, key)
    return state

  return update


def statistics_update(
  config: config_dict.ConfigDict, spec: splits.Spec
) -> Callable[[], Any]:
  """A function that makes one update from (made up) statistics."""
  num, m = 4096, config.statistics.num_particles
  k_eps, k_data = jax.random.split(jax.random.key(0))
  eps, x0_cond, x0_null = jax.random.normal(k_eps, (3, num, m, 8))
  store = objectives.make_store(
    statistics.pack(
      statistics.gram(eps, jax.random.normal(k_data, (num, 8)), x0_cond, x0_null)
    ),
    jnp.linspace(0.0, config.statistics.t_max, num),
    jnp.arange(num) % spec.conditions.num_classes,
    schedule=builders.models.schedule(config),
    dim=8,
    num_particles=m,
  )
  loss_fn = learning.losses.make_statistics_loss_fn(config, spec)
  return make_update(config, spec, loss_fn, store, ())


def statistics_ratio(config: config_dict.ConfigDict, spec: splits.Spec) -> float:
  """A direct update over one from statistics."""
  dataset = builders.data.load(config)
  direct, _, _ = direct_update(config, dataset)
  from_statistics = statistics_update(config, spec)
  ratio, seconds = report.timing.paired_ratio(direct, from_statistics, repeats=20)
  logging.info(
    'updates per second: %.0f direct, %.0f from statistics', *(1.0 / s for s in seconds)
  )
  return ratio


def unet_ratios(config: config_dict.ConfigDict, spec: splits.Spec) -> dict[str, float]:
  """The evaluations of a direct update over an update from statistics, for U-Nets."""
  of_images, batch = splits.Spec((64, 64, 3), conditions.Labels(1000)), 4
  small = networks.UNet(1000, 32, (1, 2, 2), 1, (16,), head_dim=32)
  large = networks.UNet(1000, 192, (1, 2, 3, 4), 3, (16, 8))
  x, label = jnp.zeros((batch, *of_images.shape)), of_images.conditions.zeros(batch)
  args = x, jnp.zeros(batch), label
  params = jax.jit(small.init)(jax.random.key(0), *args)
  evaluate = functools.partial(jax.jit(small.apply), params, *args)
  update = statistics_update(config, spec)
  ratio, seconds = report.timing.paired_ratio(evaluate, update, repeats=5)
  evaluations = 2 * config.guidance.batch_size * config.guidance.num_particles
  ratio *= evaluations / batch
  (_, flops_small), (_, flops_large) = (
    report.timing.count_network(net, of_images) for net in (small, large)
  )
  logging.info(
    'U-Nets at 64x64: %.3g and %.4g GFLOP an evaluation, the small one at %.0f GFLOP/s',
    *(1e-9 * flops_small, 1e-9 * flops_large, 1e-9 * flops_small * batch / seconds[0]),
  )
  return {'unet': ratio, 'unet_260m': ratio * flops_large / flops_small}


def sampling_ratio(config: config_dict.ConfigDict, spec: splits.Spec) -> float:
  """Sampling with learned weights over sampling with a constant."""
  key = jax.random.key(0)
  params = builders.models.init_network(
    builders.models.network(config, spec), key, spec
  )
  model = builders.models.weight_model(config, spec)
  guidance_params = model.init(key)
  sample_fn = sampling.sampler.make_sample_fn(config, spec)
  tabulate = sampling.sampler.make_tabulate(config, model)
  section, classes = config.evaluation, np.arange(spec.conditions.num_classes)
  label = sampling.sampler.balanced_labels(len(classes), section.samples_per_class)
  constant = np.full((len(label), section.num_steps), 0.25, np.float32)
  keys = sampling.sampler.sample_keys(0, np.arange(len(label)))

  ratio, seconds = report.timing.paired_ratio(
    lambda: sample_fn(params, tabulate(guidance_params, classes)[label], keys, label),
    lambda: sample_fn(params, constant, keys, label),
    repeats=1,
  )
  nfe = sampling.sampler.make_count_nfe(config, spec)(constant, len(label))
  logging.info(
    'sampling: %.0f samples/s, %.0f evaluations/s with a constant',
    *(len(label) / seconds[1], nfe * len(label) / seconds[1]),
  )
  return ratio


if __name__ == '__main__':
  app.main(lambda flags: run(flags.config), needs_config=True, needs_workdir=False)
