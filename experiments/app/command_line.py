"""The flags of every command, and one line for what is wrong with a command line.

A line names the flag as it was given, the rule that it breaks, and the way out. A
config file is code, and may fail in any way: then it is the line that it fails with.
"""

import difflib
from collections.abc import Sequence

from absl import flags
from etils import epath
from ml_collections import config_dict
from ml_collections import config_flags

from lgd.storage import files

_CONFIGS = epath.Path(__file__).parents[2] / 'configs'
_NO_CONFIGS = ('__init__.py', 'common.py')


def define_flags(flag_values: flags.FlagValues, argv: Sequence[str]) -> None:
  """`--config`, `--workdir`, and those of devices and processes."""
  config_flags.DEFINE_config_file(
    'config',
    None,
    'Config file, and variant: configs/digits.py:smoke. Keys are overridden by'
    ' --config.KEY=VALUE after it.',
    flag_values=flag_values,
    sys_argv=_with_flagfiles(argv),
  )
  flags.DEFINE_string(
    'workdir', None, 'Directory of the experiment.', flag_values=flag_values
  )
  flags.DEFINE_string(
    'compilation_cache',
    None,
    'Directory that keeps programs which took over a second to compile, for later'
    ' runs; trust it as you trust code.',
    flag_values=flag_values,
  )
  flags.DEFINE_float(
    'grace_seconds',
    25.0,
    'After SIGTERM a run saves at the end of its step; after so long it exits anyway.',
    lower_bound=0.0,
    flag_values=flag_values,
  )
  flags.DEFINE_bool(
    'distributed',
    False,
    'Whether this is one of several processes, on a cluster that says which'
    ' (Cloud TPU, SLURM, ...); without one give the next three as well.',
    flag_values=flag_values,
  )
  flags.DEFINE_string(
    'coordinator', None, 'HOST:PORT of process 0.', flag_values=flag_values
  )
  flags.DEFINE_integer(
    'num_processes', None, 'Of all.', lower_bound=1, flag_values=flag_values
  )
  flags.DEFINE_integer(
    'process_id', None, 'Of this one, from 0.', lower_bound=0, flag_values=flag_values
  )
  flags.DEFINE_integer(
    'peer_timeout',
    100,
    'Seconds after which a process that is not heard of counts as dead, and all stop.',
    lower_bound=1,
    flag_values=flag_values,
  )


def parse(flag_values: flags.FlagValues, argv: Sequence[str]) -> list[str]:
  """Sets all flags, and returns what of `argv` is none.

  Raises:
    ValueError: one line that says what is wrong with `argv`.
  """
  try:
    return _parse(flag_values, argv)
  except UnicodeError as error:
    names = ' '.join(arg for arg in argv if 'flagfile' in arg)
    raise ValueError(f'{names}: {error}; give a file whose name is UTF-8.') from error
  except Exception as error:  # Of a config file, anything.
    raise ValueError(_explain(_joined(argv), error)) from error


def path_problem(text: str) -> str | None:
  """Why a file system cannot be asked about it, as when it is too long; else None."""
  try:
    text.encode()
    files.user_path(text).stat()
  except (FileNotFoundError, NotADirectoryError):
    return None
  except (ImportError, KeyError, OSError, ValueError) as error:  # Of buckets, too.
    return f'cannot be a path ({error}); give another.'
  return None


def _parse(flag_values, argv):
  rest = flag_values(list(argv))
  config = flag_values.config
  if flag_values['config'].present:
    config.keys()  # A file that is missing is noticed on first use.
    if not isinstance(config, config_dict.ConfigDict):
      raise TypeError(f'get_config() returned a {type(config).__name__}')
  return rest


def _with_flagfiles(argv: Sequence[str]) -> list[str]:
  """The arguments with those of --flagfile; empty if one cannot be read.

  `parse` fails for that reason later, where it is explained.
  """
  try:
    return flags.FlagValues().read_flags_from_files(list(argv), force_gnu=False)
  except (flags.Error, UnicodeError):
    return []


def _explain(argv: Sequence[str], error: Exception) -> str:
  """One line for a failure to parse: key, value, rule, way out.

  ml_collections names neither the full key nor the type it wants, so the overrides
  are walked again here.
  """
  config_args = [a for a in argv if a.startswith('--config=')]
  overrides = [a for a in argv if a.startswith('--config.')]
  if overrides and (
    not config_args or argv.index(overrides[0]) < argv.index(config_args[0])
  ):
    return f'{overrides[0]}: must come after --config=configs/NAME.py.'
  for config_arg in config_args:
    try:
      config = _load_config([config_arg])
    except OSError:
      files_there = sorted(p.name for p in _CONFIGS.glob('*.py'))
      names = ', '.join(name for name in files_there if name not in _NO_CONFIGS)
      return f'{config_arg}: no such file; configs/ has {names}.'
    except Exception as in_file:
      return f'{config_arg}: {_reason(in_file)}'
  for override in overrides:
    problem = _override_problem(config_args[-1], config, override)
    if problem:
      return f'{override}: {problem}'
  if isinstance(error, flags.Error):
    return ' '.join(str(error).split())
  # As of a name so long that no flag of a like name can be looked for.
  return f'{max(argv, key=len)}: cannot be read ({error}); write --name=value.'


def _reason(error: Exception) -> str:
  """The reason why a config file failed."""
  if isinstance(error, flags.Error):
    # A ValueError inside a config file arrives as the last line of a traceback.
    return str(error).strip().splitlines()[-1].removeprefix('ValueError: ')
  return f'{type(error).__name__}: {error}; mend the file, or take one of configs/.'


def _joined(argv: Sequence[str]) -> list[str]:
  """`--config FILE` and `-config...` written as `--config=FILE`, `--config...`."""
  joined = []
  for arg in argv:
    if joined and joined[-1] in ('--config', '-config'):
      joined[-1] = f'--config={arg}'
    else:
      joined.append(f'-{arg}' if arg.startswith('-config') else arg)
  return joined


def _load_config(config_args: Sequence[str]) -> config_dict.ConfigDict:
  """The config of these arguments alone; raises what `_parse` does."""
  flag_values, argv = flags.FlagValues(), ['', *config_args]
  define_flags(flag_values, argv)
  _parse(flag_values, argv)
  return flag_values.config


def _override_problem(config_arg, config, override: str) -> str | None:
  node, path = config, []
  for name in override.removeprefix('--config.').partition('=')[0].split('.'):
    where = '.'.join(path) or 'the config'
    if not isinstance(node, config_dict.ConfigDict):
      return f'no key {name!r} in {where}; {where} is a value, {node!r}, and no group.'
    if name not in node:
      close = difflib.get_close_matches(name, list(node), n=1)
      hint = f'did you mean {close[0]!r}' if close else f'{where} has {list(node)}'
      return f'no key {name!r} in {where}; {hint}?'
    node, path = node[name], [*path, name]
  if isinstance(node, config_dict.ConfigDict):
    return f'is a group, not a value; set one of its keys: {list(node)}.'
  try:
    _load_config([config_arg, override])
  except Exception:  # Whatever a parser says of text that is none of its type.
    return f'must be of type {type(node).__name__}, like its default {node!r}.'
  return None
