"""Rules against the formulas of their papers in float64, element by element."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized

from lgd import denoiser as denoiser_lib
from lgd import guidance
from lgd import noising
from lgd import objectives
from lgd import sampling
from lgd import schedules
from lgd import statistics

OMEGA = (-0.7, 0.0, 0.5, 3.0, 40.0)
FLOW, COSINE = schedules.RectifiedFlow(), schedules.Cosine()


# The papers' formulas for one element; w = 1 + omega is their scale.
def _angle_domain(c, u, w):
  """Algorithm of 2506.11039, its angle without max(w - 1, 0) + .001."""
  gamma = math.acos(np.sum(c * u) / math.sqrt(np.sum(c * c) * np.sum(u * u)))
  angle = min(max((w - 1.0) * gamma, -math.pi / 3.0), math.pi / 3.0)
  delta = c - u
  perp = delta - np.sum(delta * u) / np.sum(u * u) * u
  return math.cos(angle) * c + math.sin(angle) / math.sin(gamma) * perp


def _optimal_scale(c, u, w):
  s = np.sum(c * u) / np.sum(u * u)
  return s * u + w * (c - s * u)


def _apg(c, u, w, *, eta, max_norm, m=0.0):
  """2410.02416; `m` is what the momentum adds to the difference."""
  m = c - u + m
  m = m * min(1.0, max_norm / math.sqrt(np.sum(m * m)))
  unit = c / math.sqrt(np.sum(c * c))
  parallel = np.sum(m * unit) * unit
  return c + (w - 1.0) * (m - parallel + eta * parallel)


def _power_normalized(c, u, w, *, power):
  """2502.10574 at a beta density of 1."""
  diff = c - u
  return u + w * diff / math.sqrt(np.sum(diff * diff)) ** power


APG = {'eta': 0.3, 'max_norm': 2.0}  # Cuts some of the elements below, not all.
RULES = (
  ('angle_domain', guidance.angle_domain, _angle_domain),
  ('optimal_scale', guidance.along(guidance.optimal_scale), _optimal_scale),
  ('apg', guidance.along(guidance.apg(**APG)), functools.partial(_apg, **APG)),
  (
    'power_normalized',
    guidance.power_normalized(0.6),
    functools.partial(_power_normalized, power=0.6),
  ),
)
DIRECTIONS = (guidance.optimal_scale, guidance.apg(**APG))


def _pair(*shape, seed=0):
  """Correlated predictions, of differences near and beyond `APG`'s norm."""
  c, z = jax.random.normal(jax.random.key(seed), (2, *shape))
  return c, 0.4 * c + 0.8 * z


def _loop(reference, c, u, omega):
  return [
    reference(np.float64(a), np.float64(b), 1.0 + float(o))
    for a, b, o in zip(c, u, omega, strict=True)
  ]


