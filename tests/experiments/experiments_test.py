"""The real configs, shrunk, through every binary; resume; runs that go wrong."""

import contextlib
import functools
import json
import pathlib
import shutil
import tempfile
from unittest import mock

import chex
import jax
import numpy as np
import pytest
from absl.testing import absltest
from absl.testing import parameterized

from configs import digits
from configs import mixture
from experiments import benchmark
from experiments import builders
from experiments import collect_statistics
from experiments import compare
from experiments import evaluate
from experiments import report
from experiments import sample
from experiments import sampling
from experiments import search_trajectory
from experiments import sweep
from experiments import train_denoiser
from experiments import train_guidance
from experiments import workdirs
from lgd import errors
from lgd.storage import files
from lgd.training import checkpoints
from tests import helpers

CONFIGS = {'digits': digits, 'mixture': mixture}

# (guidance.objective, guidance.source, guidance.weight) of every kind of learning,
# and the directory that it writes.
LEARNED = {
  'self_consistency': ('self_consistency', 'statistics', 'network'),
  'class_marginal': ('class_marginal', 'statistics', 'network'),
  'marginal': ('marginal', 'statistics', 'network'),
  'l2_table': ('l2', 'statistics', 'table'),
  'score_matching_table': ('score_matching', 'statistics', 'table'),
  'self_consistency_direct': ('self_consistency', 'direct', 'network'),
  'class_marginal_direct': ('class_marginal', 'direct', 'network'),
}


def smoke_config(name='digits', **overrides):
  config = CONFIGS[name].get_config('smoke')
  config.update_from_flattened_dict({'guidance.depth': 2, **overrides})
  return config


def assert_trees_equal(a, b):
  chex.assert_trees_all_equal(*jax.device_get((a, b)))


