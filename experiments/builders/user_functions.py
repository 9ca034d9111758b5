"""Functions of the user's that a config names: a reward, an autoencoder.

To import a module that a file names is to run code that whoever wrote the file chose.
So a name must come from the command: from its config and overrides. One that is stored
in a checkpoint is no more than part of an identity, until the command says the same.
"""

import importlib
from collections.abc import Callable
from typing import Any

from etils import epath

from lgd import errors


def require_given(key: str, name: str, path: epath.PathLike) -> None:
  """Refuses a config that a checkpoint brought if it names a function.

  Args:
    key: of the config.
    name: its value.
    path: of the checkpoint.

  Raises:
    errors.InputError: it does.
  """
  if name:
    raise errors.InputError(
      f'{key}={name!r}: is named by {path}, and no module is imported because a file'
      ' says so; if it is yours, say it in the command: --config=configs/NAME.py, as in'
      f' training, and --config.{key}={name}.'
    )


def load(key: str, name: str) -> Callable[..., Any]:
  """The function that a config has as 'module:function'.

  Args:
    key: of the config, for messages.
    name: its value.

  Raises:
    errors.InputError: no such module, or no such function in it.
  """
  module, _, function = name.partition(':')
  try:
    return getattr(importlib.import_module(module), function)
  except (AttributeError, ImportError, TypeError, ValueError) as error:
    raise errors.InputError(
      f"{key}={name!r}: {error}; must be 'module:function' that can be imported from"
      ' where this runs, or is on PYTHONPATH.'
    ) from error
