"""The rules of `validation.py` for what trains: networks, their updates, devices."""

import math

from ml_collections import config_dict

from experiments import config_checks
from experiments import datasets
from experiments import encoded


def validate_training(
  config: config_dict.ConfigDict, check: config_checks.Checks
) -> None:
  """What trainers share, and the networks of the base model and of the small CLIP."""
  for key in ('log_every', 'checkpoint_every'):
    check.positive(key)
  for section in ('denoiser', 'guidance', 'clip'):
    for key in ('width', 'batch_size', 'num_steps', 'learning_rate', 'grad_clip'):
      check.positive(f'{section}.{key}')
    check(f'{section}.warmup_steps', lambda v: v >= 0, 'must not be negative.')
    check.fraction(f'{section}.adam_b2')
    check.positive(f'{section}.num_microbatches')
    check(
      f'{section}.num_microbatches',
      lambda v, section=section: config[section].batch_size % v == 0,
      f'must divide {section}.batch_size={config[section].batch_size}.',
    )
    check.fraction(f'{section}.ema_decay')
    _validate_average(check, section, config[section].num_steps)
  check.positive('mesh.fsdp')
  _validate_clip(config, check)
  _validate_network(config, check)
  check(
    'denoiser.label_dropout',
    lambda v: 0.0 < v < 1.0,
    'must be in (0, 1): without dropped labels the null prediction is untrained.',
  )


def _validate_average(check, section, num_steps) -> None:
  """That the average of the parameters is more of the training than of its start."""
  # Of the start a hundredth is left with this, to three digits.
  enough = math.floor(0.01 ** (1.0 / max(num_steps, 1)) * 1000.0) / 1000.0
  check(
    f'{section}.ema_decay',
    lambda v: num_steps < 1 or v**num_steps <= 0.5,
    f'after {section}.num_steps={num_steps} more than half of the average, which every'
    f' command uses, would be the untrained start; use --config.{section}.ema_decay='
    f'{enough:.3g}.',
  )


def _validate_network(
  config: config_dict.ConfigDict, check: config_checks.Checks
) -> None:
  """The base model's network and the weighting of its loss."""
  section = config.denoiser
  check.one_of('denoiser.network', ('mlp', 'unet', 'mmdit'))
  for key in (
    'depth', 'channels', 'num_blocks', 'patch_size', 'text_width', 'text_depth'
  ):  # fmt: skip
    check.positive(f'denoiser.{key}')
  check.numbers(
    'denoiser.multipliers',
    lambda v: isinstance(v, int) and v >= 1,
    'that are positive integers',
  )
  check(
    'denoiser.attention_sizes',
    lambda v: all(isinstance(x, int) and x > 0 for x in v),
    'must be a tuple of resolutions, as in'
    ' --config.denoiser.attention_sizes="(16, 8)".',
  )
  check('denoiser.head_dim', lambda v: v > 0 and v % 4 == 0, 'must be a multiple of 4.')
  if section.network == 'unet':
    _validate_unet(config, check)
  has_prompts = config.data.name == 'pairs' or encoded.is_captioned(config)
  check(
    'denoiser.network',
    lambda v: (v == 'mmdit') == has_prompts,
    "'mmdit' reads prompts, and no other network does; data.name="
    f'{config.data.name!r} has {"some" if has_prompts else "none"}.',
  )
  if section.network == 'mmdit':
    check(
      'denoiser.patch_size',
      lambda v: v > 0 and datasets.spec(config).shape[0] % v == 0,
      f'must divide the side of data, {datasets.spec(config).shape[0]}.',
    )
    for key in ('width', 'text_width'):
      check(
        f'denoiser.{key}',
        lambda v: v % section.head_dim == 0,
        f'must be a multiple of denoiser.head_dim={section.head_dim}.',
      )
  check('denoiser.clip', lambda v: v >= 0.0, 'must not be negative; 0.0 clips nothing.')
  check.one_of('denoiser.dtype', ('float32', 'bfloat16'))
  check.one_of('denoiser.weighting', ('uniform', 'sigmoid'))


def _validate_unet(config: config_dict.ConfigDict, check: config_checks.Checks) -> None:
  """That the network can be made for the data."""
  section, shape = config.denoiser, datasets.spec(config).shape
  check(
    'denoiser.network',
    lambda v: len(shape) == 3,
    f'is for images; data.name={config.data.name!r} has none; use'
    ' --config.denoiser.network=mlp.',
  )
  check(
    'denoiser.multipliers',
    lambda v: shape[0] % 2 ** (len(v) - 1) == 0,
    f'the side of data, {shape[0]}, must halve between all of them; give fewer.',
  )
  sizes = [shape[0] // 2**i for i in range(len(section.multipliers))]
  check(
    'denoiser.attention_sizes',
    lambda v: set(v) <= set(sizes),
    f'must be sizes of its levels, {sizes}; others would have no attention.',
  )
  if section.attention_sizes:
    check(
      'denoiser.head_dim',
      lambda v: section.channels % v == 0,
      f'must divide denoiser.channels={section.channels}.',
    )


def _validate_clip(config: config_dict.ConfigDict, check: config_checks.Checks) -> None:
  """The small CLIP."""
  for key in ('dim', 'patch_size', 'image_depth', 'text_depth', 'head_dim'):
    check.positive(f'clip.{key}')
  for key in ('noise', 'shift'):
    check(f'clip.{key}', lambda v: v >= 0, 'must not be negative.')
  head_dim, size = config.clip.head_dim, config.data.size
  check(
    'clip.width',
    lambda v: v % head_dim == 0,
    f'must be a multiple of clip.head_dim={head_dim}.',
  )
  if config.data.name == 'pairs':
    check('clip.patch_size', lambda v: size % v == 0, f'must divide data.size={size}.')
