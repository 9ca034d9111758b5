"""What a batch of stored statistics is made of: times, items, conditions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized

from lgd import objectives
from lgd import schedules
from lgd import statistics

TIMES = {'s_min': 0.05, 'zeta': 0.02, 'gap': 0.1}


def spread_times(num, t_max=1.0):
  """Evenly spread, in no order."""
  return (np.arange(1, num + 1) * 0.5**0.5 % 1.0 * t_max).astype(np.float32)


def make_store(num, m, *, vectors=3, members=None):
  """Known Gram matrices; the condition of an item (a member) is its number."""
  rng = np.random.default_rng(0)
  full = rng.normal(size=(num, vectors * m, vectors * m)).astype(np.float32)
  full = full + full.swapaxes(1, 2)
  full[:, 0, 0] = np.arange(num)  # So that an item is known again.
  cond = np.arange(num)
  if members:
    cond = cond[:, None] * 100 + np.arange(members)
  t = spread_times(num)
  packed = full[:, *np.triu_indices(vectors * m)]
  return full, t, cond, store_of(packed, t, cond, m, grouped=members is not None)


def store_of(packed, t, cond, num_particles=1, **settings):
  return objectives.make_store(
    *map(jnp.asarray, (packed, t, cond)),
    schedule=schedules.RectifiedFlow(),
    dim=2,
    num_particles=num_particles,
    **settings,
  )


def draw(store, batch, *, num_used=None, key=0, **times):
  """Gram matrices, s, t of a batch as drawn, and omega: the condition."""
  seen = {}

  def objective(of, gram, omega, s, t):
    assert of is store
    seen.update(gram=gram, s=s, t=t)
    return t - s

  def weight(cond, s, t):
    seen.update(weight_s=s, weight_t=t)
    return cond

  losses, omega = objectives.statistics_loss(
    jax.random.key(key),
    weight,
    objective,
    store,
    batch=batch,
    num_used=num_used,
    **times,
  )
  np.testing.assert_array_equal(losses, seen['t'] - seen['s'])
  return {k: np.asarray(v) for k, v in seen.items()}, np.asarray(omega)


class MakeStoreTest(parameterized.TestCase):
  def test_in_order_of_t(self):
    full, t, cond, store = make_store(50, 2, members=3)
    self.assertTrue(np.all(np.diff(store.t) >= 0.0))
    number = np.asarray(store.gram)[:, 0].astype(int)
    self.assertCountEqual(number, range(50))
    np.testing.assert_array_equal(store.t, t[number])
    np.testing.assert_array_equal(store.cond, cond[number])
    np.testing.assert_array_equal(store.gram[:, 1], full[number, 0, 1])

  @parameterized.parameters(
    ({'t': np.array([0.1, 999.0, 0.3])}, r't=.*999.* must be in \[0, 1\]'),
    ({'packed': np.array([[1.0], [np.nan], [1.0]])}, 'gram: row 1 is not finite'),
    ({'num_particles': 2}, 'num_particles=2: must divide the 1 vectors'),
    ({'t': np.array([0.1, 0.2])}, r't.shape=\(2,\): must be \(3,\)'),
    (
      {'profile': np.array([1.0, np.inf, 0.0])[:, None, None]},
      'profile: row 1 is not finite',
    ),
  )
  def test_refuses(self, settings, pattern):
    """What would otherwise be weights of 0, or of other times, without a word."""
    usual = {'packed': np.ones((3, 1)), 't': np.linspace(0.1, 0.9, 3)}
    with self.assertRaisesRegex(ValueError, pattern):
      store_of(**{**usual, 'cond': np.arange(3), **settings})


class ObjectivesTest(parameterized.TestCase):
  @parameterized.parameters(False, True)
  def test_take_from_the_store_what_its_pass_was_made_with(self, antithetic):
    """The losses of `statistics`, told schedule, dim and noise by hand."""
    rng, m, schedule = np.random.default_rng(0), 4, schedules.Cosine()
    vectors = rng.normal(size=(6, 3 * m, 5)).astype(np.float32)
    gram, omega = vectors @ vectors.swapaxes(1, 2), np.float32(rng.uniform(size=6))
    s, t = np.full(6, 0.2, np.float32), np.full(6, 0.7, np.float32)
    store = objectives.make_store(
      statistics.pack(gram),
      t,
      np.arange(6),
      schedule=schedule,
      dim=5,
      num_particles=m,
      antithetic=antithetic,
    )
    step = {'schedule': schedule, 'churn': 0.5, 'dim': 5}
    energy = {'beta': 1.5, 'interaction': 0.5}
    consistency = objectives.stored_consistency(churn=0.5, **energy)
    for ours, theirs in (
      (
        consistency,
        statistics.self_consistency(
          gram, omega, s, t, antithetic=antithetic, **step, **energy
        ),
      ),
      (objectives.stored_l2(churn=0.5), statistics.l2(gram, omega, s, t, **step)),
      (objectives.stored_score_matching, statistics.score_matching(gram, omega)),
    ):
      np.testing.assert_array_equal(ours(store, gram, omega, s, t), theirs)
    groups = np.float32(rng.normal(size=(6, 4 * m, 5)))
    gram, omega = groups @ groups.swapaxes(1, 2), np.float32(rng.uniform(size=(6, m)))
    store = objectives.make_store(
      statistics.pack(gram),
      t,
      np.zeros((6, m), int),
      schedule=schedule,
      dim=5,
      num_particles=m,
      grouped=True,
    )
    np.testing.assert_array_equal(
      consistency(store, gram, omega, s, t),
      statistics.marginal(gram, omega, s, t, **step, **energy),
    )


class TimesTest(parameterized.TestCase):
  @parameterized.parameters(
    TIMES,
    {'s_min': 0.01, 'zeta': 0.01, 'gap': 0.1},
    {'s_min': 0.2, 'zeta': 0.1, 'gap': 0.3},
    {'s_min': 0.0, 'zeta': 0.0, 'gap': 0.01},
  )
  def test_law_is_that_of_algorithm_1(self, **times):
    """Kolmogorov-Smirnov, against draws of (s, t) from its two lines in numpy."""
    num = 40_000
    *_, store = make_store(8192, 1)
    drawn, _ = draw(store, num, **times)
    rng = np.random.default_rng(1)
    t_max = 1.0 - times['zeta']
    s = rng.uniform(times['s_min'], t_max - times['gap'], size=num)
    t = s + rng.uniform(times['gap'], t_max - s)
    bound = 2.8 * np.sqrt(2.0 / num)  # Exceeded once in 3 million draws.
    for ours, theirs in (
      (drawn['t'], t),
      (drawn['s'], s),
      (drawn['t'] - drawn['s'], t - s),
      (drawn['s'] / drawn['t'], s / t),
    ):
      both = np.sort(np.concatenate([ours, theirs]))
      ecdfs = (np.searchsorted(np.sort(x), both, 'right') / num for x in (ours, theirs))
      self.assertLess(np.abs(np.subtract(*ecdfs)).max(), bound)

  @parameterized.parameters(
    TIMES,
    {'s_min': 0.3, 'zeta': 0.3, 'gap': 0.3},
    {'s_min': 0.0, 'zeta': 0.5, 'gap': 0.2},
  )
  def test_range(self, **times):
    """Only items with a time in reach are drawn; s keeps its distance from t."""
    for num in (40, 5000):
      full, stored_t, _, store = make_store(num, 1)
      drawn, omega = draw(store, 20_000, **times)
      s, t, tiny = drawn['s'], drawn['t'], 1e-6
      self.assertTrue(np.all(t > times['s_min'] + times['gap'] - tiny))
      self.assertTrue(np.all(t <= 1.0 - times['zeta'] + tiny))
      self.assertTrue(np.all(s >= times['s_min'] - tiny))
      self.assertTrue(np.all(s <= t - times['gap'] + tiny))
      np.testing.assert_array_equal(t, stored_t[omega])
      np.testing.assert_array_equal(drawn['gram'], full[omega])
      inside = (stored_t > times['s_min'] + times['gap']) & (
        stored_t <= 1.0 - times['zeta']
      )
      if num == 40:  # All of them are.
        self.assertCountEqual(np.unique(omega), np.flatnonzero(inside))

  @parameterized.parameters(50, 1000, 0)
  def test_every_usable_datum_is_drawn(self, num_timesteps):
    """In proportion, where times repeat as a model's few timesteps do; on bounds."""
    rng, num = np.random.default_rng(0), 2000
    t = spread_times(num)
    if num_timesteps:
      t = np.float32(rng.integers(1, num_timesteps + 1, size=num) / num_timesteps)
    store = store_of(rng.normal(size=(num, 1)), t, np.arange(num))
    times = {'s_min': 0.1, 'zeta': 0.1, 'gap': 0.2}  # .3 and .9 are timesteps.
    exact = np.rint(np.float64(t) * 1000) if num_timesteps else np.float64(t) * 1000
    usable = np.flatnonzero((exact > 300) & (exact <= 900))
    drawn = np.concatenate(
      [draw(store, 2**17, key=key, **times)[1] for key in range(4)]
    )
    count = np.bincount(drawn, minlength=num)
    self.assertEqual(count[usable].sum(), count.sum())
    # p(t) vanishes at s_min + gap: the first of a continuum may wait for long.
    never = t[usable][count[usable] == 0]
    self.assertTrue(np.all(never < 0.315), never)
    if num_timesteps == 50:  # Data of one time are drawn equally often.
      for time in np.unique(t[usable]):
        of_time = count[usable][t[usable] == time]
        spread = np.sum((of_time - of_time.mean()) ** 2) / of_time.mean()
        freedom = len(of_time) - 1  # Chi-squared: 6 deviations above its mean.
        self.assertLess(spread, freedom + 6.0 * np.sqrt(2.0 * freedom))

  def test_every_step_draws_anew(self):
    *_, store = make_store(64, 1)
    first, second = (draw(store, 16, key=k, **TIMES)[0] for k in (0, 1))
    self.assertFalse(np.array_equal(first['t'], second['t']))
    self.assertFalse(np.array_equal(first['s'], second['s']))

  def test_settings_may_be_traced(self):
    """Under vmap and jit, as for Python numbers."""
    *_, store = make_store(64, 1)
    settings = {
      's_min': jnp.array([0.01, 0.2]),
      'gap': jnp.array([0.1, 0.3]),
      'zeta': jnp.array([0.01, 0.1]),
    }

    def loss(settings):
      return objectives.statistics_loss(
        jax.random.key(0),
        lambda cond, s, t: cond + s,
        lambda store, gram, omega, s, t: omega * gram[:, 1, 1] + t,
        store,
        batch=32,
        **settings,
      )

    together = jax.jit(jax.vmap(loss))(settings)
    for i in range(2):
      alone = loss({name: float(value[i]) for name, value in settings.items()})
      for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose(a[i], b, rtol=1e-5, atol=1e-5)


