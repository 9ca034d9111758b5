"""Refuses what is stored and does not belong to a config, or to the models beside it.

Models, statistics and learned weights are stored with their identity. What it would be
if they were made now comes from `identity`; `require_same` compares the two.
"""

import re
from typing import Any

from etils import epath
from ml_collections import config_dict

from configs import common
from experiments import builders
from experiments.workdirs import configs
from experiments.workdirs import identity as identity_lib
from experiments.workdirs.session import Session
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
  """Refuses what another config made, naming the first key of `wanted` that differs.

  Keys that are younger than what is stored had their default.

  Raises:
    errors.InputError: there is such a key.
  """
  stored, default = _flatten(stored), _flatten(configs.to_json(common.get_default()))
  for key, value in _flatten(wanted).items():
    of_config = _OF_MODEL.sub('', key)
    if of_config in FREE_KEYS:
      continue
    old = stored.get(key, default.get(of_config))
    if old != value:
      raise errors.InputError(
        f'{key}={value!r}: {path} was written with {old!r}; use that value, or another'
        ' --workdir.'
      )


def require_base_of(session: Session) -> config_dict.ConfigDict:
  """The config stored with the base model, which must be that of the session.

  Raises:
    errors.InputError: no base model here, or one of another config.
  """
  stored = configs.load_denoiser_config(session.workdir)
  wanted = identity_lib.base_identity(session.config)
  require_same(identity_lib.base_identity(stored), wanted, session.workdir.denoiser)
  return stored


def require_made_here(
  session: Session, stored: dict[str, Any], path: epath.Path
) -> None:
  """Refuses what was made with another base, weak or reward model, or another step.

  Args:
    session: with the base model; its config says where the weak model is.
    stored: what a learned weight or a statistics pass says of itself.
    path: of what is stored.

  Raises:
    errors.InputError: it belongs elsewhere.
  """
  base = identity_lib.base_model_identity(session.workdir)
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
      now = identity_lib.clip_identity(session.workdir, 'reward')
      _require_same_model('CLIP that rewards', clip, now, path)
  weak = identity_lib.weak_identity(session.config.rule)
  if weak is not None:
    _require_same_model('weak model', stored['weak'], weak, path)


def _require_same_model(name, stored, wanted, path):
  try:
    require_same(stored, wanted, path)
  except errors.InputError as error:
    raise errors.InputError(f'of the {name}, {error}') from error


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


def _flatten(tree: dict[str, Any], prefix: str = '') -> dict[str, Any]:
  flat = {}
  for key, value in tree.items():
    if isinstance(value, dict):
      flat.update(_flatten(value, f'{prefix}{key}.'))
    else:
      flat[f'{prefix}{key}'] = value
  return flat
