"""Rewards from their profiles: the interpolant's bound, and the loss that has it."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized

from lgd import objectives
from lgd import schedules
from lgd import statistics

NODES = (0.0, 0.5, 0.8, 1.5)
NUM, M = 40, 3


def reward(x0_hat, cond):
  """sin(<x0_hat, 1> + cond): along a line of data of 2 x 3, a sine of omega."""
  return jnp.sin(jnp.sum(x0_hat, axis=(1, 2)) + cond)


class Line:
  """Predictions of NUM data; R and its derivatives in omega in float64, by hand."""

  def __init__(self):
    rng = np.random.default_rng(0)
    self.x0_cond, self.x0_null = rng.normal(size=(2, NUM, M, 2, 3))
    self.cond = np.arange(NUM)

  def derivative(self, order, row, omega):
    total = 0.0
    for j in range(M):
      delta = np.sum(self.x0_cond[row, j] - self.x0_null[row, j])
      phase = np.sum(self.x0_cond[row, j]) + omega * delta + self.cond[row]
      total += delta**order * np.sin(phase + order * np.pi / 2.0) / M
    return total

  def bound(self, row, nodes):
    """(5) with the widest interval, and |R''''| <= mean delta^4."""
    delta = np.sum(self.x0_cond[row] - self.x0_null[row], axis=(1, 2))
    return np.max(np.diff(nodes)) ** 4 / 384.0 * np.mean(delta**4)

  def profile(self, nodes=NODES):
    args = (jnp.asarray(x) for x in (self.cond, self.x0_cond, self.x0_null))
    return statistics.reward_profile(reward, *args, nodes)


class ProfileTest(parameterized.TestCase):
  @parameterized.parameters(False, True)
  def test_values_and_slopes(self, jit):
    with jax.enable_x64(True):
      line = Line()
      profile = (jax.jit(line.profile) if jit else line.profile)()
      self.assertEqual(profile.shape, (NUM, 2, len(NODES)))
      for row in (0, 7, NUM - 1):
        for k, node in enumerate(NODES):
          for order in (0, 1):
            expected = line.derivative(order, row, node)
            np.testing.assert_allclose(profile[row, order, k], expected, rtol=1e-9)

  def test_reward_of_another_shape(self):
    args = (jnp.zeros(NUM), jnp.zeros((NUM, M, 2)), jnp.zeros((NUM, M, 2)))
    with self.assertRaisesRegex(ValueError, r'reward: is of shape \(\) .*\(40,\)'):
      jax.eval_shape(
        lambda *a: statistics.reward_profile(lambda x, c: jnp.sum(x), *a, NODES), *args
      )


class InterpolationTest(parameterized.TestCase):
  def test_error_is_within_the_bound(self):
    """At random weights; and it falls as h^4, so that it is what the bound is of."""
    with jax.enable_x64(True):
      line = Line()
      omega = np.random.default_rng(1).uniform(0.0, 1.5, size=(200, NUM))
      worst = []
      for num in (6, 11):
        nodes = np.linspace(0.0, 1.5, num)
        profile = line.profile(tuple(nodes))
        every = np.broadcast_to(profile, (200, *profile.shape))
        ours = statistics.reward_at(jnp.asarray(every), omega, nodes=nodes)
        error = np.zeros((200, NUM))
        for row in range(NUM):
          error[:, row] = ours[:, row] - line.derivative(0, row, omega[:, row])
        bound = np.stack([line.bound(row, nodes) for row in range(NUM)])
        self.assertTrue(np.all(np.abs(error) <= bound + 1e-12))
        worst.append(np.max(np.abs(error)))
        self.assertGreater(np.max(np.abs(error) / bound), 0.2)
      self.assertBetween(worst[0] / worst[1], 10.0, 20.0)

  def test_nodes_are_exact_in_half_precision(self):
    """Profiles of predictions in bfloat16: .3 is not .3008."""
    rng = np.random.default_rng(0)
    x0_cond, x0_null = jnp.asarray(rng.normal(size=(2, 5, M, 2, 3)), jnp.bfloat16)
    nodes, cond = (0.0, 0.3), jnp.zeros(5)
    profile = statistics.reward_profile(reward, cond, x0_cond, x0_null, nodes)
    x, delta = np.float64(x0_cond), np.float64(x0_cond - x0_null)
    for k, node in enumerate(nodes):
      moved = x + node * delta
      expected = np.sin(moved.sum(axis=(2, 3))).mean(axis=1)
      np.testing.assert_allclose(profile[:, 0, k], expected, atol=2e-5)

  def test_at_the_nodes(self):
    """R and its slope themselves; at the first and last one, too."""
    with jax.enable_x64(True):
      profile = Line().profile()
      for k, node in enumerate(NODES):
        omega = jnp.full(NUM, node)
        value = statistics.reward_at(profile, omega, nodes=NODES)
        slope = jax.grad(
          lambda w: jnp.sum(statistics.reward_at(profile, w, nodes=NODES))
        )(omega)
        np.testing.assert_allclose(value, profile[:, 0, k], rtol=1e-12)
        np.testing.assert_allclose(slope, profile[:, 1, k], rtol=1e-9)

  @parameterized.parameters((-0.1, 0), (1.6, -1), (1e6, -1))
  def test_constant_beyond_the_nodes(self, omega, node):
    profile = Line().profile()
    value, slope = jax.vmap(
      jax.value_and_grad(lambda w, p: statistics.reward_at(p, w, nodes=NODES)),
      in_axes=(None, 0),
    )(omega, profile)
    np.testing.assert_allclose(value, profile[:, 0, node], rtol=1e-5)
    np.testing.assert_array_equal(slope, np.zeros(NUM))


def make_store(line, *, members=None):
  """Gram matrices of zeros; an item's condition is its number, a member's its row."""
  profile, cond = line.profile(), jnp.asarray(line.cond)
  if members:
    profile = profile.reshape(-1, members, *profile.shape[1:])
    cond = cond.reshape(-1, members)
  num = len(profile)
  t = jnp.asarray(np.arange(1, num + 1) * 0.5**0.5 % 1.0)
  p = 4 * (members or 1)
  gram = jnp.zeros((num, p * (p + 1) // 2))
  return objectives.make_store(
    gram,
    t,
    cond,
    schedule=schedules.RectifiedFlow(),
    dim=1,
    num_particles=members or 1,
    grouped=members is not None,
    profile=profile,
    nodes=NODES,
  )


def loss(store, omega_of_row, gamma, *, batch=64, num_used=1):
  """Losses of a batch whose objective is s, the rows drawn, and omega."""
  seen = {}

  def weight(cond, s, t):
    del t
    seen.update(row=cond, s=s)
    return jnp.asarray(omega_of_row)[cond]

  losses, omega = objectives.statistics_loss(
    jax.random.key(0),
    weight,
    lambda store, gram, omega, s, t: s,
    store,
    **{'batch': batch, 'num_used': num_used, 's_min': 0.05, 'zeta': 0.02, 'gap': 0.1},
    gamma=gamma,
  )
  return losses, omega, seen


class LossTest(parameterized.TestCase):
  @parameterized.parameters(None, 4)
  def test_is_that_of_the_rewards_themselves(self, members):
    """Data, and 3 members of groups of 4, at random weights, row by row."""
    with jax.enable_x64(True):
      line = Line()
      store = make_store(line, members=members)
      omega_of_row = np.random.default_rng(2).uniform(0.0, 1.5, size=NUM)
      num_used = 3 if members else 1
      losses, omega, seen = loss(store, omega_of_row, 0.7, num_used=num_used)
      rows = np.asarray(seen['row']).reshape(64, num_used)
      self.assertGreater(len(np.unique(rows)), 20)
      s = np.asarray(seen['s']).reshape(64, num_used)[:, 0]
      for i in range(64):
        exact = np.mean([line.derivative(0, r, omega_of_row[r]) for r in rows[i]])
        bound = 0.7 * np.mean([line.bound(r, NODES) for r in rows[i]]) + 1e-9
        self.assertLess(abs(losses[i] - (s[i] - 0.7 * exact)), bound)
      np.testing.assert_array_equal(omega.reshape(64, -1), omega_of_row[rows])

  def test_gamma_0_is_the_loss_without_bit_for_bit(self):
    line = Line()
    omega_of_row = np.float32(np.random.default_rng(2).uniform(0.0, 2.0, size=NUM))
    without, with_zero = (
      loss(make_store(line), omega_of_row, gamma)[0] for gamma in (None, 0.0)
    )
    np.testing.assert_array_equal(without, with_zero)

  def test_gammas_side_by_side(self):
    """Traced, under vmap and jit, each raises the reward in proportion."""
    store = make_store(Line())

    def mean(omega, gamma):
      return loss(store, omega, gamma)[0].mean()

    omega, gammas = jnp.full(NUM, 0.3), jnp.asarray([0.0, 0.5, 2.0])
    slopes = jax.jit(jax.vmap(jax.grad(mean), in_axes=(None, 0)))(omega, gammas)
    np.testing.assert_array_equal(slopes[0], np.zeros(NUM))
    np.testing.assert_allclose(slopes[2], 4.0 * slopes[1], rtol=1e-4, atol=1e-7)
    step = -1e-2 * slopes[2]
    self.assertLess(mean(omega + step, 1.0), mean(omega, 1.0) - 1e-5)

  def test_a_store_without_profiles(self):
    store = dataclasses.replace(make_store(Line()), profile=None)
    with self.assertRaisesRegex(ValueError, 'gamma=0.5: .* no reward profiles'):
      loss(store, np.zeros(NUM), 0.5)


if __name__ == '__main__':
  absltest.main()
