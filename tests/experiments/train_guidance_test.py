"""Learning from stored statistics: the closed form, and what a weight belongs to."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized

from configs import mixture
from experiments import builders
from experiments import collect_statistics
from experiments import learning
from experiments import train_denoiser
from experiments import train_guidance
from experiments import workdirs
from lgd import arrays
from lgd import errors
from lgd import objectives
from lgd import schedules
from lgd import statistics
from tests import helpers

FLOW = schedules.RectifiedFlow()
NUM, M, DIM, NUM_CLASSES, NUM_BINS = 600, 3, 5, 3, 8


def smoke_config(**overrides):
  config = mixture.get_config('smoke')
  config.update_from_flattened_dict({'guidance.depth': 2, **overrides})
  return config


def coefficients(s, t, churn):
  """coef_xt, coef_x0 of Eq. (2), for x_t = (1 - t) x_0 + t eps."""
  ratio = (1.0 - t) / (1.0 - s) * s / t
  u = churn**2 * ratio + 1.0 - churn**2
  return s / t * u, (1.0 - s) * (1.0 - ratio * u)


class ClosedFormTest(parameterized.TestCase):
  """On vectors that are known; what the shards hold is checked where they are made."""

  def setUp(self):
    super().setUp()
    rng = np.random.default_rng(0)
    self.eps, self.delta, noise = rng.normal(size=(3, NUM, M, DIM))
    self.t = np.sort(rng.uniform(size=NUM).astype(np.float32))
    self.label = rng.integers(NUM_CLASSES, size=NUM)
    # Best weights that differ between classes and along t, some of them below 0.
    wanted = 2.0 * self.t - 0.5 + 0.3 * self.label
    self.residual = -wanted[:, None, None] * self.delta + noise
    vectors = np.concatenate([self.eps, self.residual, self.delta], axis=1)
    gram = np.float32(vectors @ vectors.swapaxes(1, 2))
    self.store = objectives.make_store(
      statistics.pack(jnp.asarray(gram)),
      jnp.asarray(self.t),
      jnp.asarray(self.label),
      schedule=schedules.RectifiedFlow(),
      dim=DIM,
      num_particles=M,
    )

  def config(self, objective, **settings):
    config = mixture.get_config()
    config.data.num_classes = NUM_CLASSES
    config.guidance.update(objective=objective, weight='table', num_bins=NUM_BINS)
    config.guidance.update(s_min=0.05, gap=0.1, zeta=0.02, confidence=0.0)
    config.guidance.update(settings)
    config.evaluation.num_steps = 37  # Its times are not edges of bins.
    return config

  def cells(self):
    """(class, bin) -> its items; only times that Algorithm 1 reaches."""
    usable = (self.t > 0.05 + 0.1) & (self.t <= 1.0 - 0.02)
    of_bin = np.minimum((self.t * NUM_BINS).astype(int), NUM_BINS - 1)
    return {
      (c, k): np.flatnonzero(usable & (self.label == c) & (of_bin == k))
      for c in range(NUM_CLASSES)
      for k in range(NUM_BINS)
    }

  def assert_table(self, table, expected):
    """`expected` by class and bin, `table` at the sampler's times."""
    self.assertEqual(table.shape, (NUM_CLASSES, 37))
    t = np.linspace(1.0, 0.0, 38)[:-1]
    of_bin = np.minimum((t * NUM_BINS).astype(int), NUM_BINS - 1)
    np.testing.assert_allclose(table, expected[:, of_bin], rtol=1e-3, atol=1e-4)
    self.assertGreater(np.mean(table > 0.1), 0.5)
    self.assertTrue(np.any(table == 0.0))

  def test_score_matching(self):
    """- sum <delta, r> / sum ||delta||^2 of the vectors, in float64; at least 0."""
    expected = np.zeros((NUM_CLASSES, NUM_BINS))
    for cell, items in self.cells().items():
      delta, residual = self.delta[items], self.residual[items]
      if len(items):
        expected[cell] = max(-np.sum(delta * residual) / np.sum(delta**2), 0.0)
    table = learning.closed_form.solve(
      self.config('score_matching'), NUM_CLASSES, self.store
    )
    self.assert_table(table, expected)

  def test_what_is_within_its_noise_is_nothing(self):
    """Weights above 2 confidence standard errors, by loops over eight parts."""
    config = self.config('score_matching', confidence=1.5)
    usable = np.flatnonzero((self.t > 0.05 + 0.1) & (self.t <= 1.0 - 0.02))
    expected, num_dropped = np.zeros((NUM_CLASSES, NUM_BINS)), 0
    for cell, items in self.cells().items():
      part = np.searchsorted(usable, items) % 8

      def best(keep, items=items):
        delta, residual = self.delta[items[keep]], self.residual[items[keep]]
        return -np.sum(delta * residual) / max(np.sum(delta**2), 1e-9)

      if len(items):
        omega = best(part >= 0)
        others = np.array([best(part != i) for i in range(8)])
        error = np.sqrt(7 / 8 * np.sum((others - others.mean()) ** 2))
        expected[cell] = omega if omega > 3.0 * error else 0.0
        num_dropped += 0.0 < omega <= 3.0 * error
    table = learning.closed_form.solve(config, NUM_CLASSES, self.store)
    self.assert_table(table, expected)
    self.assertGreater(num_dropped, 0)

  def test_times_at_the_edges_of_bins(self):
    """A transition from t = k / 30 takes the bin that starts there."""
    config = self.config('score_matching')
    config.guidance.num_bins = config.evaluation.num_steps = 30
    table = learning.closed_form.solve(config, NUM_CLASSES, self.store)
    usable = (self.t > 0.05 + 0.1) & (self.t <= 1.0 - 0.02)
    for step in range(30):
      of_bin = np.minimum(np.floor(np.float64(self.t) * 30), 29)
      items = usable & (of_bin == min(30 - step, 29)) & (self.label == 0)
      expected = 0.0
      if np.any(items):
        delta, residual = self.delta[items], self.residual[items]
        expected = max(-np.sum(delta * residual) / np.sum(delta**2), 0.0)
      np.testing.assert_allclose(table[0, step], expected, rtol=1e-3, atol=1e-4)

  def l2_parts(self, churn):
    """u(omega) = given + omega slope of every particle, at the s that is drawn."""
    times = {'s_min': 0.05, 'zeta': 0.02, 'gap': 0.1}
    usable = np.flatnonzero((self.t > 0.05 + 0.1) & (self.t <= 1.0 - 0.02))
    s = np.full(NUM, np.nan)
    key = arrays.stream(0, 'closed_form')
    s[usable] = objectives.sample_s(key, self.store.t[usable], **times)
    coef_xt, coef_x0 = (
      c[:, None, None] for c in coefficients(s, np.float64(self.t), churn)
    )
    t = self.t[:, None, None]
    return s, coef_xt * t * self.eps + coef_x0 * self.residual, coef_x0 * self.delta

  @parameterized.parameters(0.0, 1.0)
  def test_l2(self, churn):
    """Least squares of u(omega) in float64, for the same draws of s."""
    _, given, slope = self.l2_parts(churn)
    expected = np.zeros((NUM_CLASSES, NUM_BINS))
    for cell, items in self.cells().items():
      if len(items):
        x, y = slope[items].reshape(-1, 1), -given[items].ravel()
        expected[cell] = max(np.linalg.lstsq(x, y)[0][0], 0.0)
    table = learning.closed_form.solve(
      self.config('l2', churn=churn), NUM_CLASSES, self.store
    )
    self.assert_table(table, expected)

  def test_l2_is_the_minimum_of_the_loss_that_networks_are_trained_with(self):
    """On a dense grid of weights."""
    config = self.config('l2')
    s, _, _ = self.l2_parts(1.0)
    loss = builders.objectives.statistics_objective(config)
    gram = statistics.unpack(self.store.gram)
    grid = jnp.linspace(0.0, 4.0, 401)
    losses = jax.vmap(
      lambda omega: loss(
        self.store,
        gram,
        jnp.full(NUM, omega),
        jnp.asarray(np.nan_to_num(s), jnp.float32),
        self.store.t,
      )
    )(grid)
    expected = np.zeros((NUM_CLASSES, NUM_BINS))
    for cell, items in self.cells().items():
      if len(items):
        expected[cell] = grid[np.argmin(losses[:, items].sum(axis=1))]
    table = learning.closed_form.solve(config, NUM_CLASSES, self.store)
    t = np.linspace(1.0, 0.0, 38)[:-1]
    np.testing.assert_allclose(
      table,
      expected[:, np.minimum((t * NUM_BINS).astype(int), NUM_BINS - 1)],
      atol=0.011,
    )


