"""Exceptions of this library and its commands.

A command shows any of them as one line without a traceback. An `InputError` says that
what was given is wrong: exit code 2. A `RunError` says that the run failed: exit code
1.
"""


class InputError(ValueError):
  """A value, a flag or a file of the user's that breaks a rule."""


class RunError(Exception):
  """A run that cannot go on, though its input keeps every rule."""


class FileError(InputError):
  """A file that is missing, damaged, or does not hold what it should."""


class CheckpointError(InputError):
  """A checkpoint that is missing, damaged, or does not fit what is to be restored."""


class LockError(InputError):
  """A work directory that another run is in, or that cannot be written."""


class NotPreparedError(InputError):
  """A data set that is not on this machine, or not in a format that can be read."""


class CaptionError(InputError):
  """A caption that cannot be told from none, or that does not fit."""


class DataError(RunError, ValueError):
  """A file or a record of a data set that does not hold what it should."""


class WriteError(RunError, OSError):
  """A file that could not be written; what was there before is as it was."""


class SaveError(RunError, OSError):
  """A checkpoint that could not be written."""


class NonFiniteError(RunError, ArithmeticError):
  """A number that became infinite or NaN."""
