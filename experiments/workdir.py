"""A work directory: what is where, and whether it belongs to a config.

denoiser/           Orbax steps of the base model
statistics/KIND/    shards of one pass of it over the training data
guidance/NAME/      Orbax steps of each learned weight
fid/                features and rows of `experiments.fid`
clip/MODEL/         Orbax steps of a small CLIP, that rewards or judges
sweep/              table, figures and chosen setting of a sweep
metrics.jsonl       one line per logging window of every stage
tensorboard/        the same for TensorBoard
results.json|md     of evaluate
plots/  samples/    of evaluate and sample
"""

from typing import Any

from etils import epath
from ml_collections import config_dict

from configs import common
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
    """Learned weights that have a checkpoint, in alphabetical order."""
    root = self.path / 'guidance'
    if not root.is_dir():
      return []
    return sorted(
      p.name for p in root.iterdir() if checkpointing.latest_step(p) is not None
    )


def config_to_json(config: config_dict.ConfigDict, *sections: str) -> dict[str, Any]:
  """The sections of a config that determine a checkpoint."""
  tree = checkpointing.to_json(config.to_dict())
  return {name: tree[name] for name in sections}


def config_from_json(tree: dict[str, Any]) -> config_dict.ConfigDict:
  """The inverse: lists are tuples, and keys that the file lacks have their default."""

  def convert(node):
    if isinstance(node, dict):
      return {k: convert(v) for k, v in node.items()}
    return tuple(node) if isinstance(node, list) else node

  config = common.get_default()
  config.update(convert(tree))
  return config


def load_weak_config(rule: config_dict.ConfigDict) -> config_dict.ConfigDict:
  """The whole config that the weak model of a section `rule` was trained with.

  Raises:
    launch.UserError: there is none in `rule.weak_workdir`.
  """
  weak = Workdir(rule.weak_workdir)
  if checkpointing.latest_step(weak.denoiser) is None:
    raise launch.UserError(
      f'rule.weak_workdir={rule.weak_workdir!r}: holds no trained base model; give the'
      ' work directory of one, as by --config.rule.weak_workdir=DIR.'
    )
  return load_denoiser_config(weak)


def load_denoiser_config(workdir: Workdir) -> config_dict.ConfigDict:
  """The whole config that the base model was trained with."""
  if checkpointing.latest_step(workdir.denoiser) is None:
    raise launch.UserError(
      f'--workdir={workdir.path}: holds no trained base model; run'
      ' python -m experiments.train_denoiser --config=configs/NAME.py'
      f' --workdir={workdir.path} first.'
    )
  return config_from_json(checkpointing.load_config(workdir.denoiser)['config'])


def load_clip_config(workdir: Workdir, model: str) -> config_dict.ConfigDict:
  """The whole config that a CLIP was trained with.

  Raises:
    launch.UserError: none was trained here.
  """
  path = workdir.clip(model)
  if checkpointing.latest_step(path) is None:
    raise launch.UserError(
      f'{path}: holds no CLIP; run python -m experiments.train_clip with'
      f' --model={model} first.'
    )
  return config_from_json(checkpointing.load_config(path)['config'])
