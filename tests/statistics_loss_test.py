"""What a batch of stored statistics is made of: times, items, conditions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import absltest
from absl.testing import parameterized

from lgd import objectives

pytestmark = pytest.mark.usefixtures('fast_compilation')

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
  return full, t, cond, objectives.make_store(*map(jnp.asarray, (packed, t, cond)))


def draw(store, batch, *, num_stored=1, num_used=1, grouped=False, key=0, **times):
  """Gram matrices, s, t of a batch as drawn, and omega: the condition."""
  seen = {}

  def objective(gram, omega, s, t):
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
    num_stored=num_stored,
    num_used=num_used,
    grouped=grouped,
    **times,
  )
  np.testing.assert_array_equal(losses, seen['t'] - seen['s'])
  return {k: np.asarray(v) for k, v in seen.items()}, np.asarray(omega)


class MakeStoreTest(absltest.TestCase):
  def test_in_order_of_t(self):
    full, t, cond, store = make_store(50, 2, members=3)
    self.assertTrue(np.all(np.diff(store.t) >= 0.0))
    number = np.asarray(store.gram)[:, 0].astype(int)
    self.assertCountEqual(number, range(50))
    np.testing.assert_array_equal(store.t, t[number])
    np.testing.assert_array_equal(store.cond, cond[number])
    np.testing.assert_array_equal(store.gram[:, 1], full[number, 0, 1])


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
        lambda gram, omega, s, t: omega * gram[:, 1, 1] + t,
        store,
        **{'batch': 32, 'num_stored': 1, 'num_used': 1, 'grouped': False},
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
    drawn, omega = draw(store, 50, num_stored=4, num_used=num_used, **TIMES)
    keep = (4 * np.arange(3)[:, None] + np.arange(num_used)).ravel()
    np.testing.assert_array_equal(drawn['gram'], full[omega][:, keep][:, :, keep])
    np.testing.assert_array_equal(drawn['t'], t[omega])
    np.testing.assert_array_equal(drawn['weight_t'], drawn['t'])
    np.testing.assert_array_equal(drawn['weight_s'], drawn['s'])

  @parameterized.parameters(2, 5)
  def test_members(self, num_used):
    """The first members of a group, a weight for each, all at the group's (s, t)."""
    full, t, cond, store = make_store(30, 5, vectors=4, members=5)
    settings = {'num_stored': 5, 'num_used': num_used, 'grouped': True}
    drawn, omega = draw(store, 50, **settings, **TIMES)
    self.assertEqual(omega.shape, (50, num_used))
    item = omega[:, 0] // 100
    np.testing.assert_array_equal(omega, cond[item, :num_used])
    keep = (5 * np.arange(4)[:, None] + np.arange(num_used)).ravel()
    np.testing.assert_array_equal(drawn['gram'], full[item][:, keep][:, :, keep])
    np.testing.assert_array_equal(drawn['t'], t[item])
    np.testing.assert_array_equal(drawn['weight_t'], np.repeat(t[item], num_used))
    np.testing.assert_array_equal(drawn['weight_s'], np.repeat(drawn['s'], num_used))

  def test_gradient_reaches_the_weight(self):
    """Of the mean of omega^2 G_00: its coefficient, by hand."""
    full, _, _, store = make_store(30, 1)
    settings = {'batch': 20, 'num_stored': 1, 'num_used': 1, 'grouped': False, **TIMES}
    loss = functools.partial(
      objectives.statistics_loss,
      jax.random.key(0),
      objective=lambda gram, omega, s, t: omega**2 * gram[:, 2, 2],
      store=store,
      **settings,
    )
    slope = jax.grad(lambda w: loss(weight=lambda c, s, t: w * s)[0].mean())(0.5)
    drawn, omega = draw(store, 20, **TIMES)
    expected = np.mean(2.0 * 0.5 * drawn['s'] ** 2 * full[omega, 2, 2])
    np.testing.assert_allclose(slope, expected, rtol=1e-5)


if __name__ == '__main__':
  absltest.main()
