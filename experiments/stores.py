"""From the shards of a statistics pass to what training draws from."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import config_dict

from experiments import builders
from experiments import clips
from experiments import datasets
from experiments import launch
from experiments import naming
from experiments import objective_builders
from experiments import refusals
from experiments import statistics_files
from experiments import statistics_plan
from experiments import workdir as workdir_lib
from lgd import objectives


def load(
  config: config_dict.ConfigDict, workdir: workdir_lib.Workdir
) -> tuple[objectives.Store, int]:
  """The statistics of `statistics.kind`, and the evaluations that they cost.

  Raises:
    launch.UserError: none, unfinished or damaged ones, or too few particles.
  """
  refusals.require_statistics(workdir, config)
  refusals.require_encoded(workdir.denoiser, config)
  directory = workdir.statistics(naming.statistics_name(config))
  stored = statistics_files.read(
    directory,
    statistics_plan.num_shards(config),
    num_vectors=statistics_plan.num_vectors(config),
    profile_shape=statistics_plan.profile_shape(config),
  )
  num_evaluations = int(stored.num_evaluations.sum())
  logging.info(
    '%s: %d items from %d denoiser evaluations',
    directory,
    len(stored.t),
    num_evaluations,
  )
  require_reach(stored.t, config.guidance, directory)
  cond = clips.make_read(workdir, config)(stored.label)
  gram, t, cond, profile = jax.tree.map(
    jnp.asarray, (stored.gram, stored.t, cond, stored.profile)
  )
  section, grouped = config.statistics, config.statistics.kind != 'particles'
  store = objectives.make_store(
    gram,
    t,
    cond,
    schedule=builders.schedule(config),
    dim=math.prod(datasets.spec(config).shape),
    num_particles=section.group_size if grouped else section.num_particles,
    antithetic=section.antithetic,
    grouped=grouped,
    profile=profile,
    nodes=config.reward.nodes,
  )
  return store, num_evaluations


def with_kind_of_objective(config: config_dict.ConfigDict) -> config_dict.ConfigDict:
  """The config whose `statistics.kind` is the one that the objective needs."""
  config = config.copy_and_resolve_references()
  config.statistics.kind = objective_builders.GROUPED.get(
    config.guidance.objective, 'particles'
  )
  return config


def in_reach(t: np.ndarray | jax.Array, section: Any) -> np.ndarray | jax.Array:
  """Which times have an s that `section`, with s_min, gap and zeta, lets be drawn."""
  return objectives.in_reach(t, s_min=section.s_min, zeta=section.zeta, gap=section.gap)


def require_reach(t: np.ndarray, section: Any, place: Any) -> None:
  """Refuses settings for which no stored time could be drawn.

  Args:
    t: stored times.
    section: as of `in_reach`.
    place: where the statistics are, for the message.
  """
  if not np.any(in_reach(t, section)):
    raise launch.UserError(
      f'guidance.gap={section.gap}: with s_min={section.s_min} and zeta={section.zeta},'
      f' no time of {place} is in reach; collect more data or widen the range.'
    )
