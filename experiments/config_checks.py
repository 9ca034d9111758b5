"""One key of a config against one rule, and what a broken one says."""

import functools
from collections.abc import Callable
from collections.abc import Collection
from typing import Any

from ml_collections import config_dict

from experiments import launch


class Checks:
  """Checks of one config.

  Every method takes a key, as in 'guidance.beta', and raises launch.UserError if the
  value there breaks the rule: one line with key, value, rule and way out.
  """

  def __init__(self, config: config_dict.ConfigDict):
    self._config = config

  def __call__(self, key: str, holds: Callable[[Any], bool], rule: str) -> None:
    """By a rule of the caller's; `rule` is how the message ends."""
    value = functools.reduce(
      lambda node, name: node[name], key.split('.'), self._config
    )
    if not holds(value):
      raise launch.UserError(f'{key}={value!r}: {rule}')

  def positive(self, key: str) -> None:
    """Above 0."""
    self(key, lambda v: v > 0, 'must be positive.')

  def fraction(self, key: str) -> None:
    """In [0, 1)."""
    self(key, lambda v: 0.0 <= v < 1.0, 'must be in [0, 1).')

  def one_of(self, key: str, names: Collection[str]) -> None:
    """One of `names`."""
    self(key, lambda v: v in names, f'must be one of {", ".join(names)}.')

  def numbers(self, key: str, holds: Callable[[Any], bool], rule: str) -> None:
    """A tuple of at least one number, each of which `holds`."""
    self(
      key,
      lambda v: (
        len(v) > 0
        and all(isinstance(x, (int, float)) for x in v)
        and all(holds(x) for x in v)
      ),
      f'must be a tuple of numbers {rule}, as in --config.{key}="(0.5, 1.0)".',
    )
