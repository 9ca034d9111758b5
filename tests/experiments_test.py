"""The real configs, shrunk, through every binary; resume; runs that go wrong."""

import json
import pathlib
import shutil

import jax
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized

from configs import digits
from configs import mixture
from experiments import benchmark
from experiments import builders
from experiments import evaluate
from experiments import launch
from experiments import sample
from experiments import train_denoiser
from experiments import train_guidance
from lgd import checkpointing
from lgd import reporting
from lgd import training

CONFIGS = {'digits': digits, 'mixture': mixture}


def smoke_config(name='digits', **overrides):
  config = CONFIGS[name].get_config('smoke')
  config.update_from_flattened_dict(overrides)
  return config


def files_under(path):
  return {p: p.stat().st_mtime_ns for p in path.rglob('*')}


def assert_trees_equal(a, b):
  a, b = jax.device_get((a, b))
  jax.tree.map(np.testing.assert_array_equal, a, b)


class EndToEndTest(parameterized.TestCase):
  @parameterized.parameters('digits', 'mixture')
  def test_all_binaries(self, name):
    workdir = pathlib.Path(self.create_tempdir().full_path)
    config = smoke_config(name)
    state = train_denoiser.run(config, workdir)
    self.assertEqual(int(state.step), config.denoiser.num_steps)
    for objective in ('self_consistency', 'l2', 'score_matching'):
      config.guidance.objective = objective
      state = train_guidance.run(config, workdir)
      self.assertEqual(int(state.step), config.guidance.num_steps)

    rows = evaluate.run(None, workdir)
    self.assertEqual(json.loads((workdir / 'results.json').read_text()), rows)
    num_methods = 1 + 2 + 1 + 1 + 3  # Unguided, the smoke grids, learned.
    self.assertLen(rows, 1 + 2 * num_methods)
    num_classes = {'digits': 10, 'mixture': 8}[name]
    for row in rows[1:]:
      self.assertEqual(row['num_samples'], 4 * num_classes)
      self.assertTrue(all(np.isfinite(v) for v in row['metrics'].values()), row)
      guided = row['method'] != 'unguided'
      self.assertEqual(row['nfe'], row['num_steps'] * (2 if guided else 1), row)
    # Paired seeds: the samples of different seeds differ, of one seed they agree.
    unguided = [r for r in rows if r['method'] == 'unguided']
    self.assertNotEqual(unguided[0]['metrics'], unguided[1]['metrics'])
    stages = {
      json.loads(line)['stage']
      for line in (workdir / 'metrics.jsonl').read_text().splitlines()
    }
    self.assertEqual(
      stages,
      {
        'denoiser',
        'guidance/self_consistency',
        'guidance/l2',
        'guidance/score_matching',
      },
    )

    # The evaluation section of a config that is given replaces the stored one.
    config.evaluation.num_seeds = 1
    config.evaluation.constants = (0.5,)
    self.assertLen(evaluate.run(config, workdir), 1 + num_methods - 1)

    x = sample.run(None, workdir, method='constant:0.25', seed=0)
    stored = np.load(workdir / 'samples' / 'constant_0.25_seed0.npz')
    np.testing.assert_array_equal(stored['x'], x)
    np.testing.assert_array_equal(np.bincount(stored['label']), [4] * num_classes)
    self.assertTrue((workdir / 'samples' / 'constant_0.25_seed0.png').exists())

  def test_sampling_methods(self):
    workdir = pathlib.Path(self.create_tempdir().full_path)
    config = smoke_config()
    train_denoiser.run(config, workdir)
    unguided = sample.run(None, workdir, method='unguided', seed=0)
    other_seed = sample.run(None, workdir, method='unguided', seed=1)
    self.assertGreater(np.abs(unguided - other_seed).max(), 0.1)
    # omega = 0 goes through the null branch too, in another batch: equal but for
    # the order of sums.
    zero = sample.run(None, workdir, method='constant:0.0', seed=0)
    np.testing.assert_allclose(zero, unguided, atol=1e-4)
    bad = (
      'constant',
      'constant:a',
      'constant:nan',
      'interval:0.5,0.2',
      'l2',
      'cfg:1.0',
    )
    for method in (*bad, 'interval:0.5,0.75,0.25'):
      with self.assertRaisesRegex(launch.UserError, f'--method={method}: '):
        sample.run(None, workdir, method=method, seed=0)

  def test_benchmark(self):
    config = smoke_config()
    ratios = benchmark.run(config)
    self.assertEqual(set(ratios), {'update', 'sampling'})
    self.assertTrue(all(np.isfinite(r) and r > 0.0 for r in ratios.values()))


