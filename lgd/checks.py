"""Checks of constants that may be traced."""

from collections.abc import Callable

import jax
import numpy as np


def is_known(value: jax.typing.ArrayLike) -> bool:
  """Whether it is a number that has a value by now, in contrast to a traced one."""
  return not isinstance(value, jax.core.Tracer) and np.ndim(value) == 0


def require(rule: str, is_valid: Callable[[float], bool], **constants) -> None:
  """Checks numbers that are known; traced ones pass.

  Args:
    rule: what they must be, for the message.
    is_valid: whether a number is.
    **constants: the numbers, by name.

  Raises:
    ValueError: one is not.
  """
  for name, value in constants.items():
    if is_known(value) and not is_valid(value):
      raise ValueError(f'{name}={value}: must be {rule}.')
