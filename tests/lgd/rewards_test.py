"""Reward guidance against float64 loops, closed forms and recursions."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized

from lgd import guidance
from lgd import rewards
from lgd import sampling
from lgd import schedules
from lgd import transitions
from tests import helpers

SCHEDULE = schedules.RectifiedFlow()
MEAN, VARIANCE = helpers.MEAN, helpers.VARIANCE


def _identity(xt, s, t, cond):
  del s, t, cond
  return xt


def _quadratic(scale):
  """-scale / 2 ||x_0 - cond||^2, of data of any shape; one goal for all coordinates."""

  def reward(x0_hat, cond):
    error = (x0_hat - cond.reshape(-1, *(1,) * (x0_hat.ndim - 1))) ** 2
    return -0.5 * scale * jnp.sum(error.reshape(len(error), -1), axis=1)

  return reward


def _svgd_loop(x, gradient, bandwidth):
  """One group's direction in float64, pair by pair; `x`, `gradient` `[n, dim]`."""
  n = len(x)
  sq_dist = [np.sum((x[i] - x[j]) ** 2) for i in range(n) for j in range(i)]
  h = np.median(sq_dist) / np.log(n) if bandwidth is None else bandwidth
  direction = np.zeros_like(x)
  for i in range(n):
    for j in range(n):
      k = np.exp(-np.sum((x[j] - x[i]) ** 2) / h) if np.any(x[j] != x[i]) else 1.0
      grad_k = -2.0 * (x[j] - x[i]) / h * k if np.any(x[j] != x[i]) else 0.0
      direction[i] += (k * gradient[j] + grad_k) / n
  return direction


def _sample(denoise, cond, num_steps, seed=0):
  """`[num_steps + 1, batch]` states of a DDIM run of 1-d data."""
  return sampling.sample(
    jax.random.key(seed),
    denoise,
    SCHEDULE,
    cond,
    (len(cond), 1),
    num_steps=num_steps,
    churn=0.0,
    return_trajectory=True,
  )[..., 0]


def _mpgd(denoise, rate, reward=None):
  """For the deterministic sampler; the reward is the quadratic of scale 2."""
  reward = reward or _quadratic(2.0)
  return rewards.mpgd(denoise, reward, rate, schedule=SCHEDULE, churn=0.0)


def _recursion(x, num_steps, improve, *, keeps_noise=False):
  """Oracle in float64: DDIM on the exact x0_hat after `improve`, from noise `x`.

  The noise that a step takes goes with the improved estimate, or with the exact one.
  """
  for i in range(num_steps, 0, -1):
    t, s = i / num_steps, (i - 1) / num_steps
    gain = (1.0 - t) * VARIANCE / ((1.0 - t) ** 2 * VARIANCE + t**2)
    exact = MEAN + gain * (x - (1.0 - t) * MEAN)
    x0_hat = improve(exact)
    eps = (x - (1.0 - t) * (exact if keeps_noise else x0_hat)) / t
    x = (1.0 - s) * x0_hat + s * eps
  return x


ROW = jnp.zeros(6), jnp.full(6, 0.5)  # s and t of six rows.