class ItemsTest(parameterized.TestCase):
  @parameterized.parameters(1, 2, 4)
  def test_particles(self, num_used):
    """The first particles of an item, with its condition and one weight."""
    full, t, _, store = make_store(30, 4)
    drawn, omega = draw(store, 50, num_used=num_used, **TIMES)
    keep = (4 * np.arange(3)[:, None] + np.arange(num_used)).ravel()
    np.testing.assert_array_equal(drawn['gram'], full[omega][:, keep][:, :, keep])
    np.testing.assert_array_equal(drawn['t'], t[omega])
    np.testing.assert_array_equal(drawn['weight_t'], drawn['t'])
    np.testing.assert_array_equal(drawn['weight_s'], drawn['s'])

  @parameterized.parameters(2, 5)
  def test_members(self, num_used):
    """The first members of a group, a weight for each, all at the group's (s, t)."""
    full, t, cond, store = make_store(30, 5, vectors=4, members=5)
    drawn, omega = draw(store, 50, num_used=num_used, **TIMES)
    self.assertEqual(omega.shape, (50, num_used))
    item = omega[:, 0] // 100
    np.testing.assert_array_equal(omega, cond[item, :num_used])
    keep = (5 * np.arange(4)[:, None] + np.arange(num_used)).ravel()
    np.testing.assert_array_equal(drawn['gram'], full[item][:, keep][:, :, keep])
    np.testing.assert_array_equal(drawn['t'], t[item])
    np.testing.assert_array_equal(drawn['weight_t'], np.repeat(t[item], num_used))
    np.testing.assert_array_equal(drawn['weight_s'], np.repeat(drawn['s'], num_used))

  def test_gradient_reaches_the_weight(self):
    """The coefficient of the mean of omega^2 G_00, by hand."""
    full, _, _, store = make_store(30, 1)
    loss = functools.partial(
      objectives.statistics_loss,
      jax.random.key(0),
      objective=lambda store, gram, omega, s, t: omega**2 * gram[:, 2, 2],
      store=store,
      batch=20,
      **TIMES,
    )
    slope = jax.grad(lambda w: loss(weight=lambda c, s, t: w * s)[0].mean())(0.5)
    drawn, omega = draw(store, 20, **TIMES)
    expected = np.mean(2.0 * 0.5 * drawn['s'] ** 2 * full[omega, 2, 2])
    np.testing.assert_allclose(slope, expected, rtol=1e-5)


if __name__ == '__main__':
  absltest.main()
