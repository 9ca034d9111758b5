r"""Learns guidance weights for a trained base model.

  python -m experiments.train_guidance --config=configs/digits.py --workdir=runs/digits
  ... --config.guidance.objective=class_marginal   # or l2, score_matching, marginal
  ... --config.guidance.source=direct              # Algorithm 1, the denoiser each step
  ... --config.guidance.objective=l2 --config.guidance.weight=table    # closed form
  ... --config.reward.name=classifier --config.guidance.gamma=0.1      # Algorithm 4

Learns from the statistics of `collect_statistics`, or directly. Writes guidance/NAME/.
The same command again resumes.
"""

import functools
import itertools
import math
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from etils import epath
from ml_collections import config_dict

from experiments import builders
from experiments import datasets
from experiments import identities
from experiments import launch
from experiments import learned_weights
from experiments import naming
from experiments import refusals
from experiments import restoring
from experiments import reward_models
from experiments import stored_configs
from experiments import stores
from experiments import train_loop
from experiments import validation
from experiments import workdir as workdir_lib
from lgd import arrays
from lgd import checkpointing
from lgd import denoiser as denoiser_lib
from lgd import objectives
from lgd import statistics
from lgd import training
from lgd import types


def run(config: config_dict.ConfigDict, workdir: str) -> training.TrainState:
  """Learns or resumes, and returns the final state."""
  validation.validate(config)
  validation.require_learnable(config)
  workdir = workdir_lib.Workdir(workdir)
  require_finished_base(workdir, config)
  config = stores.with_kind_of_objective(config)
  directory = workdir.guidance(naming.guidance_name(config))
  refuse_other_weight(workdir, config)
  builders.log_config(config)
  if config.guidance.source == 'direct':
    return learn_directly(config, workdir, directory)
  store, num_evaluations = stores.load(config, workdir)
  if config.guidance.weight == 'table':
    return fit_table(config, workdir, directory, store, num_evaluations)
  return learn_from_statistics(config, workdir, directory, store, num_evaluations)


def refuse_other_weight(
  workdir: workdir_lib.Workdir, config: config_dict.ConfigDict
) -> None:
  """Raises launch.UserError if the weight is there and was learned differently."""
  directory = workdir.guidance(naming.guidance_name(config))
  stored = learned_weights.load_guidance_config(workdir, config)
  if stored is None:
    return
  identity = stored_configs.config_to_json(config, 'seed', 'guidance')
  identity['rule'] = identities.rule_identity(config)
  if builders.has_reward(config):
    refusals.require_same_reward(stored['config'], config, directory)
    identity['reward_model'] = identities.reward_model_identity(workdir, config)
  if config.guidance.source == 'statistics':
    identity['statistics'] = identities.statistics_section(config)
  stored = {**stored['config'], 'reward_model': stored.get('reward_model')}
  refusals.require_same(stored, identity, directory)
  if config.guidance.weight == 'table':
    refusals.require_same_grid(stored, config, directory)


def require_finished_base(
  workdir: workdir_lib.Workdir, config: config_dict.ConfigDict
) -> None:
  """Refuses to learn weights for a base model that is still being trained."""
  base = refusals.require_base_of(workdir, config)
  step = checkpointing.latest_step(workdir.denoiser)
  if step < base.denoiser.num_steps:
    raise launch.UserError(
      f'{workdir.denoiser}: is at step {step} of {base.denoiser.num_steps};'
      ' run train_denoiser again to finish it first.'
    )


def learn_from_statistics(
  config: config_dict.ConfigDict,
  workdir: workdir_lib.Workdir,
  directory: epath.Path,
  store: objectives.Store,
  num_evaluations: int,
) -> training.TrainState:
  """Trains the network on stored Gram matrices; the denoiser is not called."""
  return _train(
    config,
    workdir,
    directory,
    num_evaluations=num_evaluations,
    loss_fn=make_statistics_loss_fn(config),
    frozen=store,
    batches=lambda start: itertools.repeat(()),  # The step draws its own.
  )


