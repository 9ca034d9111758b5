"""Throughput of the guided sampler, and what planning saves.

  python -m experiments.benchmark_sampling --config=configs/imagenet64.py \
      --config.fid.batch_size=64 --config.evaluation.num_steps=50 --method=constant:0.5
  ... --workdir=DIR --method=self_consistency   # Trained parameters, learned weights.

Images and network evaluations a second of `config.evaluation`'s sampler, for
`config.fid.batch_size` samples of all classes in turn, beside the bare evaluations that
it makes; for CFG also planned beside plain sampling. A B A B in one run. Without
`--workdir` parameters are untrained; the data are not needed.
"""

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from absl import logging
from ml_collections import config_dict

from experiments import app
from experiments import builders
from experiments import report
from experiments import sampling
from experiments import validation
from experiments import workdirs
from lgd import errors
from lgd import guidance
from lgd import sampling as sampling_lib
from lgd import types
from lgd.data import splits
from lgd.training import sharding


def run(
  config: config_dict.ConfigDict, *, method: str, workdir: str | None
) -> dict[str, float]:
  """Measures and prints; returns the figures."""
  spec = validation.validate(config)
  if config.fid.batch_size % jax.device_count():
    raise errors.InputError(
      f'fid.batch_size={config.fid.batch_size}: must be a multiple of the'
      f' {jax.device_count()} devices.'
    )
  cond = conditions(config, spec)
  session = workdirs.Session(workdirs.Workdir('.'), config, spec)
  if workdir:
    session = workdirs.open_trained(config, workdir)
  omega, session = sampling.resolve.resolve_method(session, method, cond)
  config = session.config
  if workdir:
    params = workdirs.base_model.load_pair(session)
  else:
    params = untrained(config, spec)
    if builders.rules.of(config).has_weak_model:
      params = params, params
  logging.info('%s, %d devices', jax.devices()[0].device_kind, jax.device_count())
  results = measure_sampling(config, spec, params, omega)
  if config.rule.name == 'linear':
    results |= measure_planned(config, spec, params)
  for name, value in results.items():
    print(f'{name} {value:.4g}')
  return results


def conditions(config: config_dict.ConfigDict, spec: splits.Spec) -> np.ndarray:
  """Conditions of a batch: all classes in turn, or vectors of zeros."""
  cond = spec.conditions.zeros(config.fid.batch_size)
  if spec.conditions.num_classes is not None:
    cond = (cond + np.arange(len(cond))).astype(cond.dtype)
    cond %= spec.conditions.num_classes
  return cond


def untrained(config: config_dict.ConfigDict, spec: splits.Spec) -> types.Params:
  """Fresh parameters of the base model, on the mesh as trained ones would be."""
  net = builders.models.network(config, spec)
  init = jax.jit(lambda key: builders.models.init_network(net, key, spec))
  params = init(jax.random.key(0))
  return jax.device_put(params, sharding.fsdp(params, builders.models.mesh(config)))


def measure_sampling(
  config: config_dict.ConfigDict,
  spec: splits.Spec,
  params: types.Params,
  omega: np.ndarray | None,
) -> dict[str, float]:
  """Sampling beside as many evaluations with and without condition, and no more.

  Args:
    config: the config.
    spec: of the data.
    params: as for `builders.rules.pair`.
    omega: `[fid.batch_size, num_steps]` weights, or None for unguided sampling.
  """
  num_steps = config.evaluation.num_steps
  cond, n = conditions(config, spec), config.fid.batch_size
  pair = builders.rules.pair(config, spec)
  split = sharding.split(builders.models.mesh(config))
  sample_fn = sampling.sampler.make_sample_fn(config, spec)
  keys = sampling.sampler.sample_keys(0, np.arange(n))
  xt, on_devices = jax.device_put((np.zeros((n, *spec.shape), np.float32), cond), split)
  evaluate = jax.jit(pair)

  def bare():
    for _ in range(num_steps):
      out = evaluate(params, xt, jnp.full(n, 0.5), on_devices)
    return out

  ratio, (seconds, bare_seconds) = report.timing.paired_ratio(
    lambda: sample_fn(params, omega, keys, cond), bare, repeats=1
  )
  nfe = n * sampling.sampler.make_count_nfe(config, spec)(omega, n)
  return {
    'samples_per_second': n / seconds,
    'evaluations_per_second': nfe / seconds,
    'evaluations_per_sample': nfe / n,
    'bare_evaluations_per_second': 2 * n * num_steps / bare_seconds,
    'sample_over_bare_evaluations': ratio * 2 * n * num_steps / nfe,
  }


def measure_planned(
  config: config_dict.ConfigDict, spec: splits.Spec, params: types.Params
) -> dict[str, float]:
  """Planned sampling beside plain guidance, with half of the weights 0 and with none.

  Samples are guided over random intervals of their own, in a batch of similar ones.
  """
  n = config.fid.batch_size
  pair, times = builders.rules.pair(config, spec), builders.models.time_grid(config)
  num_steps = config.evaluation.num_steps
  split = sharding.split(builders.models.mesh(config))
  keys, cond = sampling.sampler.sample_keys(0, np.arange(n)), conditions(config, spec)
  planned = sampling.sampler.make_sample_fn(config, spec)
  count_nfe = sampling.sampler.make_count_nfe(config, spec)

  @jax.jit
  def compiled(params, omega, keys, cond):
    return sampling_lib.sample(
      keys,
      guidance.guided(pair, params, guidance.per_sample(omega, times)),
      builders.models.schedule(config),
      cond,
      (n, *spec.shape),
      num_steps=num_steps,
      churn=config.evaluation.churn,
      times=times,
      solver=config.evaluation.solver,
    )

  def plain(omega):
    args = jax.device_put((omega, keys, cond), split)
    return sharding.to_host(compiled(params, *args))

  rng, step = np.random.default_rng(0), np.arange(num_steps)
  start = rng.integers(0, num_steps // 2 + 1, (4 * n, 1))
  half = np.float32((start <= step) & (step < start + num_steps // 2))
  half = half[guidance.similar_first(half)][:n]
  results = {}
  for name, omega in (('half', half), ('full', np.ones_like(half))):
    evaluations = count_nfe(omega, n) * n
    ideal = omega.size + np.sum(omega != 0.0)
    ratio, _ = report.timing.paired_ratio(
      lambda omega=omega: planned(params, omega, keys, cond),
      lambda omega=omega: plain(omega),
      repeats=1,
    )
    results |= {
      f'planned_{name}_evaluations_over_ideal': evaluations / ideal,
      f'planned_{name}_evaluations_over_plain': evaluations / (2 * omega.size),
      f'planned_{name}_time_over_plain': ratio,
    }
  return results


if __name__ == '__main__':
  METHOD = flags.DEFINE_string(
    'method', 'constant:0.25', 'Weights, as those of experiments.sample.'
  )
  app.main(
    lambda f: run(f.config, method=METHOD.value, workdir=f.workdir),
    needs_config=True,
    needs_workdir=False,
  )
