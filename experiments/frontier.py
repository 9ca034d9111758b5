r"""Trades consistency for a reward: a learned weight for every gamma, from one pass.

  F="--config=configs/digits.py --workdir=runs/digits --config.reward.name=classifier"
  python -m experiments.collect_statistics $F
  python -m experiments.frontier $F

All gammas in `config.frontier` are trained by one vmapped step, from the same draws, so
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

from experiments import app
from experiments import builders
from experiments import learning
from experiments import report
from experiments import validation
from experiments import workdirs
from lgd import arrays
from lgd import errors
from lgd import objectives
from lgd.training import checkpoints

_NUM_BATCHES = 32  # That a weight is measured on.


def run(config: config_dict.ConfigDict, workdir: str) -> list[dict[str, Any]]:
  """Trains what is missing, and returns a row for every gamma."""
  session = workdirs.open_to_learn(config, workdir)
  require_frontier(config)
  session = workdirs.statistics.for_objective(session)
  points = [with_gamma(session, gamma) for gamma in config.frontier.gammas]
  for point in points:
    workdirs.weights.require_same(point)
  store, num_evaluations = workdirs.statistics.load(session)
  missing = [point for point in points if not is_done(point)]
  logging.info('frontier: %d of %d weights to do', len(missing), len(points))
  if missing:
    workdirs.configs.record(session.workdir.path, 'frontier', session.config)
    train(store, missing, num_evaluations)
  names = [workdirs.layout.guidance_name(point.config) for point in points]
  learned = workdirs.weights.load_all(session, names)
  rows = measure(session, store, [learned[name].params for name in names])
  print_table(names, rows)
  return rows


def require_frontier(config: config_dict.ConfigDict) -> None:
  """Refuses what has no frontier.

  Raises:
    errors.InputError: no reward, no consistency, or no network.
  """
  if not config.reward.name:
    raise errors.InputError(
      "reward.name='': a frontier trades against a reward; name one, as in"
      ' --config.reward.name=classifier.'
    )
  if builders.objectives.is_reward_alone(config):
    raise errors.InputError(
      f'guidance.objective={config.guidance.objective!r}: has no gamma; learn it by'
      ' train_guidance, or choose what to trade, as in'
      ' --config.guidance.objective=self_consistency.'
    )
  if builders.objectives.of(config).stored is None:
    raise errors.InputError(
      f'guidance.objective={config.guidance.objective!r}: has no form on stored'
      ' statistics, which a frontier learns from; choose another.'
    )
  if config.guidance.weight != 'network':
    raise errors.InputError(
      f'guidance.weight={config.guidance.weight!r}: a frontier trains networks; use'
      ' --config.guidance.weight=network.'
    )


def with_gamma(session: workdirs.Session, gamma: float) -> workdirs.Session:
  """The session that one weight is learned in, from statistics."""
  config = session.config.copy_and_resolve_references()
  config.guidance.update(source='statistics', gamma=float(gamma))
  validation.validate(config)
  return session.with_config(config)


def is_done(point: workdirs.Session) -> bool:
  """Whether the weight of a session is there, with all its steps.

  Raises:
    errors.InputError: with more of them.
  """
  workdir, config, _ = point
  directory = workdir.guidance(workdirs.layout.guidance_name(config))
  step, num_steps = checkpoints.latest_step(directory), config.guidance.num_steps
  if step is not None:
    workdirs.refuse.require_steps(directory, step, num_steps, 'frontier')
  return step == num_steps


def train(
  store: objectives.Store, points: list[workdirs.Session], num_evaluations: int
) -> None:
  """Trains and stores the weights of all `points`, which differ in gamma alone."""
  _, config, spec = points[0]
  stream = workdirs.layout.guidance_stream(config)
  init_key = arrays.stream(config.seed, f'{stream}/init')
  key = arrays.stream(config.seed, stream)
  states = learning.side_by_side.train(
    config,
    spec,
    store,
    [{'gamma': point.config.guidance.gamma} for point in points],
    traced=('gamma',),
    init_keys=jnp.stack([init_key] * len(points)),
    keys=jnp.stack([key] * len(points)),
    num_steps=config.guidance.num_steps,
    stage='frontier',
  )
  for i, point in enumerate(points):
    state = jax.tree.map(lambda x, i=i: x[i], states)
    workdirs.weights.save(point, state, num_evaluations)


def measure(
  session: workdirs.Session, store: objectives.Store, learned: list[Any]
) -> list[dict[str, float]]:
  """The two sides of the trade and omega of every weight, over the same batches."""
  _, config, spec = session
  gammas = jnp.asarray([0.0, 1.0])
  keys = jax.random.split(arrays.stream(config.seed, 'frontier'), _NUM_BATCHES)

  @jax.jit
  def compiled(params, store):
    def at(gamma, key):
      loss_fn = learning.losses.make_statistics_loss_fn(config, spec, gamma=gamma)
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
    lines = report.rows.table(
      ('method', *columns),
      [
        (name, *(f'{row[column]:.4f}' for column in columns))
        for name, row in zip(names, rows, strict=True)
      ],
    )
    print('\n'.join(lines))


if __name__ == '__main__':
  app.main(lambda flags: run(flags.config, flags.workdir), needs_config=True)
