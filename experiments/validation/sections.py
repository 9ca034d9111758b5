"""The rules that a config must keep, checked before anything is computed or written.

One function for each section, in the order of `configs.common`. Rules of one key may
look at others: names are checked first, for all sections.
"""

import itertools
import math
import re
from collections.abc import Collection

import numpy as np
from ml_collections import config_dict

from experiments import builders
from experiments.validation import checks
from lgd import errors
from lgd import noising
from lgd import sampling
from lgd.data import splits
from lgd.data.prompts import embeddings
from lgd.data.tfds import catalog
from lgd.storage import files


def validate(config: config_dict.ConfigDict) -> splits.Spec:
  """The spec of the data, once every rule is checked.

  Raises:
    errors.InputError: one line with key, value, rule and way out.
  """
  check = checks.Checks(config)
  check.types()
  for key, allowed in names().items():
    check.one_of(key, allowed)
  check('seed', lambda v: v >= 0, 'must not be negative.')
  for key in ('log_every', 'checkpoint_every', 'mesh.fsdp'):
    check.positive(key)
  for of_section in (
    _data,
    _denoiser,
    _clip,
    _rule,
    _reward,
    _statistics,
    _guidance,
    _trajectory,
    _endpoint,
    _classifier,
    _sweep,
    _frontier,
    _evaluation,
    _verdict,
    _compare,
    _fid,
  ):
    of_section(config, check)
  return check.spec


def names() -> dict[str, Collection[str]]:
  """Keys whose value is one of a few names."""
  return {
    'schedule': builders.models.SCHEDULES,
    'data.name': builders.data.SOURCES,
    'denoiser.prediction': noising.PREDICTIONS,
    'evaluation.solver': sampling.SOLVERS,
    'denoiser.network': builders.models.NETWORKS,
    'denoiser.dtype': ('float32', 'bfloat16'),
    'denoiser.weighting': ('uniform', 'sigmoid'),
    'rule.name': builders.rules.names_of_pairs(),
    'statistics.kind': builders.objectives.STATISTICS,
    'statistics.split': ('train', 'validation'),
    'guidance.source': ('statistics', 'direct'),
    'guidance.weight': ('network', 'table'),
    'guidance.objective': builders.objectives.OBJECTIVES,
    'guidance.prompts': ('tokens', 'clip'),
    'trajectory.method': ('search', 'endpoint'),
    'trajectory.distance': ('pixels', 'features', 'sum'),
    'trajectory.reference': ('validation', 'train'),
    'verdict.distance': ('pixels', 'features'),
    'compare.match': ('', 'mean', 'nfe'),
    'fid.labels': ('balanced', 'data', 'test'),
    'fid.split': catalog.SPLITS,
  }


def _data(config: config_dict.ConfigDict, check: checks.Checks) -> None:
  """The data, and what their conditions allow."""
  for key in ('dir', 'file', 'encoded_dir'):
    check.path(f'data.{key}')
  _encoded(config, check)
  check('data.num_classes', lambda v: v >= 2, 'guidance needs at least 2 classes.')
  check('data.num_per_class', lambda v: v >= 2, 'needs at least 2 for a distance.')
  check(
    'data.dir',
    lambda v: not v or files.user_path(v).is_dir(),
    "no such directory; it is where TFDS keeps its data sets, '' for its default.",
  )
  for key in ('num_threads', 'num_workers'):
    check(f'data.{key}', lambda v: v >= 0, 'must not be negative.')
  check(
    'data.flip',
    lambda v: not v or len(check.spec.shape) == 3,
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
    lambda v: files.user_path(v).is_file() if v else config.data.name != 'pairs',
    "no such file; it is the npz of data.name='pairs', with image [n, height, width, 3]"
    ' uint8 and caption [n], as in --config.data.file=FILE.npz.',
  )
  check.positive('data.size')
  check('data.vocab_size', lambda v: v >= 259, 'must hold all bytes: at least 259.')
  check('data.caption_length', lambda v: v >= 3, 'needs a start, a token and an end.')
  if check.spec.conditions.num_classes is None:
    no_classes = (
      'prompts and vectors of attributes make no classes, and those of'
      f' data.name={config.data.name!r} are such; choose another value, or some'
      " attributes, as in --config.data.attributes=\"('Male', 'Smiling')\"."
    )
    check('fid.labels', lambda v: v != 'balanced', no_classes)
    check('guidance.weight', lambda v: v == 'network', no_classes)
    check(
      'guidance.objective',
      lambda v: not builders.objectives.OBJECTIVES[v].by_class,
      no_classes,
    )
    check('statistics.kind', lambda v: v != 'class_groups', no_classes)
  check('data.dim', lambda v: v >= 2, 'a sphere of means needs at least 2.')
  for key in ('radius', 'std', 'components'):
    check.positive(f'data.{key}')


