"""Properties of configs, assigned or given by flags: refused in one line, or they run.

A case is refused if a binary raises what becomes exit code 2: then the message is one
line that names a key that was changed, with its value, and nothing was written. Else it
is accepted, and what its keys are for runs to its end, on a few data: a base model, a
statistics pass, learned weights, samples, a search or a sweep. Not run is

  - what the keys of `clip`, `compare`, `fid` and `frontier` are for, as it needs
    images, prompts or minutes;
  - what is valid but large, as 2^31 - 1 data.
"""

import contextlib
import io
import pathlib
import shutil
import sys
from typing import Any

import numpy as np
from absl import flags
from ml_collections import config_dict

from configs import digits
from configs import mixture
from experiments import app
from experiments import builders
from experiments import collect_statistics
from experiments import sample
from experiments import search_trajectory
from experiments import sweep
from experiments import train_denoiser
from experiments import train_guidance
from experiments import validation
from experiments import workdirs
from lgd import errors
from tests import helpers
from tests.endurance import input_strategies

ROOT = pathlib.Path(__file__).parents[2]
CONFIGS = {'digits': digits, 'mixture': mixture}
REFUSALS = (errors.InputError, errors.CheckpointError, errors.FileError)

_TINY = {
  'data.num_per_class': 16,
  'denoiser.num_steps': 2,
  'guidance.num_steps': 2,
  'evaluation.num_steps': 2,
  'evaluation.samples_per_class': 2,
  'evaluation.classifier_steps': 2,
  'trajectory.classifier_steps': 2,
  'trajectory.fit_steps': 2,
  'sweep.num_seeds': 1,
  'sweep.num_steps': 2,
  'sweep.samples_per_class': 2,
  'sweep.s_min': (0.01,),
  'sweep.num_particles': (2,),
}
_OF_BASE = ('seed', 'schedule', 'log_every', 'checkpoint_every', 'mesh', 'data')
_NOT_RUN = ('clip', 'compare', 'fid', 'frontier', 'verdict')
# Integers that cost nothing when they are large.
_FREE = ('seed', 'log_every', 'checkpoint_every', 'num_threads', 'warmup_steps')
_LARGEST = 16  # Of any other integer that is run.


def tiny(name: str) -> config_dict.ConfigDict:
  """The smoke config, shrunk further."""
  config = CONFIGS[name].get_config('smoke')
  config.update_from_flattened_dict(_TINY)
  return config


class Bench:
  """Trained work directories of the configs, made once, and copies of them."""

  def __init__(self, root: pathlib.Path):
    self._root, self._count = root, 0

  def trained(self, name: str) -> pathlib.Path:
    """The base model and the statistics of `tiny(name)`."""
    workdir = self._root / f'trained_{name}'
    if not workdir.exists():
      train_denoiser.run(tiny(name), workdir)
      collect_statistics.run(tiny(name), workdir)
    return workdir

  def new(self, name: str | None = None) -> pathlib.Path:
    """A copy, or a path where nothing is."""
    self._count += 1
    workdir = self._root / f'case_{self._count}'
    if name:
      shutil.copytree(self.trained(name), workdir)
    return workdir


def parse(args: list[str]) -> flags.FlagValues:
  """As `launch.main` reads a command line."""
  flag_values, argv = flags.FlagValues(), ['binary', *args]
  app.command_line.define_flags(flag_values, argv)
  sys.modules.pop('config_config', None)  # A process loads one config file.
  app.launch.parse(flag_values, argv, needs_config=True)
  return flag_values


def arguments_of(name: str, changes: dict[str, Any]) -> list[str]:
  """The command line that makes these changes to `tiny(name)`."""
  given = {**_TINY, **changes}
  return [
    f'--config={ROOT}/configs/{name}.py:smoke',
    *(f'--config.{k}={input_strategies.on_command_line(v)}' for k, v in given.items()),
    '--workdir=unused',
  ]


def check_command_line(name: str, changes: dict[str, Any]) -> str:
  """As text: refused by its parser or by the rules, or the config that is assigned."""
  try:
    config = parse(arguments_of(name, changes)).config
  except errors.InputError as error:
    of_flags = {k: input_strategies.on_command_line(v) for k, v in changes.items()}
    require_names(str(error), of_flags, as_given=True)
    return 'refused'
  leaves = input_strategies.leaves(config)
  for key, value in changes.items():
    # Within a tuple, infinity and NaN are no literals: the text is a name then.
    is_name = isinstance(value, tuple) and leaves[key] == (repr(value),)
    assert is_name or repr(leaves[key]) == repr(value), (key, leaves[key])
  try:
    validation.validate(config)
  except errors.InputError as error:
    require_names(str(error), {key: leaves[key] for key in changes})
    return 'refused'
  return 'accepted'


