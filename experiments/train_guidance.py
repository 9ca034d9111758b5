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
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import jax
from etils import epath
from ml_collections import config_dict

from experiments import batching
from experiments import bounds
from experiments import builders
from experiments import closed_form
from experiments import datasets
from experiments import guidance_losses
from experiments import identities
from experiments import launch
from experiments import learned_weights
from experiments import naming
from experiments import objective_builders
from experiments import refusals
from experiments import restoring
from experiments import reward_models
from experiments import stored_configs
from experiments import stores
from experiments import train_loop
from experiments import validation
from experiments import workdir as workdir_lib
from lgd import checkpointing
from lgd import objectives
from lgd import training


def run(config: config_dict.ConfigDict, workdir: str) -> training.TrainState:
  """Learns or resumes, and returns the final state."""
  validation.validate(config)
  validation.require_learnable(config)
  workdir = workdir_lib.Workdir(workdir)
  require_finished_base(workdir, config)
  config = stores.with_kind_of_objective(config)
  directory = workdir.guidance(naming.guidance_name(config))
  refuse_other_weight(workdir, config)
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
  identity |= identities.clipping(config)
  if objective_builders.has_reward(config):
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
    loss_fn=guidance_losses.make_statistics_loss_fn(config),
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
  if objective_builders.has_reward(config):
    reward, reward_params = reward_models.load(workdir, config, dataset)
    frozen = frozen, reward_params
  batches = batching.batches(
    config,
    'guidance',
    getattr(dataset, config.statistics.split),
    group_size=guidance_losses.direct_group_size(config),
    by_class=section.objective == 'class_marginal',
  )
  of_this_process = guidance_losses.count_evaluations(
    config, frozen, next(batches(0)), reward
  )
  return _train(
    config,
    workdir,
    directory,
    num_evaluations=section.num_steps * jax.process_count() * of_this_process,
    loss_fn=guidance_losses.make_direct_loss_fn(config, reward=reward),
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
    at_end=functools.partial(bounds.warn_learned, config),
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
    'values': closed_form.solve(config, store),
    'times': builders.time_grid(config),
  }
  bounds.warn_absurd(naming.guidance_name(config), float(params['values'].max()))
  return learned_weights.save_table(workdir, config, directory, params, num_evaluations)


if __name__ == '__main__':
  launch.main(lambda flags: run(flags.config, flags.workdir), needs_config=True)