def _encoded(config: config_dict.ConfigDict, check: checks.Checks) -> None:
  """Embeddings of captions, and latents of their images."""
  check(
    'data.encoders',
    lambda v: set(v) <= set(embeddings.ENCODERS) and len(set(v)) == len(v),
    f'must be different ones of {", ".join(embeddings.ENCODERS)}.',
  )
  is_captioned = check.spec.is_captioned
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
    lambda v: (
      len(v) == 3 and all(isinstance(x, int) and x >= 1 for x in v) and v[0] == v[1]
    ),
    'must be (side, side, channels), as in --config.data.latent_shape="(64, 64, 4)".',
  )


def _denoiser(config: config_dict.ConfigDict, check: checks.Checks) -> None:
  """The base model: its network and its training."""
  section = config.denoiser
  _trainer(config, check, 'denoiser')
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
  check(
    'denoiser.network',
    lambda v: (
      not builders.models.NETWORKS[v].is_for_images or len(check.spec.shape) == 3
    ),
    f'is for images; data.name={config.data.name!r} has none; use'
    ' --config.denoiser.network=mlp.',
  )
  if section.network == 'unet':
    _unet(config, check)
  if builders.models.NETWORKS[section.network].is_exact:
    check(
      'denoiser.network',
      lambda v: config.data.name in builders.data.MIXTURES,
      f'is the denoiser of a mixture, one of {", ".join(builders.data.MIXTURES)}, and'
      f' data.name={config.data.name!r} is none; use --config.denoiser.network=mlp.',
    )
    check('denoiser.prediction', lambda v: v == 'x0', "must be 'x0' for 'exact'.")
  has_prompts = check.spec.has_prompts
  readers = [k for k, kind in builders.models.NETWORKS.items() if kind.reads_prompts]
  check(
    'denoiser.network',
    lambda v: (v in readers) == has_prompts,
    f'{" and ".join(map(repr, readers))} reads prompts, and no other network does;'
    f' data.name={config.data.name!r} has {"some" if has_prompts else "none"}.',
  )
  if section.network == 'mmdit':
    check(
      'denoiser.patch_size',
      lambda v: v > 0 and check.spec.shape[0] % v == 0,
      f'must divide the side of data, {check.spec.shape[0]}.',
    )
    for key in ('width', 'text_width'):
      check(
        f'denoiser.{key}',
        lambda v: v % section.head_dim == 0,
        f'must be a multiple of denoiser.head_dim={section.head_dim}.',
      )
  check('denoiser.clip', lambda v: v >= 0.0, 'must not be negative; 0.0 clips nothing.')
  check(
    'denoiser.label_dropout',
    lambda v: 0.0 < v < 1.0,
    'must be in (0, 1): without dropped labels the null prediction is untrained.',
  )


def _unet(config: config_dict.ConfigDict, check: checks.Checks) -> None:
  """Checks that a U-Net can be made for the data."""
  section, shape = config.denoiser, check.spec.shape
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


def _clip(config: config_dict.ConfigDict, check: checks.Checks) -> None:
  """The small CLIP."""
  _trainer(config, check, 'clip')
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


def _trainer(config: config_dict.ConfigDict, check: checks.Checks, name: str) -> None:
  """The keys that all trainers share, in the section `name`."""
  section = config[name]
  for key in ('width', 'batch_size', 'num_steps', 'learning_rate', 'grad_clip'):
    check.positive(f'{name}.{key}')
  check(f'{name}.warmup_steps', lambda v: v >= 0, 'must not be negative.')
  check.fraction(f'{name}.adam_b2')
  check.positive(f'{name}.num_microbatches')
  check(
    f'{name}.num_microbatches',
    lambda v: section.batch_size % v == 0,
    f'must divide {name}.batch_size={section.batch_size}.',
  )
  check.fraction(f'{name}.ema_decay')
  # Of the start a hundredth is left with this, to three digits.
  num_steps = section.num_steps
  enough = math.floor(0.01 ** (1.0 / max(num_steps, 1)) * 1000.0) / 1000.0
  check(
    f'{name}.ema_decay',
    lambda v: num_steps < 1 or v**num_steps <= 0.5,
    f'after {name}.num_steps={num_steps} more than half of the average, which every'
    f' command uses, would be the untrained start; use --config.{name}.ema_decay='
    f'{enough:.3g}.',
  )