class EndToEndTest(parameterized.TestCase):
  def train_all(self, config, workdir, learned):
    """A base model, the statistics that are needed, and every weight."""
    state = train_denoiser.run(config, workdir)
    self.assertEqual(int(state.step), config.denoiser.num_steps)
    kinds = {
      builders.objectives.OBJECTIVES[learned[name][0]].statistics
      for name in learned
      if learned[name][1] == 'statistics'
    }
    for kind in sorted(kinds):
      config.statistics.kind = kind
      collect_statistics.run(config, workdir)
    for name, (objective, source, weight) in learned.items():
      config.guidance.update(objective=objective, source=source, weight=weight)
      with self.one_spec():
        state = train_guidance.run(config, workdir)
      num_steps = 1 if weight == 'table' else config.guidance.num_steps
      self.assertEqual(int(state.step), num_steps)
      self.assertTrue((workdir / 'guidance' / name).is_dir())

  @contextlib.contextmanager
  def one_spec(self):
    """A command computes the spec of its data once, and hands it on."""
    spec = builders.data.spec
    with mock.patch.object(builders.data, 'spec', side_effect=spec) as counted:
      yield
    counted.assert_called_once()

  def check_rows(self, rows, workdir, names, num_classes):
    self.assertEqual(json.loads((workdir / 'results.json').read_text()), rows)
    strengths = [(), ('kappa',)]  # 1, and the one of the smoke config.
    keys = [('unguided', ()), *2 * [('constant', ('omega',))]]
    keys += [('interval', ('omega', 'lo', 'hi')), ('clamp_linear', ('omega', 'floor'))]
    for name in names:
      keys += [(name, p) for p in (strengths[:1] if 'table' in name else strengths)]
    methods = [(r['method'], tuple(r['params'])) for r in rows[1:]]
    self.assertCountEqual(methods, 2 * keys)  # Two seeds.
    for row in rows[1:]:
      self.assertEqual(row['num_samples'], 4 * num_classes)
      self.assertTrue(all(np.isfinite(v).all() for v in row['metrics'].values()), row)
      # The null branch is left out at t = 1 of 1, 2/3, 1/3, where two of them are 0.
      self.assertEqual(row['num_steps'], 3)
      given = {'unguided': 3, 'constant': 6, 'interval': 5, 'clamp_linear': 5}
      self.assertBetween(row['nfe'], 3, 6)
      self.assertEqual(row['nfe'], given.get(row['method'], row['nfe']), row)
    # Paired seeds: the samples of different seeds differ, of one seed they agree.
    unguided = [r for r in rows if r['method'] == 'unguided']
    self.assertNotEqual(unguided[0]['metrics'], unguided[1]['metrics'])
    stages = {
      json.loads(line)['stage']
      for line in (workdir / 'metrics.jsonl').read_text().splitlines()
    }
    networks = {f'guidance/{name}' for name in names if 'table' not in name}
    self.assertEqual(stages, {'denoiser', *networks})

  def test_digits(self):
    workdir = pathlib.Path(self.create_tempdir().full_path)
    config = smoke_config(**{'statistics.num_data': 128, 'statistics.shard_size': 64})
    searched = config.copy_and_resolve_references()
    train_denoiser.run(config, workdir)
    for distance in ('pixels', 'features'):
      searched.trajectory.distance = distance
      table = search_trajectory.run(searched, workdir)
      self.assertEqual(table.shape, (10, 3))
      self.assertTrue(np.all((table >= 0.0) & (table <= 4.0)))

    self.train_all(config, workdir, LEARNED)
    with self.one_spec():
      rows = evaluate.run(None, workdir)
    trajectories = {
      f'trajectory_{distance}{suffix}'
      for distance in ('pixels', 'features')
      for suffix in ('', '_table')
    }
    self.check_rows(rows, workdir, {*LEARNED, *trajectories}, num_classes=10)
    costs = {r['method']: r['learning_evaluations'] for r in rows}
    of_pass, of_group_pass = 2 * 3 * 128, 2 * 128  # Two for each noisy particle.
    of_search = 2 * 3 * 4 * 10  # At each of 3 steps, for 4 particles of 10 classes.
    expected = dict.fromkeys(LEARNED, of_pass) | dict.fromkeys(trajectories, of_search)
    expected |= dict.fromkeys(('class_marginal', 'marginal'), of_group_pass)
    of_update = 2 * 2 * 8  # For 2 particles of 8 data.
    expected |= dict.fromkeys(
      ('self_consistency_direct', 'class_marginal_direct'), 20 * of_update
    )
    expected |= dict.fromkeys(
      ('real', 'unguided', 'constant', 'interval', 'clamp_linear'), 0
    )
    self.assertEqual(costs, expected)

    for method in ('constant:0.25', 'class_marginal', 'l2_table'):
      x = sample.run(None, workdir, method=method, seed=0)
      stem = method.replace(':', '_')
      stored = np.load(workdir / 'samples' / f'{stem}_seed0.npz')
      np.testing.assert_array_equal(stored['x'], x)
      np.testing.assert_array_equal(np.bincount(stored['label']), [4] * 10)
      self.assertTrue((workdir / 'samples' / f'{stem}_seed0.png').exists())

    # Evaluation changes nothing of what the others wrote.
    self.assertCountEqual(
      [p.name for p in (workdir / 'guidance').iterdir()], {*LEARNED, *trajectories}
    )

  @pytest.mark.slow
  def test_mixture(self):
    workdir = pathlib.Path(self.create_tempdir().full_path)
    names = ('self_consistency', 'score_matching_table')
    config = smoke_config('mixture')
    self.train_all(config, workdir, {name: LEARNED[name] for name in names})
    # The evaluation section of a config that is given replaces the stored one.
    config.evaluation.update(num_seeds=1, constants=(0.5,), kappas=(0.5, 1.5, 2.0))
    rows = evaluate.run(config, workdir)
    # Real, unguided, three grids of one, a network at 4 strengths, a table.
    self.assertLen(rows, 1 + 1 + 3 + 4 + 1)
    self.assertEqual(json.loads((workdir / 'results.json').read_text()), rows)

    # Cut short and run again: the same to the last byte.
    def contents():
      paths = [*workdir.glob('results.*'), *(workdir / 'plots').iterdir()]
      return {path.name: path.read_bytes() for path in paths}

    before, again = contents(), functools.partial(evaluate.run, config, workdir)
    self.assertLen(before, 2 + 5)
    self.assertEqual(helpers.pieces_made(again, dies_at=5), 5)
    self.assertEqual(helpers.pieces_made(again), 1 + 9 - 5)  # With the judge.
    self.assertEqual(contents(), before)
    self.assertFalse((workdir / 'unfinished').exists())

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
      'clamp_linear:0.5',
      'l2',
      'cfg:1.0',
    )
    rising = sampling.resolve.given_weight(config, 'clamp_linear:0.5,0.1')
    t = np.array([0.2, 0.7])  # 2 omega (1 - t), no less than the floor.
    np.testing.assert_allclose(rising(None, t, t), [0.8, 0.3], rtol=1e-6)
    # Grids that are switched off leave the constants.
    off = dict.fromkeys(('kappas', 'interval_omegas', 'clamp_linear_omegas'), ())
    config.evaluation.update(off, num_seeds=1)
    methods = [row['method'] for row in evaluate.run(config, workdir)]
    self.assertEqual(methods, ['real', 'unguided', 'constant', 'constant'])
    for method in (*bad, 'interval:0.5,0.75,0.25'):
      with self.assertRaisesRegex(errors.InputError, f'--method={method}: '):
        sample.run(None, workdir, method=method, seed=0)

  @pytest.mark.slow
  def test_benchmark(self):
    config = smoke_config()
    with mock.patch.object(report.timing, 'ROUNDS', 1):
      ratios = benchmark.run(config)
    self.assertContainsSubset({'update', 'sampling', 'statistics'}, ratios)
    self.assertTrue(all(np.isfinite(r) and r > 0.0 for r in ratios.values()))


