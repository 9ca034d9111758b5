"""Two processes of four devices each against one of eight: the same results."""

import json
import pathlib

import numpy as np
import pytest
from absl.testing import absltest
from absl.testing import parameterized

from experiments import app
from lgd import errors
from lgd.training import checkpoints
from tests import helpers

CONFIG = (
  '--config=configs/digits.py:smoke',
  '--config.denoiser.num_steps=8',
  '--config.guidance.num_steps=4',
  # A base whose null prediction is not that of the class: the weights have a gradient.
  '--config.denoiser.learning_rate=0.05',
  '--config.denoiser.ema_decay=0.5',
  '--config.denoiser.label_dropout=0.3',
  '--config.checkpoint_every=2',
)
# Every binary that calls the base model, and one that restores what they wrote, as one
# program.
PROGRAM = """
from experiments import app, collect_statistics, sample, train_denoiser
from experiments import search_trajectory, train_guidance

def run(flags):
  train_denoiser.run(flags.config, flags.workdir)
  collect_statistics.run(flags.config, flags.workdir)
  for source in ('statistics', 'direct'):
    flags.config.guidance.source = source
    train_guidance.run(flags.config, flags.workdir)
  search_trajectory.run(flags.config, flags.workdir)
  sample.run(None, flags.workdir, method='self_consistency_direct', seed=0)

app.main(run, needs_config=True)
"""


def start(workdir, num_devices, flags=()):
  return helpers.start(
    PROGRAM,
    *CONFIG,
    f'--workdir={workdir}',
    *flags,
    JAX_NUM_CPU_DEVICES=str(num_devices),
    JAX_DISABLE_MOST_OPTIMIZATIONS='1',
  )


@pytest.mark.slow
class MultihostTest(absltest.TestCase):
  def test_two_processes_equal_one(self):
    alone, together = (
      pathlib.Path(self.create_tempdir().full_path) / 'run' for _ in range(2)
    )
    address = helpers.free_address()
    processes = [start(alone, 8)] + [
      start(
        together,
        4,
        (f'--coordinator={address}', '--num_processes=2', f'--process_id={i}'),
      )
      for i in range(2)
    ]
    for process in processes:
      _, errors = process.communicate(timeout=300)
      self.assertEqual(process.returncode, 0, errors[-3000:])

    def metrics(workdir):
      lines = (workdir / 'metrics.jsonl').read_text().splitlines()
      return [json.loads(line) for line in lines]

    self.assertLen(metrics(together), len(metrics(alone)))
    for a, b in zip(metrics(together), metrics(alone), strict=True):
      self.assertEqual((a['stage'], a['step']), (b['stage'], b['step']))
      for name in a.keys() - {'stage', 'step'}:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-3, err_msg=str(a))
    for workdir in (alone, together):  # 4 updates, 8 data of 2 particles, 2 branches.
      stored = checkpoints.load_config(workdir / 'guidance' / 'self_consistency_direct')
      self.assertEqual(stored['num_evaluations'], 4 * 8 * 2 * 2)
    for name in ('statistics/particles/shard-00001.npz', 'samples/*.npz'):
      a, b = (np.load(*workdir.glob(name)) for workdir in (together, alone))
      self.assertEqual(a.files, b.files)
      for array in a.files:
        np.testing.assert_allclose(
          a[array], b[array], rtol=1e-3, atol=1e-4, err_msg=array
        )


class FlagsTest(parameterized.TestCase):
  @parameterized.parameters(
    (['--coordinator=localhost:1'], '--num_processes: missing'),
    (['--num_processes=2', '--process_id=0'], '--coordinator: missing'),
    (
      ['--coordinator=localhost:1', '--num_processes=2', '--process_id=2'],
      '--process_id=2: must be below --num_processes=2',
    ),
  )
  def test_refused(self, args, message):
    flag_values = app.launch.flags.FlagValues()
    argv = ['binary', *args]
    app.command_line.define_flags(flag_values, argv)
    flag_values(argv)
    with self.assertRaisesRegex(errors.InputError, message):
      app.launch.join_processes(flag_values)


if __name__ == '__main__':
  absltest.main()
