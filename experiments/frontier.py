r"""Trades consistency for a reward: a learned weight for every gamma, from one pass.

  F="--config=configs/digits.py --workdir=runs/digits --config.reward.name=classifier"
  python -m experiments.collect_statistics $F
  python -m experiments.frontier $F

All gammas of `config.frontier` are trained by one vmapped step, from the same draws, so
that they differ in gamma alone. Each is stored as what train_guidance with that
`guidance.gamma` learns, guidance/OBJECTIVE_rewardGAMMA/, for evaluate, compare and
sample; those that are there are kept. Prints consistency, reward and omega of each on
the statistics that it was learned from.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import config_dict

from experiments import datasets
from experiments import guidance_losses
from experiments import launch
from experiments import learned_weights
from experiments import naming
from experiments import refusals
from experiments import results as results_lib
from experiments import side_by_side
from experiments import stored_configs
from experiments import stores
from experiments import train_guidance
from experiments import validation
from experiments import workdir as workdir_lib
from lgd import arrays
from lgd import checkpointing
from lgd import objectives

_NUM_BATCHES = 32  # That a weight is measured on.


def run(config: config_dict.ConfigDict, workdir: str) -> list[dict[str, Any]]:
  """Trains what is missing, and returns a row for every gamma."""
  validation.validate(config)
  validation.require_learnable(config)
  require_frontier(config)
  workdir = workdir_lib.Workdir(workdir)
  train_guidance.require_finished_base(workdir, config)
  config = stores.with_kind_of_objective(config)
  points = [with_gamma(config, gamma) for gamma in config.frontier.gammas]
  for point in points:
    train_guidance.refuse_other_weight(workdir, point)
  store, num_evaluations = stores.load(config, workdir)
  missing = [point for point in points if not is_done(workdir, point)]
  logging.info('frontier: %d of %d weights to do', len(missing), len(points))
  if missing:
    stored_configs.record(workdir.path, 'frontier', config)
    train(config, workdir, store, missing, num_evaluations)
  spec = datasets.spec(config)
  names = [naming.guidance_name(point) for point in points]
  learned = learned_weights.load_all(workdir, config, names, spec)
  rows = measure(config, store, [learned[name].params for name in names])
  print_table(names, rows)
  return rows


def require_frontier(config: config_dict.ConfigDict) -> None:
  """Refuses what has no frontier.

  Raises:
    launch.UserError: no reward, no consistency, or no network.
  """
  if not config.reward.name:
    raise launch.UserError(
      "reward.name='': a frontier trades against a reward; name one, as in"
      ' --config.reward.name=classifier.'
    )
  if config.guidance.objective == 'reward':
    raise launch.UserError(
      "guidance.objective='reward': has no gamma; learn it by train_guidance, or choose"
      ' what to trade, as in --config.guidance.objective=self_consistency.'
    )
  if config.guidance.weight != 'network':
    raise launch.UserError(
      f'guidance.weight={config.guidance.weight!r}: a frontier trains networks; use'
      ' --config.guidance.weight=network.'
    )


def with_gamma(config: config_dict.ConfigDict, gamma: float) -> config_dict.ConfigDict:
  """The config that one weight is learned with, from statistics."""
  config = config.copy_and_resolve_references()
  config.guidance.update(source='statistics', gamma=float(gamma))
  validation.validate(config)
  return config


def is_done(workdir: workdir_lib.Workdir, point: config_dict.ConfigDict) -> bool:
  """Whether the weight of a config is there, with all its steps.

  Raises:
    launch.UserError: with more of them.
  """
  directory = workdir.guidance(naming.guidance_name(point))
  step = checkpointing.latest_step(directory)
  if step is not None:
    refusals.require_steps(directory, step, point.guidance.num_steps, 'frontier')
  return step == point.guidance.num_steps


def train(
  config: config_dict.ConfigDict,
  workdir: workdir_lib.Workdir,
  store: objectives.Store,
  points: list[config_dict.ConfigDict],
  num_evaluations: int,
) -> None:
  """Trains and stores the weights of all `points`, which differ in gamma alone."""
  stream = naming.guidance_stream(points[0])
  init_key = arrays.stream(config.seed, f'{stream}/init')
  key = arrays.stream(config.seed, stream)
  states = side_by_side.train(
    points[0],
    store,
    [{'gamma': point.guidance.gamma} for point in points],
    traced=('gamma',),
    init_keys=jnp.stack([init_key] * len(points)),
    keys=jnp.stack([key] * len(points)),
    num_steps=config.guidance.num_steps,
    stage='frontier',
  )
  for i, point in enumerate(points):
    state = jax.tree.map(lambda x, i=i: x[i], states)
    directory = workdir.guidance(naming.guidance_name(point))
    learned_weights.save_weight(workdir, point, directory, state, num_evaluations)


def measure(
  config: config_dict.ConfigDict, store: objectives.Store, learned: list[Any]
) -> list[dict[str, float]]:
  """The two sides of the trade and omega of every weight, over the same batches."""
  gammas = jnp.asarray([0.0, 1.0])
  keys = jax.random.split(arrays.stream(config.seed, 'frontier'), _NUM_BATCHES)

  @jax.jit
  def compiled(params, store):
    def at(gamma, key):
      loss_fn = guidance_losses.make_statistics_loss_fn(config, gamma=gamma)
      return loss_fn(params, store, (), key)

    return jax.vmap(lambda gamma: jax.vmap(lambda key: at(gamma, key))(keys))(gammas)

  rows = []
  for gamma, params in zip(config.frontier.gammas, learned, strict=True):
    losses, measured = jax.device_get(compiled(params, store))
    consistency, difference = losses[0].mean(), (losses[0] - losses[1]).mean()
    rows.append(
      {
        'gamma': float(gamma),
        'consistency': float(consistency),
        'reward': float(difference),
        'omega_mean': float(np.mean(measured['omega_mean'])),
        'omega_max': float(np.max(measured['omega_max'])),
      }
    )
  last = config.reward.nodes[-1]
  beyond = [row['gamma'] for row in rows if row['omega_max'] > last]
  if beyond:
    logging.warning(
      'frontier: omega of gamma %s is above %g, the last of reward.nodes, from where on'
      ' the reward counts as constant; collect with larger ones to see beyond.',
      ', '.join(f'{gamma:g}' for gamma in beyond),
      last,
    )
  return rows


def print_table(names: list[str], rows: list[dict[str, float]]) -> None:
  """The frontier as it was learned."""
  if jax.process_index() == 0:
    columns = ('consistency', 'reward', 'omega_mean', 'omega_max')
    lines = results_lib.table(
      ('method', *columns),
      [
        (name, *(f'{row[column]:.4f}' for column in columns))
        for name, row in zip(names, rows, strict=True)
      ],
    )
    print('\n'.join(lines))


if __name__ == '__main__':
  launch.main(lambda flags: run(flags.config, flags.workdir), needs_config=True)
