"""Algorithm 1 in one function: gradients, and losses known in closed form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized

from lgd import denoiser as denoiser_lib
from lgd import guidance
from lgd import objectives
from lgd import schedules
from lgd.data import mixtures

SCHEDULE = schedules.RectifiedFlow()
MIXTURE = mixtures.ring(4, radius=2.0, std=0.5)
PAIR = denoiser_lib.classifier_free(mixtures.denoiser(SCHEDULE), 4)
# s_min + gap = 1 - zeta leaves one pair of times: s = 0.3, t = 0.5.
FIXED_TIMES = {'s_min': 0.3, 'zeta': 0.5, 'gap': 0.2}


def loss(key, weight, objective, params, num, **times):
  """Mean loss over `num` data drawn from the mixture."""
  cond = jnp.arange(num) % 4
  x0 = mixtures.sample(jax.random.fold_in(key, 1), MIXTURE, cond)
  losses, _ = objectives.guidance_loss(
    key,
    weight,
    objective,
    PAIR,
    params,
    SCHEDULE,
    x0,
    cond,
    num_particles=2,
    **times,
  )
  return losses.mean()


def consistency(compare, churn=1.0):
  return objectives.consistency_objective(
    compare, schedule=SCHEDULE, churn=churn, rule=guidance.linear
  )


SELF_CONSISTENCY = consistency(
  functools.partial(objectives.self_consistency, beta=1.75, interaction=1.0)
)


class GuidanceLossTest(parameterized.TestCase):
  def test_score_matching_of_the_exact_denoiser_is_the_posterior_variance(self):
    """dim v sigma^2 / (alpha^2 v + sigma^2) for x_0 ~ N(m, v I), at t = 0.5."""
    objective = objectives.score_matching_objective(rule=guidance.linear)
    run = jax.jit(
      functools.partial(
        loss, weight=guidance.constant(0.0), objective=objective, num=20_000
      ),
      static_argnames=('s_min', 'zeta', 'gap'),
    )
    value = run(jax.random.key(0), params=MIXTURE, **FIXED_TIMES)
    expected = 2 * 0.25 * 0.25 / (0.25 * 0.25 + 0.25)
    # The squared error is expected / 2 times a chi-square of 2, two particles each
    # of 20,000 data (which share x_0): 5 standard errors.
    self.assertAlmostEqual(value, expected, delta=5.0 * expected / np.sqrt(20_000))

  def test_l2_at_churn_0(self):
    """x_s is affine in x_t, so the distance is a sum of variances.

    With the exact denoiser and omega = 0, x_guided = c_t x_t + b E[x_0 | x_t], and
    its mean over x_t given x_0, its variance, and that of the true particle follow
    from E[x_0 | x_t] = m + g (x_t - alpha_t m).
    """
    alpha_s, sigma_s, alpha_t, sigma_t = 0.7, 0.3, 0.5, 0.5
    v, dim = 0.25, 2
    coef_xt = sigma_s / sigma_t  # DDIM.
    coef_x0 = alpha_s - coef_xt * alpha_t
    gain = alpha_t * v / (alpha_t**2 * v + sigma_t**2)
    slope = coef_xt + coef_x0 * gain  # d x_guided / d x_t.
    # Given x_0 = m + d: mean difference to alpha_s x_0 is (slope alpha_t - alpha_s) d.
    expected = dim * (
      (slope * alpha_t - alpha_s) ** 2 * v + slope**2 * sigma_t**2 + sigma_s**2
    )
    run = jax.jit(
      functools.partial(
        loss,
        weight=guidance.constant(0.0),
        objective=consistency(objectives.l2, churn=0.0),
        num=40_000,
      ),
      static_argnames=('s_min', 'zeta', 'gap'),
    )
    value = run(jax.random.key(1), params=MIXTURE, **FIXED_TIMES)
    self.assertAlmostEqual(value, expected, delta=5.0 * expected / np.sqrt(40_000))

  def test_gradient_reaches_the_weight_and_not_the_denoiser(self):
    net = guidance.GuidanceNet(SCHEDULE, guidance.LabelEmbedding(4, 8), width=8)
    half = jnp.full(4, 0.5)
    guidance_params = net.init(jax.random.key(0), jnp.arange(4), half, half)

    def both(guidance_params, denoiser_params):
      weight = functools.partial(net.apply, guidance_params)
      times = {'s_min': 0.01, 'zeta': 0.01, 'gap': 0.1}
      key = jax.random.key(1)
      return loss(key, weight, SELF_CONSISTENCY, denoiser_params, 64, **times)

    gradients = jax.jit(jax.grad(both, argnums=(0, 1)))
    to_weight, to_denoiser = gradients(guidance_params, MIXTURE)
    self.assertGreater(
      max(float(jnp.abs(g).max()) for g in jax.tree.leaves(to_weight)), 0.0
    )
    for gradient in jax.tree.leaves(to_denoiser):
      np.testing.assert_array_equal(gradient, np.zeros_like(gradient))

  @parameterized.parameters(1, 4)
  def test_members_of_a_group_share_their_times(self, group_size):
    """And groups do not; every member has its own condition and its weight."""
    seen = {}

    def weight(cond, s, t):
      seen.update(s=s, t=t)
      return cond + s

    def objective(key, x0, particles, omega):
      np.testing.assert_array_equal(particles.s, seen['s'])
      np.testing.assert_array_equal(particles.t, seen['t'])
      return omega.reshape(-1, group_size).sum(axis=1)

    cond = jnp.arange(32) % 4
    losses, omega = objectives.guidance_loss(
      jax.random.key(0),
      weight,
      objective,
      PAIR,
      MIXTURE,
      SCHEDULE,
      jnp.zeros((32, 2)),
      cond,
      num_particles=2,
      group_size=group_size,
      **{'s_min': 0.01, 'zeta': 0.01, 'gap': 0.1},
    )
    s, t = (np.asarray(seen[name]).reshape(-1, group_size) for name in 'st')
    self.assertEqual(losses.shape, (32 // group_size,))
    np.testing.assert_array_equal(omega, cond + s.ravel())
    for times in (s, t):
      np.testing.assert_array_equal(times, np.repeat(times[:, :1], group_size, axis=1))
      self.assertLen(np.unique(times), 32 // group_size)


if __name__ == '__main__':
  absltest.main()