class MpgdTest(parameterized.TestCase):
  @parameterized.parameters(False, True)
  def test_quadratic_reward(self, jit):
    """A step towards each row's own goal by the share rate * scale."""

    def run(xt, cond, rate):
      return _mpgd(_identity, guidance.constant(rate))(xt, *ROW, cond)

    xt = jax.random.normal(jax.random.key(0), (6, 2, 3))
    cond = jnp.arange(6.0)
    out = (jax.jit(run) if jit else run)(xt, cond, 0.15)
    for i in range(6):
      expected = 0.7 * np.float64(xt[i]) + 0.3 * i
      np.testing.assert_allclose(out[i], expected, rtol=1e-5, atol=1e-6)

  @parameterized.product(
    schedule=(schedules.RectifiedFlow(), schedules.Cosine()), churn=(0.0, 1.0)
  )
  def test_is_the_published_step(self, schedule, churn):
    """He et al.'s code: x_0 moves, the noise of x_t stays; every s and t, float64.

    At churn 1 their sigma is sigma_s sqrt(1 - r^2), r = alpha_t sigma_s / (alpha_s
    sigma_t), at churn 0 it is 0.
    """
    with jax.enable_x64(True):
      rng, key = np.random.default_rng(0), jax.random.key(1)
      t = rng.uniform(0.05, 1.0, size=200)
      s = t * rng.uniform(size=200)
      xt, x0_hat = rng.normal(size=(2, 200, 3))
      cond, rate = rng.normal(size=200), 0.7
      alpha, sigma = lambda t: 1.0 - t, lambda t: t
      if isinstance(schedule, schedules.Cosine):
        alpha, sigma = (
          lambda t: np.cos(0.5 * np.pi * t),
          lambda t: np.sin(0.5 * np.pi * t),
        )
      column = {
        name: fn(time)[:, None]
        for name, fn, time in (
          ('a_s', alpha, s), ('a_t', alpha, t), ('s_s', sigma, s), ('s_t', sigma, t)
        )
      }  # fmt: skip
      a_s, a_t, s_s, s_t = (column[name] for name in ('a_s', 'a_t', 's_s', 's_t'))
      std = churn * s_s * np.sqrt(1.0 - (a_t * s_s / (a_s * s_t)) ** 2)
      eps = (xt - a_t * x0_hat) / s_t
      moved = x0_hat - rate * 2.0 * (x0_hat - cond[:, None])
      z = np.asarray(jax.random.normal(key, xt.shape))
      expected = a_s * moved + np.sqrt(s_s**2 - std**2) * eps + std * z
      denoise = rewards.mpgd(
        lambda xt, s, t, cond: jnp.asarray(x0_hat),
        _quadratic(2.0),
        guidance.constant(rate),
        schedule=schedule,
        churn=churn,
      )
      args = (jnp.asarray(xt), jnp.asarray(s), jnp.asarray(t))
      x0 = denoise(*args, jnp.asarray(cond))
      xs = transitions.sample(key, schedule, x0, args[0], *args[1:], churn)
      np.testing.assert_allclose(xs, expected, atol=1e-10)

  def test_samples_move_as_the_recursion_says(self):
    """Exact Gaussian, DDIM: sample by sample, and the further the greater the rate."""
    cond, means = jnp.full(64, 3.0), []
    for rate in (0.0, 0.02, 0.1):
      denoise = _mpgd(helpers.gaussian_denoiser, guidance.constant(rate))
      trajectory = np.float64(_sample(denoise, cond, 20))
      share = 2.0 * rate
      expected = _recursion(
        trajectory[0],
        20,
        lambda x, share=share: (1.0 - share) * x + share * 3.0,
        keeps_noise=True,
      )
      np.testing.assert_allclose(trajectory[-1], expected, atol=1e-5)
      means.append(np.mean(trajectory[-1]))
    self.assertGreater(np.min(np.diff(means)), 0.1)


class RateTest(parameterized.TestCase):
  @parameterized.parameters(1, 3)
  def test_of_condition_and_both_times(self, num_particles):
    """A rate of its own for every row, in the order of the rows."""

    def rate(cond, s, t):
      return cond + 10.0 * s + 100.0 * t

    xt, cond = jax.random.normal(jax.random.key(0), (6, 2)), jnp.arange(6.0)
    s, t = 0.01 * cond, 0.1 + 0.01 * cond[::-1]
    one, out = (
      rewards.stein(_identity, _quadratic(2.0), weight, num_particles)(xt, s, t, cond)
      for weight in (guidance.constant(1.0), rate)
    )
    if num_particles == 1:
      mpgd = _mpgd(_identity, rate)(xt, s, t, cond)
      r = (1.0 - t) * s / ((1.0 - s) * t)
      np.testing.assert_allclose(
        mpgd - xt, (out - xt) / (1.0 - r)[:, None], rtol=1e-4, atol=1e-5
      )
    rates = np.float64(rate(*(np.float64(a) for a in (cond, s, t))))
    expected = xt + rates[:, None] * np.float64(one - xt)
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-4)

  def test_rate_0_changes_nothing(self):
    xt, cond = jax.random.normal(jax.random.key(0), (6, 2)), jnp.arange(6.0)
    denoise = rewards.stein(_identity, _quadratic(2.0), guidance.constant(0.0), 3)
    np.testing.assert_array_equal(denoise(xt, *ROW, cond), xt)

  @parameterized.parameters(0.0, -1.0)
  def test_bandwidth(self, bandwidth):
    with self.assertRaisesRegex(ValueError, f'bandwidth={bandwidth}: must be > 0'):
      rewards.stein(
        _identity, _quadratic(2.0), guidance.constant(0.1), 3, bandwidth=bandwidth
      )


