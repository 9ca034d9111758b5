"""Checks of constants that may be traced, and of shapes, which never are."""

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


def same_shape(**arrays: jax.Array) -> None:
  """Checks arrays, given by name.

  Raises:
    ValueError: they are not all of one shape.
  """
  if len({np.shape(x) for x in arrays.values()}) > 1:
    raise ValueError(f'{_shapes(arrays)}: must be the same.')


def matrices(**arrays: jax.Array) -> None:
  """Checks arrays, given by name.

  Raises:
    ValueError: one is not `[n, dim]`, with the dim of the others.
  """
  shapes = [np.shape(x) for x in arrays.values()]
  if any(len(shape) != 2 for shape in shapes) or len({s[1] for s in shapes}) > 1:
    raise ValueError(f'{_shapes(arrays)}: must be [n, dim], of one dim.')


def decreasing(**times: jax.Array) -> None:
  """Checks times that are known, given by name; traced ones pass.

  Raises:
    ValueError: one is not below the one before it, or NaN.
  """
  for name, value in times.items():
    if not isinstance(value, jax.core.Tracer) and not np.all(np.diff(value) < 0.0):
      raise ValueError(
        f'{name}={np.asarray(value)}: must decrease, from noise to data.'
      )


def _shapes(arrays):
  return ', '.join(f'{name}.shape={np.shape(x)}' for name, x in arrays.items())
