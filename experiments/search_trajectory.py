r"""Chooses weights along guided trajectories, and fits a network to them.

  python -m experiments.search_trajectory --config=configs/digits.py \
      --workdir=runs/digits
  ... --config.trajectory.distance=features      # of a small noise-aware classifier
  ... --config.trajectory.distance=sum           # of both
  ... --config.trajectory.method=endpoint        # refined through the whole sampler

Guides particles of every class with the sampler of `config.evaluation`, and picks each
step's weight by a line search on held-out data. The tables of several searches are
averaged, until their mean is steady. Writes guidance/trajectory_DISTANCE_table/, the
average, and guidance/trajectory_DISTANCE/, a network that also serves other time grids;
'endpoint' in place of 'trajectory_DISTANCE' for the refined ones. Each search is kept
until the average is written: the same command resumes.
"""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging
from ml_collections import config_dict

from experiments import app
from experiments import builders
from experiments import judges
from experiments import learning
from experiments import validation
from experiments import workdirs
from lgd import arrays
from lgd import denoiser as denoiser_lib
from lgd import errors
from lgd import trajectory
from lgd import types
from lgd.data import splits
from lgd.training import sharding


def run(config: config_dict.ConfigDict, workdir: str) -> np.ndarray:
  """Searches and fits; returns the table, `[num_classes, num_steps]`."""
  validation.validate(config)
  config = config.copy_and_resolve_references()
  config.guidance.num_steps = config.trajectory.fit_steps  # Its rules hold, too.
  session = workdirs.open_to_learn(config, workdir)
  if config.evaluation.solver != 'first_order':
    raise errors.InputError(
      f'evaluation.solver={config.evaluation.solver!r}: weights are searched along'
      ' trajectories of first order; use --config.evaluation.solver=first_order here.'
    )
  # What the weight is learned with is stored; what has no part in it is as usual.
  refines = config.trajectory.method == 'endpoint'
  searched = f'trajectory_{config.trajectory.distance}'
  config.guidance.objective = 'endpoint' if refines else searched
  config.guidance.update(
    source='statistics',
    weight='network',
    gamma=0.0,
    learning_rate=config.trajectory.learning_rate,
  )
  config.statistics.split = 'train'
  table_config = config.copy_and_resolve_references()
  table_config.guidance.weight = 'table'
  of_table = session.with_config(table_config)
  stored = [require_same_search(each) for each in (of_table, session)]

  dataset = builders.data.load_classes(config, session.spec, in_memory=False)
  require_references(dataset, config.trajectory)
  params = workdirs.base_model.load_pair(session)
  if stored[0] is None:
    pieces = workdirs.open_pieces(session, 'search_trajectory')
    if refines:
      dataset, held_out = learning.endpoint.hold_out(session, dataset)
    values, num_evaluations = search(config, dataset, params, pieces)
    if refines:
      values, more = learning.endpoint.refine(
        session, dataset, held_out, params, values
      )
      num_evaluations += more
    table = {'values': values, 'times': builders.models.time_grid(config)}
    workdirs.weights.save_table(of_table, table, num_evaluations)
    pieces.remove()
  name = workdirs.layout.guidance_name(table_config)
  learned = workdirs.weights.load(session, name)
  fit(session, learned)
  return np.asarray(learned.params['values'])


def require_same_search(session: workdirs.Session) -> dict[str, Any] | None:
  """The record of the weight that the config names, if it is there.

  Raises:
    errors.InputError: it was searched differently.
  """
  config, stored = session.config, workdirs.weights.load_record(session)
  if stored is None:
    return None
  sections = ['seed', 'trajectory', 'guidance']
  if config.trajectory.distance != 'pixels':
    sections.append('classifier')
  if config.trajectory.method == 'endpoint':
    sections.append('endpoint')
  wanted = workdirs.configs.config_to_json(config, *sections)
  wanted['rule'] = workdirs.identity.rule_identity(config)
  wanted |= workdirs.identity.clipping(config)
  network_keys = ('weight', 'width', 'depth', 'batch_size', 'ema_decay')
  wanted['guidance'] = {k: wanted['guidance'][k] for k in network_keys}
  wanted |= workdirs.identity.sampler_identity(config)
  directory = session.workdir.guidance(workdirs.layout.guidance_name(config))
  # Searches that are older than these keys looked at the smallest curve alone.
  older = {'omega_min': 0.0, 'confidence': 0.0, 'num_blocks': 0}
  searched = older | stored['config']['trajectory']
  workdirs.refuse.require_same(
    stored['config'] | {'trajectory': searched}, wanted, directory
  )
  return stored


def search(
  config: config_dict.ConfigDict,
  dataset: splits.Dataset,
  params: types.Params,
  pieces: app.Pieces,
) -> tuple[np.ndarray, int]:
  """The averaged table and the denoiser evaluations that it took."""
  section = config.trajectory
  counter = denoiser_lib.EvaluationCounter()
  searcher = make_search(config, dataset, counter)
  seed = config.seed + section.seed
  root = arrays.stream(seed, f'trajectory/{section.distance}')

  def search_once(i):
    before, rng = counter.count, np.random.default_rng((seed, i))
    split = getattr(dataset, section.reference)
    reference = draw_reference(rng, split, dataset.num_classes, section)
    table = np.asarray(searcher(params, jax.random.fold_in(root, i), *reference))
    if not np.isfinite(table).all():
      raise errors.NonFiniteError(
        f'trajectory: the curve of class {np.argmin(np.isfinite(table).all(axis=1))} is'
        ' not finite; look at the base model, or take a smaller trajectory.omega_max.'
      )
    return {'table': table, 'num_evaluations': counter.count - before}

  found, progress = [], pieces.progress('trajectory', section.num_repeats)
  for i in range(section.num_repeats):
    found.append(pieces.get(i, functools.partial(search_once, i)))
    tables = np.stack([piece['table'] for piece in found])
    error, size = noise(tables)
    progress.log(
      i + 1,
      f'omega_mean {tables.mean():.4g}  omega_max {tables[-1].max():.4g}'
      f'  standard_error {error:.3g} of {size:.3g}',
    )
    if error <= section.tolerance * size:
      break
  num_evaluations = sum(piece['num_evaluations'] for piece in found)
  logging.info('trajectory: %d denoiser evaluations', num_evaluations)
  learning.losses.warn_searched(config, tables)
  return tables.mean(axis=0), num_evaluations