class RulesTest(parameterized.TestCase):
  @parameterized.named_parameters(*RULES)
  def test_formula(self, rule, reference):
    """A weight of its own for every element; data of one and of three axes."""
    for shape, fn in (((5, 3), rule), ((5, 2, 2, 1), jax.jit(rule))):
      c, u = _pair(*shape)
      guided = fn(c, u, jnp.asarray(OMEGA))
      expected = _loop(reference, c, u, OMEGA)
      np.testing.assert_allclose(guided, expected, rtol=2e-5, atol=2e-5)

  def test_the_cut_of_apg_is_seen(self):
    """Some differences of `test_formula` are longer than max_norm and some are not."""
    c, u = _pair(5, 3)
    norm = np.linalg.norm(c - u, axis=1)
    self.assertBetween(APG['max_norm'], np.min(norm), np.max(norm))

  @parameterized.named_parameters(*RULES)
  def test_omega_0(self, rule, reference):
    """The conditional prediction bit for bit; not so when lengths are normalised."""
    c, u = _pair(5, 3)
    for fn in (rule, jax.jit(rule)):
      guided = fn(c, u, jnp.zeros(5))
      if reference is RULES[-1][2]:
        self.assertGreater(np.max(np.abs(guided - c)), 0.1)
      else:
        np.testing.assert_array_equal(guided, c)

  @parameterized.named_parameters(
    ('power_0', guidance.power_normalized(0.0)),
    ('apg_that_keeps_all', guidance.along(guidance.apg(eta=1.0, max_norm=math.inf))),
  )
  def test_linear_is_a_limit(self, rule):
    c, u = _pair(5, 3)
    omega = jnp.asarray(OMEGA)
    np.testing.assert_allclose(
      rule(c, u, omega), guidance.linear(c, u, omega), rtol=1e-5, atol=1e-5
    )

  def test_constants_may_be_traced(self):
    """One compiled program for two settings."""
    c, u = _pair(5, 3)
    omega = jnp.asarray(OMEGA)

    @jax.jit
    def run(eta, max_norm, power):
      apg = guidance.along(guidance.apg(eta=eta, max_norm=max_norm))
      return apg(c, u, omega), guidance.power_normalized(power)(c, u, omega)

    for eta, max_norm, power in ((0.0, 1.0, 1.0), (0.5, 3.0, 0.2)):
      apg, normalized = run(eta, max_norm, power)
      expected = functools.partial(_apg, eta=eta, max_norm=max_norm)
      np.testing.assert_allclose(apg, _loop(expected, c, u, omega), 2e-5, 2e-5)
      expected = functools.partial(_power_normalized, power=power)
      np.testing.assert_allclose(normalized, _loop(expected, c, u, omega), 2e-5, 2e-5)
    self.assertEqual(run._cache_size(), 1)

  @parameterized.parameters(guidance.linear, *(rule for _, rule, _ in RULES))
  def test_non_finite_predictions_stay_visible(self, rule):
    """One bad number spoils its element, at any omega, and no other."""
    c, u = (np.array(x) for x in _pair(10, 3))
    omega = jnp.asarray([0.0, 0.5, 0.0, 0.5, 0.0, 0.5, 0.0, 0.5, 0.5, 3.0])
    rule = jax.jit(rule)
    clean = rule(c, u, omega)
    c[:2, 1], c[2:4, 0], u[4:6, 2], u[6:8, 0] = math.nan, math.inf, math.nan, -math.inf
    guided = rule(c, u, omega)
    finite = np.all(np.isfinite(guided), axis=1)
    np.testing.assert_array_equal(finite, np.arange(10) >= 8)
    np.testing.assert_array_equal(guided[finite], clean[finite])

  @parameterized.named_parameters(*RULES)
  def test_products_of_bfloat16_are_float32(self, rule, reference):
    """Halves: bfloat16 holds their differences, not the sums of their products."""
    c, u = (jnp.round(2.0 * x).astype(jnp.bfloat16) / 2 for x in _pair(2, 301))
    omega = jnp.asarray([0.5, 2.0])
    expected = _loop(reference, c, u, omega)
    guided = jax.jit(rule)(c, u, omega)
    np.testing.assert_allclose(guided, expected, rtol=2e-5, atol=2e-5)

  def test_zero_predictions_and_differences(self):
    """u = 0, c = u, c = 0: what is not defined is as the docstrings say."""
    c, zero, omega = _pair(1, 3)[0], jnp.zeros((1, 3)), jnp.full(1, 0.5)
    scale = guidance.along(guidance.optimal_scale)
    for rule in (scale, guidance.angle_domain):  # s* or angle is 0.
      np.testing.assert_allclose(rule(c, zero, omega), 1.5 * c, rtol=1e-6)
    for rule in (scale, guidance.angle_domain, guidance.along(guidance.apg(**APG))):
      np.testing.assert_allclose(rule(c, c, omega), c, rtol=1e-6)
      np.testing.assert_array_equal(rule(zero, zero, omega), zero)
    np.testing.assert_array_equal(guidance.power_normalized(1.0)(c, c, omega), c)
    everything = guidance.along(guidance.apg(eta=0.0, max_norm=0.5))
    moved = everything(zero, c, omega)  # Nothing is parallel to 0; the cut stays.
    self.assertAlmostEqual(float(jnp.linalg.norm(moved)), 0.25, 5)