def _rule(config: config_dict.ConfigDict, check: checks.Checks) -> None:
  """The constants of all rules, and the place of the weak model."""
  check.path('rule.weak_workdir')
  if builders.rules.of(config).has_weak_model:
    check(
      'rule.weak_workdir',
      bool,
      f'rule.name={config.rule.name!r} needs the work directory of a less trained base'
      ' model; give one, as by --config.rule.weak_workdir=DIR.',
    )
  check('rule.apg_eta', lambda v: 0.0 <= v <= 1.0, 'must be in [0, 1].')
  check.positive('rule.apg_max_norm')
  check('rule.apg_momentum', lambda v: -1.0 < v < 1.0, 'must be in (-1, 1).')
  check('rule.power', lambda v: 0.0 <= v <= 1.0, 'must be in [0, 1].')
  check.positive('rule.num_particles')


def _reward(config: config_dict.ConfigDict, check: checks.Checks) -> None:
  """The reward."""
  section = config.reward
  check(
    'reward.name',
    lambda v: v in ('', *builders.models.REWARDS) or re.fullmatch(r'[\w.]+:\w+', v),
    f"must be {', '.join(builders.models.REWARDS)}, or 'module:function' of yours.",
  )
  if section.name == 'classifier':
    check(
      'reward.name',
      lambda v: check.spec.conditions.num_classes is not None,
      'vectors of all attributes make no classes; choose some, as in'
      " --config.data.attributes=\"('Male', 'Smiling')\", or give a function.",
    )
  if section.name == 'clip':
    check(
      'reward.name',
      lambda v: check.spec.has_prompts,
      f'scores captions; data.name={config.data.name!r} has none.',
    )
  _reward_weights(section, check, check.spec.is_captioned)
  check.numbers('reward.nodes', lambda v: v >= 0.0, 'at least 0')
  check(
    'reward.nodes',
    lambda v: (
      len(v) >= 2
      and v[0] == 0.0
      and all(a < b for a, b in itertools.pairwise(map(np.float32, v)))
    ),
    'must start at 0 and increase, and needs at least 2.',
  )


