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
from experiments import builders
from experiments import encoded
from experiments import launch
from lgd import checkpointing
from lgd import files

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


def base_identity(config: config_dict.ConfigDict) -> dict[str, Any]:
  """What makes one base model another."""
  return config_to_json(config, 'seed', 'schedule', 'data', 'denoiser')


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


def weak_identity(rule: config_dict.ConfigDict) -> dict[str, Any] | None:
  """Which weak model a section `rule` has, if it is of autoguidance; not where."""
  if rule.name != 'autoguidance':
    return None
  weak = Workdir(rule.weak_workdir)
  return {
    'base': base_identity(load_weak_config(rule)),
    'step': checkpointing.latest_step(weak.denoiser),
  }


def load_denoiser_config(workdir: Workdir) -> config_dict.ConfigDict:
  """The whole config that the base model was trained with."""
  if checkpointing.latest_step(workdir.denoiser) is None:
    raise launch.UserError(
      f'--workdir={workdir.path}: holds no trained base model; run'
      ' python -m experiments.train_denoiser --config=configs/NAME.py'
      f' --workdir={workdir.path} first.'
    )
  return config_from_json(checkpointing.load_config(workdir.denoiser)['config'])


def guidance_identity(
  workdir: Workdir,
  config: config_dict.ConfigDict,
  *,
  num_steps: int,
  num_evaluations: int,
) -> dict[str, Any]:
  """What is stored with a learned weight.

  Args:
    workdir: with the base model.
    config: that the weight is learned with.
    num_steps: of the whole training.
    num_evaluations: denoiser evaluations that it takes.
  """
  return {
    'config': checkpointing.to_json(config.to_dict()),
    'base': base_identity(load_denoiser_config(workdir)),
    'denoiser_step': checkpointing.latest_step(workdir.denoiser),
    'weak': weak_identity(config.rule),
    'reward_model': reward_model_identity(workdir, config),
    'num_steps': num_steps,
    'num_evaluations': int(num_evaluations),
  }


def statistics_identity(
  workdir: Workdir, config: config_dict.ConfigDict
) -> dict[str, Any]:
  """What a statistics pass belongs to."""
  return {
    'seed': config.seed,
    'statistics': statistics_section(config),
    'rule': builders.rule_identity(config),
    **reward_identity(config),
    'reward_model': reward_model_identity(workdir, config),
    'base': base_identity(load_denoiser_config(workdir)),
    'denoiser_step': checkpointing.latest_step(workdir.denoiser),
    'weak': weak_identity(config.rule),
  }


def reward_identity(config: config_dict.ConfigDict) -> dict[str, Any]:
  """The reward, with the keys that decide what it is; not where its weights lie.

  Of a function of the user's only the name is known, not what it does.
  """
  if not config.reward.name:
    return {'reward': {'name': ''}}
  identity = config_to_json(config, 'reward')
  del identity['reward']['weights']
  if config.reward.name == 'classifier':
    keys = ('classifier_width', 'classifier_steps')
    identity['evaluation'] = {key: config.evaluation[key] for key in keys}
  return identity


def reward_model_identity(
  workdir: Workdir, config: config_dict.ConfigDict
) -> dict[str, Any] | None:
  """Which CLIP is the reward, if one is that `config` names."""
  if config.reward.name != 'clip':
    return None
  if encoded.is_captioned(config):
    return {'weights': files.sha256(config.reward.weights)}
  return clip_identity(workdir, 'reward')


def clip_identity(workdir: Workdir, model: str) -> dict[str, Any]:
  """How the CLIP of a work directory was trained, and how far."""
  stored = load_clip_config(workdir, model)
  return {
    **config_to_json(stored, 'seed', 'data', 'clip'),
    'step': checkpointing.latest_step(workdir.clip(model)),
  }


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


def statistics_section(config: config_dict.ConfigDict) -> dict[str, Any]:
  """The keys that decide what a pass holds; how it is cut into calls does not."""
  section = config_to_json(config, 'statistics')['statistics']
  unused = ('num_particles', 'antithetic')
  if config.statistics.kind == 'particles':
    unused = ('group_size',)
  return {k: v for k, v in section.items() if k not in ('batch_size', *unused)}
