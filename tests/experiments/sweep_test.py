"""A sweep trains what each point alone would, and chooses on validation data."""

import functools
import json
import pathlib
import re
import shutil

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized
from etils import epath

from configs import mixture
from experiments import app
from experiments import builders
from experiments import collect_statistics
from experiments import learning
from experiments import report
from experiments import sampling
from experiments import sweep
from experiments import train_denoiser
from experiments import workdirs
from lgd import arrays
from lgd import errors
from lgd import objectives
from lgd import schedules
from lgd import statistics
from lgd import training
from tests import helpers

GRID = {
  'sweep.beta': (1.0, 1.75),
  'sweep.interaction': (1.0, 0.5),
  'sweep.gap': (0.1,),
  'sweep.s_min': (0.01, 0.2),
  'sweep.churn': (1.0,),
  'sweep.learning_rate': (1e-2,),
  'sweep.num_particles': (2, 3),
  'sweep.num_seeds': 2,
}


def smoke_config(**overrides):
  config = mixture.get_config('smoke')
  config.update_from_flattened_dict({'guidance.depth': 2, **overrides})
  return config


def make_store(num=256, m=3, dim=2, num_classes=8):
  """Predictions that are too close to the null ones, and noise."""
  rng = np.random.default_rng(0)
  eps, delta, noise = rng.normal(size=(3, num, m, dim))
  label = np.arange(num) % num_classes
  residual = -(1.0 + 0.2 * label[:, None, None]) * delta + 0.3 * noise
  vectors = np.concatenate([eps, residual, delta], axis=1)
  gram = jnp.asarray(vectors @ vectors.swapaxes(1, 2), jnp.float32)
  t = jnp.asarray((np.arange(num) + 0.5) / num, jnp.float32)
  return objectives.make_store(
    statistics.pack(gram),
    t,
    jnp.asarray(label),
    schedule=schedules.RectifiedFlow(),
    dim=dim,
    num_particles=m,
    antithetic=True,
  )


class TrainTest(parameterized.TestCase):
  def test_each_point_is_trained_as_it_would_be_alone(self):
    config = smoke_config(**GRID)
    store = make_store()
    config.guidance.update(batch_size=16)
    config.sweep.num_steps = 25
    grid = sweep.make_grid(config)
    self.assertLen(grid, 2**5)
    group = [p for p in grid if p['num_particles'] == 2]
    session = helpers.session('/none', config)
    together = sweep.train(session, store, group, num_particles=2)
    model = builders.models.weight_model(config, builders.data.spec(config))
    tabulate = sampling.sampler.make_tabulate(config, model)
    tables = jax.lax.map(lambda params: tabulate(params, np.arange(8)), together)
    self.assertEqual(tables.shape, (16, 8, 3))

    for i in (0, 5, 10, 15):
      point = group[i]
      alone = config.copy_and_resolve_references()
      alone.guidance.update({axis: point[axis] for axis in report.sweep.AXES})
      model = builders.models.weight_model(alone, builders.data.spec(alone))
      tx = builders.models.optimizer(alone.guidance)
      step = jax.jit(
        training.make_train_step(
          learning.losses.make_statistics_loss_fn(alone, session.spec),
          tx,
          ema_decay=alone.guidance.ema_decay,
        )
      )
      params = model.init(arrays.stream(point['seed'], 'sweep/init'))
      state = training.init_state(params, tx)
      for _ in range(25):
        state, _ = step(state, store, (), arrays.stream(point['seed'], 'sweep'))
      jax.tree.map(
        lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-2, atol=1e-4),
        together,
        state.ema_params,
      )
      # At the sampler's transitions t -> s.
      times = np.linspace(1.0, 0.0, 4)
      for k in range(3):
        omega = model.apply(
          state.ema_params,
          jnp.arange(8),
          jnp.full(8, times[k + 1]),
          jnp.full(8, times[k]),
        )
        np.testing.assert_allclose(tables[i, :, k], omega, atol=1e-4)
    # They are not all the same: points differ by what the sweep varies.
    spread = np.abs(tables[:, None] - tables[None]).max(axis=(2, 3))
    self.assertGreater(spread[~np.eye(16, dtype=bool)].min(), 1e-4)

  def test_as_many_steps_as_asked_for(self):
    """Not rounded to what one compiled call makes."""
    config = smoke_config(**{**GRID, 'sweep.beta': (1.0,), 'sweep.interaction': (1.0,)})
    store = make_store()
    config.sweep.num_steps = 1
    config.guidance.ema_decay = 0.0
    group = [p for p in sweep.make_grid(config) if p['num_particles'] == 2]
    session = helpers.session('/none', config)
    trained = sweep.train(session, store, group, num_particles=2)
    model = builders.models.weight_model(config, builders.data.spec(config))
    start = model.init(arrays.stream(group[0]['seed'], 'sweep/init'))
    moved = max(
      float(jnp.abs(a[0] - b).max())
      for a, b in zip(jax.tree.leaves(trained), jax.tree.leaves(start), strict=True)
    )
    # Adam moves a parameter by at most the learning rate a step.
    self.assertBetween(moved, 1e-4, 1.01e-2)


