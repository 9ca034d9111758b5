"""The layout of a work directory: what is where, and under which name.

denoiser/           Orbax steps of the base model
statistics/KIND/    shards of one pass of it over the training data
guidance/NAME/      Orbax steps of each learned weight
fid/                features and rows of `experiments.fid`
clip/MODEL/         Orbax steps of a small CLIP, that rewards or judges
compare/            results and figures of compare
configs/            the resolved config of every command and stage, to be read
verdicts/           NAME.json, the strength at which each learned weight is used
sweep/              table, figures and chosen setting of a sweep
metrics.jsonl       one line per logging window of every stage
tensorboard/        the same for TensorBoard
results.json|md     of evaluate
plots/  samples/    of evaluate and sample
unfinished/COMMAND/ pieces of a run that was cut short, until the command is done
lock                held by the run that is in it

NAME of a weight is made of objective, gamma, source, split, rule, and network or table;
KIND of a pass of kind, whether there is a reward, split and rule. The usual value adds
nothing to a name. Two results that differ in anything else have the same name: the
second is refused.
"""

import os
import re

from etils import epath
from ml_collections import config_dict

from experiments import app
from lgd import errors
from lgd.storage import files
from lgd.training import checkpoints

# All that experiments write; anything else makes a directory foreign.
_ENTRIES = (
  'clip',
  'compare',
  'configs',
  'denoiser',
  'fid',
  'guidance',
  app.locking.FILE_NAME,
  'metrics.jsonl',
  'plots',
  'results.json',
  'results.md',
  'samples',
  'statistics',
  'sweep',
  'tensorboard',
  'unfinished',
  'verdicts',
)
_HALF = '.partial'  # What a process leaves that is killed while it writes.


class Workdir:
  """Paths of one experiment."""

  def __init__(self, path: epath.PathLike):
    self.path = files.user_path(path)
    self.denoiser = self.path / 'denoiser'

  def guidance(self, name: str) -> epath.Path:
    """The directory of the learned weight `name`."""
    return self._entry('guidance', name)

  def clip(self, model: str) -> epath.Path:
    """The directory of the small CLIP that is a reward, or a judge."""
    return self._entry('clip', model)

  def verdict(self, name: str) -> epath.Path:
    """The file with the verdict of the learned weight `name`."""
    return self._entry('verdicts', f'{name}.json')

  def statistics(self, name: str) -> epath.Path:
    """The directory of a statistics pass."""
    return self._entry('statistics', name)

  def _entry(self, folder, name):
    """Names come from flags and from files: none leads out of its folder."""
    if name in ('', '.', '..') or not {'/', '\\', '\0'}.isdisjoint(name):
      raise errors.InputError(
        f'{name!r}: names a directory of {self.path / folder}, so it must have no'
        ' slash and be none of . and ..'
      )
    return self.path / folder / name

  def unfinished(self, command: str) -> epath.Path:
    """The directory of the pieces that a command keeps until it is done."""
    return self.path / 'unfinished' / command

  def refuse_foreign(self) -> None:
    """Raises errors.InputError if this is a file, or a directory of something else."""
    self._require_place()
    if not self.path.exists():
      return
    names = sorted(p.name for p in self.path.iterdir())
    foreign = [name for name in names if name.removesuffix(_HALF) not in _ENTRIES]
    if foreign:
      raise errors.InputError(
        f'--workdir={self.path}: holds {foreign[0]!r}, which no experiment writes;'
        ' give a new directory.'
      )

  def _require_place(self) -> None:
    """Raises errors.InputError where no directory is that takes files, nor can be."""
    if files.is_local(self.path) and '\\' in os.fspath(self.path):
      raise errors.InputError(
        f'--workdir={self.path}: checkpoints below a name with a backslash cannot be'
        ' read; give another.'
      )
    try:
      files.require_writable(self.path)
    except errors.FileError as error:
      raise errors.InputError(f'--workdir={error}') from error

  def guidance_names(self) -> list[str]:
    """Learned weights that have a checkpoint, by letters and numbers in their order."""
    root = self.path / 'guidance'
    if not root.is_dir():
      return []
    names = [p.name for p in root.iterdir() if checkpoints.latest_step(p) is not None]

    def parts(name):  # Of letters and numbers, in turn.
      split = re.split(r'(\d+(?:\.\d+)?)', name)
      return [float(x) if i % 2 else x for i, x in enumerate(split)]

    return sorted(names, key=parts)


def guidance_name(config: config_dict.ConfigDict) -> str:
  """The name of a learned weight, and of its directory."""
  section = config.guidance
  return section.objective + _gamma_suffix(section.gamma) + _guidance_suffix(config)


def without_gamma(name: str, gamma: float) -> str:
  """The part that names of weights which differ in gamma alone share."""
  return name.replace(_gamma_suffix(gamma), '', 1)


def guidance_stream(config: config_dict.ConfigDict) -> str:
  """Names its random draws, which weights that differ in gamma alone share."""
  return f'guidance/{config.guidance.objective}{_guidance_suffix(config)}'


def statistics_name(config: config_dict.ConfigDict) -> str:
  """The directory of a statistics pass."""
  reward = '_reward' if config.reward.name else ''
  return config.statistics.kind + reward + _split_suffix(config) + _rule_suffix(config)


def _guidance_suffix(config):
  section = config.guidance
  suffix = '_direct' if section.source == 'direct' else ''
  suffix += _split_suffix(config) + _rule_suffix(config)
  return suffix + ('_table' if section.weight == 'table' else '')


def _gamma_suffix(gamma):
  return f'_reward{gamma:g}' if gamma else ''


def _split_suffix(config):
  return '' if config.statistics.split == 'train' else f'_{config.statistics.split}'


def _rule_suffix(config):
  return '' if config.rule.name == 'linear' else f'_{config.rule.name}'
