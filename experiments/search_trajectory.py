r"""Chooses weights along guided trajectories, and fits a network to them.

  python -m experiments.search_trajectory --config=configs/digits.py \
      --workdir=runs/digits
  ... --config.trajectory.distance=features      # of a small noise-aware classifier

Guides particles of every class with the sampler of `config.evaluation`, and picks each
step's weight by a line search on held-out data. The tables of several searches are
averaged. Writes guidance/trajectory_DISTANCE_table/, the average, and
guidance/trajectory_DISTANCE/, a network that also serves other time grids. Each search
is kept until the average is written: the same command resumes.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import config_dict

from experiments import bounds
from experiments import builders
from experiments import datasets
from experiments import identities
from experiments import judge
from experiments import launch
from experiments import learned_weights
from experiments import naming
from experiments import pieces as pieces_lib
from experiments import refusals
from experiments import restoring
from experiments import rule_builders
from experiments import stored_configs
from experiments import train_guidance
from experiments import trajectory_fit
from experiments import validation
from experiments import workdir as workdir_lib
from lgd import arrays
from lgd import checkpointing
from lgd import denoiser as denoiser_lib
from lgd import reporting
from lgd import trajectory
from lgd import types
from lgd.data import splits


def run(config: config_dict.ConfigDict, workdir: str) -> np.ndarray:
  """Searches and fits; returns the table, `[num_classes, num_steps]`."""
  validation.validate(config)
  config = config.copy_and_resolve_references()
  config.guidance.num_steps = config.trajectory.fit_steps
  validation.validate(config)  # Of the fit, too.
  validation.require_learnable(config)
  workdir = workdir_lib.Workdir(workdir)
  train_guidance.require_finished_base(workdir, config)
  if config.evaluation.order != 1:
    raise launch.UserError(
      f'evaluation.order={config.evaluation.order}: weights are searched along'
      ' trajectories of first order; use --config.evaluation.order=1 here.'
    )
  config.guidance.objective = f'trajectory_{config.trajectory.distance}'
  config.guidance.source, config.guidance.weight = 'statistics', 'network'
  table_config = config.copy_and_resolve_references()
  table_config.guidance.weight = 'table'
  for each in (config, table_config):
    refuse_other_search(workdir, each)

  dataset = datasets.load_classes(config, in_memory=False)
  require_references(dataset, config.trajectory)
  params = restoring.load_pair(workdir, config, dataset.spec)
  directory = workdir.guidance(naming.guidance_name(table_config))
  if checkpointing.latest_step(directory) is None:
    identity = identities.run_identity(workdir, config)
    pieces = pieces_lib.Pieces(workdir.unfinished('search_trajectory'), identity)
    stored_configs.record(workdir.path, 'search_trajectory', config)
    values, num_evaluations = search(config, dataset, params, pieces)
    table = {'values': values, 'times': builders.time_grid(config)}
    learned_weights.save_table(workdir, table_config, directory, table, num_evaluations)
    pieces.remove()
  learned = learned_weights.load_guidance(workdir, config, directory.name, dataset.spec)
  trajectory_fit.fit(config, workdir, dataset, learned)
  return np.asarray(learned.params['values'])


def refuse_other_search(
  workdir: workdir_lib.Workdir, config: config_dict.ConfigDict
) -> None:
  """Raises launch.UserError if the weight is there and was searched differently."""
  directory = workdir.guidance(naming.guidance_name(config))
  stored = learned_weights.load_guidance_config(workdir, config)
  if stored is None:
    return
  wanted = stored_configs.config_to_json(config, 'seed', 'trajectory', 'guidance')
  wanted['rule'] = identities.rule_identity(config)
  wanted |= identities.clipping(config)
  network_keys = ('weight', 'width', 'depth', 'batch_size', 'ema_decay')
  wanted['guidance'] = {k: wanted['guidance'][k] for k in network_keys}
  refusals.require_same(stored['config'], wanted, directory)
  refusals.require_same_grid(stored['config'], config, directory)


def search(
  config: config_dict.ConfigDict,
  dataset: splits.Dataset,
  params: types.Params,
  pieces: pieces_lib.Pieces,
) -> tuple[jax.Array, int]:
  """The averaged table and the denoiser evaluations that it took."""
  section = config.trajectory
  counter = denoiser_lib.EvaluationCounter()
  searcher = make_search(config, dataset, counter)
  root = arrays.stream(config.seed, f'trajectory/{section.distance}')

  def search_once(i):
    before, rng = counter.count, np.random.default_rng((config.seed, i))
    split = getattr(dataset, section.reference)
    reference = draw_reference(rng, split, dataset.num_classes, section)
    table = np.asarray(searcher(params, jax.random.fold_in(root, i), *reference))
    if not np.isfinite(table).all():
      raise reporting.NonFiniteError(
        f'trajectory: the curve of class {np.argmin(np.isfinite(table).all(axis=1))} is'
        ' not finite; look at the base model, or take a smaller trajectory.omega_max.'
      )
    return {'table': table, 'num_evaluations': counter.count - before}

  found = []
  for i in range(section.num_repeats):
    found.append(pieces.get(i, functools.partial(search_once, i)))
    logging.info(
      'trajectory %d/%d  omega_mean %.4g  omega_max %.4g  ETA %s',
      i + 1,
      section.num_repeats,
      found[i]['table'].mean(),
      found[i]['table'].max(),
      reporting.eta(pieces.seconds, i + 1, section.num_repeats),
    )
  num_evaluations = sum(piece['num_evaluations'] for piece in found)
  logging.info('trajectory: %d denoiser evaluations', num_evaluations)
  tables = jnp.stack([piece['table'] for piece in found])
  bounds.warn_searched(config, tables)
  return jnp.mean(tables, axis=0), num_evaluations


def make_search(
  config: config_dict.ConfigDict,
  dataset: splits.Dataset,
  counter: denoiser_lib.EvaluationCounter,
):
  """`(params, key, reference [num_classes, n, *data], counts) -> table`, compiled."""
  section = config.trajectory
  schedule = builders.schedule(config)
  network = counter.wrap(builders.denoiser(config, dataset.spec))
  pair = rule_builders.pair(config, dataset.spec, network=network)
  # Closer together near 0, where most weights are.
  unit = jnp.linspace(0.0, 1.0, section.num_candidates)
  omegas = section.omega_max * unit**1.5
  features, features_params = None, None
  if section.distance == 'features':
    features, features_params = judge.train_noisy_features(config, dataset)

  @jax.jit
  def compiled(features_params, params, key, reference, counts):
    settings = {'schedule': schedule, 'beta': section.beta, 'num_references': counts}
    if features is None:
      curves = trajectory.pixel_curves(reference, **settings)
    else:
      embed = functools.partial(features, features_params)
      curves = trajectory.feature_curves(embed, reference, **settings)
    return trajectory.search(
      key,
      pair,
      params,
      schedule,
      curves,
      jnp.arange(dataset.num_classes),
      dataset.shape,
      times=builders.time_grid(config),
      churn=config.evaluation.churn,
      num_particles=section.num_particles,
      omegas=omegas,
      memory=section.memory,
      lookahead=section.lookahead,
      lookahead_churn=section.lookahead_churn,
    )

  return functools.partial(compiled, features_params)


def require_references(
  dataset: splits.Dataset, section: config_dict.ConfigDict
) -> None:
  """Refuses a class with less than 2 data to compare with.

  Raises:
    launch.UserError: there is one.
  """
  label = getattr(dataset, section.reference).label
  counts = np.bincount(label, minlength=dataset.num_classes)
  if counts.min() < 2:
    raise launch.UserError(
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
  """Random data of each class, as many as it has, up to `num_references`.

  Returns:
    `[num_classes, n, *data]`, of the class with most; and `[num_classes]`, how many of
    them are of the class, where the rest repeats; None where all classes have n.
  """
  counts = np.bincount(split.label, minlength=num_classes)
  used = np.minimum(counts, section.num_references)
  rows = [
    np.resize(rng.permutation(np.flatnonzero(split.label == c))[: used[c]], used.max())
    for c in range(len(counts))
  ]
  return split.x[np.stack(rows)], used if used.min() < used.max() else None


if __name__ == '__main__':
  launch.main(lambda flags: run(flags.config, flags.workdir), needs_config=True)
