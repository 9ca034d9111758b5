"""The shards of a statistics pass, and the store that training draws from.

statistics/KIND/config.json        what the pass belongs to, sealed
statistics/KIND/shard-00003.npz    gram [n, p (p + 1) / 2], t [n], label [n, ...] or
                                   [n, group_size], index [n], num_evaluations [];
                                   with a reward, profile [n, 2, nodes] or
                                   [n, group_size, 2, nodes]
"""

import math
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from etils import epath

from experiments import builders
from experiments.workdirs import clip
from experiments.workdirs import configs
from experiments.workdirs import identity as identity_lib
from experiments.workdirs import layout
from experiments.workdirs import refuse
from experiments.workdirs.session import Session
from lgd import errors
from lgd import objectives
from lgd.storage import files


class Statistics(NamedTuple):
  """All shards of a pass."""

  gram: np.ndarray  # [num, p (p + 1) / 2] float32, packed
  t: np.ndarray  # [num] float32
  label: np.ndarray  # [num, ...] or [num, group_size], conditions
  index: np.ndarray  # [num], 0..num-1
  num_evaluations: np.ndarray  # [num_shards], network evaluations made for each
  profile: np.ndarray | None = None  # [num, ..., 2, nodes], of a reward


_FLOATS = ('gram', 't', 'profile')


def shard_path(directory: epath.Path, shard: int) -> epath.Path:
  """The file of shard number `shard`."""
  return directory / f'shard-{shard:05d}.npz'


def write_shard(directory: epath.Path, shard: int, stored: Statistics) -> None:
  """One file, under its name only when it is complete."""
  if jax.process_index() == 0:
    arrays = {k: v for k, v in stored._asdict().items() if v is not None}
    files.write_npz(shard_path(directory, shard), arrays)


def read_shard(
  path: epath.Path, num_vectors: int, profile_shape: tuple[int, ...] | None = None
) -> Statistics:
  """One file, of Gram matrices of `num_vectors` vectors.

  `profile_shape` is that of an item's rewards, None without a reward.

  Raises:
    errors.InputError: it is missing, cut short, damaged (npz carries checksums), of
      another shape, or holds values that are not finite.
  """
  again = f'delete it and run collect_statistics again: only {path.name} is made anew.'
  if not path.exists():
    raise errors.InputError(
      f'{path}: is missing; run collect_statistics again to finish.'
    )
  try:
    arrays = files.read_npz(path)
    names = Statistics._fields if profile_shape else Statistics._fields[:-1]
    stored = Statistics(**{name: arrays[name] for name in names})
  except (errors.FileError, KeyError) as error:
    reason = error.__cause__ or error
    raise errors.InputError(
      f'{path}: is cut short or damaged ({reason}); {again}'
    ) from error
  kinds = {k: a.dtype.kind for k, a in stored._asdict().items() if a is not None}
  del kinds['label']  # Numbers of any kind.
  if kinds != {k: 'f' if k in _FLOATS else 'i' for k in kinds}:
    raise errors.InputError(f'{path}: holds arrays of other kinds, {kinds}; {again}')
  num = stored.index.size
  width = num_vectors * (num_vectors + 1) // 2
  lengths = [len(a) if a.ndim else 0 for a in stored[:4]]
  if stored.gram.shape != (num, width) or lengths != [num] * 4:
    raise errors.InputError(
      f'{path}: holds Gram matrices of shape {stored.gram.shape}, not'
      f' ({num}, {width}); {again}'
    )
  profile = stored.profile
  if profile_shape and profile.shape != (num, *profile_shape):
    raise errors.InputError(
      f'{path}: holds reward profiles of shape {profile.shape}, not'
      f' {(num, *profile_shape)}; {again}'
    )
  finite = np.isfinite(stored.gram).all(axis=1) & np.isfinite(stored.t)
  if profile_shape:
    finite &= np.isfinite(profile.reshape(num, -1)).all(axis=1)
  if not finite.all():
    raise errors.InputError(
      f'{path}: datum {stored.index[np.argmin(finite)]} is not finite; {again}'
    )
  return stored


