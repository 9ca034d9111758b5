"""How every command starts and ends: flags, logging and one-line errors.

Exit codes: 0 done, 1 the run failed (a non-finite loss, a full disk, a bug), 2 the
input was wrong (a flag, the config, a file), 75 stopped by SIGTERM; after 75, and after
1 once its cause is mended, the same command goes on from what was saved.
"""

import contextlib
import ctypes
import faulthandler
import logging as python_logging
import os
import sys
from collections.abc import Callable
from collections.abc import Sequence

import jax
from absl import app
from absl import flags
from absl import logging

from experiments.app import command_line
from experiments.app import locking
from experiments.app import preemption
from lgd import errors
from lgd.storage import files


def main(
  run: Callable[[flags.FlagValues], None],
  *,
  needs_config: bool,
  needs_workdir: bool = True,
) -> None:
  """Parses the flags and calls `run(flags.FLAGS)`.

  Args:
    run: the command.
    needs_config: whether `--config` is required; a command that works on a trained
      work directory reads the config from there.
    needs_workdir: whether `--workdir` is required.
  """

  def parse_flags(argv):
    try:
      return parse(
        flags.FLAGS, argv, needs_config=needs_config, needs_workdir=needs_workdir
      )
    except errors.InputError as error:
      _exit(2, error)

  def guarded(argv):
    del argv
    logging.get_absl_handler().addFilter(_is_ours_or_serious)
    try:
      join_processes(flags.FLAGS)
    except errors.InputError as error:
      _exit(2, error)
    preemption.watch(flags.FLAGS.grace_seconds)
    if jax.process_count() > 1:
      # JAX ends a process whose peer died and says so; where it then was, all threads
      # of it, would be the last hundred lines.
      faulthandler.disable()
    if flags.FLAGS.compilation_cache:
      jax.config.update('jax_compilation_cache_dir', flags.FLAGS.compilation_cache)
    logging.info('devices: %s', ', '.join(str(d) for d in jax.devices()))
    workdir = flags.FLAGS.workdir
    try:
      with locking.lock(workdir) if workdir else contextlib.nullcontext():
        run(flags.FLAGS)
    except errors.InputError as error:
      _exit(2, error)
    except errors.RunError as error:
      _exit_alone(error)
    except jax.errors.JaxRuntimeError as error:
      if jax.process_count() == 1:
        raise
      _exit_alone(
        f'process {jax.process_index()} stops, for another one did, or cannot be'
        f' reached: {error} See what the others say, and start all of them again.'
      )
    except preemption.Preempted as error:
      print(f'stopped: {error}; the same command goes on from there.', file=sys.stderr)
      sys.exit(preemption.EXIT_CODE)

  logging.set_verbosity(logging.INFO)
  _keep_freed_memory()
  command_line.define_flags(flags.FLAGS, sys.argv)
  app.run(guarded, flags_parser=parse_flags)


def join_processes(flag_values: flags.FlagValues) -> None:
  """Joins the other processes of a run; before anything else asks JAX for devices.

  Raises:
    errors.InputError: some of the flags that belong together, or nobody to join.
  """
  given = {
    name: flag_values[name].value
    for name in ('coordinator', 'num_processes', 'process_id')
  }
  missing = [name for name, value in given.items() if value is None]
  if len(missing) in (1, 2):
    raise errors.InputError(
      f'--{missing[0]}: missing; --coordinator, --num_processes and --process_id belong'
      ' together.'
    )
  timeouts = {
    'heartbeat_timeout_seconds': flag_values.peer_timeout,
    'shutdown_timeout_seconds': flag_values.peer_timeout,
  }
  if not missing:
    address, num, index = given.values()
    if index >= num:
      raise errors.InputError(
        f'--process_id={index}: must be below --num_processes={num}.'
      )
    jax.distributed.initialize(address, num, index, **timeouts)
  elif flag_values.distributed:
    try:
      jax.distributed.initialize(**timeouts)
    except (RuntimeError, ValueError) as error:
      raise errors.InputError(
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
  """Parses `argv`.

  Raises:
    errors.InputError: what is wrong with it, and how to mend it.
  """
  try:
    rest = command_line.parse(flag_values, argv)
  except ValueError as error:
    raise errors.InputError(str(error)) from error
  if len(rest) > 1:
    raise errors.InputError(f'{rest[1]!r}: not a flag; write --name=value.')
  if needs_config and flag_values.config is None:
    raise errors.InputError(
      '--config: missing; give one as --config=configs/digits.py.'
    )
  if needs_workdir and not flag_values.workdir:
    raise errors.InputError(
      '--workdir: missing; give a directory as --workdir=runs/digits.'
    )
  for name in ('workdir', 'compilation_cache'):
    value = flag_values[name].value
    problem = command_line.path_problem(value or '.')
    if problem:
      raise errors.InputError(f'--{name}={value}: {problem}')
    if value:  # `~` of --workdir=~/runs is for us to expand.
      flag_values[name].value = os.fspath(files.user_path(value))
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
  _print(error)
  sys.exit(code)


def _exit_alone(error: Exception | str) -> None:
  """Exits with 1; of several processes without waiting for the others to do so.

  They would wait for this one, too, and each for as long as they are allowed to.
  """
  if jax.process_count() == 1:
    _exit(1, error)
  _print(error)
  sys.stderr.flush()
  os._exit(1)


def _print(error: Exception | str) -> None:
  words = ' '.join(str(error).split())
  # What was given may hold anything, also what a terminal would take for a command.
  line = ''.join(
    c if c.isprintable() else c.encode('unicode_escape').decode() for c in words
  )
  print(f'error: {line}', file=sys.stderr)
