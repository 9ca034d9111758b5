"""Curves against explicit differences, and searches whose answer is known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized
from scipy import special

from lgd import denoiser as denoiser_lib
from lgd import guidance
from lgd import sampling
from lgd import schedules
from lgd import trajectory
from lgd.data import mixtures

OPTIMIZED = True

FLOW = schedules.RectifiedFlow()


def norm_power(q, v, dim, beta):
  """E||mu + sqrt(v) g||^beta, ||mu||^2 = q: the noncentral chi moment, float64."""
  if v == 0.0:
    return q ** (0.5 * beta)
  h = 0.5 * beta
  ratio = special.gamma(0.5 * dim + h) / special.gamma(0.5 * dim)
  return (2.0 * v) ** h * ratio * special.hyp1f1(-h, 0.5 * dim, -q / (2.0 * v))


def coefficients(s, t, churn):
  """coef_xt, coef_x0 and std^2 of Eq. (2), for x_t = (1 - t) x_0 + t eps."""
  ratio = (1.0 - t) / (1.0 - s) * s / t
  u = churn**2 * ratio + 1.0 - churn**2
  return s / t * u, (1.0 - s) * (1.0 - ratio * u), s**2 * (1.0 - u**2)


def explicit_curve(a, b, y, omegas, *, std, alpha_s, sigma_s, beta):
  """(2) of one condition, every distance from a difference of float64 vectors."""
  a, b, y = (np.float64(x).reshape(len(x), -1) for x in (a, b, y))
  dim, curve = a.shape[1], []
  for omega in omegas:
    x = a + omega * b
    to_data = np.sum((x[:, None] - alpha_s * y) ** 2, axis=-1)
    to_each_other = np.sum((x[:, None] - x) ** 2, axis=-1)[~np.eye(len(x), dtype=bool)]
    curve.append(
      np.mean(norm_power(to_data, std**2 + sigma_s**2, dim, beta))
      - 0.5 * np.mean(norm_power(to_each_other, 2.0 * std**2, dim, beta))
    )
  return np.array(curve)


def draw(shape, *, num_conds=2, n=6, num_references=9):
  """a, b and reference of `num_conds` conditions, away from the origin."""
  rng = np.random.default_rng(0)
  a, b = rng.normal(size=(2, num_conds, n, *shape)).astype(np.float32)
  reference = rng.normal(2.0, 1.0, (num_conds, num_references, *shape))
  return a + 1.5, 0.5 * b, reference.astype(np.float32)


class CurvesTest(parameterized.TestCase):
  @parameterized.product(
    shape=((2,), (8, 8, 1)), std=(0.0, 0.3), s=(0.0, 0.4), beta=(1.0, 1.75)
  )
  def test_pixels_match_explicit_differences(self, shape, std, s, beta):
    a, b, reference = draw(shape)
    omegas = np.array([0.0, 0.5, 3.0], np.float32)
    curve_fn = trajectory.pixel_curves(reference, schedule=FLOW, beta=beta)
    curves = jax.jit(curve_fn)(jax.random.key(0), a, b, std, s, omegas)
    for c in range(2):
      expected = explicit_curve(
        *(a[c], b[c], reference[c], omegas),
        **{'std': std, 'alpha_s': 1.0 - s, 'sigma_s': s, 'beta': beta},
      )
      np.testing.assert_allclose(curves[c, 0], expected, rtol=2e-4)

  @parameterized.parameters('pixels', 'features')
  def test_without_each_block(self, distance):
    """As if the particles and data of the block had never been; data of two sizes."""
    a, b, reference = draw((3,), n=7)
    omegas, s, std, key = jnp.array([0.0, 0.7]), 0.0, 0.0, jax.random.key(0)
    counts = np.array([5, 9])
    make = functools.partial(trajectory.pixel_curves, schedule=FLOW, beta=1.0)
    if distance == 'features':  # Without noise at s = 0.
      make = functools.partial(
        trajectory.feature_curves, lambda x, t: x, schedule=FLOW, beta=1.0
      )
    curve_fn = make(reference, num_references=counts, num_blocks=3)
    curves = curve_fn(key, a, b, std, s, omegas)
    self.assertEqual(curves.shape, (2, 4, 2))
    for c in range(2):
      for block in range(4):  # The first is of all.
        x = [i for i in range(7) if i % 3 != block - 1 or not block]
        y = [k for k in range(counts[c]) if k % 3 != block - 1 or not block]
        expected = explicit_curve(
          *(a[c, x], b[c, x], reference[c, y], omegas),
          **{'std': 0.0, 'alpha_s': 1.0, 'sigma_s': 0.0, 'beta': 1.0},
        )
        np.testing.assert_allclose(curves[c, block], expected, rtol=2e-4)

  def test_sum_of_two_distances(self):
    """(7) by hand, blocks and all: each over its mean over conditions at omega 0."""
    a, b, reference = draw((3,), n=7)
    omegas, key = jnp.array([-0.5, 0.0, 0.7]), jax.random.key(0)
    settings = {'schedule': FLOW, 'beta': 1.0, 'num_blocks': 3}
    pixels = trajectory.pixel_curves(reference, **settings)
    doubled = trajectory.pixel_curves(reference, **{**settings, 'beta': 1.5})
    both = trajectory.summed_curves((pixels, doubled), (0.25, 0.75))
    args = key, a, b, jnp.float32(0.2), jnp.float32(0.3), omegas
    one, two = np.float64(pixels(*args)), np.float64(doubled(*args))
    expected = 0.25 * one / np.mean([one[0, 0, 1], one[1, 0, 1]])
    expected += 0.75 * two / np.mean([two[0, 0, 1], two[1, 0, 1]])
    np.testing.assert_allclose(both(*args), expected, rtol=1e-5)

  def test_blocks_that_leave_no_pair(self):
    a, b, reference = draw((3,), n=3)
    curve_fn = trajectory.pixel_curves(reference, schedule=FLOW, beta=1.0, num_blocks=2)
    with self.assertRaisesRegex(ValueError, 'num_blocks=2: .* 2 of the 3 particles'):
      curve_fn(jax.random.key(0), a, b, 0.0, 0.0, jnp.array([0.0, 0.7]))

  @parameterized.parameters('pixels', 'features')
  def test_a_rare_condition_takes_none_from_the_others(self, distance):
    """Each is compared with its own data alone, whatever fills the rest; bytes too."""
    a, b, reference = draw((3,))
    omegas, s, std, key = jnp.array([0.0, 0.7]), 0.3, 0.2, jax.random.key(0)
    # Features draw noise for the rest, too: enough data, of all the same, hide it.
    reference = np.rint(np.repeat(reference[:, :, :1], 3, axis=2) + 4.0)
    counts, settings = np.array([2, 9]), {'schedule': FLOW, 'beta': 1.0}
    padded = reference.copy()
    padded[0, 2:] = np.nan if distance == 'pixels' else 200.0
    make = functools.partial(trajectory.pixel_curves, **settings)
    if distance == 'features':
      make = functools.partial(
        trajectory.feature_curves, lambda x, t: jnp.floor(x), **settings
      )
    curves = make(padded, num_references=counts)(key, a, b, std, s, omegas)
    as_bytes = make(np.uint8(np.nan_to_num(padded)), num_references=counts)
    np.testing.assert_allclose(as_bytes(key, a, b, std, s, omegas), curves, rtol=1e-5)
    full = make(reference)(key, a, b, std, s, omegas)
    np.testing.assert_allclose(curves[1], full[1], rtol=1e-5)
    if distance == 'pixels':
      expected = explicit_curve(
        *(a[0], b[0], reference[0, :2], omegas),
        **{'std': std, 'alpha_s': 1.0 - s, 'sigma_s': s, 'beta': 1.0},
      )
      np.testing.assert_allclose(curves[0, 0], expected, rtol=2e-4)
    else:  # As if the rest were more of the same.
      self.assertLess(np.abs(curves[0] - full[0]).max(), 5.0)

  @parameterized.parameters(0.0, 0.4)
  def test_identity_features_agree_with_pixels_in_the_mean(self, std):
    """Over noise draws, within 5 standard errors."""
    a, b, reference = draw((3,))
    omegas, s = jnp.array([0.0, 0.7, 2.0]), 0.3
    settings = {'schedule': FLOW, 'beta': 1.0}

    def features(x, t):
      np.testing.assert_equal(t.shape, x.shape[:1])
      return x

    sampled = trajectory.feature_curves(features, reference, **settings)
    keys = jax.random.split(jax.random.key(1), 3000)
    draws = jax.jit(jax.vmap(sampled, in_axes=(0, *5 * [None])))(
      keys, a, b, std, s, omegas
    )
    curves = trajectory.pixel_curves(reference, **settings)(
      keys[0], a, b, std, s, omegas
    )
    self.assertEqual(curves.shape, (2, 1, 3))
    error = np.abs(draws.mean(axis=0) - curves)
    np.testing.assert_array_less(error, 5.0 * draws.std(axis=0) / np.sqrt(3000))

  def test_features_are_told_the_time_of_what_they_see(self):
    """And each condition is compared with its own reference."""
    a, b, reference = draw((2,), n=9)
    # The particles are the data, a little off, and at s = 0 have no noise.
    shift = np.array([0.1, -0.2], np.float32)
    a = np.array(reference) + shift

    def features(x, t):
      return jnp.concatenate([x, 10.0 * t[:, None]], axis=1)

    curve_fn = trajectory.feature_curves(features, reference, schedule=FLOW, beta=1.0)
    curves = curve_fn(jax.random.key(0), a, b, 0.0, 0.0, jnp.array([0.0, 1.0]))
    for c in range(2):
      to_data = np.linalg.norm(a[c][:, None] - reference[c], axis=-1).mean()
      within = np.linalg.norm(a[c][:, None] - a[c], axis=-1).mean()
      expected = to_data - 0.5 * within * 9 / 8
      np.testing.assert_allclose(curves[c, 0, 0], expected, rtol=1e-5)


class ChooseTest(parameterized.TestCase):
  """Curves that are parabolas with noisy slopes: every answer is known."""

  OMEGAS = jnp.linspace(-1.0, 2.0, 301)
  NUM_BLOCKS = 10

  def curves(self, best, sd, *, num_conds=400, seed=0):
    """Minima at `best [num_conds]`, whose errors have the standard deviation `sd`.

    A curve is the mean of those of the blocks, and a replicate that of nine of ten.
    """
    rng = np.random.default_rng(seed)
    best = np.broadcast_to(best, num_conds)[:, None]
    noise = rng.normal(0.0, sd * np.sqrt(self.NUM_BLOCKS), (num_conds, self.NUM_BLOCKS))
    mean = noise.mean(axis=1, keepdims=True)
    replicates = (self.NUM_BLOCKS * mean - noise) / (self.NUM_BLOCKS - 1)
    at = best + np.concatenate([mean, replicates], axis=1)
    return jnp.asarray((np.asarray(self.OMEGAS) - at[:, :, None]) ** 2), at[:, 0]

  def test_noise_at_0_is_not_guidance(self):
    """One condition at a time: the tails of a t distribution; with a wall, a half."""
    curves, at = self.curves(0.0, 0.2)
    choose = functools.partial(trajectory.choose, omegas=self.OMEGAS, confidence=1.0)
    omega = jax.vmap(lambda curve: choose(curve[None])[0])(curves)
    expected = 2.0 * special.stdtr(self.NUM_BLOCKS - 1, -2.0)  # 7.7%, of both signs.
    self.assertAlmostEqual(np.mean(omega != 0.0), expected, delta=0.04)
    self.assertLess(abs(omega.mean()), 0.02)
    wall = np.maximum(at, 0.0).mean()
    self.assertGreater(wall, 0.07)  # 0.4 of the standard deviation.
    self.assertLess(np.maximum(omega, 0.0).mean(), wall / 3.0)

  def test_conditions_that_noise_alone_tells_apart_share_one_curve(self):
    """All close to the common minimum, within the noise of 400 conditions."""
    curves, at = self.curves(0.5, 0.2)
    omega = trajectory.choose(curves, self.OMEGAS, confidence=1.0)
    self.assertGreater(at.std(), 0.18)
    np.testing.assert_allclose(omega, 0.5, atol=0.12)

  def test_conditions_that_differ_keep_what_is_theirs(self):
    """James-Stein: closer to the truth than each alone, and than the mean."""
    best = np.random.default_rng(1).normal(0.8, 0.3, 400)
    curves, at = self.curves(best, 0.2)
    omega = trajectory.choose(curves, self.OMEGAS, confidence=0.0)
    error = np.mean((omega - best) ** 2)
    shrunk = 1.0 / (1.0 / 0.2**2 + 1.0 / 0.3**2)  # Bayes' risk, .0277 against .04.
    self.assertAlmostEqual(error, shrunk, delta=0.005)
    self.assertLess(error, np.mean((at - best) ** 2) - 0.005)

  def test_what_is_clear_is_kept_and_its_sign(self):
    curves, _ = self.curves(np.repeat([-0.8, 1.2], 200), 0.05)
    omega = trajectory.choose(curves, self.OMEGAS, confidence=1.0)
    np.testing.assert_allclose(omega, np.repeat([-0.8, 1.2], 200), atol=0.2)

  def test_without_a_jackknife_the_minimum_is_taken(self):
    curves, _ = self.curves(0.0, 0.2, num_conds=5)
    omega = trajectory.choose(curves[:, :1], self.OMEGAS, confidence=1.0)
    expected = self.OMEGAS[jnp.argmin(curves[:, 0], axis=1)]
    np.testing.assert_allclose(omega, expected, atol=1e-6)


MIXTURE = mixtures.ring(4, radius=2.0, std=0.5)
TIMES = sampling.time_grid(16)
CANDIDATES = jnp.linspace(0.0, 2.0, 13)  # 2/3 is one of them.


def blunted(share):
  """The exact denoiser, its conditional prediction moved towards the null one."""
  exact = mixtures.denoiser(FLOW)

  def denoise(mixture, xt, t, label):
    null = exact(mixture, xt, t, jnp.full_like(label, 4))
    return (1.0 - share) * exact(mixture, xt, t, label) + share * null

  return denoise


def draw_reference():
  """256 data of each class."""
  label = jnp.repeat(jnp.arange(4), 256)
  return mixtures.sample(jax.random.key(1), MIXTURE, label).reshape(4, 256, 2)


class SearchTest(parameterized.TestCase):
  def search(self, denoiser, curve_fn, *, params=MIXTURE, **settings):
    default = {'churn': 0.0, 'lookahead': 0.0, 'lookahead_churn': 0.0}
    default |= {'num_particles': 128, 'fade': 0.8, 'confidence': 0.0}
    run = functools.partial(
      trajectory.search,
      pair=denoiser_lib.classifier_free(denoiser, 4),
      schedule=FLOW,
      curve_fn=curve_fn,
      cond=jnp.arange(4),
      shape=(2,),
      times=TIMES,
      omegas=CANDIDATES,
      **{**default, **settings},
    )
    return jax.jit(run)(jax.random.key(0), params=params)

  @parameterized.product(
    share=(0.0, 0.4),
    settings=(
      {'churn': 0.0},
      {'churn': 1.0, 'lookahead_churn': 1.0},
      {'lookahead': 0.2, 'lookahead_churn': 1.0},
    ),
  )
  def test_finds_what_mends_the_prediction(self, share, settings):
    """Omega = share / (1 - share) gives the exact conditional prediction back.

    Wherever the predictions differ: near t = 0 the class of x_t is plain, and any
    weight is as good.
    """
    curve_fn = trajectory.pixel_curves(draw_reference(), schedule=FLOW, beta=1.0)
    table = self.search(blunted(share), curve_fn, **settings)
    self.assertEqual(table.shape, (4, 16))
    middle = (TIMES[:-1] > 0.5) & (TIMES[:-1] < 0.95)
    self.assertGreaterEqual(middle.sum(), 6)
    expected = share / (1.0 - share)
    self.assertAlmostEqual(table[:, middle].mean(), expected, delta=0.1)
    np.testing.assert_allclose(table[:, middle].mean(axis=1), expected, atol=0.3)

  def test_features_find_it_too(self):
    curve_fn = trajectory.feature_curves(
      lambda x, t: x, draw_reference(), schedule=FLOW, beta=1.0
    )
    table = self.search(blunted(0.4), curve_fn)
    middle = (TIMES[:-1] > 0.5) & (TIMES[:-1] < 0.95)
    self.assertAlmostEqual(table[:, middle].mean(), 2.0 / 3.0, delta=0.15)

  def test_what_is_not_a_number_is_not_0(self):
    """argmin takes the first NaN, which is no guidance; of one condition alone."""

    def curve_fn(key, a, b, std, s, omegas):
      curves = jnp.broadcast_to(jnp.abs(omegas - 1.0), (4, 1, len(omegas)))
      return curves.at[2].set(jnp.where(s < 0.5, jnp.nan, curves[2]))

    table = self.search(blunted(0.0), curve_fn, fade=0.0)
    late = TIMES[1:] < 0.5
    np.testing.assert_array_equal(np.isnan(table), np.outer(np.arange(4) == 2, late))

  @parameterized.parameters(0.0, 0.5, 0.9)
  def test_fade(self, fade):
    """C = fade C + D, and its minimum: a recursion in float64, for given curves."""

    def best(c, s):  # A different, jagged optimum of every condition.
      return 1.0 + np.sin(40.0 * s + c) * (0.3 + 0.2 * c)

    def curve_fn(key, a, b, std, s, omegas):
      del key, a, b, std
      c = jnp.arange(4.0)[:, None, None]
      where = 1.0 + jnp.sin(40.0 * s + c) * (0.3 + 0.2 * c)
      return jnp.abs(omegas - where) * (1.0 + c)

    table = self.search(mixtures.denoiser(FLOW), curve_fn, fade=fade, num_particles=2)
    omegas, times = np.float64(CANDIDATES), np.float64(TIMES)
    total = np.zeros((4, 13))
    for i, s in enumerate(times[1:]):
      for c in range(4):
        total[c] = fade * total[c] + np.abs(omegas - best(c, s)) * (1.0 + c)
      np.testing.assert_allclose(table[:, i], omegas[np.argmin(total, axis=1)])

  @parameterized.product(lookahead=(0.0, 0.15), lookahead_churn=(0.0, 1.0))
  def test_particles_follow_the_weights_returned(self, lookahead, lookahead_churn):
    """Curves are of x_t taken to s - lookahead, and x_t moves on to s as sampled."""
    seen = []

    def curve_fn(key, a, b, std, s, omegas):
      del key
      jax.experimental.io_callback(
        lambda *args: seen.append([np.asarray(x) for x in args]), None, a, b, std, s
      )
      return jnp.abs(omegas - jnp.mean(a, axis=(1, 2))[:, None, None])

    def denoise(shift, xt, t, label):  # Linear, so that x_t follows from a.
      return 0.5 * xt + jnp.where(label == 4, 0.0, shift + label)[:, None]

    table = self.search(
      denoise,
      curve_fn,
      params=0.1,
      num_particles=3,
      fade=0.0,
      lookahead=lookahead,
      lookahead_churn=lookahead_churn,
    )
    jax.effects_barrier()
    self.assertLen(seen, 16)
    times, moved = np.float64(TIMES), None
    delta = 0.1 + np.arange(4.0)[:, None, None]  # Of x0_cond - x0_null; and
    omegas = np.float64(CANDIDATES)  # x0_cond = 0.5 x_t + delta.
    for i, (a, b, std, s) in enumerate(seen):
      t, ahead = times[i], max(times[i + 1] - lookahead, 0.0)
      coef_xt, coef_x0, variance = coefficients(ahead, t, lookahead_churn)
      np.testing.assert_allclose([s, std**2], [ahead, variance], atol=1e-6)
      np.testing.assert_allclose(
        b, np.broadcast_to(coef_x0 * delta, b.shape), rtol=1e-4
      )
      xt = (a - coef_x0 * delta) / (coef_xt + 0.5 * coef_x0)
      if i > 0:
        np.testing.assert_allclose(xt, moved, atol=1e-4)
      target = a.mean(axis=(1, 2), dtype=np.float64)
      best = omegas[np.argmin(np.abs(omegas - target[:, None]), axis=1)]
      np.testing.assert_allclose(table[:, i], best)
      coef_xt, coef_x0, _ = coefficients(times[i + 1], t, 0.0)
      x0_guided = 0.5 * xt + (1.0 + table[:, i, None, None]) * delta
      moved = coef_xt * xt + coef_x0 * x0_guided
    self.assertGreater(xt.std(axis=1).min(), 0.01)  # Particles of a class differ.

  def test_evaluations(self):
    """2 N for every condition and transition, whatever the number of candidates."""
    counter = denoiser_lib.EvaluationCounter()
    reference = jnp.zeros((4, 8, 2))
    curve_fn = trajectory.pixel_curves(reference, schedule=FLOW, beta=1.0)
    self.search(counter.wrap(mixtures.denoiser(FLOW)), curve_fn, num_particles=8)
    self.assertEqual(counter.count, 2 * 8 * 4 * 16)


class FitLossTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    values = jax.random.uniform(jax.random.key(0), (3, 5))
    self.times = jnp.array([1.0, 0.8, 0.5, 0.3, 0.1, 0.0])
    self.table = guidance.table(values, self.times)
    self.label = jnp.arange(3000) % 3
    values, increasing = np.asarray(values), np.asarray(self.times[-2::-1])

    def interpolated(cond, s, t):
      del s
      rows = values[:, ::-1][cond]
      return np.array(
        [np.interp(x, increasing, row) for x, row in zip(t, rows, strict=True)],
        np.float32,
      )

    self.interpolated = interpolated

  def test_zero_for_the_interpolant(self):
    losses = trajectory.fit_loss(
      jax.random.key(0), self.interpolated, self.table, self.label, self.times
    )
    self.assertEqual(losses.shape, (3000,))
    np.testing.assert_allclose(losses, 0.0, atol=1e-10)

  def test_squared_error_of_another_weight(self):
    losses = trajectory.fit_loss(
      jax.random.key(0),
      lambda cond, s, t: self.interpolated(cond, s, t) + 0.1 * cond,
      self.table,
      self.label,
      self.times,
    )
    np.testing.assert_allclose(losses, (0.1 * (np.arange(3000) % 3)) ** 2, atol=1e-6)

  def test_times(self):
    """T is uniform over all that the sampler starts from, and s over [0, t]."""
    nothing = guidance.constant(0.0)

    def root_losses(weight):
      return jnp.sqrt(
        trajectory.fit_loss(jax.random.key(0), weight, nothing, self.label, self.times)
      )

    t, s = (root_losses(weight) for weight in (lambda c, s, t: t, lambda c, s, t: s))
    self.assertTrue(np.all((t >= 0.0) & (t <= 1.0) & (s >= 0.0) & (s <= t)))
    for unit in (t, s / t):
      ecdf = np.arange(1, 3001) / 3000
      self.assertLess(np.abs(np.sort(unit) - ecdf).max(), 2.7 / np.sqrt(3000))


if __name__ == '__main__':
  absltest.main()
