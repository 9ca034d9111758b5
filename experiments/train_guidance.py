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
  session = workdirs.open_to_learn(config, workdir)
  session = workdirs.statistics.for_objective(session)
  workdirs.weights.require_same(session)
  if config.guidance.source == 'direct':
    return learn_directly(session)
  store, num_evaluations = workdirs.statistics.load(session)
  if config.guidance.weight == 'table':
    return fit_table(session, store, num_evaluations)
  return learn_from_statistics(session, store, num_evaluations)


def learn_from_statistics(
  session: workdirs.Session, store: objectives.Store, num_evaluations: int
) -> training.TrainState:
  """Trains the network on stored Gram matrices; the denoiser is not called."""
  return _train(
    session,
    num_evaluations=num_evaluations,
    loss_fn=learning.losses.make_statistics_loss_fn(session.config, session.spec),
    frozen=store,
    batches=lambda start: itertools.repeat(()),  # The step draws its own.
  )


def learn_directly(session: workdirs.Session) -> training.TrainState:
  """Trains the network by Algorithm 1 as printed, with a reward by Algorithm 4."""
  _, config, spec = session
  dataset = builders.data.load(config)
  frozen, reward = workdirs.base_model.load_pair(session), None
  if builders.objectives.has_reward(config):
    reward, reward_params = judges.rewards.load(session, dataset)
    frozen = frozen, reward_params
  batches = builders.data.batches(
    config,
    'guidance',
    getattr(dataset, config.statistics.split),
    group_size=builders.objectives.group_size(config),
    by_class=builders.objectives.of(config).by_class,
    num_classes=spec.conditions.num_classes,
  )
  of_this_process = learning.losses.count_evaluations(
    config, spec, frozen, next(batches(0)), reward
  )
  num_updates = config.guidance.num_steps * jax.process_count()
  return _train(
    session,
    num_evaluations=num_updates * of_this_process,
    loss_fn=learning.losses.make_direct_loss_fn(config, spec, reward=reward),
    frozen=frozen,
    batches=batches,
  )


def _train(
  session: workdirs.Session,
  *,
  num_evaluations: int,
  loss_fn: training.LossFn,
  frozen: Any,
  batches: Callable[[int], Iterator[Any]],
) -> training.TrainState:
  workdir, config, spec = session
  name, section = workdirs.layout.guidance_name(config), config.guidance
  return learning.loop.train(
    config=config,
    section=section,
    workdir=workdir.path,
    directory=workdir.guidance(name),
    stage=f'guidance/{name}',
    stream=workdirs.layout.guidance_stream(config),
    stored_config=workdirs.identity.guidance_identity(
      session, num_steps=section.num_steps, num_evaluations=num_evaluations
    ),
    init=builders.models.weight_model(config, spec).init,
    tx=builders.models.optimizer(section),
    loss_fn=loss_fn,
    frozen=frozen,
    batches=batches,
    at_end=functools.partial(learning.losses.warn_learned, config),
  )


def fit_table(
  session: workdirs.Session, store: objectives.Store, num_evaluations: int
) -> training.TrainState:
  """The closed form of l2 or score matching for every class and transition."""
  config, num_classes = session.config, session.spec.conditions.num_classes
  params = {
    'values': learning.closed_form.solve(config, num_classes, store),
    'times': builders.models.time_grid(config),
  }
  name = workdirs.layout.guidance_name(config)
  learning.losses.warn_absurd(name, float(params['values'].max()))
  return workdirs.weights.save_table(session, params, num_evaluations)


if __name__ == '__main__':
  app.main(lambda flags: run(flags.config, flags.workdir), needs_config=True)
