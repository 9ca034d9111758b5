r"""One pass of the frozen base model over data, kept as Gram statistics.

  python -m experiments.collect_statistics --config=configs/digits.py \
      --workdir=runs/digits
  ... --config.statistics.kind=class_groups      # for the objective class_marginal
  ... --config.reward.name=classifier            # with rewards, for guidance.gamma
  ... --config.statistics.split=validation       # of a base that memorises its data

Writes statistics/KIND/. From it, train_guidance and sweep learn weights for any
objective of that kind, beta, lambda, gap, s_min, churn and network, without the
denoiser; from statistics/KIND_reward/, train_guidance and frontier for any gamma, too.
The same command again resumes: shards that are there are kept, and what a shard holds
depends on the config alone.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import config_dict

from experiments import app
from experiments import builders
from experiments import judges
from experiments import workdirs
from lgd import arrays
from lgd import denoiser as denoiser_lib
from lgd import errors
from lgd import objectives
from lgd import statistics
from lgd.data import splits
from lgd.training import sharding


def run(config: config_dict.ConfigDict, workdir: str) -> None:
  """Collects or resumes."""
  session = workdirs.open_to_learn(config, workdir, finished=False)
  workdir, _, spec = session
  directory = workdir.statistics(workdirs.layout.statistics_name(config))
  identity = workdirs.identity.statistics_identity(session)
  if (directory / 'config.json').exists():
    workdirs.statistics.require_same(session)
  dataset = builders.data.load(config)
  split = getattr(dataset, config.statistics.split)
  plan = builders.statistics.Plan(config, split, spec.conditions.num_classes)
  paths = [workdirs.statistics.shard_path(directory, i) for i in range(plan.num_shards)]
  missing = [i for i, path in enumerate(paths) if not path.exists()]
  profile_shape = builders.statistics.profile_shape(config)
  for i in set(range(plan.num_shards)).difference(missing):  # Before hours are spent.
    workdirs.statistics.read_shard(paths[i], plan.num_vectors, profile_shape)
  params = workdirs.base_model.load_pair(session)
  reward, reward_params = None, None
  if config.reward.name:
    reward, reward_params = judges.rewards.load(session, dataset)
  workdirs.configs.write_statistics_config(directory, identity)
  workdirs.configs.record(workdir.path, f'statistics/{directory.name}', config)

  counter = denoiser_lib.EvaluationCounter()
  collect = make_collect(config, spec, counter, reward)

  def make(shard):
    before = counter.count
    items = plan.items(shard)
    chunks = [
      collect(params, reward_params, *plan.batch(items[i : i + plan.items_per_batch]))
      for i in range(0, len(items), plan.items_per_batch)
    ]
    gram, t, label, profile = join(chunks, len(items))
    cure = 'the base model may have diverged.'
    require_finite('statistics', gram, items, shard, cure)
    if profile is not None:
      cure = f'mend {config.reward.name!r}, or leave large weights out of reward.nodes.'
      require_finite('rewards', profile, items, shard, cure)
    num_evaluations = np.int64(counter.count - before)
    workdirs.statistics.write_shard(
      directory,
      shard,
      workdirs.statistics.Statistics(gram, t, label, items, num_evaluations, profile),
    )
    return len(items) * plan.group_size

  app.shard_loop.run(directory, missing, plan.num_shards, make, unit='data')
  summarise(config, directory, plan)


def join(chunks: Sequence[Any], num: int) -> Any:
  """The first `num` rows of all chunks together, array by array."""
  return jax.tree.map(lambda *parts: np.concatenate(parts)[:num], *chunks)


def require_finite(
  what: str, values: np.ndarray, items: np.ndarray, shard: int, cure: str
) -> None:
  """Names the first item whose row of `values` is not finite.

  Raises:
    errors.NonFiniteError: there is one.
  """
  finite = np.isfinite(values.reshape(len(items), -1)).all(axis=1)
  if not finite.all():
    raise errors.NonFiniteError(
      f'{what} of item {items[np.argmin(finite)]} are not finite; nothing of shard'
      f' {shard} was written; {cure}'
    )


def summarise(
  config: config_dict.ConfigDict, directory, plan: builders.statistics.Plan
) -> None:
  """Reads everything back and says what it cost."""
  stored = workdirs.statistics.read(
    directory,
    plan.num_shards,
    num_vectors=plan.num_vectors,
    profile_shape=builders.statistics.profile_shape(config),
  )
  paths = [workdirs.statistics.shard_path(directory, i) for i in range(plan.num_shards)]
  num_data = len(stored.t) * plan.group_size
  logging.info(
    '%s: %d data, %.0f bytes each, %d denoiser evaluations',
    directory,
    num_data,
    sum(p.stat().length for p in paths) / num_data,
    stored.num_evaluations.sum(),
  )
  if config.reward.name:
    grouped = config.statistics.kind != 'particles'
    num_particles = 1 if grouped else config.statistics.num_particles
    logging.info(
      '%s: %d evaluations of reward %r and its derivative',
      directory,
      num_data * num_particles * len(config.reward.nodes),
      config.reward.name,
    )


def make_collect(
  config: config_dict.ConfigDict,
  spec: splits.Spec,
  counter: denoiser_lib.EvaluationCounter,
  reward: builders.models.RewardFn | None = None,
):
  """`(params, reward_params, index, x0, label, t) -> (gram, t, label, profile)`.

  Compiled; on the host. Without a reward the profile is None.
  """
  look_up = builders.captions.lookup(config)
  network = counter.wrap(builders.models.denoiser(config, spec))
  pair = builders.rules.pair(config, spec, network=network)
  schedule = builders.models.schedule(config)
  section = config.statistics
  root = arrays.stream(config.seed, f'statistics/{section.kind}')
  grouped = section.kind != 'particles'

  def collect(params, reward_params, index, x0, cond, t):
    n = x0.shape[1]
    # One key per datum: what a shard holds does not depend on batches or devices.
    keys = jax.vmap(lambda i: jax.random.fold_in(root, i))(
      (index[:, None] * n + jnp.arange(n, dtype=jnp.uint32)).reshape(-1)
    )
    cond = jax.tree.map(lambda c: c.reshape(-1, *c.shape[2:]), cond)
    eps, _, x0_cond, x0_null = objectives.predict(
      keys,
      pair,
      params,
      schedule,
      x0.reshape(-1, *x0.shape[2:]),
      cond,
      jnp.repeat(t, n),
      num_particles=1 if grouped else section.num_particles,
      antithetic=section.antithetic,
    )
    profile = None
    if reward is not None:
      profile = statistics.reward_profile(
        functools.partial(reward, reward_params),
        cond,
        x0_cond,
        x0_null,
        config.reward.nodes,
      )
    if not grouped:
      gram = statistics.gram(eps, x0[:, 0], x0_cond, x0_null)
      return statistics.pack(gram), profile
    eps, x0_cond, x0_null = (x.reshape(x0.shape) for x in (eps, x0_cond, x0_null))
    gram = statistics.group_gram(eps, x0, x0_cond, x0_null)
    if profile is not None:
      profile = profile.reshape(*x0.shape[:2], *profile.shape[1:])
    return statistics.pack(gram), profile

  mesh = builders.models.mesh(config)
  split = sharding.split(mesh)
  compiled = jax.jit(
    collect,
    in_shardings=(None, None, split, split, split, split),
    out_shardings=split,
  )

  def collect_on_host(params, reward_params, index, x0, label, t):
    index, x0, local, t_local = sharding.process_share((index, x0, label, t))
    share = index, x0, look_up(local), t_local
    computed = compiled(params, reward_params, *sharding.global_batch(share, mesh))
    gram, profile = jax.tree.map(sharding.to_host, computed)
    return gram, t, label if grouped else label[:, 0], profile

  return collect_on_host


if __name__ == '__main__':
  app.main(lambda flags: run(flags.config, flags.workdir), needs_config=True)