def read(
  directory: epath.Path,
  num_shards: int,
  *,
  num_vectors: int,
  profile_shape: tuple[int, ...] | None = None,
) -> Statistics:
  """All shards under `directory`, in order; arguments and errors as in `read_shard`."""
  shards = [
    read_shard(shard_path(directory, i), num_vectors, profile_shape)
    for i in range(num_shards)
  ]
  joined = jax.tree.map(
    lambda *arrays: np.concatenate([np.atleast_1d(a) for a in arrays]), *shards
  )
  if not np.array_equal(joined.index, np.arange(len(joined.index))):
    raise errors.InputError(
      f'{directory}: its shards do not hold every datum once; remove them and run'
      ' collect_statistics again.'
    )
  return joined


def require_same(session: Session) -> None:
  """Refuses statistics of another config, base model, or step of it.

  Raises:
    errors.InputError: they belong elsewhere, or there are none.
  """
  config = session.config
  directory = session.workdir.statistics(layout.statistics_name(config))
  if not (directory / 'config.json').exists():
    section = config.statistics
    flags = [f'--config.statistics.kind={section.kind}']
    if section.split != 'train':
      flags.append(f'--config.statistics.split={section.split}')
    if config.rule.name != 'linear':
      flags.append(f'--config.rule.name={config.rule.name}')
    if config.reward.name:
      flags.append(f'--config.reward.name={config.reward.name}')
    raise errors.InputError(
      f'{directory}: holds no statistics; run python -m experiments.collect_statistics'
      f' with {" ".join(flags)} first.'
    )
  stored = configs.load_statistics_config(directory)
  refuse.require_made_here(session, stored, directory)
  refuse.require_same(stored, identity_lib.statistics_identity(session), directory)


def load(session: Session) -> tuple[objectives.Store, int]:
  """The statistics of `statistics.kind`, and the evaluations that they cost.

  Raises:
    errors.InputError: none, unfinished or damaged ones, or too few particles.
  """
  require_same(session)
  config = session.config
  directory = session.workdir.statistics(layout.statistics_name(config))
  stored = read(
    directory,
    builders.statistics.num_shards(config),
    num_vectors=builders.statistics.num_vectors(config),
    profile_shape=builders.statistics.profile_shape(config),
  )
  num_evaluations = int(stored.num_evaluations.sum())
  logging.info(
    '%s: %d items from %d denoiser evaluations',
    directory,
    len(stored.t),
    num_evaluations,
  )
  require_reach(stored.t, config.guidance, directory)
  cond = clip.make_read(session)(stored.label)
  gram, t, cond, profile = jax.tree.map(
    jnp.asarray, (stored.gram, stored.t, cond, stored.profile)
  )
  section, grouped = config.statistics, config.statistics.kind != 'particles'
  store = objectives.make_store(
    gram,
    t,
    cond,
    schedule=builders.models.schedule(config),
    dim=math.prod(session.spec.shape),
    num_particles=section.group_size if grouped else section.num_particles,
    antithetic=section.antithetic,
    grouped=grouped,
    profile=profile,
    nodes=config.reward.nodes,
  )
  return store, num_evaluations


def for_objective(session: Session) -> Session:
  """The session whose `statistics.kind` is the one that the objective needs."""
  config = session.config.copy_and_resolve_references()
  config.statistics.kind = builders.objectives.of(config).statistics
  return session.with_config(config)


def in_reach(t: np.ndarray | jax.Array, section: Any) -> np.ndarray | jax.Array:
  """Which times have an s that `section`, with s_min, gap and zeta, lets be drawn."""
  return objectives.in_reach(t, s_min=section.s_min, zeta=section.zeta, gap=section.gap)


def require_reach(t: np.ndarray, section: Any, place: Any) -> None:
  """Refuses settings for which no stored time could be drawn.

  Args:
    t: stored times.
    section: as in `in_reach`.
    place: where the statistics are, for the message.
  """
  if not np.any(in_reach(t, section)):
    raise errors.InputError(
      f'guidance.gap={section.gap}: with s_min={section.s_min} and zeta={section.zeta},'
      f' no time of {place} is in reach; collect more data or widen the range.'
    )
