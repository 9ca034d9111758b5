"""The rules of `validation.py` for what is learned from: the data, and a reward."""

import itertools
import re

import numpy as np
from ml_collections import config_dict

from experiments import builders
from experiments import config_checks
from experiments import datasets
from experiments import encoded
from lgd import files
from lgd.data import catalog
from lgd.data import embeddings


def validate_data(config: config_dict.ConfigDict, check: config_checks.Checks) -> None:
  """The data, and what their conditions allow."""
  for key in ('dir', 'file', 'encoded_dir'):
    check.path(f'data.{key}')
  _validate_encoded(config, check)
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
    lambda v: files.user_path(v).is_file() if v else config.data.name != 'pairs',
    "no such file; it is the npz of data.name='pairs', with image [n, height, width, 3]"
    ' uint8 and caption [n], as in --config.data.file=FILE.npz.',
  )
  check.positive('data.size')
  check('data.vocab_size', lambda v: v >= 259, 'must hold all bytes: at least 259.')
  check('data.caption_length', lambda v: v >= 3, 'needs a start, a token and an end.')
  if datasets.spec(config).conditions.num_classes is None:
    no_classes = (
      'prompts and vectors of attributes make no classes, and those of'
      f' data.name={config.data.name!r} are such; choose another value, or some'
      " attributes, as in --config.data.attributes=\"('Male', 'Smiling')\"."
    )
    check('fid.labels', lambda v: v != 'balanced', no_classes)
    check('guidance.weight', lambda v: v == 'network', no_classes)
    check('guidance.objective', lambda v: v != 'class_marginal', no_classes)
    check('statistics.kind', lambda v: v != 'class_groups', no_classes)
  check('data.dim', lambda v: v >= 2, 'a sphere of means needs at least 2.')
  for key in ('radius', 'std', 'components'):
    check.positive(f'data.{key}')


def _validate_encoded(
  config: config_dict.ConfigDict, check: config_checks.Checks
) -> None:
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
    lambda v: (
      len(v) == 3 and all(isinstance(x, int) and x >= 1 for x in v) and v[0] == v[1]
    ),
    'must be (side, side, channels), as in --config.data.latent_shape="(64, 64, 4)".',
  )


def validate_reward(
  config: config_dict.ConfigDict, check: config_checks.Checks
) -> None:
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
  check('guidance.gamma', lambda v: v >= 0.0, 'must not be negative.')
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
  check.grid('frontier.gammas', lambda v: v >= 0.0, 'at least 0')


def _validate_reward_weights(section, check, is_captioned) -> None:
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