class ResumeTest(parameterized.TestCase):
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
    before = helpers.files_under(resumed)
    assert_trees_equal(train_denoiser.run(four, resumed), expected)
    # How data are read and memory is saved is no other training.
    free = {'data.num_threads': 3, 'data.num_workers': 2, 'denoiser.remat': True}
    again = four.copy_and_resolve_references()
    again.update_from_flattened_dict(free)
    assert_trees_equal(train_denoiser.run(again, resumed), expected)
    # Fewer steps would leave the later checkpoint to every command.
    with self.assertRaisesRegex(
      errors.InputError, 'num_steps=2: .* is at step 4 already'
    ):
      train_denoiser.run(two, resumed)
    self.assertEqual(helpers.files_under(resumed), before)

  @parameterized.parameters('statistics', 'direct')
  def test_guidance(self, source):
    straight = pathlib.Path(self.create_tempdir().full_path)
    resumed = pathlib.Path(self.create_tempdir().full_path)
    overrides = {
      'checkpoint_every': 2,
      'denoiser.num_steps': 4,
      'guidance.source': source,
    }
    four = smoke_config(**overrides, **{'guidance.num_steps': 4})
    two = smoke_config(**overrides, **{'guidance.num_steps': 2})
    train_denoiser.run(four, straight)
    if source == 'statistics':
      collect_statistics.run(four, straight)
    shutil.copytree(straight, resumed, dirs_exist_ok=True)
    expected = train_guidance.run(four, straight)
    train_guidance.run(two, resumed)
    assert_trees_equal(train_guidance.run(four, resumed), expected)


