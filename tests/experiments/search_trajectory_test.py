"""The search as a binary: resume, what it belongs to, its references, its fit."""

import functools
import shutil
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized
from etils import epath

from configs import mixture
from experiments import app
from experiments import builders
from experiments import learning
from experiments import search_trajectory
from experiments import train_denoiser
from experiments import workdirs
from lgd import arrays
from lgd import conditions
from lgd import endpoint
from lgd import errors
from lgd.data import splits
from lgd.training import checkpoints
from tests import helpers

SPEC = splits.Spec((2,), conditions.Labels(8))


def smoke_config(**overrides):
  config = mixture.get_config('smoke')
  config.evaluation.num_steps = 6
  config.trajectory.update(num_candidates=3, omega_max=4.0, num_repeats=2)
  config.update_from_flattened_dict({'guidance.depth': 2, **overrides})
  return config


class RunTest(helpers.WorkdirCase):
  @classmethod
  def fill(cls):
    train_denoiser.run(smoke_config(), cls.root)
    cls.table = search_trajectory.run(smoke_config(), cls.root)

  def test_table(self):
    """Means of two searches, each with one of the candidates."""
    self.assertEqual(self.table.shape, (8, 6))
    candidates = 4.0 * np.array([0.0, 0.5, 1.0]) ** 1.5
    means = (candidates[:, None] + candidates).ravel() / 2.0
    self.assertLess(np.abs(self.table[..., None] - means).min(axis=-1).max(), 1e-5)
    # The two differ somewhere: each has its own noise and references.
    alone = np.abs(self.table[..., None] - candidates).min(axis=-1)
    self.assertGreater(alone.max(), 0.1)
    weight = workdirs.weights.load(
      helpers.session(self.root, smoke_config()), 'trajectory_pixels_table'
    )
    times = np.linspace(1.0, 0.0, 7)
    for i in range(6):
      omega = weight(jnp.arange(8), jnp.full(8, times[i + 1]), jnp.full(8, times[i]))
      np.testing.assert_allclose(omega, self.table[:, i], atol=1e-5)
    self.assertEqual(weight.num_evaluations, 2 * (2 * 4 * 6 * 8))

  def test_stops_when_the_mean_is_steady(self):
    """Each search as it is told to be, 3 and 3.5 apart; at most `num_repeats`."""
    tables = [np.full((8, 6), omega) for omega in (3.0, 3.5, 3.2, 3.25)]
    settings = {'trajectory.num_repeats': 4, 'trajectory.tolerance': 0.06}
    config = smoke_config(**settings)
    # Standard errors of means: .25 of 3.25, .145 of 3.233 (4.5%).
    for tolerance, num in ((0.08, 2), (0.06, 3), (0.001, 4)):
      config.trajectory.tolerance = tolerance
      pieces = app.Pieces(epath.Path(self.create_tempdir().full_path), tolerance)
      with mock.patch.object(search_trajectory, 'make_search') as make:
        make.return_value.side_effect = tables
        table, _ = search_trajectory.search(
          config, builders.data.load(config), None, pieces
        )
      np.testing.assert_allclose(table, np.mean(tables[:num], axis=0), rtol=1e-6)
    np.testing.assert_allclose(
      search_trajectory.noise(np.stack(tables[:2])), (0.25, 3.25)
    )
    self.assertEqual(search_trajectory.noise(np.ones((1, 8, 6))), (np.inf, 1.0))

  def test_other_searches_on_the_same_base(self):
    workdir = self.copy()
    config = smoke_config(**{'trajectory.seed': 1})
    with self.assertRaisesRegex(errors.InputError, r'trajectory\.seed=1: .*with 0'):
      search_trajectory.run(config, workdir)
    shutil.rmtree(workdir / 'guidance')
    other = search_trajectory.run(config, workdir)
    self.assertGreater(np.abs(other - self.table).max(), 0.1)

  def test_distances(self):
    """Each in a place of its own; of the sum the share decides."""
    workdir, tables = self.copy(), {}
    for distance, share in (('features', 0.5), ('sum', 0.0), ('sum', 1.0)):
      shutil.rmtree(workdir / 'guidance')
      settings = {'trajectory.distance': distance, 'trajectory.features_share': share}
      tables[distance, share] = search_trajectory.run(smoke_config(**settings), workdir)
      self.assertTrue((workdir / f'guidance/trajectory_{distance}_table').exists())
    far = np.abs(tables['sum', 0.0] - tables['sum', 1.0]).mean()
    self.assertGreater(far, 0.01)

  def test_again(self):
    """The same command again searches nothing and changes nothing."""
    workdir = self.copy()
    before = helpers.files_under(workdir / 'guidance')
    with mock.patch.object(search_trajectory, 'search', side_effect=AssertionError):
      again = search_trajectory.run(smoke_config(), workdir)
    np.testing.assert_array_equal(again, self.table)
    self.assertEqual(helpers.files_under(workdir / 'guidance'), before)

  def test_endpoint(self):
    """Never farther from the data that are held out than the search that it refines."""
    workdir, found = self.copy(), []
    config = smoke_config(**{'trajectory.method': 'endpoint'})
    refine = learning.endpoint.refine

    def spied(session, dataset, held_out, params, table):
      found.append((table, *refine(session, dataset, held_out, params, table)))
      found.append((params, held_out, dataset))
      return found[0][1:]

    with mock.patch.object(learning.endpoint, 'refine', spied):
      table = search_trajectory.run(config, workdir)
    (start, refined, cost), (params, held_out, used) = found
    np.testing.assert_array_equal(table, refined)
    self.assertEqual(cost, 2 * 4 * 8 * 6 * (4 * 10 + 4 * 11))
    stored = workdirs.weights.load(helpers.session(workdir, config), 'endpoint_table')
    self.assertEqual(stored.num_evaluations, cost + 2 * (2 * 4 * 6 * 8))
    change = table - start  # Six knots, the same for all classes, but for the wall.
    inside = (table > 0.0).all(axis=0)
    np.testing.assert_allclose(np.ptp(change, axis=0)[inside], 0.0, atol=1e-5)
    rows = np.concatenate([held_out.x, used.validation.x])
    whole = builders.data.load(config).validation.x
    np.testing.assert_array_equal(np.unique(rows, axis=0), np.unique(whole, axis=0))
    self.assertLen(rows, len(whole))

    def distance(omega):
      return endpoint.loss(
        arrays.stream(config.seed, 'endpoint'),
        jnp.asarray(omega),
        builders.rules.pair(config, SPEC, stops_gradient=False),
        params,
        builders.models.schedule(config),
        jnp.arange(8),
        np.stack([held_out.x[held_out.label == c] for c in range(8)]),
        times=builders.models.time_grid(config),
        churn=config.evaluation.churn,
        num_particles=16,
        beta=config.trajectory.beta,
      )

    self.assertLessEqual(distance(refined), distance(start) + 1e-6)

  def test_older_than_the_jackknife(self):
    """A weight of the smallest curve alone is not one of the default."""
    load, new = checkpoints.load_config, ('omega_min', 'confidence', 'num_blocks')

    def without(path):
      stored = load(path)
      section = {
        k: v for k, v in stored['config']['trajectory'].items() if k not in new
      }
      return stored | {'config': stored['config'] | {'trajectory': section}}

    older = {'omega_min': 0.0, 'confidence': 0.0, 'num_blocks': 0}
    config = smoke_config(**{f'trajectory.{k}': v for k, v in older.items()})
    with mock.patch.object(checkpoints, 'load_config', without):
      with self.assertRaisesRegex(errors.InputError, 'trajectory.* was written with 0'):
        search_trajectory.run(smoke_config(), self.root)
      again = search_trajectory.run(config, self.copy())
    np.testing.assert_array_equal(again, self.table)

  def test_cut_short_in_the_search(self):
    workdir = self.copy()
    shutil.rmtree(workdir / 'guidance')
    search = functools.partial(search_trajectory.run, smoke_config(), workdir)
    with mock.patch.object(search_trajectory, 'fit'):
      self.assertEqual(helpers.pieces_made(search, dies_at=1), 1)
      self.assertEqual(helpers.pieces_made(search), 1)
    weight = workdirs.weights.load(
      helpers.session(workdir, smoke_config()), 'trajectory_pixels_table'
    )
    np.testing.assert_array_equal(weight.params['values'], self.table)
    self.assertEqual(weight.num_evaluations, 2 * (2 * 4 * 6 * 8))
    self.assertFalse((workdir / 'unfinished').exists())

  def test_cut_short_after_the_search(self):
    workdir = self.copy()
    shutil.rmtree(workdir / 'guidance' / 'trajectory_pixels')
    with mock.patch.object(search_trajectory, 'search', side_effect=AssertionError):
      search_trajectory.run(smoke_config(), workdir)
    label, s, t = jnp.arange(8), jnp.full(8, 0.2), jnp.full(8, 0.7)
    fitted, again = (
      workdirs.weights.load(helpers.session(w, smoke_config()), 'trajectory_pixels')
      for w in (self.root, workdir)
    )
    np.testing.assert_array_equal(fitted(label, s, t), again(label, s, t))
    self.assertEqual(fitted.num_evaluations, again.num_evaluations)

  def test_network_follows_the_table(self):
    """Better than the mean of the table does, at any s."""
    workdir = self.copy()
    shutil.rmtree(workdir / 'guidance')
    jax.config.update('jax_disable_most_optimizations', False)
    self.addCleanup(jax.config.update, 'jax_disable_most_optimizations', True)
    settings = {'trajectory.fit_steps': 400, 'guidance.batch_size': 64}
    config = smoke_config(checkpoint_every=1000, log_every=100, **settings)
    table = search_trajectory.run(config, workdir)
    weight = workdirs.weights.load(
      helpers.session(workdir, config), 'trajectory_pixels'
    )
    times = np.linspace(1.0, 0.0, 7)
    for share in (0.2, 0.9):
      omega = np.stack(
        [
          weight(jnp.arange(8), jnp.full(8, share * t), jnp.full(8, t))
          for t in times[:-1]
        ],
        axis=1,
      )
      self.assertLess(np.mean((omega - table) ** 2), 0.5 * np.var(table))

  @parameterized.parameters(
    ('trajectory.lookahead', 0.1, 0.3),
    ('trajectory.num_particles', 8, 4),
    ('trajectory.beta', 1.5, 1.0),
    ('evaluation.churn', 1.0, 0.0),
    ('evaluation.num_steps', 12, 6),
  )
  def test_another_search(self, key, value, stored):
    before = helpers.files_under(self.root)
    with self.assertRaises(errors.InputError) as caught:
      search_trajectory.run(smoke_config(**{key: value}), self.root)
    message = str(caught.exception)
    self.assertStartsWith(message, f'{key}={value!r}: ')
    self.assertIn(f'was written with {stored!r}', message)
    self.assertEqual(helpers.files_under(self.root), before)