class SteinTest(parameterized.TestCase):
  @parameterized.product(bandwidth=(None, 0.7), jit=(False, True), n=(2, 3))
  def test_matches_the_loop(self, bandwidth, jit, n):
    """Groups apart from each other, data of 2 x 3, goals that differ by row."""

    def run(xt, cond, rate, bandwidth):
      denoise = rewards.stein(
        _identity, _quadratic(2.0), guidance.constant(rate), n, bandwidth
      )
      return denoise(xt, *ROW, cond)

    xt = jax.random.normal(jax.random.key(0), (6, 2, 3))
    cond = jnp.arange(6.0)
    out = (jax.jit(run) if jit else run)(xt, cond, 0.15, bandwidth)
    x = np.float64(xt).reshape(6, 6)
    gradient = 2.0 * (np.arange(6.0)[:, None] - x)
    for i in range(0, 6, n):
      group = slice(i, i + n)
      step = 0.15 * _svgd_loop(x[group], gradient[group], bandwidth)
      expected = (x[group] + step).reshape(n, 2, 3)
      np.testing.assert_allclose(out[group], expected, rtol=1e-5, atol=1e-5)

  @parameterized.parameters(None, 0.7)
  def test_one_particle_is_mpgd(self, bandwidth):
    """At s = 0, where no noise is left to keep."""
    xt, cond = jax.random.normal(jax.random.key(0), (6, 2, 3)), jnp.arange(6.0)
    out, expected = (
      denoise(xt, *ROW, cond)
      for denoise in (
        rewards.stein(
          _identity, _quadratic(2.0), guidance.constant(0.15), 1, bandwidth
        ),
        _mpgd(_identity, guidance.constant(0.15)),
      )
    )
    np.testing.assert_allclose(out, expected, rtol=1e-6)

  def test_repeated_steps_sample_the_density_exp_reward(self):
    """R = log N(2, 1/3): 100 particles from near 0 take its mean and its variance.

    The repulsion alone keeps them apart, so its sign and factor show: the variance is
    within 5%, where half the repulsion would give half of it.
    """
    denoise = rewards.stein(_identity, _quadratic(3.0), guidance.constant(0.3), 100)
    x = 0.1 * jax.random.normal(jax.random.key(0), (100, 1))
    args = jnp.zeros(100), jnp.ones(100), jnp.full(100, 2.0)
    x = jax.jit(
      lambda x: jax.lax.fori_loop(0, 1000, lambda _, x: denoise(x, *args), x)
    )(x)
    self.assertLess(abs(np.mean(x) - 2.0), 1e-3)
    self.assertLess(abs(3.0 * np.var(x) - 1.0), 0.05)

  @parameterized.parameters(None, 0.2)
  def test_sampler_follows_the_loop(self, bandwidth):
    """Exact Gaussian, DDIM of 8 steps, 3 groups of 4, two goals; median at t = 1."""
    cond = jnp.repeat(jnp.asarray([3.0, -1.0, 3.0]), 4)
    denoise = rewards.stein(
      helpers.gaussian_denoiser, _quadratic(2.0), guidance.constant(0.03), 4, bandwidth
    )
    trajectory = np.float64(_sample(denoise, cond, 8))

    def improve(x0_hat):
      gradient = 2.0 * (np.float64(cond) - x0_hat)
      return x0_hat + 0.03 * np.concatenate(
        [
          _svgd_loop(x0_hat[i : i + 4, None], gradient[i : i + 4, None], bandwidth)[
            :, 0
          ]
          for i in (0, 4, 8)
        ]
      )

    expected = _recursion(trajectory[0], 8, improve)
    np.testing.assert_allclose(trajectory[-1], expected, rtol=1e-3, atol=1e-3)

  def test_particles_spread_more_than_by_mpgd(self):
    """In 64 groups of 8, where both bring the mean as far, and where R is flat.

    A flat reward leaves `mpgd` the model's own spread, .5.
    """
    cond = jnp.full(512, 3.0)

    def moments(denoise):
      groups = np.float64(_sample(denoise, cond, 20))[-1].reshape(64, 8)
      return np.mean(groups), np.mean(np.std(groups, axis=1, ddof=1))

    def rate(cond, s, t):  # That moves the estimates by .03, as Stein's does.
      return 0.03 * (t - s) / ((1.0 - s) * t)

    by_mpgd = moments(_mpgd(helpers.gaussian_denoiser, rate))
    # Twice the rate: k averages the drift over the group.
    by_stein = moments(
      rewards.stein(
        helpers.gaussian_denoiser, _quadratic(2.0), guidance.constant(0.06), 8, 0.2
      )
    )
    self.assertLess(abs(by_stein[0] - by_mpgd[0]), 0.05)
    self.assertGreater(by_stein[1], 1.2 * by_mpgd[1])
    _, unguided = moments(_mpgd(helpers.gaussian_denoiser, rate, _quadratic(0.0)))
    _, spread = moments(
      rewards.stein(
        helpers.gaussian_denoiser, _quadratic(0.0), guidance.constant(0.03), 8, 0.2
      )
    )
    self.assertLess(abs(unguided - 0.5), 0.05)
    self.assertGreater(spread, 1.1 * unguided)

  @parameterized.parameters(0.0, 1.0)
  def test_coincident_estimates_do_not_fly_apart(self, value):
    """Equal ones move as by mpgd; those equal but for rounding stay within .05."""
    cond = jnp.full(6, 3.0)
    denoise = rewards.stein(_identity, _quadratic(2.0), guidance.constant(0.1), 3)
    equal = jnp.full((6, 4), value)
    out = denoise(equal, *ROW, cond)
    np.testing.assert_allclose(out, 0.8 * equal + 0.2 * 3.0, rtol=1e-6)
    rounded = equal * (1.0 + 1e-7 * jnp.arange(6.0)[:, None])
    np.testing.assert_allclose(denoise(rounded, *ROW, cond), out, atol=0.05)


