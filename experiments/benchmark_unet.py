"""Speed and memory of an image config's network, and what an experiment costs.

  python -m experiments.benchmark_unet --config=configs/imagenet64.py:small
  ... --count_only      # Operations and parameters alone; nothing is allocated.

Operations are counted by XLA for one evaluation of the network; a training step takes
three times those of its evaluations, four with remat. Training is measured with its
optimiser; sampling is `benchmark_sampling`'s. `--workdir` is not needed, nor are the
data.
"""

import jax
import numpy as np
from absl import flags
from absl import logging
from ml_collections import config_dict

from experiments import app
from experiments import builders
from experiments import learning
from experiments import report
from experiments import validation
from lgd import training
from lgd.data import splits
from lgd.training import sharding

# Matrix products a second, bfloat16 without sparsity, by the vendors' data sheets.
PEAK_FLOPS = {
  'NVIDIA A100': 312e12,
  'NVIDIA H100': 989e12,
  'NVIDIA H200': 989e12,
  'TPU v4': 275e12,
  'TPU v5 lite': 197e12,
  'TPU v5p': 459e12,
  'TPU v6 lite': 918e12,
}


def run(config: config_dict.ConfigDict, *, count_only: bool) -> dict[str, float]:
  """Counts, measures and prints; returns the figures."""
  spec = validation.validate(config)
  results = count(config, spec)
  if not count_only:
    logging.info('%s, %d devices', jax.devices()[0].device_kind, jax.device_count())
    results |= measure_training(config, spec, results['evaluation_flops'])
  for name, value in results.items():
    print(f'{name} {value:.4g}')
  return results


def count(config: config_dict.ConfigDict, spec: splits.Spec) -> dict[str, float]:
  """Parameters, and operations of every stage of an experiment."""
  num_params, flops = report.timing.count_network(
    builders.models.network(config, spec), spec
  )
  base, guidance, section = config.denoiser, config.guidance, config.statistics
  per_update = 2 * guidance.batch_size * guidance.num_particles
  step_cost = 4 if base.remat else 3
  return {
    'parameters': float(num_params),
    'evaluation_flops': flops,
    'train_denoiser_flops': step_cost * flops * base.batch_size * base.num_steps,
    'collect_statistics_flops': 2 * section.num_particles * section.num_data * flops,
    'direct_guidance_flops': per_update * guidance.num_steps * flops,
    'direct_guidance_of_the_paper_flops': 2 * 256 * 4 * 100_000 * flops,
    'samples_flops': 2 * config.fid.num_samples * config.evaluation.num_steps * flops,
  }


def measure_training(
  config: config_dict.ConfigDict, spec: splits.Spec, flops: float
) -> dict[str, float]:
  """A step of the base model: images a second and memory."""
  mesh, tx = builders.models.mesh(config), builders.models.optimizer(config.denoiser)
  net = builders.models.network(config, spec)

  def init(key):
    return training.init_state(builders.models.init_network(net, key, spec), tx)

  key = jax.random.key(0)
  shardings = sharding.fsdp(jax.eval_shape(init, key), mesh)
  state = jax.jit(init, out_shardings=shardings)(key)
  step = training.make_train_step(
    learning.losses.make_denoiser_loss_fn(config, spec),
    tx,
    ema_decay=config.denoiser.ema_decay,
    num_microbatches=config.denoiser.num_microbatches,
  )
  n = config.denoiser.batch_size
  batch = sharding.global_batch(
    sharding.process_share(
      splits.Batch(np.zeros((n, *spec.shape), np.float32), spec.conditions.zeros(n))
    ),
    mesh,
  )
  step = training.compile_step(step, mesh, shardings)
  compiled = step.lower(state, None, batch, key).compile()

  def update():
    nonlocal state
    state, _ = compiled(state, None, batch, key)
    return state

  _, (seconds, _) = report.timing.paired_ratio(update, lambda: None, repeats=1)
  memory = compiled.memory_analysis()
  step_flops = (4 if config.denoiser.remat else 3) * n * flops
  return {
    'train_images_per_second': n / seconds,
    **utilisation(step_flops / seconds),
    'train_state_bytes_per_device': float(memory.argument_size_in_bytes),
    'train_temporary_bytes_per_device': float(memory.temp_size_in_bytes),
  }


def utilisation(flops_per_second: float) -> dict[str, float]:
  """Operations a second of one device, and their share of its peak if that is known."""
  per_device = flops_per_second / jax.device_count()
  results = {'train_flops_per_second_per_device': per_device}
  kind = jax.devices()[0].device_kind
  for known, peak in PEAK_FLOPS.items():
    if kind.startswith(known):
      results['train_share_of_peak'] = per_device / peak
  return results


if __name__ == '__main__':
  COUNT_ONLY = flags.DEFINE_bool('count_only', False, 'Run nothing.')
  app.main(
    lambda f: run(f.config, count_only=COUNT_ONLY.value),
    needs_config=True,
    needs_workdir=False,
  )
