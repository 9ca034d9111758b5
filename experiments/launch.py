"""Flags, logging and one-line errors: the same for every binary.

Exit codes: 0 done, 1 the run failed (a non-finite loss, a damaged image, a bug), 2 the
input was wrong and nothing was written.
"""

import ctypes
import difflib
import logging as python_logging
import sys
from collections.abc import Callable
from collections.abc import Sequence

import jax
from absl import app
from absl import flags
from absl import logging
from etils import epath
from ml_collections import config_dict
from ml_collections import config_flags

from lgd import checkpointing
from lgd import files
from lgd import reporting
from lgd.data import sources

_CONFIGS = epath.Path(__file__).parents[1] / 'configs'
_NO_CONFIGS = ('__init__.py', 'common.py')


class UserError(ValueError):
  """Wrong input: shown as one line, without a traceback."""


def main(
  run: Callable[[flags.FlagValues], None],
  *,
  needs_config: bool,
  needs_workdir: bool = True,
) -> None:
  """Parses the flags and calls `run(flags.FLAGS)`.

  Args:
    run: the binary.
    needs_config: whether `--config` is required; a binary that works on a trained
      work directory reads the config from there.
    needs_workdir: whether `--workdir` is required.
  """

  def parse_flags(argv):
    try:
      return parse(
        flags.FLAGS, argv, needs_config=needs_config, needs_workdir=needs_workdir
      )
    except UserError as error:
      _exit(2, error)

  def guarded(argv):
    del argv
    logging.get_absl_handler().addFilter(_is_ours_or_serious)
    try:
      join_processes(flags.FLAGS)
    except UserError as error:
      _exit(2, error)
    if flags.FLAGS.compilation_cache:
      jax.config.update('jax_compilation_cache_dir', flags.FLAGS.compilation_cache)
    logging.info('devices: %s', ', '.join(str(d) for d in jax.devices()))
    try:
      run(flags.FLAGS)
    except (UserError, checkpointing.CheckpointError, files.FileError) as error:
      _exit(2, error)
    except (reporting.NonFiniteError, sources.DataError) as error:
      _exit(1, error)

  logging.set_verbosity(logging.INFO)
  _keep_freed_memory()
  define_flags(flags.FLAGS, sys.argv)
  app.run(guarded, flags_parser=parse_flags)