def learn_directly(
  config: config_dict.ConfigDict,
  workdir: workdir_lib.Workdir,
  directory: epath.Path,
) -> training.TrainState:
  """Trains the network by Algorithm 1 as printed, with a reward by Algorithm 4."""
  section, dataset = config.guidance, datasets.load(config)
  frozen, reward = restoring.load_pair(workdir, config, dataset.spec), None
  if builders.has_reward(config):
    reward, reward_params = reward_models.load(workdir, config, dataset)
    frozen = frozen, reward_params
  batches = datasets.batches(
    config,
    'guidance',
    getattr(dataset, config.statistics.split),
    group_size=_direct_group_size(config),
    by_class=section.objective == 'class_marginal',
  )
  of_this_process = count_evaluations(config, frozen, next(batches(0)), reward)
  return _train(
    config,
    workdir,
    directory,
    num_evaluations=section.num_steps * jax.process_count() * of_this_process,
    loss_fn=make_direct_loss_fn(config, reward=reward),
    frozen=frozen,
    batches=batches,
  )


def _train(
  config: config_dict.ConfigDict,
  workdir: workdir_lib.Workdir,
  directory: epath.Path,
  *,
  num_evaluations: int,
  loss_fn: training.LossFn,
  frozen: Any,
  batches: Callable[[int], Iterator[Any]],
) -> training.TrainState:
  return train_loop.train(
    config=config,
    section=config.guidance,
    workdir=workdir.path,
    directory=directory,
    stage=f'guidance/{naming.guidance_name(config)}',
    stream=naming.guidance_stream(config),
    stored_config=identities.guidance_identity(
      workdir,
      config,
      num_steps=config.guidance.num_steps,
      num_evaluations=num_evaluations,
    ),
    init=builders.weight_model(config, datasets.spec(config)).init,
    tx=builders.optimizer(config.guidance),
    loss_fn=loss_fn,
    frozen=frozen,
    batches=batches,
  )


def fit_table(
  config: config_dict.ConfigDict,
  workdir: workdir_lib.Workdir,
  directory: epath.Path,
  store: objectives.Store,
  num_evaluations: int,
) -> training.TrainState:
  """The closed form of l2 or score matching for every class and transition."""
  params = {
    'values': closed_form(config, store),
    'times': builders.time_grid(config),
  }
  return learned_weights.save_table(workdir, config, directory, params, num_evaluations)


def closed_form(config: config_dict.ConfigDict, store: objectives.Store) -> jax.Array:
  """Minimiser of the objective per class and bin of t, `[num_classes, num_steps]`.

  At least 0; a bin without data has 0. For l2, s is drawn as in Algorithm 1.
  """
  section = config.guidance
  num_bins = section.num_bins
  usable = stores.in_reach(store.t, section)
  store = jax.tree.map(lambda x: x[usable], store)
  gram = statistics.unpack(store.gram)
  if section.objective == 'score_matching':
    terms = statistics.score_matching_terms(gram)
  else:
    s = objectives.sample_s(
      arrays.stream(config.seed, 'closed_form'),
      store.t,
      s_min=section.s_min,
      zeta=section.zeta,
      gap=section.gap,
    )
    schedule = builders.schedule(config)
    terms = statistics.l2_terms(
      gram, s, store.t, schedule=schedule, churn=section.churn
    )
  num_classes = datasets.spec(config).conditions.num_classes
  where = (store.cond, jnp.minimum(store.t * num_bins, num_bins - 1).astype(int))
  numerator, denominator = (
    jnp.zeros((num_classes, num_bins)).at[where].add(term) for term in terms
  )
  omega = -numerator / jnp.where(denominator > 0.0, denominator, 1.0)
  t = builders.time_grid(config)[:-1]
  # Rounding must not put an edge into the bin below it.
  bins = jnp.minimum(t * num_bins + 1e-3, num_bins - 1).astype(int)
  return jnp.maximum(omega, 0.0)[:, bins]