def check_config(bench: Bench, name: str, changes: dict[str, Any]) -> str:
  """'refused', 'ran' or 'accepted'. Raises AssertionError if neither holds."""
  config = tiny(name)
  try:
    config.update_from_flattened_dict(changes)
  except TypeError:  # Of a program that assigns: ml_collections keeps types.
    return 'refused'
  leaves = input_strategies.leaves(config)
  changes = {key: leaves[key] for key in changes}
  try:
    with contextlib.redirect_stdout(io.StringIO()):  # Of a sweep's tables.
      return _run(bench, name, config, changes)
  except errors.NonFiniteError:
    assert any(map(_is_extreme, changes.values())), 'not finite for moderate values'
    return 'ran'


def _run(bench, name, config, changes):
  stages = _stages(config, changes)
  sections = {key.split('.')[0] for key in changes}
  runs = not sections <= set(_NOT_RUN)
  runs &= not any(_is_large(k, v) for k, v in changes.items())
  workdir = bench.new(None if stages[0] is train_denoiser.run else name)
  if {'statistics', 'rule', 'reward'} & sections:
    shutil.rmtree(workdir / 'statistics', ignore_errors=True)  # To be made otherwise.
  try:
    for stage in stages:
      before = helpers.files_under(workdir)
      try:
        if runs:
          stage(config, workdir)
        else:
          validation.validate(config)
      except REFUSALS as error:
        assert helpers.files_under(workdir) == before, 'refused after it was written'
        assert stage is not train_denoiser.run or not workdir.exists()
        require_names(str(error), changes)
        return 'refused'
  finally:
    shutil.rmtree(workdir, ignore_errors=True)
  return 'ran' if runs else 'accepted'


def _stages(config, changes):
  """The commands to run, in order."""
  sections = {key.split('.')[0] for key in changes}
  stages = []
  if sections & {*_OF_BASE, 'denoiser'} or sections <= set(_NOT_RUN):
    stages.append(train_denoiser.run)
  if sections & {*_OF_BASE, 'denoiser', 'rule', 'reward', 'statistics', 'guidance'}:
    if not sections <= {*_OF_BASE, 'denoiser'}:
      stages += [_collect, train_guidance.run]
  if 'evaluation' in sections:
    stages.append(sample_some)
  if {'trajectory', 'endpoint', 'classifier'} & sections:
    stages.append(search_trajectory.run)
  if 'sweep' in sections:
    stages += [_collect, sweep.run]
  return stages


def _collect(config, workdir):
  """The statistics that the weight to be learned needs, if it needs some."""
  validation.validate(config)
  if config.guidance.source == 'statistics':
    config = config.copy_and_resolve_references()
    config.statistics.kind = builders.objectives.of(config).statistics
  if not (workdir / 'statistics' / workdirs.layout.statistics_name(config)).exists():
    collect_statistics.run(config, workdir)


def sample_some(config: config_dict.ConfigDict, workdir: pathlib.Path) -> None:
  """A weight of 0.5, on every condition."""
  x = sample.run(config, workdir, method='constant:0.5', seed=config.seed)
  assert np.all(np.isfinite(x))


def _is_large(key: str, value: Any) -> bool:
  if key.rpartition('.')[2] in _FREE:
    return False
  numbers = value if isinstance(value, tuple) else (value,)
  return any(isinstance(v, int) and v > _LARGEST for v in numbers)


def _is_extreme(value: Any) -> bool:
  """A number that float32 holds, but hardly what is computed with it."""
  numbers = value if isinstance(value, tuple) else (value,)
  numbers = [abs(v) for v in numbers if isinstance(v, float)]
  return any(v > 1e3 or 0.0 < v < 1e-6 for v in numbers)


def require_names(
  message: str, changes: dict[str, Any], *, as_given: bool = False
) -> None:
  """Asserts that a message is a line that names some key with its value.

  `as_given`: the values are text of a command line, and stand there as they are.
  """
  if as_given:  # `launch` prints it in one line.
    message = ' '.join(message.split())
  assert len(message.splitlines()) == 1, f'not one line: {message!r}'
  for key, value in changes.items():
    shown = ' '.join(value.split()) if as_given else repr(value)
    last = key.split('.')[-1]
    if f'{last}={shown}' in message or (last in message and shown in message):
      return
  raise AssertionError(f'names none of {changes}: {message!r}')
