"""The rules that a config must keep, checked before anything is computed or written."""

import functools
import itertools
import math
import re
from collections.abc import Callable
from typing import Any

from etils import epath
from ml_collections import config_dict

from experiments import builders
from experiments import datasets
from experiments import encoded
from experiments import launch
from experiments import methods
from lgd import noising
from lgd.data import catalog
from lgd.data import embeddings


def require_learnable(config: config_dict.ConfigDict) -> None:
  """Refuses a rule that weights cannot be learned for.

  Raises:
    launch.UserError: it is not linear in omega.
  """
  if config.rule.name not in builders.LEARNABLE_RULES:
    raise launch.UserError(
      f'rule.name={config.rule.name!r}: weights are learned for the conditional'
      ' prediction and a direction times omega, as of'
      f' {", ".join(builders.LEARNABLE_RULES)}; use one of them.'
    )


def require_prompts(config: config_dict.ConfigDict) -> None:
  """Refuses data without captions.

  Raises:
    launch.UserError: its conditions are no prompts.
  """
  if config.data.name != 'pairs':
    raise launch.UserError(
      f"data.name={config.data.name!r}: has no captions; use 'pairs'."
    )


def validate(config: config_dict.ConfigDict) -> None:
  """Checks every rule before anything is computed or written.

  Raises:
    launch.UserError: one line with key, value, rule and way out.
  """

  def check(key: str, holds: Callable[[Any], bool], rule: str) -> None:
    value = functools.reduce(lambda node, name: node[name], key.split('.'), config)
    if not holds(value):
      raise launch.UserError(f'{key}={value!r}: {rule}')

  def positive(key):
    check(key, lambda v: v > 0, 'must be positive.')

  def fraction(key):
    check(key, lambda v: 0.0 <= v < 1.0, 'must be in [0, 1).')

  def one_of(key, names):
    check(key, lambda v: v in names, f'must be one of {", ".join(names)}.')

  def numbers(key, holds, rule):
    check(
      key,
      lambda v: (
        len(v) > 0
        and all(isinstance(x, (int, float)) for x in v)
        and all(holds(x) for x in v)
      ),
      f'must be a tuple of numbers {rule}, as in --config.{key}="(0.5, 1.0)".',
    )

  one_of('schedule', builders.SCHEDULES)
  one_of('data.name', datasets.NAMES)
  one_of('denoiser.prediction', noising.PREDICTIONS)
  one_of('rule.name', builders.PAIR_RULES)
  if config.rule.name == 'autoguidance':
    check('rule.weak_workdir', bool, 'must hold a less trained base model.')
  one_of('guidance.objective', builders.OBJECTIVES)
  check('rule.apg_eta', lambda v: 0.0 <= v <= 1.0, 'must be in [0, 1].')
  positive('rule.apg_max_norm')
  check('rule.apg_momentum', lambda v: -1.0 < v < 1.0, 'must be in (-1, 1).')
  check('rule.power', lambda v: 0.0 <= v <= 1.0, 'must be in [0, 1].')
  positive('rule.num_particles')
  check('seed', lambda v: v >= 0, 'must not be negative.')
  _validate_data(config, check, positive)
  _validate_reward(config, check, numbers)
  for key in ('log_every', 'checkpoint_every'):
    positive(key)
  for section in ('denoiser', 'guidance', 'clip'):
    for key in ('width', 'batch_size', 'num_steps', 'learning_rate', 'grad_clip'):
      positive(f'{section}.{key}')
    check(f'{section}.warmup_steps', lambda v: v >= 0, 'must not be negative.')
    fraction(f'{section}.adam_b2')
    positive(f'{section}.num_microbatches')
    check(
      f'{section}.num_microbatches',
      lambda v, section=section: config[section].batch_size % v == 0,
      f'must divide {section}.batch_size={config[section].batch_size}.',
    )
    fraction(f'{section}.ema_decay')
  positive('mesh.fsdp')
  _validate_clip(config, check, positive)
  _validate_network(config, check, positive, numbers, one_of)
  check(
    'denoiser.label_dropout',
    lambda v: 0.0 < v < 1.0,
    'must be in (0, 1): without dropped labels the null prediction is untrained.',
  )
  one_of('guidance.source', ('statistics', 'direct'))
  one_of('guidance.weight', ('network', 'table'))
  if config.guidance.weight == 'table':
    check(
      'guidance.objective',
      lambda v: v in ('l2', 'score_matching') and config.guidance.source != 'direct',
      'only l2 and score_matching have a closed form, from statistics; use'
      ' --config.guidance.weight=network.',
    )
  positive('guidance.num_bins')
  _validate_statistics(config, check, positive, one_of)
  _validate_trajectory(check, positive, fraction, one_of)
  _validate_sweep(config, check, positive, numbers)
  _validate_compare(check, one_of, numbers)
  check('guidance.depth', lambda v: v >= 2, 'needs an input and an output layer.')
  positive('guidance.num_particles')
  check(
    'guidance.beta',
    lambda v: 0.0 < v < 2.0,
    "must be in (0, 2); beta 2 without interaction is guidance.objective='l2'.",
  )
  check('guidance.interaction', lambda v: 0.0 <= v <= 1.0, 'must be in [0, 1].')
  if (
    config.guidance.objective == 'self_consistency'
    and config.guidance.interaction > 0.0
  ):
    check(
      'guidance.num_particles',
      lambda v: v >= 2,
      'the sum over pairs needs at least 2; use --config.guidance.interaction=0.0'
      ' for single-particle training.',
    )
  check('guidance.churn', lambda v: 0.0 <= v <= 1.0, 'must be in [0, 1].')
  check('guidance.gap', lambda v: 0.0 < v < 1.0, 'must be in (0, 1).')
  fraction('guidance.s_min')
  fraction('guidance.zeta')
  check(
    'guidance.gap',
    lambda v: config.guidance.s_min + v + config.guidance.zeta <= 1.0,
    f'with s_min={config.guidance.s_min} and zeta={config.guidance.zeta} no s is'
    ' left: s_min + gap + zeta must be at most 1.',
  )
  _validate_evaluation(config, check, positive, one_of, numbers)