class AngleDomainTest(parameterized.TestCase):
  @parameterized.parameters(3e-3, 1e-2, 0.3, 1.5, 3.0)
  def test_rotates_by_omega_gamma(self, gamma):
    """In the plane: c turns from u by omega gamma, at most pi / 3, float64."""
    u = np.asarray([2.0, 0.0])
    c = 1.5 * np.asarray([math.cos(gamma), math.sin(gamma)])
    omega = np.asarray([-1.0, 0.25, 0.5, 1000.0])
    guided = guidance.angle_domain(
      jnp.tile(jnp.float32(c), (4, 1)), jnp.tile(jnp.float32(u), (4, 1)), omega
    )
    angle = np.clip(omega * gamma, -math.pi / 3.0, math.pi / 3.0)
    perp = np.asarray([[0.0, 1.5 * math.sin(gamma)]])
    expected = np.cos(angle)[:, None] * c
    expected += (np.sin(angle) / math.sin(gamma))[:, None] * perp
    np.testing.assert_allclose(guided, expected, rtol=1e-4, atol=1e-6)

  def test_small_angles_are_the_linearisation(self):
    """On both sides of sin(gamma) = .001: c + omega perp up to (omega gamma)^2."""
    c, z = jax.random.normal(jax.random.key(0), (2, 6, 50))
    omega = jnp.asarray([-1.0, 0.3, 1.0, 2.0, 4.0, 8.0])
    for size in (1e-5, 1e-4, 1e-3, 3e-3):
      u = c + size * z
      guided = jax.jit(guidance.angle_domain)(c, u, omega)
      for i, (a, b) in enumerate(zip(np.float64(c), np.float64(u), strict=True)):
        delta = a - b
        perp = delta - np.sum(delta * b) / np.sum(b * b) * b
        expected = a + float(omega[i]) * perp
        second_order = (float(omega[i]) * 1.3 * size) ** 2 * np.max(np.abs(a))
        np.testing.assert_allclose(guided[i], expected, atol=second_order + 2e-6)

  def test_gradient_towards_omega(self):
    """Differences of the float64 formula; finite where c and u are (anti)parallel."""
    c, u = _pair(5, 3)
    omega = jnp.asarray([-0.7, 0.0, 0.3, 0.8, 40.0])  # The last is clipped.
    _, slope = jax.jvp(lambda o: guidance.angle_domain(c, u, o), (omega,), (omega + 1,))
    h = 1e-6
    for i, o in enumerate(np.float64(omega)):
      a, b = np.float64(c[i]), np.float64(u[i])
      rise = _angle_domain(a, b, 1 + o + h) - _angle_domain(a, b, 1 + o - h)
      np.testing.assert_allclose(slope[i], (o + 1) * rise / (2 * h), 1e-4, 1e-4)
    for null in (c, -c, 2.0 * c, jnp.zeros_like(c)):
      grad = jax.grad(lambda o, u: jnp.sum(guidance.angle_domain(c, u, o)))(omega, null)
      self.assertTrue(np.all(np.isfinite(grad)))


def _denoiser(params, xt, t, cond):
  """Depends on everything, and not linearly."""
  return jnp.tanh(params * xt + cond[:, None] * jnp.asarray([0.5, -0.3, 1.0])) - (
    t[:, None] * 0.2
  )


PAIR = denoiser_lib.classifier_free(_denoiser, 0.1)