def make_statistics_loss_fn(
  config: config_dict.ConfigDict, **overrides: jax.Array
) -> training.LossFn:
  """`(guidance_params, store, (), key) -> loss` from stored statistics.

  `overrides` replace numbers of `config.guidance`, and may be traced; with a gamma
  among them the reward counts, whatever its value.
  """
  section = builders.overridden(config.guidance, overrides)
  gamma = section.gamma if 'gamma' in overrides or section.gamma else None
  if section.objective == 'reward':
    gamma = 1.0
  spec = datasets.spec(config)
  model = builders.weight_model(config, spec)
  dim = math.prod(spec.shape)
  objective = builders.statistics_objective(config, dim, **overrides)
  grouped = section.objective in builders.GROUPED
  counts = {
    'num_stored': config.statistics.group_size,
    'num_used': section.group_size,
    'batch': section.batch_size // section.group_size,
  }
  if not grouped:
    counts = {
      'num_stored': config.statistics.num_particles,
      'num_used': section.num_particles,
      'batch': section.batch_size,
      'antithetic': config.statistics.antithetic,
    }

  def loss_fn(params, store, batch, key):
    del batch
    losses, omega = objectives.statistics_loss(
      key,
      functools.partial(model.apply, params),
      objective,
      store,
      grouped=grouped,
      s_min=section.s_min,
      zeta=section.zeta,
      gap=section.gap,
      gamma=gamma,
      nodes=config.reward.nodes,
      **counts,
    )
    return losses.mean(), {'omega_mean': omega.mean(), 'omega_max': omega.max()}

  return loss_fn


def make_direct_loss_fn(
  config: config_dict.ConfigDict,
  *,
  counter: denoiser_lib.EvaluationCounter | None = None,
  reward: builders.RewardFn | None = None,
) -> training.LossFn:
  """Algorithm 1 as `(guidance_params, denoiser_params, batch, key) -> loss`.

  With a reward, Algorithm 4, whose frozen parameters are `(denoiser_params,
  reward_params)`.
  """
  section, spec = config.guidance, datasets.spec(config)
  model = builders.weight_model(config, spec)
  network = builders.denoiser(config, spec)
  if counter is not None:
    network = counter.wrap(network)
  pair = builders.pair(config, spec, network=network)

  def loss_fn(params, frozen, batch, key):
    denoiser_params, bound = frozen, None
    if reward is not None:
      denoiser_params, reward_params = frozen
      bound = functools.partial(reward, reward_params)
    losses, omega = objectives.guidance_loss(
      key,
      functools.partial(model.apply, params),
      builders.guidance_objective(config, bound),
      pair,
      denoiser_params,
      builders.schedule(config),
      batch.x,
      batch.label,
      num_particles=section.num_particles,
      s_min=section.s_min,
      zeta=section.zeta,
      gap=section.gap,
      group_size=_direct_group_size(config),
    )
    return losses.mean(), {'omega_mean': omega.mean(), 'omega_max': omega.max()}

  return loss_fn


def count_evaluations(
  config: config_dict.ConfigDict,
  frozen: types.Params,
  batch: Any,
  reward: builders.RewardFn | None = None,
) -> int:
  """Denoiser evaluations of one direct update, counted while its loss is computed."""
  counter = denoiser_lib.EvaluationCounter()
  loss_fn = make_direct_loss_fn(config, counter=counter, reward=reward)
  key = jax.random.key(0)
  params = builders.weight_model(config, datasets.spec(config)).init(key)
  jax.block_until_ready(jax.jit(loss_fn)(params, frozen, batch, key))
  return counter.count


def _direct_group_size(config: config_dict.ConfigDict) -> int:
  """Consecutive data of a batch that share (s, t)."""
  section = config.guidance
  return section.group_size if section.objective in builders.GROUPED else 1


if __name__ == '__main__':
  launch.main(lambda flags: run(flags.config, flags.workdir), needs_config=True)