class ResumeTest(absltest.TestCase):
  """4 steps equal 2, a restart, and 2 more, leaf for leaf."""

  def test_denoiser(self):
    straight = pathlib.Path(self.create_tempdir().full_path)
    resumed = pathlib.Path(self.create_tempdir().full_path)
    overrides = {'checkpoint_every': 2, 'log_every': 1}
    four = smoke_config(**overrides, **{'denoiser.num_steps': 4})
    two = smoke_config(**overrides, **{'denoiser.num_steps': 2})
    expected = train_denoiser.run(four, straight)
    train_denoiser.run(two, resumed)
    assert_trees_equal(train_denoiser.run(four, resumed), expected)
    self.assertEqual(
      (resumed / 'metrics.jsonl').read_text(),
      (straight / 'metrics.jsonl').read_text(),
    )
    # Done is done: the same command again changes nothing.
    before = files_under(resumed / 'denoiser')
    assert_trees_equal(train_denoiser.run(four, resumed), expected)
    self.assertEqual(files_under(resumed / 'denoiser'), before)

  def test_guidance(self):
    straight = pathlib.Path(self.create_tempdir().full_path)
    resumed = pathlib.Path(self.create_tempdir().full_path)
    overrides = {'checkpoint_every': 2, 'denoiser.num_steps': 4}
    four = smoke_config(**overrides, **{'guidance.num_steps': 4})
    two = smoke_config(**overrides, **{'guidance.num_steps': 2})
    for workdir in (straight, resumed):
      train_denoiser.run(four, workdir)
    expected = train_guidance.run(four, straight)
    train_guidance.run(two, resumed)
    assert_trees_equal(train_guidance.run(four, resumed), expected)


class DevicesTest(parameterized.TestCase):
  @parameterized.parameters('self_consistency', 'l2', 'score_matching')
  def test_guidance_loss_on_eight_devices_equals_one(self, objective):
    """And so do the parameters after two updates with it."""
    config = smoke_config(**{'guidance.objective': objective})
    data = builders.dataset(config)
    net = builders.guidance_net(config, data.num_classes)
    key = jax.random.key(0)
    denoiser_params = builders.init_network(
      builders.network(config, data.num_classes), key, data.shape
    )
    # Away from its start, where the network is 0 and so are both predictions.
    denoiser_params = jax.tree.map(lambda p: p + 0.1, denoiser_params)
    tx = builders.optimizer(config.guidance)
    step = training.make_train_step(
      train_guidance.make_loss_fn(config, data.num_classes), tx, ema_decay=0.9
    )
    results = []
    for devices in (jax.devices()[:1], jax.devices()):
      mesh = training.make_mesh(devices)
      compiled = training.compile_step(step, mesh)
      state = training.init_state(builders.init_guidance_net(net, key), tx)
      state = jax.device_put(state, training.replicated(mesh))
      batches = builders.batches(config, 'guidance', data.train)(0)
      losses = []
      for _ in range(2):
        batch = training.global_batch(next(batches), mesh)
        state, metrics = compiled(state, denoiser_params, batch, key)
        losses.append(float(metrics['loss']))
      results.append((losses, jax.device_get(state.params)))
    self.assertLen(jax.devices(), 8)
    np.testing.assert_allclose(results[0][0], results[1][0], rtol=1e-5)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
      results[0][1],
      results[1][1],
    )


