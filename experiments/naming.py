"""Names of what may lie side by side in a work directory.

  guidance/NAME/      by objective, gamma, source, split, rule, and network or table
  statistics/NAME/    by kind, whether there is a reward, split and rule

The usual value adds nothing to a name. Two results that differ in anything else have
the same one: the second is refused (`refusals.py`).
"""

from ml_collections import config_dict


def guidance_name(config: config_dict.ConfigDict) -> str:
  """The name of a learned weight, and of its directory."""
  section = config.guidance
  return section.objective + _gamma_suffix(section.gamma) + _guidance_suffix(config)


def without_gamma(name: str, gamma: float) -> str:
  """What the names of learned weights that differ in gamma alone have in common."""
  return name.replace(_gamma_suffix(gamma), '', 1)


def guidance_stream(config: config_dict.ConfigDict) -> str:
  """Names its random draws, which weights that differ in gamma alone share."""
  return f'guidance/{config.guidance.objective}{_guidance_suffix(config)}'


def statistics_name(config: config_dict.ConfigDict) -> str:
  """The directory of a statistics pass."""
  reward = '_reward' if config.reward.name else ''
  return config.statistics.kind + reward + _split_suffix(config) + _rule_suffix(config)


def _guidance_suffix(config):
  section = config.guidance
  suffix = '_direct' if section.source == 'direct' else ''
  suffix += _split_suffix(config) + _rule_suffix(config)
  return suffix + ('_table' if section.weight == 'table' else '')


def _gamma_suffix(gamma):
  return f'_reward{gamma:g}' if gamma else ''


def _split_suffix(config):
  return '' if config.statistics.split == 'train' else f'_{config.statistics.split}'


def _rule_suffix(config):
  return '' if config.rule.name == 'linear' else f'_{config.rule.name}'
