"""Checks of constants that may be traced, and of shapes, which never are.

chex compares the shapes; a message has name, value and rule, as everywhere.
"""

from collections.abc import Callable

import chex
import jax
import numpy as np

from lgd import arrays as arrays_lib


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
  _chex(chex.assert_equal_shape, arrays, 'the same')


def matrices(**arrays: jax.Array) -> None:
  """Checks arrays, given by name.

  Raises:
    ValueError: one is not `[n, dim]`, with the dim of the others.
  """
  rule = '[n, dim], of one dim'
  _chex(chex.assert_rank, arrays, rule, 2)
  _chex(chex.assert_equal_shape_suffix, arrays, rule, 1)


def shape(rule: str, expected: tuple[int | None, ...], **arrays: jax.Array) -> None:
  """Checks arrays, given by name.

  Args:
    rule: the expected shape in words, such as '[batch, dim]'.
    expected: a length, or None for any, of every axis; `...` for any axes.
    **arrays: by name.

  Raises:
    ValueError: one is of another shape.
  """
  _chex(chex.assert_shape, arrays, rule, expected)


def times(**given: jax.typing.ArrayLike) -> None:
  """Checks times that are known, given by name; traced ones pass.

  Raises:
    ValueError: one is outside [0, 1], or NaN.
  """
  for name, value in given.items():
    if isinstance(value, jax.core.Tracer):
      continue
    time = np.asarray(value, np.float64)
    outside = ~(arrays_lib.at_most(time, 1.0) & arrays_lib.at_most(-time, 0.0))
    if np.any(outside):
      raise ValueError(
        f'{name}={time[outside][0]:g}: must be in [0, 1], 0 at the data; divide'
        ' timesteps by their number.'
      )


def time_grid(**grids: jax.Array) -> None:
  """Checks times that are known, given by name; traced ones pass.

  Raises:
    ValueError: one is not below the one before it, or outside [0, 1], or NaN.
  """
  for name, value in grids.items():
    if isinstance(value, jax.core.Tracer):
      continue
    falls = np.diff(np.asarray(value, np.float64)) < 0.0
    if not np.all(falls):
      i = int(np.argmin(falls))
      raise ValueError(
        f'{name}[{i + 1}]={value[i + 1]:g} after {value[i]:g}: must decrease, from'
        ' noise to data.'
      )
  times(**grids)


def finite(cure: str, **arrays: jax.Array) -> None:
  """Checks arrays that are known, given by name; traced ones pass.

  Args:
    cure: what to look at, for the message.
    **arrays: `[num, ...]`, by name.

  Raises:
    ValueError: a row is not finite; names the first.
  """
  for name, value in arrays.items():
    if isinstance(value, jax.core.Tracer):
      continue
    rows = np.atleast_1d(value)
    good = np.isfinite(rows).all(axis=tuple(range(1, rows.ndim)))
    if not good.all():
      raise ValueError(f'{name}: row {np.argmin(good)} is not finite; {cure}')


def _chex(assertion, arrays, rule, *args):
  """A chex assertion on named arrays; where it fails, a ValueError that names them."""
  try:  # On stand-ins: shapes of lists count, too, and what is traced has no value.
    assertion([np.broadcast_to(0, np.shape(x)) for x in arrays.values()], *args)
  except AssertionError as error:
    shapes = ', '.join(f'{name}.shape={np.shape(x)}' for name, x in arrays.items())
    raise ValueError(f'{shapes}: must be {rule}.') from error