class GridTest(absltest.TestCase):
  def test_all_combinations(self):
    config = smoke_config(seed=3, **GRID)
    grid = sweep.make_grid(config)
    self.assertLen({tuple(sorted(p.items())) for p in grid}, 2**5)
    self.assertEqual({p['seed'] for p in grid}, {3, 4})
    particles = [p['num_particles'] for p in grid]
    self.assertEqual(particles, sorted(particles))  # Tables are joined in this order.


def make_rows():
  """Beta 1.0 is best on validation data in the mean, 1.75 for one seed and on test."""
  energies = {  # (beta, seed) -> validation, test
    (1.0, 0): (0.30, 0.50),
    (1.0, 1): (0.32, 0.52),
    (1.75, 0): (0.20, 0.40),
    (1.75, 1): (0.60, 0.42),
  }
  fixed = {'interaction': 1.0, 'gap': 0.1, 's_min': 0.01, 'churn': 1.0}
  return [
    {
      **fixed,
      **{'num_particles': 2, 'learning_rate': 1e-3, 'beta': beta, 'seed': seed},
      **{'energy_validation': validation, 'energy_test': test},
      **{'omega_mean': 0.1, 'omega_max': 0.2},
    }
    for (beta, seed), (validation, test) in energies.items()
  ]


class ChoiceTest(absltest.TestCase):
  def test_smallest_mean_over_seeds_on_validation_data(self):
    settings = report.sweep.average_seeds(make_rows())
    self.assertEqual([row['beta'] for row in settings], [1.0, 1.75])
    self.assertAlmostEqual(settings[0]['energy_validation'], 0.31)
    self.assertAlmostEqual(settings[1]['energy_validation'], 0.40)
    self.assertAlmostEqual(settings[0]['energy_test'], 0.51)
    self.assertNotIn('seed', settings[0])

  def test_write(self):
    path = pathlib.Path(self.create_tempdir().full_path) / 'sweep'
    rows = make_rows()
    report.sweep.write(path, rows, 1234, {'training': 2.0, 'all': 5.0})
    self.assertEqual(json.loads((path / 'results.json').read_text()), rows)
    text = (path / 'results.md').read_text()
    self.assertRegex(text, r'Chosen, .*beta 1, .*validation\s+0\.3100 .*test 0\.5100')
    self.assertIn('4 trainings', text)
    self.assertIn('1,234', text)
    self.assertEqual(
      sorted(p.name for p in path.iterdir()), ['beta.png', 'results.json', 'results.md']
    )


def contents(directory):
  """The bytes of every file, without the seconds that a sweep took."""
  read = {path.name: path.read_bytes() for path in directory.iterdir()}
  return read | {'results.md': re.sub(rb'\d+ s\b', b'', read['results.md'])}