def _validate_data(config, check, positive) -> None:
  """The data, and what their conditions allow."""
  _validate_encoded(config, check, positive)
  check('data.num_classes', lambda v: v >= 2, 'guidance needs at least 2 classes.')
  check('data.num_per_class', lambda v: v >= 2, 'needs at least 2 for a distance.')
  check(
    'data.dir',
    lambda v: not v or epath.Path(v).expanduser().is_dir(),
    "no such directory; it is where TFDS keeps its data sets, '' for its default.",
  )
  for key in ('num_threads', 'num_workers'):
    check(f'data.{key}', lambda v: v >= 0, 'must not be negative.')
  check(
    'data.flip',
    lambda v: not v or len(datasets.spec(config).shape) == 3,
    f'mirrors images; data.name={config.data.name!r} has none.',
  )
  known = catalog.ATTRIBUTES if config.data.name == 'celeb_a' else ()
  check(
    'data.attributes',
    lambda v: set(v) <= set(known) and len(set(v)) == len(v),
    f'must be different ones of {known}, of celeb_a alone.',
  )
  check(
    'data.file',
    lambda v: (
      epath.Path(v).expanduser().is_file() if v else config.data.name != 'pairs'
    ),
    "no such file; it is the npz of data.name='pairs', with image [n, height, width, 3]"
    ' uint8 and caption [n], as in --config.data.file=FILE.npz.',
  )
  positive('data.size')
  check('data.vocab_size', lambda v: v >= 259, 'must hold all bytes: at least 259.')
  check('data.caption_length', lambda v: v >= 3, 'needs a start, a token and an end.')
  if datasets.spec(config).conditions.num_classes is None:
    no_classes = (
      'prompts and vectors of attributes make no classes; choose another value, or some'
      " attributes, as in --config.data.attributes=\"('Male', 'Smiling')\"."
    )
    check('fid.labels', lambda v: v != 'balanced', no_classes)
    check('guidance.weight', lambda v: v == 'network', no_classes)
    check('guidance.objective', lambda v: v != 'class_marginal', no_classes)
    check('statistics.kind', lambda v: v != 'class_groups', no_classes)
  check('data.dim', lambda v: v >= 2, 'a sphere of means needs at least 2.')
  for key in ('radius', 'std', 'components'):
    positive(f'data.{key}')