class RunTest(helpers.WorkdirCase):
  """On one base model and its statistics."""

  @classmethod
  def fill(cls):
    train_denoiser.run(smoke_config(), cls.root)
    collect_statistics.run(smoke_config(), cls.root)

  def test_a_table_again(self):
    """The same command again changes nothing."""
    config = smoke_config(**{'guidance.objective': 'l2', 'guidance.weight': 'table'})
    first = train_guidance.run(config, self.root)
    before = helpers.files_under(self.root / 'guidance')
    again = train_guidance.run(config, self.root)
    chex.assert_trees_all_equal(first.ema_params, again.ema_params)
    self.assertEqual(helpers.files_under(self.root / 'guidance'), before)

  def test_what_is_stored(self):
    """The averaged parameters, as a weight, and what they cost."""
    config = smoke_config(**{'guidance.objective': 'score_matching'})
    state = train_guidance.run(config, self.root)
    session = helpers.session(self.root, config)
    weight = workdirs.weights.load(session, 'score_matching')
    label, s, t = jnp.arange(8), jnp.full(8, 0.2), jnp.full(8, 0.7)
    model = builders.models.weight_model(config, builders.data.spec(config))
    expected = model.apply(jax.device_get(state.ema_params), label, s, t)
    np.testing.assert_allclose(weight(label, s, t), expected, rtol=1e-5)
    shards = (self.root / 'statistics' / 'particles').glob('shard-*.npz')
    self.assertEqual(
      weight.num_evaluations, sum(int(np.load(p)['num_evaluations']) for p in shards)
    )

  def test_no_time_in_reach(self):
    config = smoke_config(**{'guidance.gap': 0.98, 'guidance.s_min': 0.009})
    before = helpers.files_under(self.root)
    with self.assertRaisesRegex(
      errors.InputError, r'guidance.gap=0.98: .* no time of .* is in reach'
    ):
      train_guidance.run(config, self.root)
    self.assertEqual(helpers.files_under(self.root), before)

  def test_more_particles_than_stored(self):
    config = smoke_config(**{'guidance.num_particles': 4})
    before = helpers.files_under(self.root)
    with self.assertRaisesRegex(
      errors.InputError,
      'guidance.num_particles=4: the statistics hold 3 .*statistics.num_particles=4',
    ):
      train_guidance.run(config, self.root)
    self.assertEqual(helpers.files_under(self.root), before)