class ContractTest(parameterized.TestCase):
  @parameterized.named_parameters(
    (
      'mpgd',
      lambda denoise, reward: _mpgd(denoise, guidance.constant(0.1), reward),
    ),
    (
      'stein',
      lambda denoise, reward: rewards.stein(denoise, reward, guidance.constant(0.1), 3),
    ),
  )
  def test_does_not_differentiate_the_denoiser(self, make):
    """A denoiser whose derivative raises serves; parameters get a zero gradient."""

    @jax.custom_jvp
    def opaque(x):
      return jnp.tanh(x)

    @opaque.defjvp
    def _(primals, tangents):
      raise AssertionError('differentiated')

    xt, cond = jax.random.normal(jax.random.key(0), (6, 2)), jnp.arange(6.0)
    with self.assertRaisesRegex(AssertionError, 'differentiated'):
      jax.grad(lambda x: jnp.sum(opaque(x)))(xt)
    denoise = make(lambda xt, s, t, cond: opaque(xt), _quadratic(2.0))
    moved = jax.jit(denoise)(xt, *ROW, cond) - jnp.tanh(xt)
    self.assertGreater(np.max(np.abs(moved)), 0.01)

    def total(scale):
      return jnp.sum(make(lambda xt, *_: scale * xt, _quadratic(2.0))(xt, *ROW, cond))

    self.assertEqual(float(jax.grad(total)(2.0)), 0.0)

  @parameterized.named_parameters(
    ('scalar', jnp.sum, r'\(\)'),
    ('column', lambda x: x[:, :1], r'\(6, 1\)'),
    ('number', lambda x: 1.0, r'\(\)'),
  )
  def test_reward_of_another_shape(self, reward, shape):
    """Refused while tracing."""
    message = rf'reward: is of shape {shape} for x0_hat of \(6, 2\); must be \(6,\)'
    for denoise in (
      _mpgd(_identity, guidance.constant(0.1), lambda x0_hat, cond: reward(x0_hat)),
      rewards.stein(
        _identity, lambda x0_hat, cond: reward(x0_hat), guidance.constant(0.1), 3
      ),
    ):
      with self.assertRaisesRegex(ValueError, message):
        jax.eval_shape(denoise, jnp.zeros((6, 2)), *ROW, None)

  @parameterized.parameters(4, 0)
  def test_batch_of_no_whole_groups(self, num_particles):
    denoise = rewards.stein(
      _identity, _quadratic(2.0), guidance.constant(0.1), num_particles
    )
    with self.assertRaisesRegex(
      ValueError, f'num_particles={num_particles}: .*batch of 6'
    ):
      jax.eval_shape(denoise, jnp.zeros((6, 2)), *ROW, jnp.zeros(6))


def _wave(x0_hat, cond):
  """Smooth, of products of matrices; data of 2 x 3 in batches of any size."""
  matrix = jnp.asarray(np.random.default_rng(0).normal(size=(6, 64)), x0_hat.dtype)
  return jnp.sum(jnp.sin(x0_hat.reshape(-1, 6) @ matrix), axis=1) * cond['scale']


def _line():
  """x0_cond, delta, omega and cond of 5 rows."""
  rng = np.random.default_rng(1)
  x0_cond, delta = rng.normal(size=(2, 5, 2, 3))
  cond = {'scale': jnp.asarray(rng.normal(size=5))}
  return (
    jnp.asarray(x0_cond),
    jnp.asarray(delta),
    jnp.asarray(rng.uniform(size=5)),
    cond,
  )