class ReferenceTest(absltest.TestCase):
  def test_random_data_of_each_class(self):
    label = np.repeat(np.arange(3), (5, 9, 7)).astype(np.int32)
    split = splits.Split(np.arange(21.0)[:, None] + 100.0 * label[:, None], label)
    section = smoke_config().trajectory
    drawn = []
    for num, expected in ((4, (4, 4, 4)), (8, (5, 8, 7)), (512, (5, 9, 7))):
      section.num_references = num
      rng = np.random.default_rng(0)
      reference, counts = search_trajectory.draw_reference(rng, split, 3, section)
      self.assertEqual(reference.shape, (3, max(expected), 1))
      if num == 4:
        self.assertIsNone(counts)
      else:
        np.testing.assert_array_equal(counts, expected)
      for c in range(3):
        own = set(reference[c, : expected[c], 0])
        self.assertContainsSubset(own, set(split.x[label == c, 0]))
        self.assertLen(own, expected[c])
        self.assertEqual(own, set(reference[c, :, 0]))  # The rest repeats.
      drawn.append(search_trajectory.draw_reference(rng, split, 3, section)[0])
    self.assertFalse(np.array_equal(drawn[-1], reference))
    data = splits.Dataset(split, split, split, conditions.Labels(4))
    with self.assertRaisesRegex(errors.InputError, 'holds 0 data of class 3'):
      search_trajectory.require_references(data, section)

  def test_from_the_split_that_is_named(self):
    """Validation data by default: the base model has seen the training data."""
    config = smoke_config()
    seen = []

    def note(rng, split, num_classes, section):
      seen.append(split)
      raise InterruptedError

    data = builders.data.load(config)
    kept = app.Pieces(epath.Path(self.create_tempdir().full_path), {})
    for name in ('validation', 'train'):
      config.trajectory.reference = name
      with (
        mock.patch.object(search_trajectory, 'draw_reference', note),
        self.assertRaises(InterruptedError),
      ):
        search_trajectory.search(config, data, None, kept)
    self.assertIs(seen[0], data.validation)
    self.assertIs(seen[1], data.train)


if __name__ == '__main__':
  absltest.main()
