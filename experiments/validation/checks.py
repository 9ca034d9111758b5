"""Checks of one key of a config against one rule, and their messages.

Rules may take for granted what `Checks.types` has refused before them: a key that is
missing or unknown, a value of another type than its default, and numbers that programs
cannot hold, which have int32 and float32.
"""

import functools
from collections.abc import Callable
from collections.abc import Collection
from typing import Any

from ml_collections import config_dict

from configs import common
from experiments import app
from experiments import builders
from lgd import errors
from lgd.data import splits

_LARGEST_INT = 2**31 - 1
_LARGEST_FLOAT = 3.4e38


class Checks:
  """Checks of one config.

  Every method but `types` takes a key, as in 'guidance.beta', and raises
  errors.InputError if the value there breaks the rule: one line with key, value, rule
  and way out.
  """

  def __init__(self, config: config_dict.ConfigDict):
    self._config = config

  @functools.cached_property
  def spec(self) -> splits.Spec:
    """That of the data; to be asked for once types and names are checked."""
    return builders.data.spec(self._config)

  def __call__(self, key: str, holds: Callable[[Any], bool], rule: str) -> None:
    """Checks a rule that the caller gives; `rule` is how the message ends."""
    value = self._value(key)
    if not holds(value):
      raise errors.InputError(f'{key}={value!r}: {rule}')

  def _value(self, key):
    return functools.reduce(lambda node, name: node[name], key.split('.'), self._config)

  def types(self) -> None:
    """Checks the types of all values, by those of `configs.common`; call it first.

    Raises:
      errors.InputError: a key that is missing or unknown; a value of another type, or
        that is not finite in float32 or int32; a tuple of anything but such numbers, or
        of names.
    """
    defaults, given = _defaults(), dict(_leaves(self._config))
    for key in sorted(defaults.keys() ^ given.keys()):
      state = 'missing in the config' if key in defaults else 'no key of any experiment'
      raise errors.InputError(
        f'{key}: {state}; start from common.get_default(), as configs/digits.py does.'
      )
    for key, default in defaults.items():
      rule = _RULES[type(default)]
      self(
        key,
        lambda v, default=default: _is_of_type(v, type(default)),
        f'must be {rule}; its default is {default!r}.',
      )

  def positive(self, key: str) -> None:
    """Checks that the value is above 0."""
    self(key, lambda v: v > 0, 'must be positive.')

  def fraction(self, key: str) -> None:
    """Checks that the value is in [0, 1)."""
    self(key, lambda v: 0.0 <= v < 1.0, 'must be in [0, 1).')

  def one_of(self, key: str, names: Collection[str]) -> None:
    """Checks that the value is one of `names`."""
    self(key, lambda v: v in names, f'must be one of {", ".join(names)}.')

  def path(self, key: str) -> None:
    """Checks that the text may name a file, whether or not there is one."""
    problem = app.command_line.path_problem(self._value(key))
    self(key, lambda _: problem is None, problem)

  def numbers(self, key: str, holds: Callable[[Any], bool], rule: str) -> None:
    """Checks for a tuple of at least one number, each of which `holds`."""
    self(
      key,
      lambda v: len(v) > 0 and all(not isinstance(x, str) and holds(x) for x in v),
      f'must be a tuple of numbers {rule}, as in --config.{key}="(0.5, 1.0)".',
    )

  def grid(
    self, key: str, holds: Callable[[Any], bool], rule: str, *, may_be_empty=False
  ) -> None:
    """Checks `numbers` that name rows of results: no two have one name."""
    if not (may_be_empty and not self._value(key)):
      self.numbers(key, holds, rule)
    self(
      key,
      lambda v: len({f'{x:g}' for x in v}) == len(v),
      'must differ in their first 6 digits, which name the rows of results; leave the'
      ' repeated value out.',
    )


_RULES = {
  bool: 'True or False',
  int: 'an integer below 2^31 in size',
  float: 'a number that is finite in float32',
  str: 'text',
  tuple: 'a flat tuple of names, or of numbers that int32 and float32 can hold',
}


def _is_of_type(value: Any, kind: type) -> bool:
  if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
    return False
  if kind is int:
    return abs(value) <= _LARGEST_INT
  if kind is float:
    return abs(value) <= _LARGEST_FLOAT
  if kind is tuple:
    return all(isinstance(x, str) for x in value) or all(
      _is_of_type(x, int) or _is_of_type(x, float) for x in value
    )
  return True


@functools.cache
def _defaults() -> dict[str, Any]:
  return dict(_leaves(common.get_default()))


def _leaves(config: config_dict.ConfigDict, prefix: str = ''):
  """Pairs of key, as in 'guidance.beta', and value."""
  for name, value in config.items():
    if isinstance(value, config_dict.ConfigDict):
      yield from _leaves(value, f'{prefix}{name}.')
    else:
      yield f'{prefix}{name}', value
