"""Algorithm 4 against float64 loops, and that the reward is raised."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized

from lgd import denoiser as denoiser_lib
from lgd import guidance
from lgd import objectives
from lgd import schedules

NUM, M = 6, 3
TIMES = {'s_min': 0.01, 'zeta': 0.01, 'gap': 0.1}


def reward(x0_hat, cond):
  """Its maximum along a line is where `goal` is closest; depends on both parts of c."""
  error = jnp.sum((x0_hat - cond['goal']) ** 2, axis=(1, 2))
  return -cond['scale'] * jnp.sqrt(1.0 + error)


def make_particles():
  rng = np.random.default_rng(0)
  x0_cond, x0_null = rng.normal(size=(2, NUM, M, 2, 1)).astype(np.float32)
  cond = {
    'goal': rng.normal(size=(NUM, 2, 1)).astype(np.float32),
    'scale': rng.uniform(1.0, 2.0, size=NUM).astype(np.float32),
  }
  return objectives.Particles(None, None, None, None, x0_cond, x0_null, cond)


def loop(particles, omega):
  """`[NUM, M]` rewards in float64, one by one."""
  values = np.zeros((NUM, M))
  for i in range(NUM):
    for j in range(M):
      x0_cond, x0_null = (
        np.float64(x[i, j]) for x in (particles.x0_cond, particles.x0_null)
      )
      x0_hat = x0_cond + omega[i] * (x0_cond - x0_null)
      error = np.sum((x0_hat - particles.cond['goal'][i]) ** 2)
      values[i, j] = -particles.cond['scale'][i] * np.sqrt(1.0 + error)
  return values


def l1(key, x0, particles, omega):
  """Any objective: losses of its own for every datum."""
  del key, x0, particles
  return omega * jnp.arange(NUM)


def no_consistency(key, x0, particles, omega):
  del key, x0, particles
  return jnp.zeros_like(omega)


class LossTest(parameterized.TestCase):
  @parameterized.parameters(False, True)
  def test_each_datum(self, jit):
    """L - gamma / m sum_j R_j, and - 1 / m sum_j R_j."""
    particles, omega = make_particles(), np.linspace(0.0, 2.0, NUM)

    def both(omega, gamma):
      objective = objectives.rewarded(l1, reward, gamma=gamma)
      alone = objectives.reward_objective(reward)
      return (o(jax.random.key(0), None, particles, omega) for o in (objective, alone))

    combined, alone = (jax.jit(lambda *a: tuple(both(*a))) if jit else both)(omega, 0.3)
    means = loop(particles, omega).mean(axis=1)
    np.testing.assert_allclose(alone, -means, rtol=1e-5)
    np.testing.assert_allclose(
      combined, omega * np.arange(NUM) - 0.3 * means, rtol=1e-5, atol=1e-6
    )

  def test_groups(self):
    """Two data with a loss for every particle: the reward of the group is in each."""
    particles, omega = make_particles(), np.linspace(0.0, 2.0, NUM)
    losses = jnp.arange(NUM // 2 * M, dtype=jnp.float32)
    objective = objectives.rewarded(lambda *_: losses, reward, gamma=0.3, group_size=2)
    combined = objective(jax.random.key(0), None, particles, omega)
    of_groups = loop(particles, omega).reshape(NUM // 2, -1).mean(axis=1)
    expected = losses - 0.3 * np.repeat(of_groups, M)
    np.testing.assert_allclose(combined, expected, rtol=1e-5, atol=1e-6)

  @parameterized.parameters(1, 4)
  def test_losses_of_other_groups_are_refused(self, num):
    """Losses of pooled data, say: nothing would be left of them, and a mean be NaN."""
    objective = objectives.rewarded(lambda *_: jnp.ones(num), reward, gamma=0.3)
    with self.assertRaisesRegex(ValueError, f'6 groups, of which there are {num} loss'):
      objective(jax.random.key(0), None, make_particles(), np.linspace(0.0, 2.0, NUM))

  def test_gamma_0_is_the_objective_bit_for_bit(self):
    particles, omega = make_particles(), np.linspace(0.0, 2.0, NUM)
    args = (jax.random.key(0), None, particles, omega)
    np.testing.assert_array_equal(
      objectives.rewarded(l1, reward, gamma=0.0)(*args), l1(*args)
    )


@jax.custom_jvp
def opaque(x):
  return jnp.tanh(x)


@opaque.defjvp
def _(primals, tangents):
  raise AssertionError('differentiated')


def denoiser(params, xt, t, cond):
  """One that must not be differentiated; its null is that of scale 0."""
  del t
  return opaque(params * xt) + cond['scale'][:, None, None] * cond['goal']


class GuidanceLossTest(absltest.TestCase):
  def test_descent_raises_the_reward(self):
    """Through Algorithm 1: the condition arrives, the denoiser is left alone."""
    with self.assertRaisesRegex(AssertionError, 'differentiated'):
      jax.grad(lambda x: jnp.sum(opaque(x)))(jnp.ones(3))
    cond = make_particles().cond
    null = {'goal': np.zeros((2, 1), np.float32), 'scale': np.float32(0.0)}
    pair = denoiser_lib.classifier_free(denoiser, null)

    def loss(omega, objective):
      losses, _ = objectives.guidance_loss(
        jax.random.key(0),
        guidance.constant(omega),
        objective,
        pair,
        1.0,
        schedules.RectifiedFlow(),
        jnp.zeros((NUM, 2, 1)),
        cond,
        num_particles=M,
        **TIMES,
      )
      return losses.mean()

    alone = objectives.reward_objective(reward)
    rewarded = objectives.rewarded(no_consistency, reward, gamma=2.0)
    slope = jax.grad(loss)(0.1, alone)
    self.assertGreater(abs(slope), 0.01)
    before, after = (-loss(omega, alone) for omega in (0.1, 0.1 - 0.05 * slope))
    self.assertGreater(after, before + 0.04 * slope**2)
    # Both are differentiated under jit, too.
    twice = jax.jit(jax.grad(lambda omega: loss(omega, rewarded)))(0.1)
    np.testing.assert_allclose(twice, 2.0 * slope, rtol=1e-5)


if __name__ == '__main__':
  absltest.main()