def _validate_reward(config, check, numbers) -> None:
  """The reward, what it is learned with, and `experiments.frontier`."""
  section, guidance = config.reward, config.guidance
  check(
    'reward.name',
    lambda v: v in ('', *builders.REWARDS) or re.fullmatch(r'[\w.]+:\w+', v),
    f"must be {', '.join(builders.REWARDS)}, or 'module:function' of yours.",
  )
  if section.name == 'classifier':
    check(
      'reward.name',
      lambda v: datasets.spec(config).conditions.num_classes is not None,
      'vectors of all attributes make no classes; choose some, as in'
      " --config.data.attributes=\"('Male', 'Smiling')\", or give a function.",
    )
  if section.name == 'clip':
    check(
      'reward.name',
      lambda v: config.data.name == 'pairs' or encoded.is_captioned(config),
      f'scores captions; data.name={config.data.name!r} has none.',
    )
  _validate_reward_weights(section, check, encoded.is_captioned(config))
  numbers('reward.nodes', lambda v: 0.0 <= v < math.inf, 'at least 0')
  check(
    'reward.nodes',
    lambda v: (
      len(v) >= 2 and v[0] == 0.0 and all(a < b for a, b in itertools.pairwise(v))
    ),
    'must start at 0 and increase, and needs at least 2.',
  )
  check('guidance.gamma', lambda v: 0.0 <= v < math.inf, 'must be finite and >= 0.')
  named = 'needs a reward; name one, as in --config.reward.name=classifier.'
  check('guidance.gamma', lambda v: v == 0.0 or section.name, named)
  if guidance.objective == 'reward':
    check('guidance.objective', lambda v: section.name, named)
    check(
      'guidance.gamma',
      lambda v: v == 0.0,
      "guidance.objective='reward' is the reward alone, with nothing to weigh it"
      ' against; leave gamma at 0.0.',
    )
  if guidance.weight == 'table':
    check(
      'guidance.gamma',
      lambda v: v == 0.0,
      'a table is a closed form without reward; use --config.guidance.weight=network.',
    )
  numbers('frontier.gammas', lambda v: 0.0 <= v < math.inf, 'at least 0')
  check(
    'frontier.gammas',
    lambda v: len({f'{gamma:g}' for gamma in v}) == len(v),
    'must differ in their first 6 digits, which name the weights.',
  )


def _validate_reward_weights(section, check, is_captioned) -> None:
  """Published weights, where the reward is of some."""
  if section.name == 'clip' and is_captioned:
    check(
      'reward.weights',
      lambda v: epath.Path(v).is_file(),
      'no such file; it must be the npz of experiments.convert_clip that captions were'
      ' embedded by, as in --config.reward.weights=clip.npz.',
    )
  else:
    check(
      'reward.weights',
      lambda v: not v,
      "is of reward.name='clip' and data.name='coco_captions/2014' alone, not of"
      f' {section.name!r} here; leave it out.',
    )


def _validate_encoded(config, check, positive) -> None:
  """Embeddings of captions, and latents of their images."""
  check(
    'data.encoders',
    lambda v: set(v) <= set(embeddings.ENCODERS) and len(set(v)) == len(v),
    f'must be different ones of {", ".join(embeddings.ENCODERS)}.',
  )
  is_captioned = encoded.is_captioned(config)
  check(
    'data.encoders',
    lambda v: bool(v) == is_captioned,
    f'data.name={config.data.name!r} has {"captions" if is_captioned else "none"};'
    ' give encoders for coco_captions/2014, as in'
    ' --config.data.encoders="(\'clip_l14\',)", and for nothing else.',
  )
  if is_captioned:
    check('data.in_memory', lambda v: not v, 'captioned images stay on disk.')
  if config.data.autoencoder:
    check('data.autoencoder', lambda v: is_captioned, 'is for captioned images alone.')
    check('data.flip', lambda v: not v, 'latents of mirrored images are not stored.')
  check(
    'data.latent_shape',
    lambda v: len(v) == 3 and v[0] == v[1] and min(v) >= 1,
    'must be (side, side, channels).',
  )