def _denoiser64(params, xt, t, cond):
  return np.tanh(params * xt + cond * np.asarray([0.5, -0.3, 1.0])) - 0.2 * t


class SpacesTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.xt = jax.random.normal(jax.random.key(0), (4, 3))
    self.t = jnp.asarray([0.15, 0.5, 0.8, 0.95])
    self.args = self.xt, self.t / 2.0, self.t, jnp.asarray([1.0, 2.0, -1.0, 0.5])

  def _guided(self, **kwargs):
    def weight(cond, s, t):
      del t
      return cond + s

    return guidance.guided(PAIR, 0.7, weight, **kwargs)(*self.args)

  @parameterized.product(space=('eps', 'velocity'), schedule=(FLOW, COSINE))
  def test_linear_is_the_same_in_every_space(self, space, schedule):
    np.testing.assert_allclose(
      self._guided(space=space, schedule=schedule), self._guided(), atol=5e-5
    )

  @parameterized.product(space=noising.PREDICTIONS, schedule=(FLOW, COSINE))
  def test_the_rule_acts_in_the_space(self, space, schedule):
    """Float64, element by element; the cut of APG is no linear map."""
    rule = guidance.along(guidance.apg(**APG))
    guided = self._guided(rule=rule, space=space, schedule=schedule)
    for i in range(4):
      x, s, t, cond = (np.float64(a[i]) for a in self.args)
      if schedule is FLOW:
        (alpha, sigma), (alpha_dot, sigma_dot) = (1.0 - t, t), (-1.0, 1.0)
      else:
        angle, rate = 0.5 * math.pi * t, 0.5 * math.pi
        alpha, sigma = math.cos(angle), math.sin(angle)
        alpha_dot, sigma_dot = -rate * sigma, rate * alpha
      # The prediction of the space as p x_0 + q x_t.
      p, q = {
        'x0': (1.0, 0.0),
        'eps': (-alpha / sigma, 1.0 / sigma),
        'velocity': (alpha_dot - sigma_dot * alpha / sigma, sigma_dot / sigma),
        'v': (-(alpha**2 + sigma**2) / sigma, alpha / sigma),
      }[space]
      c, u = (p * _denoiser64(0.7, x, t, v) + q * x for v in (cond, 0.1))
      expected = (_apg(c, u, 1.0 + cond + s, **APG) - q * x) / p
      np.testing.assert_allclose(guided[i], expected, rtol=1e-4, atol=1e-4)

  @parameterized.product(schedule=(FLOW, COSINE), space=('eps', 'velocity'))
  def test_the_noisy_end(self, schedule, space):
    """At t = 1 velocity gives the linear rule, and eps nothing that looks finite."""
    self.args = self.xt, jnp.full(4, 0.9), jnp.ones(4), self.args[-1]
    guided = self._guided(space=space, schedule=schedule)
    if space == 'velocity':
      np.testing.assert_allclose(guided, self._guided(), atol=1e-5)
    else:
      self.assertFalse(np.any(np.isfinite(guided)))

  def test_errors(self):
    with self.assertRaisesRegex(ValueError, "space='noise': must be one of"):
      self._guided(space='noise', schedule=FLOW)
    with self.assertRaisesRegex(ValueError, "space='eps' with schedule=None"):
      self._guided(space='eps')