class RefusalTest(parameterized.TestCase):
  """Runs that must not start, and leave everything as it was."""

  def setUp(self):
    super().setUp()
    self.workdir = pathlib.Path(self.create_tempdir().full_path)

  def assert_refused(self, pattern, run, *args):
    before = files_under(self.workdir)
    with self.assertRaisesRegex(
      (launch.UserError, checkpointing.CheckpointError), pattern
    ) as caught:
      run(*args)
    self.assertNotIn('\n', str(caught.exception))
    self.assertEqual(files_under(self.workdir), before)

  def train_base(self, **overrides):
    config = smoke_config(**{'denoiser.num_steps': 2, **overrides})
    train_denoiser.run(config, self.workdir)
    return config

  def test_foreign_directory(self):
    (self.workdir / 'thesis.tex').touch()
    self.assert_refused(
      "'thesis.tex', which no experiment writes",
      train_denoiser.run,
      smoke_config(),
      self.workdir,
    )

  def test_workdir_is_a_file(self):
    file = self.workdir / 'file'
    file.touch()
    self.assert_refused('is a file', train_denoiser.run, smoke_config(), file)

  def test_base_of_another_config(self):
    self.train_base()
    other = smoke_config(**{'denoiser.learning_rate': 0.5})
    pattern = 'denoiser.learning_rate=0.5: .* was written with 0.01'
    self.assert_refused(pattern, train_denoiser.run, other, self.workdir)
    self.assert_refused(pattern, train_guidance.run, other, self.workdir)
    self.assert_refused(pattern, evaluate.run, other, self.workdir)

  def test_other_data(self):
    self.train_base()
    self.assert_refused(
      "data.name='mixture': .* was written with 'digits'",
      train_guidance.run,
      smoke_config('mixture', **{'denoiser.label_dropout': 0.1}),
      self.workdir,
    )

  def test_checkpoint_of_another_shape(self):
    """The stored config says one width, the arrays another."""
    self.train_base()
    for path in (self.workdir / 'denoiser' / '2' / 'config').glob('*.json'):
      path.write_text(path.read_text().replace('"width": 16', '"width": 32'))
    self.assert_refused(
      r'array params/\S+ is \(.*16.*\) in the checkpoint but \(.*32',
      evaluate.run,
      None,
      self.workdir,
    )

  def test_weight_of_another_base(self):
    config = self.train_base(**{'guidance.num_steps': 2})
    train_guidance.run(config, self.workdir)
    config.denoiser.num_steps = 4
    train_denoiser.run(config, self.workdir)
    pattern = 'learned for the base model at step 2, which is now at step 4'
    self.assert_refused(pattern, train_guidance.run, config, self.workdir)
    self.assert_refused(pattern, evaluate.run, None, self.workdir)

  def test_weight_of_another_base_at_the_same_step(self):
    config = self.train_base(**{'guidance.num_steps': 2})
    train_guidance.run(config, self.workdir)
    shutil.rmtree(self.workdir / 'denoiser')
    self.train_base(**{'denoiser.learning_rate': 0.5})
    self.assert_refused(
      'denoiser.learning_rate=0.5: .*self_consistency was written with 0.01',
      evaluate.run,
      None,
      self.workdir,
    )

  def test_base_of_another_seed(self):
    self.train_base()
    pattern = 'seed=1: .* was written with 0'
    self.assert_refused(pattern, train_guidance.run, smoke_config(seed=1), self.workdir)

  def test_unfinished_base(self):
    """A run that was cut short after its checkpoint at step 2."""
    config = self.train_base(**{'denoiser.num_steps': 4, 'checkpoint_every': 2})
    shutil.rmtree(self.workdir / 'denoiser' / '4')
    self.assert_refused(
      'is at step 2 of 4; run train_denoiser again',
      train_guidance.run,
      config,
      self.workdir,
    )

  def test_weight_of_another_config(self):
    config = self.train_base(**{'guidance.num_steps': 2})
    train_guidance.run(config, self.workdir)
    config.guidance.beta = 1.0
    self.assert_refused(
      'guidance.beta=1.0: .* was written with 1.75',
      train_guidance.run,
      config,
      self.workdir,
    )

  def test_non_finite_loss_leaves_the_last_checkpoint(self):
    config = self.train_base(**{'checkpoint_every': 2, 'log_every': 2})
    config.denoiser.num_steps = 10
    # The base is restored from step 2, and its data go bad.
    original = builders.dataset

    def poisoned(config):
      data = original(config)
      x = np.full_like(data.train.x, np.nan)
      return data._replace(train=data.train._replace(x=x))

    self.addCleanup(setattr, builders, 'dataset', original)
    builders.dataset = poisoned
    with self.assertRaisesRegex(
      reporting.NonFiniteError, r'denoiser/\w+=nan at step 3 \(window 3..4\)'
    ):
      train_denoiser.run(config, self.workdir)
    builders.dataset = original
    self.assertEqual(checkpointing.latest_step(self.workdir / 'denoiser'), 2)
    config.denoiser.num_steps = 4
    state = train_denoiser.run(config, self.workdir)
    self.assertTrue(
      all(np.all(np.isfinite(x)) for x in jax.tree.leaves(jax.device_get(state)))
    )


if __name__ == '__main__':
  absltest.main()