def define_flags(flag_values: flags.FlagValues, argv: Sequence[str]) -> None:
  """`--config` and `--workdir`."""
  config_flags.DEFINE_config_file(
    'config',
    None,
    'Config file, and variant: configs/digits.py:smoke. Keys are overridden by'
    ' --config.KEY=VALUE after it.',
    flag_values=flag_values,
    sys_argv=list(argv),
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


def join_processes(flag_values: flags.FlagValues) -> None:
  """Joins the other processes of a run; before anything else asks JAX for devices.

  Raises:
    UserError: some of the flags that belong together, or nobody to join.
  """
  given = {
    name: flag_values[name].value
    for name in ('coordinator', 'num_processes', 'process_id')
  }
  missing = [name for name, value in given.items() if value is None]
  if len(missing) in (1, 2):
    raise UserError(
      f'--{missing[0]}: missing; --coordinator, --num_processes and --process_id belong'
      ' together.'
    )
  if not missing:
    address, num, index = given.values()
    if index >= num:
      raise UserError(f'--process_id={index}: must be below --num_processes={num}.')
    jax.distributed.initialize(address, num, index)
  elif flag_values.distributed:
    try:
      jax.distributed.initialize()
    except (RuntimeError, ValueError) as error:
      raise UserError(
        f'--distributed: {error} Without a cluster that says so, give --coordinator,'
        ' --num_processes and --process_id.'
      ) from error


def parse(
  flag_values: flags.FlagValues,
  argv: Sequence[str],
  *,
  needs_config: bool,
  needs_workdir: bool = True,
) -> list[str]:
  """Parses `argv`; any mistake is a `UserError` that says what and how to mend it."""
  try:
    rest = flag_values(list(argv))
    has_config = flag_values.config is not None
    if has_config:
      flag_values.config.keys()  # A file that is missing is noticed on first use.
  except (flags.Error, AttributeError, KeyError, OSError, TypeError, ValueError) as e:
    raise UserError(_explain(argv, e)) from e
  if len(rest) > 1:
    raise UserError(f'{rest[1]!r}: not a flag; write --name=value.')
  if needs_config and not has_config:
    raise UserError('--config: missing; give one as --config=configs/digits.py.')
  if needs_workdir and not flag_values.workdir:
    raise UserError('--workdir: missing; give a directory as --workdir=runs/digits.')
  return rest


def _is_ours_or_serious(record: python_logging.LogRecord) -> bool:
  """Libraries log here too: Orbax some thirty lines for one save.

  TFDS even warns that another decoder of images would be faster.
  """
  advises = '/tensorflow_datasets/' in record.pathname
  least = python_logging.ERROR if advises else python_logging.WARNING
  return record.levelno >= least or '/site-packages/' not in record.pathname


def _keep_freed_memory() -> None:
  """Stops glibc from returning freed memory to the kernel after every step.

  On CPU, XLA allocates its temporaries anew for each execution; faulting them in
  again can cost as much as the network (an update of 1.2 times its denoiser
  evaluations takes 1.8 times without this). Other C libraries are left alone.
  """
  try:
    mallopt = ctypes.CDLL('libc.so.6').mallopt
  except (OSError, AttributeError):
    return
  m_trim_threshold, m_top_pad, m_mmap_threshold = -1, -2, -3
  if not mallopt(m_mmap_threshold, 1 << 30):
    mallopt(m_mmap_threshold, 32 << 20)  # The most that older versions take.
  mallopt(m_trim_threshold, (1 << 31) - 1)
  mallopt(m_top_pad, 1 << 28)


def _exit(code: int, error: Exception) -> None:
  line = ' '.join(str(error).split())
  print(f'error: {line}', file=sys.stderr)
  sys.exit(code)


def _explain(argv: Sequence[str], error: Exception) -> str:
  """One line for a failure to parse: key, value, rule, way out.

  ml_collections names neither the full key nor the type it wants, so the overrides
  are walked again here.
  """
  argv = _joined(argv)
  config_args = [a for a in argv if a.startswith('--config=')]
  overrides = [a for a in argv if a.startswith('--config.')]
  if overrides and (
    not config_args or argv.index(overrides[0]) < argv.index(config_args[0])
  ):
    return f'{overrides[0]}: must come after --config=configs/NAME.py.'
  if isinstance(error, OSError) and config_args:
    files_there = sorted(p.name for p in _CONFIGS.glob('*.py'))
    names = ', '.join(name for name in files_there if name not in _NO_CONFIGS)
    return f'{config_args[0]}: no such file; configs/ has {names}.'
  config = _load_config(config_args)
  if config is not None:
    for override in overrides:
      key, _, value = override.removeprefix('--config.').partition('=')
      problem = _override_problem(config, key, value)
      if problem:
        return f'{override}: {problem}'
  # A ValueError inside a config file arrives as the last line of a traceback.
  return str(error).strip().splitlines()[-1].removeprefix('ValueError: ')


def _joined(argv: Sequence[str]) -> list[str]:
  """`--config FILE` and `-config...` written as `--config=FILE`, `--config...`."""
  joined = []
  for arg in argv:
    if joined and joined[-1] in ('--config', '-config'):
      joined[-1] = f'--config={arg}'
    else:
      joined.append(f'-{arg}' if arg.startswith('-config') else arg)
  return joined


def _load_config(config_args: Sequence[str]) -> config_dict.ConfigDict | None:
  flag_values = flags.FlagValues()
  argv = ['', *config_args]
  define_flags(flag_values, argv)
  try:
    flag_values(argv)
    return flag_values.config
  except (flags.Error, OSError):
    return None


def _override_problem(config, key: str, value: str) -> str | None:
  node, path = config, []
  for name in key.split('.'):
    if not isinstance(node, config_dict.ConfigDict) or name not in node:
      names = list(node) if isinstance(node, config_dict.ConfigDict) else []
      close = difflib.get_close_matches(name, names, n=1)
      where = '.'.join(path) or 'the config'
      hint = f'did you mean {close[0]!r}' if close else f'{where} has {names}'
      return f'no key {name!r} in {where}; {hint}?'
    node, path = node[name], [*path, name]
  if isinstance(node, config_dict.ConfigDict):
    return f'is a group, not a value; set one of its keys: {list(node)}.'
  try:
    type(node)(value)
  except ValueError:
    return f'must be of type {type(node).__name__}, like its default {node!r}.'
  return None
