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

from experiments import app
from experiments import builders
from experiments import judges
from experiments import learning
from experiments import workdirs
from lgd import objectives
from lgd import training


def run(config: config_dict.ConfigDict, workdir: str) -> training.TrainState:
  """Learns or resumes, and returns the final state."""
  workdir, config, _ = workdirs.open_to_learn(config, workdir)
  config = workdirs.statistics.with_kind_of_objective(config)
  directory = workdir.guidance(workdirs.layout.guidance_name(config))
  workdirs.weights.refuse_other(workdir, config)
  if config.guidance.source == 'direct':
    return learn_directly(config, workdir, directory)
  store, num_evaluations = workdirs.statistics.load(config, workdir)
  if config.guidance.weight == 'table':
    return fit_table(config, workdir, directory, store, num_evaluations)
  return learn_from_statistics(config, workdir, directory, store, num_evaluations)


def learn_from_statistics(
  config: config_dict.ConfigDict,
  workdir: workdirs.Workdir,
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
    loss_fn=learning.losses.make_statistics_loss_fn(config),
    frozen=store,
    batches=lambda start: itertools.repeat(()),  # The step draws its own.
  )


def learn_directly(
  config: config_dict.ConfigDict,
  workdir: workdirs.Workdir,
  directory: epath.Path,
) -> training.TrainState:
  """Trains the network by Algorithm 1 as printed, with a reward by Algorithm 4."""
  section, dataset = config.guidance, builders.data.load(config)
  frozen, reward = workdirs.base_model.load_pair(workdir, config, dataset.spec), None
  if builders.objectives.has_reward(config):
    reward, reward_params = judges.rewards.load(workdir, config, dataset)
    frozen = frozen, reward_params
  batches = builders.data.batches(
    config,
    'guidance',
    getattr(dataset, config.statistics.split),
    group_size=builders.objectives.group_size(config),
    by_class=builders.objectives.of(config).by_class,
  )
  of_this_process = learning.losses.count_evaluations(
    config, frozen, next(batches(0)), reward
  )
  return _train(
    config,
    workdir,
    directory,
    num_evaluations=section.num_steps * jax.process_count() * of_this_process,
    loss_fn=learning.losses.make_direct_loss_fn(config, reward=reward),
    frozen=frozen,
    batches=batches,
  )


def _train(
  config: config_dict.ConfigDict,
  workdir: workdirs.Workdir,
  directory: epath.Path,
  *,
  num_evaluations: int,
  loss_fn: training.LossFn,
  frozen: Any,
  batches: Callable[[int], Iterator[Any]],
) -> training.TrainState:
  return learning.loop.train(
    config=config,
    section=config.guidance,
    workdir=workdir.path,
    directory=directory,
    stage=f'guidance/{workdirs.layout.guidance_name(config)}',
    stream=workdirs.layout.guidance_stream(config),
    stored_config=workdirs.identity.guidance_identity(
      workdir,
      config,
      num_steps=config.guidance.num_steps,
      num_evaluations=num_evaluations,
    ),
    init=builders.models.weight_model(config, builders.data.spec(config)).init,
    tx=builders.models.optimizer(config.guidance),
    loss_fn=loss_fn,
    frozen=frozen,
    batches=batches,
    at_end=functools.partial(learning.losses.warn_learned, config),
  )


def fit_table(
  config: config_dict.ConfigDict,
  workdir: workdirs.Workdir,
  directory: epath.Path,
  store: objectives.Store,
  num_evaluations: int,
) -> training.TrainState:
  """The closed form of l2 or score matching for every class and transition."""
  params = {
    'values': learning.closed_form.solve(config, store),
    'times': builders.models.time_grid(config),
  }
  learning.losses.warn_absurd(
    workdirs.layout.guidance_name(config), float(params['values'].max())
  )
  return workdirs.weights.save_table(
    workdir, config, directory, params, num_evaluations
  )


if __name__ == '__main__':
  app.main(lambda flags: run(flags.config, flags.workdir), needs_config=True)