class AlongTest(parameterized.TestCase):
  @parameterized.parameters(False, True)
  def test_derivative_in_omega(self, jit):
    """Central differences of the reward itself in float64, and reverse mode."""
    with jax.enable_x64(True):
      x0_cond, delta, omega, cond = _line()

      def plain(omega):
        return _wave(x0_cond + omega[:, None, None] * delta, cond)

      def ours(omega):
        return rewards.along(_wave, x0_cond, delta, omega, cond)

      slope = jax.grad(lambda omega: jnp.sum(jnp.arange(1.0, 6.0) * ours(omega)))
      slope = (jax.jit(slope) if jit else slope)(omega) / np.arange(1.0, 6.0)
      differences = (plain(omega + 1e-5) - plain(omega - 1e-5)) / 2e-5
      reverse = jax.grad(lambda omega: jnp.sum(plain(omega)))(omega)
      _, forward = jax.jvp(ours, (omega,), (jnp.ones(5),))
      self.assertGreater(np.min(np.abs(slope)), 0.1)
      np.testing.assert_allclose(slope, differences, rtol=1e-6)
      np.testing.assert_allclose(slope, reverse, rtol=1e-12)
      np.testing.assert_allclose(forward, reverse, rtol=1e-12)
      np.testing.assert_allclose(ours(omega), plain(omega), rtol=1e-12)

  def test_costs_two_evaluations(self):
    """Operations that the compiler counts, with the gradient in omega."""
    matrix = jax.random.normal(jax.random.key(0), (2, 128, 128))

    def reward(x0_hat, cond):
      return jnp.sum(jnp.tanh(x0_hat @ matrix[0]) @ matrix[1], axis=1) + cond

    def loss(omega, x0_cond, delta, cond):
      return jnp.sum(rewards.along(reward, x0_cond, delta, omega, cond))

    def flops(function, *args):
      return jax.jit(function).lower(*args).compile().cost_analysis()['flops']

    x0, rows = jnp.zeros((64, 128)), jnp.zeros(64)
    once = flops(reward, x0, rows)
    self.assertGreater(once, 2 * 2 * 64 * 128 * 128)
    both = flops(jax.value_and_grad(loss), rows, x0, x0, rows)
    self.assertBetween(both, 1.9 * once, 2.2 * once)
    self.assertLess(flops(loss, rows, x0, x0, rows), 1.1 * once)

  def test_gradient_reaches_omega_alone(self):
    x0_cond, delta, omega, cond = _line()
    gradients = jax.grad(
      lambda *args: jnp.sum(rewards.along(_wave, *args)),
      argnums=(0, 1, 2),
    )(x0_cond, delta, omega, cond)
    for gradient in gradients[:2]:
      np.testing.assert_array_equal(gradient, np.zeros_like(gradient))
    self.assertGreater(np.min(np.abs(gradients[2])), 0.1)

  def test_reward_in_half_precision(self):
    """Is rounded itself, but nothing that is computed from it."""
    x0_cond, delta, omega, cond = (
      jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), x) for x in _line()
    )

    def half(x0_hat, cond):
      return _wave(x0_hat, cond).astype(jnp.bfloat16)

    def value(omega, reward):
      return jnp.sum(rewards.along(reward, x0_cond, delta, omega, cond))

    ours, exact = (jax.value_and_grad(value)(omega, r) for r in (half, _wave))
    self.assertEqual(ours[0].dtype, jnp.float32)
    for actual, expected in zip(ours, exact, strict=True):
      np.testing.assert_allclose(actual, expected, atol=0.01 * np.abs(expected).max())

  def test_reward_in_single_precision_of_doubles(self):
    with jax.enable_x64(True):
      x0_cond, delta, omega, cond = _line()

      def single(x0_hat, cond):
        return _wave(x0_hat, cond).astype(jnp.float32)

      slope = jax.grad(
        lambda omega: jnp.sum(rewards.along(single, x0_cond, delta, omega, cond))
      )(omega)
      expected = jax.grad(
        lambda omega: jnp.sum(_wave(x0_cond + omega[:, None, None] * delta, cond))
      )(omega)
      np.testing.assert_allclose(slope, expected, rtol=1e-5)

  def test_reward_that_counts_has_no_slope(self):
    with self.assertRaisesRegex(ValueError, 'reward: is int32, must be floats'):
      jax.eval_shape(
        lambda *args: rewards.along(lambda x, _: jnp.argmax(x[:, 0], axis=1), *args),
        *jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), _line()),
      )

  def test_reward_of_another_shape(self):
    with self.assertRaisesRegex(
      ValueError, r'reward: is of shape \(5, 2, 3\) .*\(5,\)'
    ):
      jax.eval_shape(lambda *args: rewards.along(lambda x, _: x, *args), *_line())


if __name__ == '__main__':
  absltest.main()
