"""Properties of flags but those of configs: any text is refused in one line, or runs.

Wherever a flag is a name, nothing outside of the work directory is made of it.
"""

import os
import pathlib
import shutil

from experiments import builders
from experiments import sample
from experiments import workdirs
from lgd import errors
from tests import helpers
from tests.endurance import config_inputs


def check_arguments(args: list[str], scratch: pathlib.Path) -> str:
  """Any flags after a good config: refused in a line, or parsed; nothing written."""
  here = pathlib.Path.cwd()
  scratch.mkdir(exist_ok=True)
  os.chdir(scratch)
  good = [f'--config={config_inputs.ROOT}/configs/digits.py:smoke', '--workdir=w']
  try:
    config_inputs.parse([*good, *args])
    return 'ran'
  except errors.InputError as error:
    message = ' '.join(str(error).split())
    assert any(_is_named(arg, message) for arg in args), f'names no flag: {message}'
    return 'refused'
  finally:
    os.chdir(here)
    assert not list(scratch.iterdir()), 'wrote files'


def _is_named(arg: str, message: str) -> bool:
  """Whether a line holds a flag, its name or its value."""
  name, _, value = arg.lstrip('-').partition('=')
  shown = (arg, name, value, repr(value)[1:-1])
  shown = [' '.join(text.split()) for text in shown if text.strip()]
  return any(text in message for text in [*shown, repr(arg), f"'{name}'"])


def check_workdir(bench: config_inputs.Bench, root: pathlib.Path, name: str) -> str:
  """Any name of a work directory: refused before anything is made, or a run ends."""
  shutil.rmtree(root, ignore_errors=True)
  (root / 'here').mkdir(parents=True)
  (root / 'file').write_text('text')
  before, here = helpers.files_under(root), pathlib.Path.cwd()
  os.chdir(root / 'here')
  try:
    config = f'--config={config_inputs.ROOT}/configs/mixture.py:smoke'
    name = name.replace('/etc/passwd', '../file')
    if pathlib.PurePath(name).is_absolute() or '..' in pathlib.PurePath(name).parts:
      name = f'../file/{len(name)}'  # Never outside of `root`.
    try:
      workdir = config_inputs.parse([config, f'--workdir={name}']).workdir
      workdirs.Workdir(workdir).refuse_foreign()
    except errors.InputError as error:
      message = ' '.join(str(error).split())
      assert '--workdir' in message and ' '.join(name.split()) in message, message
      assert helpers.files_under(root) == before, 'refused after it was written'
      return 'refused'
    shutil.copytree(bench.trained('mixture'), workdir, dirs_exist_ok=True)
    config_inputs.sample_some(config_inputs.tiny('mixture'), workdir)
    return 'ran'
  finally:
    os.chdir(here)


def check_method(bench: config_inputs.Bench, method: str) -> str:
  """Any --method of `sample`: a line that names it, or samples; it is no path."""
  workdir = bench.trained('mixture')
  before = helpers.files_under(workdir.parent)
  try:
    sample.run(None, workdir, method=method, seed=0)
  except errors.InputError as error:
    assert helpers.files_under(workdir.parent) == before, 'refused after it was written'
    message = ' '.join(str(error).split())
    family = method.partition(':')[0]  # Which may be of no use here, whatever follows.
    named = family in builders.families.FAMILIES and family in message
    assert named or ' '.join(method.split()) in message, message
    return 'refused'
  except errors.NonFiniteError:
    return 'ran'  # omega 1e300 is a number.
  new = helpers.files_under(workdir.parent).keys() - before.keys()
  assert {p.parent for p in new} <= {workdir, workdir / 'samples'}, new
  shutil.rmtree(workdir / 'samples')
  return 'ran'