class PairsAndParticlesTest(parameterized.TestCase):
  @parameterized.product(direction=DIRECTIONS, space=noising.PREDICTIONS)
  def test_linear_of_it_is_the_rule(self, direction, space):
    """All omega, through `guided`, which is held to float64 above."""
    xt = jax.random.normal(jax.random.key(0), (5, 3))
    t, cond = jnp.linspace(0.15, 0.9, 5), jnp.arange(5.0)
    options = {'space': space, 'schedule': COSINE}
    expected = guidance.guided(
      PAIR,
      0.7,
      lambda cond, s, t: jnp.asarray(OMEGA),
      rule=guidance.along(direction),
      **options,
    )(xt, t / 2, t, cond)
    pair = guidance.pair_along(PAIR, direction, **options)
    x0_cond, x0_null = pair(0.7, xt, t, cond)
    np.testing.assert_array_equal(x0_cond, _denoiser(0.7, xt, t, cond))
    np.testing.assert_array_equal(pair.conditional(0.7, xt, t, cond), x0_cond)
    apart = pair.null(0.7, xt, t, cond, x0_cond)
    np.testing.assert_allclose(apart, x0_null, rtol=1e-5)
    guided = guidance.linear(x0_cond, x0_null, jnp.asarray(OMEGA))
    np.testing.assert_allclose(guided, expected, rtol=1e-4, atol=1e-4)

  def _particles(self):
    draw = functools.partial(jax.random.normal, shape=(5, 4, 3))
    xs, xt, x0_cond, x0_null = (draw(k) for k in jax.random.split(jax.random.key(0), 4))
    t = jnp.linspace(0.2, 0.9, 5)
    return objectives.Particles(t / 2, t, xs, xt, x0_cond, x0_null)

  @parameterized.parameters(*DIRECTIONS)
  def test_statistics_of_it_are_those_of_the_rule(self, direction):
    """Score matching from its Gram matrix against a float64 loop over particles."""
    p, x0 = self._particles(), jax.random.normal(jax.random.key(1), (5, 3))
    omega = jnp.asarray([-0.7, 0.0, 0.5, 1.0, 2.0])
    given = denoiser_lib.Pair(None, None, lambda params, xt, t, cond: params)
    steered = guidance.pair_along(given, direction)
    pair = jax.vmap(
      lambda x0_cond, x0_null, xt: steered((x0_cond, x0_null), xt, p.t, None),
      in_axes=1,
      out_axes=1,
    )(p.x0_cond, p.x0_null, p.xt)
    gram = statistics.gram(p.xt, x0, *pair)
    reference = RULES[1 + DIRECTIONS.index(direction)][2]
    expected = [
      np.mean(
        [
          np.sum((reference(c, u, 1.0 + float(o)) - np.float64(x)) ** 2)
          for c, u in zip(np.float64(cs), np.float64(us), strict=True)
        ]
      )
      for cs, us, o, x in zip(p.x0_cond, p.x0_null, omega, x0, strict=True)
    ]
    loss = statistics.score_matching(gram, omega)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)

  @parameterized.named_parameters(*RULES)
  def test_objectives_guide_every_particle_by_itself(self, rule, reference):
    """Norms and angles of one particle, not of all that share a datum; float64."""
    p, omega, key = self._particles(), jnp.asarray(OMEGA), jax.random.key(1)
    x0 = jax.random.normal(key, (5, 3))
    guided = np.stack(
      [_loop(reference, p.x0_cond[:, j], p.x0_null[:, j], omega) for j in range(4)], 1
    )
    objective = objectives.score_matching_objective(rule=rule)
    loss = jax.jit(objective)(key, x0, p, omega)
    square = np.sum((guided - np.float64(x0)[:, None]) ** 2, axis=2)
    np.testing.assert_allclose(loss, np.mean(square, axis=1), rtol=1e-4)
    objective = objectives.consistency_objective(
      lambda x_guided, x_true: x_guided, schedule=FLOW, churn=0.0, rule=rule
    )
    moved = jax.jit(objective)(key, x0, p, omega)
    s, t = (np.float64(time)[:, None, None] for time in (p.s, p.t))
    expected = (1.0 - s) * guided + s / t * (np.float64(p.xt) - (1.0 - t) * guided)
    np.testing.assert_allclose(moved, expected, rtol=1e-4, atol=1e-4)