def _validate_evaluation(config, check, positive, one_of, numbers) -> None:
  """The sampler and its grids, and `experiments.fid`."""
  for key in ('num_seeds', 'num_steps', 'classifier_width', 'classifier_steps'):
    positive(f'evaluation.{key}')
  check(
    'evaluation.samples_per_class', lambda v: v >= 2, 'a distance needs at least 2.'
  )
  check('evaluation.num_prompts', lambda v: v >= 2, 'a distance needs at least 2.')
  positive('evaluation.plan_levels')
  check('evaluation.order', lambda v: v in (1, 2), 'must be 1 or 2.')
  check(
    'evaluation.order',
    lambda v: v == 1 or config.evaluation.churn == 0.0,
    f'the second order is of evaluation.churn=0.0, not {config.evaluation.churn}.',
  )
  check('evaluation.tolerance', lambda v: v >= 0.0, 'must not be negative.')
  check('evaluation.churn', lambda v: 0.0 <= v <= 1.0, 'must be in [0, 1].')
  check('evaluation.t_max', lambda v: 0.0 < v <= 1.0, 'must be in (0, 1].')
  if config.rule.name == 'power_normalized':
    check(
      'evaluation.t_max',
      lambda v: v < 1.0,
      "rule.name='power_normalized' acts on eps, which leaves x0 undetermined at t = 1;"
      ' start sampling at --config.evaluation.t_max=0.99.',
    )
  if config.denoiser.prediction == 'eps':
    check(
      'evaluation.t_max',
      lambda v: v < 1.0,
      "denoiser.prediction='eps' leaves x0 undetermined at t = 1; start sampling"
      ' at --config.evaluation.t_max=0.99.',
    )
    check(
      'guidance.zeta',
      lambda v: v > 0.0,
      "denoiser.prediction='eps' leaves x0 undetermined at t = 1; keep t below it by"
      ' --config.guidance.zeta=0.01.',
    )
  for key in ('num_samples', 'num_reference', 'batch_size', 'shard_size'):
    positive(f'fid.{key}')
  one_of('fid.labels', ('balanced', 'data', 'test'))
  one_of('fid.split', catalog.SPLITS)
  check('fid.kid_subset_size', lambda v: v >= 2, 'needs at least 2.')
  check('fid.num_neighbors_samples', lambda v: v >= 4, 'needs at least 4.')
  for key in ('constants', 'interval_omegas', 'clamp_linear_omegas'):
    numbers(f'evaluation.{key}', lambda v: v > 0.0, 'above 0')
  numbers('evaluation.kappas', lambda v: v > 0.0, 'above 0')
  numbers('evaluation.clamp_linear_floors', lambda v: v >= 0.0, 'at least 0')
  numbers('evaluation.interval_bounds', lambda v: 0.0 <= v <= 1.0, 'in [0, 1]')
  check(
    'evaluation.interval_bounds',
    lambda v: len(v) >= 2 and all(a < b for a, b in itertools.pairwise(v)),
    'needs at least 2 times in increasing order.',
  )


