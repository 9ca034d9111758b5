"""Functions of the user's that a config names: a reward, an autoencoder."""

import importlib
from collections.abc import Callable
from typing import Any

from experiments import launch


def load(key: str, name: str) -> Callable[..., Any]:
  """The function that a config has as 'module:function'.

  Args:
    key: of the config, for messages.
    name: its value.

  Raises:
    launch.UserError: no such module, or no such function in it.
  """
  module, _, function = name.partition(':')
  try:
    return getattr(importlib.import_module(module), function)
  except (AttributeError, ImportError, TypeError, ValueError) as error:
    raise launch.UserError(
      f"{key}={name!r}: {error}; must be 'module:function' that can be imported from"
      ' where this runs, or is on PYTHONPATH.'
    ) from error