def _reward_weights(section, check, is_captioned) -> None:
  """Published weights, where the reward is of some."""
  check.path('reward.weights')
  if section.name == 'clip' and is_captioned:
    check(
      'reward.weights',
      lambda v: files.user_path(v).is_file(),
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


def _statistics(config: config_dict.ConfigDict, check: checks.Checks) -> None:
  """The statistics pass."""
  section = config.statistics
  for key in ('num_data', 'num_particles', 'batch_size', 'shard_size'):
    check.positive(f'statistics.{key}')
  check('statistics.group_size', lambda v: v >= 2, 'a marginal needs at least 2.')
  for key in ('num_data', 'batch_size', 'shard_size'):
    check(
      f'statistics.{key}',
      lambda v: v % section.group_size == 0,
      f'must be a multiple of statistics.group_size={section.group_size}.',
    )
  check('statistics.t_max', lambda v: 0.0 < v <= 1.0, 'must be in (0, 1].')
  if config.denoiser.prediction == 'eps' and builders.models.hides_data(config):
    check(
      'statistics.t_max',
      lambda v: v < 1.0,
      "denoiser.prediction='eps' leaves x0 undetermined at t = 1; stay below it by"
      ' --config.statistics.t_max=0.99.',
    )


def _guidance(config: config_dict.ConfigDict, check: checks.Checks) -> None:
  """The weight, what it is learned on and from, and its training."""
  section, stored = config.guidance, config.statistics
  _trainer(config, check, 'guidance')
  if section.source == 'statistics':
    check(
      'guidance.objective',
      lambda v: builders.objectives.OBJECTIVES[v].stored is not None,
      'has no form on stored statistics; use --config.guidance.source=direct.',
    )
  if section.weight == 'table':
    check(
      'guidance.objective',
      lambda v: v in builders.objectives.with_tables() and section.source != 'direct',
      f'only {" and ".join(builders.objectives.with_tables())} have the closed form of'
      " guidance.weight='table', from statistics; use"
      ' --config.guidance.weight=network.',
    )
  if section.prompts == 'clip':
    check(
      'guidance.prompts',
      lambda v: (
        config.data.name == 'pairs'
        and section.source == 'statistics'
        and section.weight == 'network'
      ),
      "is for networks that learn from statistics of data.name='pairs'; use"
      ' --config.guidance.prompts=tokens.',
    )
  check.positive('guidance.num_bins')
  check('guidance.confidence', lambda v: v >= 0.0, 'must not be negative.')
  check('guidance.depth', lambda v: v >= 2, 'needs an input and an output layer.')
  check.positive('guidance.num_particles')
  check(
    'guidance.beta',
    lambda v: 0.0 < v < 2.0,
    "must be in (0, 2); beta 2 without interaction is guidance.objective='l2'.",
  )
  check('guidance.interaction', lambda v: 0.0 <= v <= 1.0, 'must be in [0, 1].')
  if section.objective == 'self_consistency' and section.interaction > 0.0:
    check(
      'guidance.num_particles',
      lambda v: v >= 2,
      'the sum over pairs needs at least 2; use --config.guidance.interaction=0.0'
      ' for single-particle training.',
    )
  check('guidance.churn', lambda v: 0.0 <= v <= 1.0, 'must be in [0, 1].')
  check('guidance.gap', lambda v: 0.0 < v < 1.0, 'must be in (0, 1).')
  check.fraction('guidance.s_min')
  check.fraction('guidance.zeta')
  check(
    'guidance.gap',
    lambda v: section.s_min + v + section.zeta <= 1.0,
    f'with s_min={section.s_min} and zeta={section.zeta} no s is'
    ' left: s_min + gap + zeta must be at most 1.',
  )
  check('guidance.gamma', lambda v: v >= 0.0, 'must not be negative.')
  named = 'needs a reward; name one, as in --config.reward.name=classifier.'
  check('guidance.gamma', lambda v: v == 0.0 or config.reward.name, named)
  if builders.objectives.is_reward_alone(config):
    check('guidance.objective', lambda v: config.reward.name, named)
    check(
      'guidance.gamma',
      lambda v: v == 0.0,
      "guidance.objective='reward' is the reward alone, with nothing to weigh it"
      ' against; leave gamma at 0.0.',
    )
  if section.weight == 'table':
    check(
      'guidance.gamma',
      lambda v: v == 0.0,
      'a table is a closed form without reward; use --config.guidance.weight=network.',
    )
  check('guidance.group_size', lambda v: v >= 2, 'a marginal needs at least 2.')
  if builders.objectives.of(config).is_grouped:
    check(
      'guidance.batch_size',
      lambda v: v % section.group_size == 0,
      f'must be a multiple of guidance.group_size={section.group_size}.',
    )
  if section.source == 'statistics':
    check(
      'guidance.num_microbatches',
      lambda v: v == 1,
      'updates from statistics need no memory to speak of; leave it at 1.',
    )
    for key, name in (('num_particles', 'particles'), ('group_size', 'members')):
      check(
        f'guidance.{key}',
        lambda v, key=key: v <= stored[key],
        f'the statistics hold {stored[key]} {name}; use at most that many, or'
        f' collect with --config.statistics.{key}={section[key]}.',
      )
    check(
      'guidance.zeta',
      lambda v: 1.0 - v <= stored.t_max + 1e-6,
      f'the statistics have no t above statistics.t_max={stored.t_max}; zeta must be'
      ' at least 1 - t_max.',
    )
  if config.denoiser.prediction == 'eps' and builders.models.hides_data(config):
    check(
      'guidance.zeta',
      lambda v: v > 0.0,
      "denoiser.prediction='eps' leaves x0 undetermined at t = 1; keep t below it by"
      ' --config.guidance.zeta=0.01.',
    )


def _trajectory(config: config_dict.ConfigDict, check: checks.Checks) -> None:
  """The search along trajectories."""
  for key in ('num_references', 'num_particles', 'num_candidates'):
    check(f'trajectory.{key}', lambda v: v >= 2, 'needs at least 2.')
  for key in (
    'num_repeats', 'omega_max', 'candidate_power', 'classifier_width',
    'classifier_steps', 'fit_steps', 'learning_rate',
  ):  # fmt: skip
    check.positive(f'trajectory.{key}')
  num_blocks = config.trajectory.num_blocks
  if num_blocks >= 2:
    check(
      'trajectory.num_particles',
      lambda v: v - -(-v // num_blocks) >= 2,
      f'without one of trajectory.num_blocks={num_blocks} less than 2 would be left;'
      ' take more.',
    )
  check('trajectory.seed', lambda v: v >= 0, 'must not be negative.')
  check('trajectory.features_share', lambda v: 0.0 <= v <= 1.0, 'must be in [0, 1].')
  for key in ('tolerance', 'confidence'):
    check(f'trajectory.{key}', lambda v: v >= 0.0, 'must not be negative.')
  check('trajectory.omega_min', lambda v: v <= 0.0, 'must not be above 0.')
  check('trajectory.num_blocks', lambda v: v == 0 or v >= 2, 'must be 0 or at least 2.')
  check.fraction('trajectory.memory')
  check.fraction('trajectory.lookahead')
  check('trajectory.lookahead_churn', lambda v: 0.0 <= v <= 1.0, 'must be in [0, 1].')
  check('trajectory.beta', lambda v: 0.0 < v < 2.0, 'must be in (0, 2).')


def _endpoint(config: config_dict.ConfigDict, check: checks.Checks) -> None:
  """The refinement of `trajectory.method='endpoint'`."""
  if config.trajectory.method == 'endpoint':
    check(
      'trajectory.distance',
      lambda v: v == 'pixels',
      "trajectory.method='endpoint' refines by the distance in pixels alone; use"
      ' --config.trajectory.distance=pixels.',
    )
  check.positive('endpoint.learning_rate')
  check('endpoint.num_updates', lambda v: v >= 10, 'needs at least 10.')
  check('endpoint.num_knots', lambda v: v >= 2, 'a line needs at least 2.')
  for key in ('num_particles', 'num_references'):
    check(f'endpoint.{key}', lambda v: v >= 2, 'a distance needs at least 2.')
  check('endpoint.held_out', lambda v: 0.0 < v < 1.0, 'must be in (0, 1).')


def _classifier(config: config_dict.ConfigDict, check: checks.Checks) -> None:
  """The training of small classifiers."""
  del config
  for key in ('batch_size', 'learning_rate'):
    check.positive(f'classifier.{key}')
  check('classifier.weight_decay', lambda v: v >= 0.0, 'must not be negative.')


def _sweep(config: config_dict.ConfigDict, check: checks.Checks) -> None:
  """Every value that a sweep sets keeps the rule of the key it replaces."""
  del config
  check.grid('sweep.beta', lambda v: 0.0 < v < 2.0, 'in (0, 2)')
  for key in ('interaction', 'churn'):
    check.grid(f'sweep.{key}', lambda v: 0.0 <= v <= 1.0, 'in [0, 1]')
  check.grid('sweep.gap', lambda v: 0.0 < v < 1.0, 'in (0, 1)')
  check.grid('sweep.s_min', lambda v: 0.0 <= v < 1.0, 'in [0, 1)')
  check.grid(
    'sweep.num_particles',
    lambda v: isinstance(v, int) and v >= 2,
    'that are integers >= 2',
  )
  check.grid('sweep.learning_rate', lambda v: v > 0.0, 'above 0')
  for key in ('num_seeds', 'num_steps', 'batch_size'):
    check.positive(f'sweep.{key}')
  check('sweep.samples_per_class', lambda v: v >= 2, 'a distance needs at least 2.')


def _frontier(config: config_dict.ConfigDict, check: checks.Checks) -> None:
  """The gammas of `experiments.frontier`."""
  del config
  check.grid('frontier.gammas', lambda v: v >= 0.0, 'at least 0')


def _evaluation(config: config_dict.ConfigDict, check: checks.Checks) -> None:
  """The sampler and its grids."""
  for key in ('num_seeds', 'num_steps', 'classifier_width', 'classifier_steps'):
    check.positive(f'evaluation.{key}')
  check(
    'evaluation.samples_per_class', lambda v: v >= 2, 'a distance needs at least 2.'
  )
  check('evaluation.num_prompts', lambda v: v >= 2, 'a distance needs at least 2.')
  check.positive('evaluation.plan_levels')
  check(
    'evaluation.solver',
    lambda v: v == 'first_order' or config.evaluation.churn == 0.0,
    f'the second order is of evaluation.churn=0.0, not {config.evaluation.churn}.',
  )
  check('evaluation.tolerance', lambda v: v >= 0.0, 'must not be negative.')
  check('evaluation.churn', lambda v: 0.0 <= v <= 1.0, 'must be in [0, 1].')
  # Times of float32 that are no smaller stay apart, and are not taken for 0.
  check('evaluation.t_max', lambda v: 1e-6 <= v <= 1.0, 'must be in [1e-6, 1].')
  rule = builders.rules.of(config)
  if rule.has_memory:
    check(
      'evaluation.solver',
      lambda v: v != 'heun',
      f'predicts twice a step, and rule.name={config.rule.name!r} remembers one'
      " prediction of each; use '2m' or 'first_order'.",
    )
  if rule.act and rule.space == 'eps' and builders.models.hides_data(config):
    check(
      'evaluation.t_max',
      lambda v: v < 1.0,
      f'rule.name={config.rule.name!r} acts on eps, which leaves x0 undetermined at t ='
      ' 1; start sampling at --config.evaluation.t_max=0.99.',
    )
  if config.denoiser.prediction == 'eps' and builders.models.hides_data(config):
    check(
      'evaluation.t_max',
      lambda v: v < 1.0,
      "denoiser.prediction='eps' leaves x0 undetermined at t = 1; start sampling"
      ' at --config.evaluation.t_max=0.99.',
    )
  check.grid('evaluation.constants', lambda v: v > 0.0, 'above 0')
  for key in ('interval_omegas', 'clamp_linear_omegas', 'kappas'):
    check.grid(f'evaluation.{key}', lambda v: v > 0.0, 'above 0', may_be_empty=True)
  check.grid('evaluation.clamp_linear_floors', lambda v: v >= 0.0, 'at least 0')
  check.grid('evaluation.interval_bounds', lambda v: 0.0 <= v <= 1.0, 'in [0, 1]')
  check(
    'evaluation.interval_bounds',
    lambda v: len(v) >= 2 and all(a < b for a, b in itertools.pairwise(v)),
    'needs at least 2 times in increasing order.',
  )


def _verdict(config: config_dict.ConfigDict, check: checks.Checks) -> None:
  """How the strength of a learned weight is chosen."""
  del config
  check.grid('verdict.kappas', lambda v: v > 0.0, 'above 0')
  check('verdict.samples_per_class', lambda v: v >= 3, 'a jackknife needs at least 3.')
  check('verdict.num_blocks', lambda v: v >= 2, 'a variance needs at least 2.')
  check('verdict.confidence', lambda v: v >= 0.0, 'must not be negative.')


def _compare(config: config_dict.ConfigDict, check: checks.Checks) -> None:
  """The comparison of methods."""
  del config
  check(
    'compare.methods',
    lambda v: set(v) <= set(builders.families.FAMILIES),
    f'must be some of {tuple(builders.families.FAMILIES)}.',
  )
  check('compare.methods', lambda v: len(set(v)) == len(v), 'names a method twice.')
  for key in ('compare.omegas', 'compare.rates'):
    check.grid(key, lambda v: v > 0.0, 'above 0')
  check.grid(
    'compare.num_steps',
    lambda v: isinstance(v, int) and v >= 2,
    'that are integers >= 2',
  )
  check('compare.reference', lambda v: v, 'must name a learned weight.')


def _fid(config: config_dict.ConfigDict, check: checks.Checks) -> None:
  """The numbers of `experiments.fid`."""
  del config
  for key in ('num_samples', 'num_reference'):
    check(f'fid.{key}', lambda v: v >= 4, 'the third neighbour needs at least 4.')
  for key in ('batch_size', 'shard_size'):
    check.positive(f'fid.{key}')
  check('fid.kid_subset_size', lambda v: v >= 2, 'needs at least 2.')
  check('fid.num_neighbors_samples', lambda v: v >= 4, 'needs at least 4.')


def require_learnable(config: config_dict.ConfigDict) -> None:
  """Refuses a rule that weights cannot be learned for.

  Raises:
    errors.InputError: it is not linear in omega.
  """
  if config.rule.name not in builders.rules.learnable():
    raise errors.InputError(
      f'rule.name={config.rule.name!r}: weights are learned for the conditional'
      ' prediction and a direction times omega, as for'
      f' {", ".join(builders.rules.learnable())}; use one of them.'
    )


def require_prompts(config: config_dict.ConfigDict) -> None:
  """Refuses data without captions, or with captions that are stored as embeddings.

  Raises:
    errors.InputError: its conditions are no tokens of prompts.
  """
  if config.data.name != 'pairs':
    raise errors.InputError(
      f'data.name={config.data.name!r}: has no captions that are read as tokens; use'
      " 'pairs'."
    )