class RunTest(helpers.WorkdirCase):
  @classmethod
  def fill(cls):
    train_denoiser.run(smoke_config(), cls.root)
    collect_statistics.run(smoke_config(), cls.root)

  def test_rows_and_files(self):
    overrides = {'sweep.interaction': (1.0,), 'sweep.num_particles': (2,)}
    config = smoke_config(**{**GRID, **overrides})
    workdir = self.copy()
    shutil.rmtree(workdir / 'sweep', ignore_errors=True)
    rows = sweep.run(config, workdir)
    self.assertLen(rows, 2**3)
    directory = workdir / 'sweep'
    self.assertEqual(json.loads((directory / 'results.json').read_text()), rows)
    names = {'results.json', 'results.md', 'beta.png', 's_min.png'}
    self.assertEqual({p.name for p in directory.iterdir()}, names)
    self.assertEqual(
      [(r['beta'], r['s_min'], r['seed']) for r in rows],
      [(b, s, i) for b in (1.0, 1.75) for s in (0.01, 0.2) for i in (0, 1)],
    )
    # Again, the same to the last byte, also when it is cut short in between.
    before = contents(directory)
    sweep_again = functools.partial(sweep.run, config, workdir)
    self.assertEqual(helpers.pieces_made(sweep_again, dies_at=4), 4)
    self.assertTrue((workdir / 'unfinished').exists())
    self.assertEqual(helpers.pieces_made(sweep_again), 1 + 2**3 - 4)
    self.assertEqual(contents(directory), before)
    self.assertFalse((workdir / 'unfinished').exists())

  def test_samples_that_are_not_finite(self):
    """Named with their point; those of the points before it are kept."""
    config = smoke_config(**GRID)
    dataset = builders.data.load(config)
    params = workdirs.base_model.load_pair(helpers.session(self.root, config))
    of_rule = sampling.sampler.make_rule_sampler(config, dataset.spec, params)
    tables = np.float32([0.5, 1e38])[:, None, None] * np.ones((2, 8, 3), np.float32)
    kept = app.Pieces(epath.Path(self.create_tempdir().full_path), {})
    points = [{'gap': 0.1}, {'gap': 0.2}]
    with self.assertRaisesRegex(
      errors.NonFiniteError, r"sweep, {'gap': 0.2}: sample 0 of seed 0 is not finite"
    ):
      sweep.evaluate(config, dataset, of_rule, points, tables, kept)
    self.assertGreater(kept.seconds, 0.0)

  @parameterized.parameters(
    (
      {'sweep.num_particles': (2, 4)},
      r'sweep.num_particles=\(2, 4\): there guidance.num_particles=4: the statis',
    ),
    (
      {'sweep.gap': (0.1, 0.6), 'sweep.s_min': (0.01, 0.4)},
      'guidance.gap=0.6: with s_m',
    ),
    ({'sweep.beta': (1.0, 2.0)}, r'sweep.beta=\(1.0, 2.0\): must be'),
    # Combinations of which only the first has no stored time in reach.
    ({'sweep.gap': (0.98, 0.1), 'sweep.s_min': (0.009,)}, 'gap=0.98: .*in reach'),
    ({'sweep.num_particles': (2.0,)}, r'sweep.num_particles=\(2.0,\): .*integers'),
    ({'guidance.weight': 'table', 'guidance.objective': 'l2'}, "weight='table'"),
  )
  def test_refused(self, overrides, message):
    """Before anything is computed or written."""
    before = helpers.files_under(self.root)
    with self.assertRaisesRegex(errors.InputError, message) as caught:
      sweep.run(smoke_config(**overrides), self.root)
    self.assertNotIn('\n', str(caught.exception))
    self.assertEqual(helpers.files_under(self.root), before)

  def test_a_loss_that_is_not_finite(self):
    config = smoke_config(
      **{**GRID, 'sweep.learning_rate': (1e-2, 1e30), 'sweep.num_particles': (2,)}
    )
    workdir = self.copy()

    def kept():  # All but the record of the config that was tried.
      files = helpers.files_under(workdir)
      return {
        p: t for p, t in files.items() if workdir / 'configs' not in (p, p.parent)
      }

    before = kept()
    with self.assertRaisesRegex(
      errors.NonFiniteError,
      r"sweep: the loss of .*'learning_rate': 1e\+30.* is not finite",
    ):
      sweep.run(config, workdir)
    self.assertEqual(kept(), before)


if __name__ == '__main__':
  absltest.main()
