"""A work directory: what is where, and that nothing else is there.

denoiser/           Orbax steps of the base model
statistics/KIND/    shards of one pass of it over the training data
guidance/NAME/      Orbax steps of each learned weight
fid/                features and rows of `experiments.fid`
clip/MODEL/         Orbax steps of a small CLIP, that rewards or judges
compare/            results and figures of compare
sweep/              table, figures and chosen setting of a sweep
metrics.jsonl       one line per logging window of every stage
tensorboard/        the same for TensorBoard
results.json|md     of evaluate
plots/  samples/    of evaluate and sample
"""

import re

from etils import epath

from experiments import launch
from lgd import checkpointing

# All that experiments write; anything else makes a directory foreign.
_ENTRIES = (
  'clip',
  'compare',
  'denoiser',
  'fid',
  'guidance',
  'metrics.jsonl',
  'plots',
  'results.json',
  'results.md',
  'samples',
  'statistics',
  'sweep',
  'tensorboard',
)


class Workdir:
  """Paths of one experiment."""

  def __init__(self, path: epath.PathLike):
    self.path = epath.Path(path)
    self.denoiser = self.path / 'denoiser'

  def guidance(self, name: str) -> epath.Path:
    """Of the learned weight `name`."""
    return self.path / 'guidance' / name

  def clip(self, model: str) -> epath.Path:
    """Of the small CLIP that is a reward, or a judge."""
    return self.path / 'clip' / model

  def statistics(self, name: str) -> epath.Path:
    """Of a statistics pass."""
    return self.path / 'statistics' / name

  def refuse_foreign(self) -> None:
    """Raises launch.UserError if this is a file, or a directory of something else."""
    if not self.path.exists():
      return
    if not self.path.is_dir():
      raise launch.UserError(f'--workdir={self.path}: is a file; give a directory.')
    foreign = sorted(p.name for p in self.path.iterdir() if p.name not in _ENTRIES)
    if foreign:
      raise launch.UserError(
        f'--workdir={self.path}: holds {foreign[0]!r}, which no experiment writes;'
        ' give a new directory.'
      )

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
