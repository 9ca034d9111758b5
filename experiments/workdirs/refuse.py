"""Refuses what is stored and does not belong to a config, or to the models beside it.

Stored are models, statistics and learned weights. Each function compares what one says
of itself with what it would say if it were made now, and raises errors.InputError where
the two differ: one line with the first such key, both values and the way out.
"""

import re
from typing import Any

from etils import epath
from ml_collections import config_dict

from configs import common
from experiments import builders
from experiments.workdirs import configs
from experiments.workdirs import identity as identity_lib
from experiments.workdirs import layout
from lgd import errors
from lgd.training import checkpoints

# Keys that may differ between two calls on one work directory: they change when a
# run stops, what it prints, where it finds its data, how it reads and computes, and
# what becomes of updates that fail, not what it computes.
FREE_KEYS = (
  'log_every', 'checkpoint_every',
  'data.dir', 'data.file', 'data.encoded_dir', 'data.num_threads', 'data.num_workers',
  'denoiser.remat',
  *(
    f'{section}.{key}'
    for section in ('denoiser', 'guidance', 'clip')
    for key in ('num_steps', 'num_microbatches', 'skip_nonfinite')
  ),
)  # fmt: skip


# An identity has keys of the config of a model under the name of the model.
_OF_MODEL = re.compile(r'^(?:(?:weak|reward_model|prompt_model|base)\.)+')


def require_same(
  stored: dict[str, Any], wanted: dict[str, Any], path: epath.Path
) -> None:
  """Refuses a checkpoint that another config wrote, naming the first key.

  Keys that the checkpoint is older than had their default.
  """
  stored, wanted = _flatten(stored), _flatten(wanted)
  default = _flatten(configs.to_json(common.get_default()))
  for key in sorted(wanted):
    of_config = _OF_MODEL.sub('', key)
    if of_config in FREE_KEYS:
      continue
    old = stored.get(key, default.get(of_config))
    if old != wanted[key]:
      raise errors.InputError(
        f'{key}={wanted[key]!r}: {path} was written with {old!r}; use that value, or'
        ' another --workdir.'
      )


def require_base_of(
  workdir: layout.Workdir, config: config_dict.ConfigDict
) -> config_dict.ConfigDict:
  """The config stored with the base model, which must be that of `config`.

  Raises:
    errors.InputError: no base model here, or one of another config.
  """
  stored = configs.load_denoiser_config(workdir)
  wanted = identity_lib.base_identity(config)
  require_same(identity_lib.base_identity(stored), wanted, workdir.denoiser)
  return stored


def require_base(
  workdir: layout.Workdir,
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
    errors.InputError: it belongs elsewhere.
  """
  base = identity_lib.base_model_identity(workdir)
  require_same(stored['base'], base['base'], path)
  require_same(stored, {'encoded': base['encoded']}, path)
  step = base['denoiser_step']
  if stored['denoiser_step'] != step:
    raise errors.InputError(
      f'{path}: was made with the base model at step {stored["denoiser_step"]}, which'
      f' is now at step {step}; remove it and make it again.'
    )
  for clip in (stored.get('reward_model'), stored.get('prompt_model')):
    # Published weights do not change, and need not be at hand to sample.
    if clip is not None and 'weights' not in clip:
      now = identity_lib.clip_identity(workdir, 'reward')
      _require_same_model('CLIP that rewards', clip, now, path)
  weak = identity_lib.weak_identity(rule)
  if weak is not None:
    _require_same_model('weak model', stored['weak'], weak, path)


def _require_same_model(name, stored, wanted, path):
  try:
    require_same(stored, wanted, path)
  except errors.InputError as error:
    raise errors.InputError(f'of the {name}, {error}') from error


def require_steps(path: epath.Path, step: int, num_steps: int, stage: str) -> None:
  """Refuses a training that is beyond the steps that are asked for.

  Args:
    path: of the checkpoints.
    step: of the last of them.
    num_steps: asked for.
    stage: for the message.

  Raises:
    errors.InputError: `step` is more.
  """
  if step > num_steps:
    raise errors.InputError(
      f'{stage}: num_steps={num_steps}: {path} is at step {step} already, and every'
      ' command uses the last; use that number, or another --workdir.'
    )


def require_encoded(directory: epath.Path, config: config_dict.ConfigDict) -> None:
  """Refuses captions, embeddings or latents that a model was not trained on.

  Args:
    directory: of the model's steps.
    config: of the data.

  Raises:
    errors.InputError: they are of another encoder, or of other data.
  """
  stored = checkpoints.load_config(directory).get('encoded', {})
  try:
    require_same(stored, builders.data.encoded_identity(config), directory)
  except errors.InputError as error:
    key = 'file' if config.data.name == 'pairs' else 'encoded_dir'
    raise errors.InputError(
      f'data.{key}={config.data[key]!r}: is not what the model was trained on: {error}'
    ) from error


def require_statistics(workdir: layout.Workdir, config: config_dict.ConfigDict) -> None:
  """Refuses statistics of another config, base model, or step of it.

  Raises:
    errors.InputError: they belong elsewhere, or there are none.
  """
  directory = workdir.statistics(layout.statistics_name(config))
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
  require_base(workdir, stored, config.rule, directory)
  require_same_reward(stored, config, directory)
  require_same(stored, identity_lib.statistics_identity(workdir, config), directory)


def require_same_reward(
  stored: dict[str, Any], config: config_dict.ConfigDict, path: epath.Path
) -> None:
  """Refuses what was made with another reward, by its name before what it is made of.

  Raises:
    errors.InputError: as of `require_same`.
  """
  identity = identity_lib.reward_identity(config)
  require_same(stored, {'reward': identity.pop('reward')}, path)
  require_same(stored, identity, path)


def require_same_grid(
  stored: dict[str, Any], config: config_dict.ConfigDict, path: epath.Path
) -> None:
  """Refuses a table for another sampler.

  The number of steps is free elsewhere: here it makes another table.

  Raises:
    errors.InputError: one of other steps, start or churn.
  """
  for key in ('num_steps', 't_max', 'churn'):
    value, old = config.evaluation[key], stored['evaluation'][key]
    if value != old:
      raise errors.InputError(
        f'evaluation.{key}={value!r}: {path} was written with {old!r}; use that value,'
        ' or another --workdir.'
      )


def require_finished_base(
  workdir: layout.Workdir, config: config_dict.ConfigDict
) -> None:
  """Refuses to learn weights for a base model that is still being trained."""
  base = require_base_of(workdir, config)
  step = checkpoints.latest_step(workdir.denoiser)
  if step < base.denoiser.num_steps:
    raise errors.InputError(
      f'{workdir.denoiser}: is at step {step} of {base.denoiser.num_steps};'
      ' run train_denoiser again to finish it first.'
    )


def _flatten(tree: dict[str, Any], prefix: str = '') -> dict[str, Any]:
  flat = {}
  for key, value in tree.items():
    if isinstance(value, dict):
      flat.update(_flatten(value, f'{prefix}{key}.'))
    else:
      flat[f'{prefix}{key}'] = value
  return flat
