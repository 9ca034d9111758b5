"""Refines a table of weights by gradients of the final distance through the sampler.

  (1)  omega = max(table + values at knots in t, linear between them; 0)

Adam on the knots of (1), from new noise and other data in each update. Of ten averages
along the way, and of the table that it starts from, the one is taken that is closest to
data which neither the search nor an update has seen.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import builders
from experiments import workdirs
from lgd import arrays
from lgd import endpoint
from lgd import types
from lgd.data import splits
from lgd.training import reporting

_NUM_CHECKS = 10
_MORE = 4  # Times the particles of an update, in a check.
_GRADIENT = 4  # Evaluations that one with its gradient is counted as.


def hold_out(
  session: workdirs.Session, dataset: splits.Dataset
) -> tuple[splits.Dataset, splits.Split]:
  """The data to search and refine with, and those that are held out; of all classes."""
  section, name = session.config.endpoint, session.config.trajectory.reference
  split = getattr(dataset, name)
  rng, chosen = np.random.default_rng(session.config.seed), []
  for c in range(dataset.num_classes):
    rows = rng.permutation(np.flatnonzero(split.label == c))
    chosen.append(rows[: max(2, round(section.held_out * len(rows)))])
  is_held_out = np.isin(np.arange(len(split.label)), np.concatenate(chosen))
  used, held_out = (
    splits.Split(split.x[rows], split.label[rows])
    for rows in (~is_held_out, is_held_out)
  )
  return dataset._replace(**{name: used}), held_out


def refine(
  session: workdirs.Session,
  dataset: splits.Dataset,
  held_out: splits.Split,
  params: types.Params,
  table: np.ndarray,
) -> tuple[np.ndarray, int]:
  """The refined table and the denoiser evaluations that it took.

  Args:
    session: with the sections `endpoint`, `trajectory` and `evaluation`.
    dataset: of `hold_out`, as is the next.
    held_out: data that choose among the averages.
    params: of `builders.rules.pair`.
    table: `[num_classes, num_steps]`, to start from.
  """
  _, config, spec = session
  section, num_classes = config.endpoint, dataset.num_classes
  split = getattr(dataset, config.trajectory.reference)
  rng, root = np.random.default_rng(config.seed), arrays.stream(config.seed, 'endpoint')
  times = builders.models.time_grid(config)
  of_omega = functools.partial(
    endpoint.loss,
    pair=builders.rules.pair(config, spec, stops_gradient=False),
    schedule=builders.models.schedule(config),
    cond=jnp.arange(num_classes),
    times=times,
    churn=config.evaluation.churn,
    beta=config.trajectory.beta,
  )
  basis = _basis(np.asarray(times), section.num_knots)
  rate = optax.cosine_decay_schedule(section.learning_rate, section.num_updates)
  tx = optax.adam(rate)

  def omega_of(knots):  # (1)
    return jnp.maximum(table + knots @ basis, 0.0)

  def distance(key, knots, params, reference, counts, num_particles):
    return of_omega(
      key,
      omega_of(knots),
      params=params,
      reference=reference,
      num_references=counts,
      num_particles=num_particles,
    )

  @jax.jit
  def update(knots, mean, state, key, *args):
    gradient = jax.grad(distance, argnums=1)(key, knots, *args, section.num_particles)
    updates, state = tx.update(gradient, state)
    knots = optax.apply_updates(knots, updates)
    return knots, 0.9 * mean + 0.1 * knots, state

  judge = jax.jit(
    functools.partial(distance, root, num_particles=_MORE * section.num_particles)
  )
  judged_by = splits.draw_of_each(rng, held_out, num_classes, len(held_out.label))
  knots = jnp.zeros((num_classes if section.by_class else 1, section.num_knots))
  mean, best, state = knots, knots, tx.init(knots)
  start = smallest = float(judge(knots, params, *judged_by))
  progress = reporting.Progress('endpoint', section.num_updates)
  every, num_checks = section.num_updates // _NUM_CHECKS, 1
  for i in range(1, section.num_updates + 1):
    drawn = splits.draw_of_each(rng, split, num_classes, section.num_references)
    key = jax.random.fold_in(root, i)
    knots, mean, state = update(knots, mean, state, key, params, *drawn)
    if i % every == 0:
      now, num_checks = float(judge(mean, params, *judged_by)), num_checks + 1
      if now < smallest:
        best, smallest = mean, now
      progress.log(i, f'held out {now - start:+.4f}, best {smallest - start:+.4f}')
  of_sampling = 2 * section.num_particles * table.size
  cost = of_sampling * (_GRADIENT * section.num_updates + _MORE * num_checks)
  return np.asarray(omega_of(best)), cost


def _basis(times, num_knots):
  """`[num_knots, num_steps]`: hats in t, between knots that are evenly spread."""
  t, knots = times[:-1], np.linspace(times[-1], times[0], num_knots)
  return np.stack([np.interp(t, knots, hat) for hat in np.eye(num_knots)])