def _validate_network(config, check, positive, numbers, one_of) -> None:
  """The base model's network and the weighting of its loss."""
  section = config.denoiser
  one_of('denoiser.network', ('mlp', 'unet', 'mmdit'))
  for key in (
    'depth', 'channels', 'num_blocks', 'patch_size', 'text_width', 'text_depth'
  ):  # fmt: skip
    positive(f'denoiser.{key}')
  numbers(
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
  if section.network == 'unet' and section.attention_sizes:
    check(
      'denoiser.head_dim',
      lambda v: section.channels % v == 0,
      f'must divide denoiser.channels={section.channels}.',
    )
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
  one_of('denoiser.dtype', ('float32', 'bfloat16'))
  one_of('denoiser.weighting', ('uniform', 'sigmoid'))


def _validate_clip(config, check, positive) -> None:
  """The small CLIP."""
  for key in ('dim', 'patch_size', 'image_depth', 'text_depth', 'head_dim'):
    positive(f'clip.{key}')
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


def _validate_statistics(config, check, positive, one_of) -> None:
  """The statistics pass, and that the guidance to be learned can use it."""
  section, guidance = config.statistics, config.guidance
  one_of('statistics.kind', builders.STATISTICS)
  one_of('statistics.split', ('train', 'validation'))
  for key in ('num_data', 'num_particles', 'batch_size', 'shard_size'):
    positive(f'statistics.{key}')
  check('statistics.group_size', lambda v: v >= 2, 'a marginal needs at least 2.')
  for key in ('num_data', 'batch_size', 'shard_size'):
    check(
      f'statistics.{key}',
      lambda v: v % section.group_size == 0,
      f'must be a multiple of statistics.group_size={section.group_size}.',
    )
  check('statistics.t_max', lambda v: 0.0 < v <= 1.0, 'must be in (0, 1].')
  if config.denoiser.prediction == 'eps':
    check(
      'statistics.t_max',
      lambda v: v < 1.0,
      "denoiser.prediction='eps' leaves x0 undetermined at t = 1; stay below it by"
      ' --config.statistics.t_max=0.99.',
    )
  check('guidance.group_size', lambda v: v >= 2, 'a marginal needs at least 2.')
  if guidance.objective in builders.GROUPED:
    check(
      'guidance.batch_size',
      lambda v: v % guidance.group_size == 0,
      f'must be a multiple of guidance.group_size={guidance.group_size}.',
    )
  if guidance.source == 'statistics':
    check(
      'guidance.num_microbatches',
      lambda v: v == 1,
      'updates from statistics need no memory to speak of; leave it at 1.',
    )
    for key, stored in (('num_particles', 'particles'), ('group_size', 'members')):
      check(
        f'guidance.{key}',
        lambda v, key=key: v <= section[key],
        f'the statistics hold {section[key]} {stored}; use at most that many, or'
        f' collect with --config.statistics.{key}={guidance[key]}.',
      )
    check(
      'guidance.zeta',
      lambda v: 1.0 - v <= section.t_max + 1e-6,
      f'the statistics have no t above statistics.t_max={section.t_max}; zeta must be'
      ' at least 1 - t_max.',
    )


def _validate_trajectory(check, positive, fraction, one_of) -> None:
  """The search along trajectories."""
  one_of('trajectory.distance', ('pixels', 'features'))
  one_of('trajectory.reference', ('validation', 'train'))
  for key in ('num_references', 'num_particles', 'num_candidates'):
    check(f'trajectory.{key}', lambda v: v >= 2, 'needs at least 2.')
  for key in (
    'num_repeats', 'omega_max', 'classifier_width', 'classifier_steps', 'fit_steps'
  ):  # fmt: skip
    positive(f'trajectory.{key}')
  fraction('trajectory.memory')
  fraction('trajectory.lookahead')
  check('trajectory.lookahead_churn', lambda v: 0.0 <= v <= 1.0, 'must be in [0, 1].')
  check('trajectory.beta', lambda v: 0.0 < v < 2.0, 'must be in (0, 2).')


def _validate_compare(check, one_of, numbers) -> None:
  """The comparison of methods."""
  check(
    'compare.methods',
    lambda v: set(v) <= set(methods.FAMILIES),
    f'must be some of {tuple(methods.FAMILIES)}.',
  )
  for key in ('compare.omegas', 'compare.rates'):
    numbers(key, lambda v: 0.0 < v < math.inf, 'above 0')
  numbers(
    'compare.num_steps',
    lambda v: isinstance(v, int) and v >= 2,
    'that are integers >= 2',
  )
  one_of('compare.match', ('', 'mean', 'nfe'))
  check('compare.reference', lambda v: v, 'must name a learned weight.')


def _validate_sweep(config, check, positive, numbers) -> None:
  """Every value that a sweep sets keeps the rule of the key it replaces."""
  numbers('sweep.beta', lambda v: 0.0 < v < 2.0, 'in (0, 2)')
  for key in ('interaction', 'churn'):
    numbers(f'sweep.{key}', lambda v: 0.0 <= v <= 1.0, 'in [0, 1]')
  numbers('sweep.gap', lambda v: 0.0 < v < 1.0, 'in (0, 1)')
  numbers('sweep.s_min', lambda v: 0.0 <= v < 1.0, 'in [0, 1)')
  numbers(
    'sweep.num_particles',
    lambda v: isinstance(v, int) and v >= 2,
    'that are integers >= 2',
  )
  numbers('sweep.learning_rate', lambda v: v > 0.0, 'above 0')
  for key in ('num_seeds', 'num_steps', 'batch_size'):
    positive(f'sweep.{key}')
  check('sweep.samples_per_class', lambda v: v >= 2, 'a distance needs at least 2.')