class ApgMomentumTest(parameterized.TestCase):
  @parameterized.product(momentum=(-0.75, 0.5), space=('x0', 'velocity'))
  def test_sampling(self, momentum, space):
    """The whole chain, 4 DDIM steps of rectified flow, in float64; some m are cut."""
    rule = guidance.ApgMomentum(momentum=momentum, eta=0.3, max_norm=0.5)
    denoise = guidance.guided_with_memory(
      PAIR,
      2.0,
      lambda cond, s, t: cond + s,
      rule=rule,
      space=space,
      schedule=FLOW,
    )
    cond, times = jnp.asarray([1.0, 2.0, -0.5]), np.asarray([1.0, 0.8, 0.5, 0.3, 0.1])
    trajectory = sampling.sample(
      jax.random.key(0),
      denoise,
      FLOW,
      cond,
      (3, 3),
      num_steps=4,
      churn=0.0,
      times=jnp.asarray(times),
      memory=rule.init((3, 3)),
      return_trajectory=True,
    )
    norms = []
    for i in range(3):
      x, m = np.float64(trajectory[0, i]), 0.0
      for t, s in itertools.pairwise(times):
        c, u = (_denoiser64(2.0, x, t, v) for v in (float(cond[i]), 0.1))
        if space == 'velocity':
          c, u = (x - c) / t, (x - u) / t
        w = 1.0 + float(cond[i]) + s
        guided = _apg(c, u, w, eta=0.3, max_norm=0.5, m=momentum * m)
        m = c - u + momentum * m  # As it is before the cut.
        norms.append(np.linalg.norm(m))
        x0 = x - t * guided if space == 'velocity' else guided
        x = (1.0 - s) * x0 + s / t * (x - (1.0 - t) * x0)
      np.testing.assert_allclose(trajectory[-1, i], x, rtol=1e-4, atol=1e-4)
    self.assertBetween(0.5, np.min(norms), np.max(norms))

  def test_momentum_0_is_apg(self):
    c, u = _pair(5, 3)
    omega, memory = jnp.asarray(OMEGA), 100.0 * jnp.ones((5, 3))
    guided, _ = guidance.ApgMomentum(momentum=0.0, **APG).apply(c, u, omega, memory)
    np.testing.assert_array_equal(
      guided, guidance.along(guidance.apg(**APG))(c, u, omega)
    )

  def test_omega_0_is_the_conditional_whatever_the_memory(self):
    c, u = _pair(5, 3)
    rule = guidance.ApgMomentum(momentum=0.9, **APG)
    guided, _ = rule.apply(c, u, jnp.zeros(5), 100.0 * jnp.ones((5, 3)))
    np.testing.assert_array_equal(guided, c)


class ConstantsTest(parameterized.TestCase):
  @parameterized.parameters(
    (lambda: guidance.apg(eta=0.0, max_norm=-1.0), 'max_norm=-1.0: must be > 0'),
    (lambda: guidance.apg(eta=np.inf, max_norm=1.0), 'eta=inf: must be finite'),
    (lambda: guidance.power_normalized(-2.0), 'power=-2.0: must be finite and >= 0'),
    (lambda: guidance.ApgMomentum(1.5, 0.0, 1.0), r'momentum=1.5: must be in \(-1, 1'),
    (lambda: guidance.ApgMomentum(0.5, 0.0, 0.0), 'max_norm=0.0: must be > 0'),
    (lambda: guidance.interval(1.0, np.array(0.8), jnp.array(0.2)), 'needs lo < hi'),
  )
  def test_refused(self, make, message):
    with self.assertRaisesRegex(ValueError, message):
      make()

  def test_traced_ones_pass(self):
    def run(power, max_norm):
      c, u = jnp.ones((2, 3)), jnp.zeros((2, 3))
      delta = guidance.apg(eta=power, max_norm=max_norm)(c, u)
      return delta + guidance.power_normalized(power)(c, u, jnp.zeros(2))

    self.assertTrue(np.all(np.isfinite(jax.jit(run)(1.0, 2.0))))


if __name__ == '__main__':
  absltest.main()
