"""A work directory: what is where, and that nothing else is there.

denoiser/           Orbax steps of the base model
statistics/KIND/    shards of one pass of it over the training data
guidance/NAME/      Orbax steps of each learned weight
fid/                features and rows of `experiments.fid`
clip/MODEL/         Orbax steps of a small CLIP, that rewards or judges
compare/            results and figures of compare
configs/            the resolved config of every command and stage, to be read
sweep/              table, figures and chosen setting of a sweep
metrics.jsonl       one line per logging window of every stage
tensorboard/        the same for TensorBoard
results.json|md     of evaluate
plots/  samples/    of evaluate and sample
unfinished/COMMAND/ pieces of a run that was cut short, until the command is done
lock                held by the run that is in it
"""

import os
import re

from etils import epath

from experiments import launch
from experiments import locking
from lgd import checkpointing
from lgd import files

# All that experiments write; anything else makes a directory foreign.
_ENTRIES = (
  'clip',
  'compare',
  'configs',
  'denoiser',
  'fid',
  'guidance',
  locking.FILE_NAME,
  'metrics.jsonl',
  'plots',
  'results.json',
  'results.md',
  'samples',
  'statistics',
  'sweep',
  'tensorboard',
  'unfinished',
)
_HALF = '.partial'  # What a process leaves that is killed while it writes.


class Workdir:
  """Paths of one experiment."""

  def __init__(self, path: epath.PathLike):
    self.path = files.user_path(path)
    self.denoiser = self.path / 'denoiser'

  def guidance(self, name: str) -> epath.Path:
    """Of the learned weight `name`."""
    return self._entry('guidance', name)

  def clip(self, model: str) -> epath.Path:
    """Of the small CLIP that is a reward, or a judge."""
    return self._entry('clip', model)

  def statistics(self, name: str) -> epath.Path:
    """Of a statistics pass."""
    return self._entry('statistics', name)

  def _entry(self, folder, name):
    """Names come from flags and from files: none leads out of its folder."""
    if name in ('', '.', '..') or not {'/', '\\', '\0'}.isdisjoint(name):
      raise launch.UserError(
        f'{name!r}: names a directory of {self.path / folder}, so it must have no'
        ' slash and be none of . and ..'
      )
    return self.path / folder / name

  def unfinished(self, command: str) -> epath.Path:
    """Of the pieces that a command keeps until its results are written."""
    return self.path / 'unfinished' / command

  def refuse_foreign(self) -> None:
    """Raises launch.UserError if this is a file, or a directory of something else."""
    self._require_place()
    if not self.path.exists():
      return
    names = sorted(p.name for p in self.path.iterdir())
    foreign = [name for name in names if name.removesuffix(_HALF) not in _ENTRIES]
    if foreign:
      raise launch.UserError(
        f'--workdir={self.path}: holds {foreign[0]!r}, which no experiment writes;'
        ' give a new directory.'
      )

  def _require_place(self) -> None:
    """Raises launch.UserError where no directory is that takes files, nor can be."""
    if files.is_local(self.path) and '\\' in os.fspath(self.path):
      raise launch.UserError(
        f'--workdir={self.path}: checkpoints below a name with a backslash cannot be'
        ' read; give another.'
      )
    try:
      files.require_writable(self.path)
    except files.FileError as error:
      raise launch.UserError(f'--workdir={error}') from error

  def guidance_names(self) -> list[str]:
    """Learned weights that have a checkpoint, by letters and numbers in their order."""
    root = self.path / 'guidance'
    if not root.is_dir():
      return []
    names = [p.name for p in root.iterdir() if checkpointing.latest_step(p) is not None]

    def parts(name):  # Of letters and numbers, in turn.
      split = re.split(r'(\d+(?:\.\d+)?)', name)
      return [float(x) if i % 2 else x for i, x in enumerate(split)]

    return sorted(names, key=parts)
