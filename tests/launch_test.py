"""Command lines that are wrong: one line, exit code 2, nothing written."""

import os
import pathlib
import subprocess
import sys

from absl import flags
from absl.testing import absltest
from absl.testing import parameterized

from experiments import launch

ROOT = pathlib.Path(__file__).parents[1]
DIGITS = '--config=configs/digits.py'

# (arguments, what the message must say).
BAD = (
  ([], '--config: missing; give one as'),
  ([DIGITS], '--workdir: missing; give a directory'),
  (['--config=configs/none.py', '--workdir=w'], 'configs/none.py: no such file'),
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
)


def parse(args):
  flag_values = flags.FlagValues()
  argv = ['binary', *args]
  launch.define_flags(flag_values, argv)
  launch.parse(flag_values, argv, needs_config=True)
  return flag_values


class ParseTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.addCleanup(os.chdir, pathlib.Path.cwd())
    os.chdir(ROOT)

  @parameterized.parameters(*BAD)
  def test_says_what_is_wrong(self, args, message):
    with self.assertRaises(launch.UserError) as caught:
      parse(args)
    self.assertIn(message, str(caught.exception))

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


class CompilationCacheTest(absltest.TestCase):
  def test_keeps_what_was_compiled(self):
    cache = pathlib.Path(self.create_tempdir().full_path) / 'cache'
    workdir = pathlib.Path(self.create_tempdir().full_path) / 'run'
    command = [
      sys.executable,
      '-m',
      'experiments.train_denoiser',
      f'{DIGITS}:smoke',
      f'--workdir={workdir}',
      f'--compilation_cache={cache}',
    ]
    env = {**os.environ, 'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0'}
    subprocess.run(command, cwd=ROOT, env=env, capture_output=True, check=True)
    self.assertNotEmpty(list(cache.iterdir()))


if __name__ == '__main__':
  absltest.main()