class RefusalTest(parameterized.TestCase):
  """Runs that must not start, and leave everything as it was."""

  @classmethod
  def tearDownClass(cls):
    super().tearDownClass()
    cls.trained_base.cache_clear()

  def setUp(self):
    super().setUp()
    self.workdir = pathlib.Path(self.create_tempdir().full_path)

  def assert_refused(self, pattern, run, *args):
    before = helpers.files_under(self.workdir)
    with self.assertRaisesRegex(
      (errors.InputError, errors.CheckpointError), pattern
    ) as caught:
      run(*args)
    self.assertNotIn('\n', str(caught.exception))
    self.assertEqual(helpers.files_under(self.workdir), before)

  def train_base(self, **overrides):
    """A base model after two steps, in the work directory."""
    overrides = {'denoiser.num_steps': 2, **overrides}
    of_base = {k: v for k, v in overrides.items() if not k.startswith('guidance')}
    trained = self.trained_base(tuple(of_base.items()))
    shutil.copytree(trained, self.workdir, dirs_exist_ok=True)
    return smoke_config(**overrides)

  @staticmethod
  @functools.cache
  def trained_base(overrides):
    directory = pathlib.Path(tempfile.mkdtemp())
    train_denoiser.run(smoke_config(**dict(overrides)), directory)
    return directory

  def test_foreign_directory(self):
    (self.workdir / 'thesis.tex').touch()
    self.assert_refused(
      "'thesis.tex', which no experiment writes",
      train_denoiser.run,
      smoke_config(),
      self.workdir,
    )

  def test_home(self):
    """`~` is the home directory, and no folder of that name, in every path."""
    self.train_base()
    home = self.create_tempdir().full_path
    shutil.move(self.workdir, pathlib.Path(home, 'run'))
    with mock.patch.dict('os.environ', HOME=home):
      x = sample.run(None, '~/run', method='unguided', seed=0)
      self.assertEqual(x.shape, (40, 8, 8, 1))
      autoguided = smoke_config(
        **{'denoiser.num_steps': 2, 'rule.weak_workdir': '~/run'}
      )
      x = sample.run(autoguided, '~/run', method='autoguidance:0.5', seed=0)
      self.assertEqual(x.shape, (40, 8, 8, 1))
      np.savez(pathlib.Path(home, 'a.npz'), a=np.ones(2))
      np.testing.assert_array_equal(files.read_npz('~/a.npz')['a'], np.ones(2))
      self.assertTrue(files.sha256('~/a.npz').startswith(files.sha256('~/a.npz')[:8]))
      files.write_json('~/b.json', [1])
      self.assertEqual(files.read_json('~/b.json'), [1])
    self.assertTrue(pathlib.Path(home, 'b.json').exists())
    self.assertFalse(pathlib.Path('~').exists())

  @parameterized.parameters('evaluate', 'sweep', 'compare')
  def test_a_class_with_a_single_datum(self, command):
    """Before the judge or anything else is trained."""
    config = self.train_base()
    original = builders.data.load

    def with_a_rare_class(config):
      data = original(config)
      label = np.where(data.validation.label == 3, 4, data.validation.label)
      label[0] = 3
      return data._replace(validation=data.validation._replace(label=label))

    self.enter_context(mock.patch.object(builders.data, 'load', with_a_rare_class))
    run = {'evaluate': evaluate, 'sweep': sweep, 'compare': compare}[command].run
    pattern = (
      'class 3 has 1 data in split validation, and a distance needs at least 2;'
      ' choose other data.attributes'
    )
    self.assert_refused(pattern, run, config, self.workdir)

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

  def test_changed_config_of_a_checkpoint(self):
    """It says one width, the arrays another; its fingerprint tells before they do."""
    self.train_base()
    for path in (self.workdir / 'denoiser' / '2' / 'config').glob('*.json'):
      path.write_text(path.read_text().replace('"width": 16', '"width": 32'))
    self.assert_refused(
      r'denoiser/2: is damaged \(config is not what was saved\)',
      evaluate.run,
      None,
      self.workdir,
    )

  def train_guidance(self, **overrides):
    settings = {'guidance.source': 'direct', 'guidance.num_steps': 2, **overrides}
    config = self.train_base(**settings)
    train_guidance.run(config, self.workdir)
    return config

  def test_weight_and_statistics_of_another_base(self):
    config = self.train_guidance()
    collect_statistics.run(config, self.workdir)
    config.denoiser.num_steps = 4
    train_denoiser.run(config, self.workdir)
    pattern = 'was made with the base model at step 2, which is now at step 4'
    self.assert_refused(pattern, train_guidance.run, config, self.workdir)
    self.assert_refused(pattern, evaluate.run, None, self.workdir)
    pattern = f'statistics/particles: {pattern}'
    self.assert_refused(pattern, collect_statistics.run, config, self.workdir)
    config.guidance.source = 'statistics'
    self.assert_refused(pattern, train_guidance.run, config, self.workdir)
    self.assert_refused(pattern, sweep.run, config, self.workdir)

  def test_weight_of_another_base_at_the_same_step(self):
    self.train_guidance()
    shutil.rmtree(self.workdir / 'denoiser')
    self.train_base(**{'denoiser.learning_rate': 0.5})
    self.assert_refused(
      'denoiser.learning_rate=0.5: .*self_consistency_direct was written with 0.01',
      evaluate.run,
      None,
      self.workdir,
    )

  def test_base_of_another_seed(self):
    self.train_base()
    pattern = 'seed=1: .* was written with 0'
    for binary in (collect_statistics, train_guidance, search_trajectory, sweep):
      self.assert_refused(pattern, binary.run, smoke_config(seed=1), self.workdir)

  def test_unfinished_base(self):
    """A run that was cut short after its checkpoint at step 2."""
    config = self.train_base(**{'denoiser.num_steps': 4, 'checkpoint_every': 2})
    shutil.rmtree(self.workdir / 'denoiser' / '4')
    for binary in (train_guidance, search_trajectory, sweep):
      self.assert_refused(
        'is at step 2 of 4; run train_denoiser again', binary.run, config, self.workdir
      )
    config.denoiser.num_steps = 2  # As the message offers.
    workdirs.open_to_learn(config, self.workdir)

  def test_weight_of_another_config(self):
    config = self.train_guidance()
    config.guidance.beta = 1.0
    self.assert_refused(
      'guidance.beta=1.0: .* was written with 1.75',
      train_guidance.run,
      config,
      self.workdir,
    )

  def test_without_a_base(self):
    for binary in (collect_statistics, train_guidance, search_trajectory, sweep):
      self.assert_refused(
        'holds no trained base model', binary.run, smoke_config(), self.workdir
      )

  @parameterized.parameters(
    ('self_consistency', 'particles'),
    ('l2', 'particles'),
    ('class_marginal', 'class_groups'),
    ('marginal', 'pooled_groups'),
  )
  def test_without_statistics(self, objective, kind):
    config = self.train_base(**{'guidance.objective': objective})
    pattern = (
      f'statistics/{kind}: holds no statistics; run python -m'
      f' experiments.collect_statistics with --config.statistics.kind={kind} first'
    )
    for binary in (train_guidance, sweep):
      self.assert_refused(pattern, binary.run, config, self.workdir)

  def test_non_finite_loss_leaves_the_last_checkpoint(self):
    config = self.train_base(**{'checkpoint_every': 2, 'log_every': 2})
    config.denoiser.num_steps = 10
    # The base is restored from step 2, and its data go bad.
    original = builders.data.load

    def poisoned(config):
      data = original(config)
      x = np.full_like(data.train.x, np.nan)
      return data._replace(train=data.train._replace(x=x))

    self.addCleanup(setattr, builders.data, 'load', original)
    builders.data.load = poisoned
    with self.assertRaisesRegex(
      errors.NonFiniteError,
      r'denoiser/\w+=nan at step 3 \(window 3..4\).*/denoiser/2 is the last\.$',
    ):
      train_denoiser.run(config, self.workdir)
    builders.data.load = original
    self.assertEqual(checkpoints.latest_step(self.workdir / 'denoiser'), 2)
    config.denoiser.num_steps = 4
    state = train_denoiser.run(config, self.workdir)
    self.assertTrue(
      all(np.all(np.isfinite(x)) for x in jax.tree.leaves(jax.device_get(state)))
    )


if __name__ == '__main__':
  absltest.main()
