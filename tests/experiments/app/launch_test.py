"""Command lines that are wrong: one line, exit code 2, nothing written."""

import os
import pathlib
import subprocess
import sys

import pytest
from absl import flags
from absl.testing import absltest
from absl.testing import parameterized

from experiments import app
from experiments import workdirs
from lgd import errors

ROOT = pathlib.Path(__file__).parents[3]
DIGITS = '--config=configs/digits.py'

# (arguments, what the message must say).
BAD = (
  ([], '--config: missing; give one as'),
  ([DIGITS], '--workdir: missing; give a directory'),
  (
    ['--config=configs/none.py', '--workdir=w'],
    'no such file; configs/ has celeba64.py, cifar10.py',
  ),
  ([DIGITS, f'{DIGITS}:bogus'], f'{DIGITS}:bogus: config variant'),
  ([f'{DIGITS}:bogus', '--workdir=w'], "variant 'bogus': must be under_trained"),
  (
    [DIGITS, '--config.denoiser.nm_steps=3'],
    "--config.denoiser.nm_steps=3: no key 'nm_steps' in denoiser;"
    " did you mean 'num_steps'",
  ),
  (
    ['--config', 'configs/digits.py', '--config.denoiser.nm_steps=3'],
    "did you mean 'num_steps'",
  ),
  ([DIGITS, '--config.xyz=3'], "no key 'xyz' in the config; the config has"),
  ([DIGITS, '--config.denosier.width=3'], "did you mean 'denoiser'"),
  ([DIGITS, '--config.seed.width=3'], "no key 'width' in seed"),
  (
    [DIGITS, '--config.denoiser.num_steps=1e3'],
    '--config.denoiser.num_steps=1e3: must be of type int, like its default 1000',
  ),
  (
    [DIGITS, '--config.guidance.beta=big'],
    '--config.guidance.beta=big: must be of type float, like its default 1.75',
  ),
  ([DIGITS, '--config.denoiser=3'], '--config.denoiser=3: is a group'),
  (['--config.seed=3', DIGITS], '--config.seed=3: must come after --config='),
  (['--config.seed=3'], '--config.seed=3: must come after --config='),
  ([DIGITS, '--workdri=w'], "Unknown command line flag 'workdri'"),
  ([DIGITS, '--workdir=w', 'train'], "'train': not a flag"),
  ([DIGITS, '--config.data.flip=3'], 'data.flip=3: must be of type bool, like its'),
  ([DIGITS, '--config.sweep.beta=(1,'], 'beta=(1,: must be of type tuple, like its'),
  ([DIGITS, f'--config.sweep.beta={"-" * 5000}1'], '1: must be of type tuple'),
  ([DIGITS, '--config.sweep.beta[0]=1.0'], "did you mean 'beta'"),
  ([DIGITS, '--config.seed.width=3'], 'seed is a value, 0, and no group'),
  # Not the one before it, which int alone would not read.
  (
    [DIGITS, '--config.seed=0x10', '--config.denoiser.width=x'],
    '--config.denoiser.width=x: must be of type int',
  ),
  ([DIGITS, '--flagfile=/nowhere'], 'Unable to open flagfile: [Errno 2]'),
  ([DIGITS, '--flagfile=\udbb2'], '; give a file whose name is UTF-8.'),
  ([DIGITS, '--work\ndir=w'], "Unknown command line flag 'work dir'"),
  ([DIGITS, f'--{"w" * 5000}'], 'w: cannot be read (maximum recursion'),
  ([DIGITS, f'--workdir={"w" * 5000}'], 'w: cannot be a path ([Errno 36]'),
  ([DIGITS, '--workdir=\udcff'], "cannot be a path ('utf-8'"),
  (['--config=README.md', '--workdir=w'], '--config=README.md: SyntaxError: '),
)

# (a config file, what the message must say of it).
BAD_FILES = (
  ('def get_config(): return 1 / 0', 'ZeroDivisionError: division by zero; mend'),
  ('import nowhere', 'ModuleNotFoundError: No module'),
  ('x = 1', "no attribute 'get_config'"),
  ('def get_config(): return None', "'NoneType' object"),
  ('def get_config(): return {}', 'TypeError: get_config() returned a dict'),
)


def parse(args):
  flag_values = flags.FlagValues()
  argv = ['binary', *args]
  app.command_line.define_flags(flag_values, argv)
  sys.modules.pop('config_config', None)  # A process loads one config file.
  app.launch.parse(flag_values, argv, needs_config=True)
  return flag_values


class ParseTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.addCleanup(os.chdir, pathlib.Path.cwd())
    os.chdir(ROOT)

  @parameterized.parameters(*BAD)
  def test_says_what_is_wrong(self, args, message):
    with self.assertRaises(errors.InputError) as caught:
      parse(args)
    self.assertIn(message, str(caught.exception))

  @parameterized.parameters(*BAD_FILES)
  def test_says_what_a_config_file_does(self, text, message):
    path = self.create_tempfile('bad.py', text).full_path
    with self.assertRaises(errors.InputError) as caught:
      parse([f'--config={path}', '--workdir=w'])
    self.assertStartsWith(str(caught.exception), f'--config={path}: ')
    self.assertIn(message, str(caught.exception))

  def test_overrides_in_a_flagfile(self):
    path = self.create_tempfile('flags', '--config.seed=3').full_path
    parsed = parse([DIGITS, '--workdir=w', f'--flagfile={path}'])
    self.assertEqual(parsed.config.seed, 3)

  def test_good_line(self):
    parsed = parse(
      [
        f'{DIGITS}:smoke',
        '--config.guidance.beta=1.5',
        '--config.evaluation.constants=(0.5,1.0)',
        '--workdir=w',
      ]
    )
    self.assertEqual(parsed.workdir, 'w')
    self.assertEqual(parsed.config.guidance.beta, 1.5)
    self.assertEqual(parsed.config.evaluation.constants, (0.5, 1.0))


class ProcessTest(parameterized.TestCase):
  """The same through a real process."""

  @parameterized.parameters(
    ('train_denoiser', [DIGITS, '--config.denoiser.nm_steps=3'], 'nm_steps=3'),
    ('train_denoiser', [DIGITS, '--config.denoiser.width=0'], 'denoiser.width=0'),
    ('train_guidance', [DIGITS], 'holds no trained base model'),
    ('evaluate', [], 'holds no trained base model'),
    ('sample', ['--method=constant:1.0'], 'holds no trained base model'),
    ('sample', ['--seed=9223372036854775808'], 'in the range [0, 2147483647]'),
  )
  def test_one_line_exit_code_2_nothing_written(self, binary, args, message):
    workdir = pathlib.Path(self.create_tempdir().full_path) / 'new'
    command = [sys.executable, '-m', f'experiments.{binary}', *args]
    command.append(f'--workdir={workdir}')
    done = subprocess.run(
      command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    self.assertEqual(done.returncode, 2, done.stderr)
    self.assertNotIn('Traceback', done.stderr)
    errors = [line for line in done.stderr.splitlines() if line.startswith('error: ')]
    self.assertLen(errors, 1)
    self.assertIn(message, errors[0])
    self.assertFalse(workdir.exists())

  def test_nothing_reaches_the_terminal_but_text(self):
    command = [sys.executable, '-m', 'experiments.train_denoiser', DIGITS]
    command.append('--config.seed=\x1b[31m\n\u2028\udcff')
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    self.assertEqual(done.returncode, 2)
    line = done.stderr.decode().splitlines()[-1]
    self.assertStartsWith(line, r'error: --config.seed=\x1b[31m \udcff: must be')


class WorkdirTest(parameterized.TestCase):
  """Refused before anything is computed, where a directory could not be made."""

  @parameterized.parameters('file', 'file/below', 'file/far/below')
  def test_files(self, name):
    root = pathlib.Path(self.create_tempdir().full_path)
    (root / 'file').write_text('text')
    with self.assertRaisesRegex(errors.InputError, f'--workdir={root / name}: .*file'):
      workdirs.Workdir(root / name).refuse_foreign()
    workdirs.Workdir(root / 'new/below').refuse_foreign()
    self.assertEqual([p.name for p in root.iterdir()], ['file'])

  def test_no_backslash(self):
    with self.assertRaisesRegex(errors.InputError, r'a\\b/c: .*backslash'):
      workdirs.Workdir('a\\b/c').refuse_foreign()

  @parameterized.parameters('/proc/lgd', '/proc/lgd/below', '/sys/lgd')
  def test_not_to_be_written(self, place):
    """Where the kernel lets nobody write, not even root."""
    with self.assertRaisesRegex(
      errors.InputError, f'^--workdir={place}: no file can be written in /(proc|sys)'
    ):
      workdirs.Workdir(place).refuse_foreign()


@pytest.mark.slow
class CompilationCacheTest(absltest.TestCase):
  def test_keeps_what_was_compiled(self):
    cache = pathlib.Path(self.create_tempdir().full_path) / 'cache'
    workdir = pathlib.Path(self.create_tempdir().full_path) / 'run'
    command = [
      sys.executable,
      '-m',
      'experiments.train_denoiser',
      f'{DIGITS}:smoke',
      '--config.denoiser.num_steps=1',
      f'--workdir={workdir}',
      f'--compilation_cache={cache}',
    ]
    env = {
      **os.environ,
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
      'JAX_DISABLE_MOST_OPTIMIZATIONS': '1',
      'JAX_NUM_CPU_DEVICES': '1',
    }
    subprocess.run(command, cwd=ROOT, env=env, capture_output=True, check=True)
    self.assertNotEmpty(list(cache.iterdir()))


if __name__ == '__main__':
  absltest.main()