class BoundsTest(parameterized.TestCase):
  def test_measure(self):
    measured = learning.losses.measure(jnp.array([0.0, 3.0, 0.0, 1.0]))
    self.assertEqual(measured, {'omega_mean': 1.0, 'omega_max': 3.0, 'omega_at_0': 0.5})

  @parameterized.parameters(
    (0.95, 1.0, 0.0, r'bound 0 for 95% of the data'),
    (0.5, 9.0, 0.1, r'as large as 9, above 8, the last of reward.nodes'),
  )
  def test_warns(self, at_0, omega_max, gamma, message):
    config = smoke_config(**{'guidance.gamma': gamma})
    means = {'omega_mean': 0.1, 'omega_max': omega_max, 'omega_at_0': at_0}
    with self.assertLogs('absl', 'WARNING') as logs:
      learning.losses.warn_learned(config, means)
    self.assertRegex(' '.join(logs.output), message)

  def test_searched(self):
    config = smoke_config(**{'trajectory.omega_max': 2.0})
    with self.assertNoLogs('absl', 'WARNING'):
      learning.losses.warn_searched(config, np.array([0.0, 1.99]))
    with self.assertLogs('absl', 'WARNING') as logs:
      learning.losses.warn_searched(
        config, np.array([[0.0, 2.0], [1.0, 0.0]], np.float32)
      )
    self.assertRegex(logs.output[0], '25% of the weights are trajectory.omega_max=2,')

  def test_says_nothing_otherwise(self):
    """Without a reward its nodes bound nothing."""
    means = {'omega_mean': 3.0, 'omega_max': 9.0, 'omega_at_0': 0.5}
    with self.assertNoLogs('absl', 'WARNING'):
      learning.losses.warn_learned(smoke_config(), means)


if __name__ == '__main__':
  absltest.main()
