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
from experiments import datasets
from experiments import encoded
from experiments import launch
from experiments import statistics_files
from lgd import checkpointing
from lgd import files

# Keys that may differ between two calls on one work directory: they change when a
# run stops, what it prints and where it finds its data, not what it computes.
FREE_KEYS = (
  'num_steps', 'num_microbatches', 'log_every', 'checkpoint_every', 'dir', 'file',
  'encoded_dir',
)  # fmt: skip

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


def require_same(
  stored: dict[str, Any], wanted: dict[str, Any], path: epath.Path
) -> None:
  """Refuses a checkpoint that another config wrote, naming the first key.

  Keys that the checkpoint is older than had their default.
  """
  stored, wanted = _flatten(stored), _flatten(wanted)
  default = _flatten(checkpointing.to_json(common.get_default().to_dict()))
  for key in sorted(wanted):
    if key.split('.')[-1] in FREE_KEYS:
      continue
    old = stored.get(key, default.get(key.removeprefix('base.')))
    if old != wanted[key]:
      raise launch.UserError(
        f'{key}={wanted[key]!r}: {path} was written with {old!r}; use that value, or'
        ' another --workdir.'
      )


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


def require_base_of(
  workdir: Workdir, config: config_dict.ConfigDict
) -> config_dict.ConfigDict:
  """The config stored with the base model, which must be that of `config`.

  Raises:
    launch.UserError: no base model here, or one of another config.
  """
  stored = load_denoiser_config(workdir)
  require_same(base_identity(stored), base_identity(config), workdir.denoiser)
  return stored


def require_encoded(directory: epath.Path, config: config_dict.ConfigDict) -> None:
  """Refuses captions, embeddings or latents that a model was not trained on.

  Args:
    directory: of the model's steps.
    config: of the data.

  Raises:
    launch.UserError: they are of another encoder, or of other data.
  """
  stored = checkpointing.load_config(directory).get('encoded', {})
  try:
    require_same(stored, datasets.encoded_identity(config), directory)
  except launch.UserError as error:
    key = 'file' if config.data.name == 'pairs' else 'encoded_dir'
    raise launch.UserError(
      f'data.{key}={config.data[key]!r}: is not what the model was trained on: {error}'
    ) from error


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


def require_same_reward(
  stored: dict[str, Any], config: config_dict.ConfigDict, path: epath.Path
) -> None:
  """Refuses what was made with another reward, by its name before what it is made of.

  Raises:
    launch.UserError: as of `require_same`.
  """
  identity = reward_identity(config)
  require_same(stored, {'reward': identity.pop('reward')}, path)
  require_same(stored, identity, path)


def statistics_section(config: config_dict.ConfigDict) -> dict[str, Any]:
  """The keys that decide what a pass holds; how it is cut into calls does not."""
  section = config_to_json(config, 'statistics')['statistics']
  unused = ('num_particles', 'antithetic')
  if config.statistics.kind == 'particles':
    unused = ('group_size',)
  return {k: v for k, v in section.items() if k not in ('batch_size', *unused)}


def require_same_grid(
  stored: dict[str, Any], config: config_dict.ConfigDict, path: epath.Path
) -> None:
  """Refuses a table for another sampler.

  The number of steps is free elsewhere: here it makes another table.

  Raises:
    launch.UserError: one of other steps, start or churn.
  """
  for key in ('num_steps', 't_max', 'churn'):
    value, old = config.evaluation[key], stored['evaluation'][key]
    if value != old:
      raise launch.UserError(
        f'evaluation.{key}={value!r}: {path} was written with {old!r}; use that value,'
        ' or another --workdir.'
      )


def require_statistics(workdir: Workdir, config: config_dict.ConfigDict) -> None:
  """Refuses statistics of another config, base model, or step of it.

  Raises:
    launch.UserError: they belong elsewhere, or there are none.
  """
  directory = workdir.statistics(builders.statistics_name(config))
  if not (directory / 'config.json').exists():
    flags = [f'--config.statistics.kind={config.statistics.kind}']
    if config.rule.name != 'linear':
      flags.append(f'--config.rule.name={config.rule.name}')
    if config.reward.name:
      flags.append(f'--config.reward.name={config.reward.name}')
    raise launch.UserError(
      f'{directory}: holds no statistics; run python -m experiments.collect_statistics'
      f' with {" ".join(flags)} first.'
    )
  stored = statistics_files.read_config(directory)
  require_base(workdir, stored, config.rule, directory)
  require_same_reward(stored, config, directory)
  require_same(stored, statistics_identity(workdir, config), directory)


def require_base(
  workdir: Workdir,
  stored: dict[str, Any],
  rule: config_dict.ConfigDict,
  path: epath.Path,
) -> None:
  """Refuses what was made with another base, weak or reward model, or another step.

  Args:
    workdir: with the base model.
    stored: what a learned weight or a statistics pass says of itself.
    rule: the section, with the place of the weak model.
    path: of what is stored.

  Raises:
    launch.UserError: it belongs elsewhere.
  """
  require_same(stored['base'], base_identity(load_denoiser_config(workdir)), path)
  step = checkpointing.latest_step(workdir.denoiser)
  if stored['denoiser_step'] != step:
    raise launch.UserError(
      f'{path}: was made with the base model at step {stored["denoiser_step"]}, which'
      f' is now at step {step}; remove it and make it again.'
    )
  reward_model = stored.get('reward_model')
  # Published weights do not change, and need not be at hand to sample.
  if reward_model is not None and 'weights' not in reward_model:
    require_same(reward_model, clip_identity(workdir, 'reward'), path)
  weak = weak_identity(rule)
  if weak is not None:
    try:
      require_same(stored['weak'], weak, path)
    except launch.UserError as error:
      raise launch.UserError(f'of the weak model, {error}') from error


def _flatten(tree: dict[str, Any], prefix: str = '') -> dict[str, Any]:
  flat = {}
  for key, value in tree.items():
    if isinstance(value, dict):
      flat.update(_flatten(value, f'{prefix}{key}.'))
    else:
      flat[f'{prefix}{key}'] = value
  return flat