def noise(tables: np.ndarray) -> tuple[float, float]:
  """Root mean squares, of the standard errors of a mean of searches and of that mean.

  Args:
    tables: `[num_searches, num_classes, num_steps]`; of one the error is infinite.
  """
  size = np.sqrt(np.square(tables.mean(axis=0)).mean())
  if len(tables) < 2:
    return np.inf, size
  return np.sqrt(tables.var(axis=0, ddof=1).mean() / len(tables)), size


def make_search(
  config: config_dict.ConfigDict,
  dataset: splits.Dataset,
  counter: denoiser_lib.EvaluationCounter,
):
  """`(params, key, reference [num_classes, n, *data], counts) -> table`, compiled."""
  section = config.trajectory
  schedule = builders.models.schedule(config)
  network = counter.wrap(builders.models.denoiser(config, dataset.spec))
  pair = builders.rules.pair(config, dataset.spec, network=network)
  omegas = candidates(section)
  features, features_params = None, None
  if section.distance != 'pixels':
    features, features_params = judges.classifiers.train_noisy_features(config, dataset)

  @jax.jit
  def compiled(features_params, params, key, reference, counts):
    settings = {
      'schedule': schedule,
      'beta': section.beta,
      'num_references': counts,
      'num_blocks': section.num_blocks,
    }
    if section.distance != 'features':
      curves = pixels = trajectory.pixel_curves(reference, **settings)
    if features is not None:
      embed = functools.partial(features, features_params)
      curves = trajectory.feature_curves(embed, reference, **settings)
    if section.distance == 'sum':
      shares = 1.0 - section.features_share, section.features_share
      curves = trajectory.summed_curves((pixels, curves), shares)
    return trajectory.search(
      key,
      pair,
      params,
      schedule,
      curves,
      jnp.arange(dataset.num_classes),
      dataset.shape,
      times=builders.models.time_grid(config),
      churn=config.evaluation.churn,
      num_particles=section.num_particles,
      omegas=omegas,
      fade=section.memory,
      lookahead=section.lookahead,
      lookahead_churn=section.lookahead_churn,
      confidence=section.confidence,
    )

  return functools.partial(compiled, features_params)


def candidates(section: config_dict.ConfigDict) -> jax.Array:
  """Values of omega to choose from, increasing, on both sides of 0."""
  unit = np.linspace(0.0, 1.0, section.num_candidates)
  positive = section.omega_max * unit**section.candidate_power
  negative = -positive[1:][positive[1:] <= -section.omega_min]
  return jnp.asarray(np.concatenate([negative[::-1], positive]), jnp.float32)


def require_references(
  dataset: splits.Dataset, section: config_dict.ConfigDict
) -> None:
  """Refuses a class with less than 2 data to compare with.

  Raises:
    errors.InputError: there is one.
  """
  label = getattr(dataset, section.reference).label
  counts = np.bincount(label, minlength=dataset.num_classes)
  if counts.min() < 2:
    raise errors.InputError(
      f'trajectory.reference={section.reference!r}: holds {counts.min()} data of class'
      f' {np.argmin(counts)}, and a distance needs 2; use'
      ' --config.trajectory.reference=train.'
    )


def draw_reference(
  rng: np.random.Generator,
  split: splits.Split,
  num_classes: int,
  section: config_dict.ConfigDict,
) -> tuple[np.ndarray, np.ndarray | None]:
  """`splits.draw_of_each` of `num_references`; None for counts that are all equal."""
  x, used = splits.draw_of_each(rng, split, num_classes, section.num_references)
  return x, used if used.min() < used.max() else None


def fit(session: workdirs.Session, table: workdirs.weights.LearnedWeight) -> None:
  """Trains the network to follow the table; no denoiser."""
  workdir, config, spec = session
  section, model = config.guidance, builders.models.weight_model(config, spec)

  def loss_fn(params, table_params, label, key):
    losses = trajectory.fit_loss(
      key,
      functools.partial(model.apply, params),
      functools.partial(table.model.apply, table_params),
      label,
      table_params['times'],
    )
    return losses.mean(), {}

  label = np.arange(section.batch_size, dtype=np.int32) % spec.conditions.num_classes
  name = workdirs.layout.guidance_name(config)
  learning.loop.train(
    config=config,
    section=section,
    workdir=workdir.path,
    directory=workdir.guidance(name),
    stage=f'guidance/{name}',
    stored_config=workdirs.identity.guidance_identity(
      session, num_steps=section.num_steps, num_evaluations=table.num_evaluations
    ),
    init=model.init,
    tx=optax.adam(
      optax.cosine_decay_schedule(section.learning_rate, section.num_steps)
    ),
    loss_fn=loss_fn,
    frozen=table.params,
    batches=lambda _: itertools.repeat(sharding.process_share(label)),
  )


if __name__ == '__main__':
  app.main(lambda flags: run(flags.config, flags.workdir), needs_config=True)
