"""Gram statistics against explicit vectors in float64, and against Algorithm 1.

The explicit losses form every vector of a datum (a group) in float64, and every
distance from a difference; E||mu + sqrt(v) g||^beta by quadrature, as in mmd_test.py.
"""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized
from scipy import special
from scipy import stats

from lgd import denoiser as denoiser_lib
from lgd import guidance
from lgd import noising
from lgd import objectives
from lgd import schedules
from lgd import statistics
from tests import paths

OPTIMIZED = True

# Schedule, and (alpha, sigma) in float64.
FLOW = (schedules.RectifiedFlow(), lambda t: (1.0 - t, t))
COSINE = (
  schedules.Cosine(),
  lambda t: (np.cos(0.5 * np.pi * t), np.sin(0.5 * np.pi * t)),
)


def _norm_power(q, v, dim, beta):
  """E||mu + sqrt(v) g||^beta, ||mu||^2 = q, by the Laplace transform of its square."""
  q, v = np.broadcast_arrays(np.float64(q), np.float64(v))
  if beta == 2.0:
    return q + dim * v
  h, mean = 0.5 * beta, (q + dim * v)[..., None]
  log_y = np.arange(-38.0 / (1.0 - h), 38.0 / h, 0.2)
  with np.errstate(divide='ignore', invalid='ignore'):
    log_phi = -0.5 * dim * np.logaddexp(0.0, log_y + np.log(2.0 * v[..., None] / mean))
    log_phi -= q[..., None] / (mean * np.exp(-log_y) + 2.0 * v[..., None])
  integral = 0.2 * np.sum(-np.expm1(log_phi) * np.exp(-h * log_y), axis=-1)
  value = h / special.gamma(1.0 - h) * integral * mean[..., 0] ** h
  return np.where(v == 0.0, q**h, value)


def _step(reference, s, t, churn):
  """alpha and sigma at s and t, coef_xt, coef_x0 and std^2, from Eq. (2)."""
  (alpha_s, sigma_s), (alpha_t, sigma_t) = reference(float(s)), reference(float(t))
  ratio, e = alpha_t / alpha_s * sigma_s / sigma_t, churn**2
  u = e * ratio + 1.0 - e
  coef = sigma_s / sigma_t * u, alpha_s * (1.0 - ratio * u), sigma_s**2 * (1.0 - u**2)
  return (alpha_s, sigma_s, alpha_t, sigma_t), coef


def _losses(
  vectors, omega, s, t, *, reference, churn, beta, marginal=False, mirror=None
):
  """Attraction and repulsion, (4) or (5), from explicit vectors in float64.

  Args:
    vectors: eps `[batch, m, dim]`, x0 `[batch, dim]` (marginal: `[batch, m, dim]`),
      x0_cond, and a list of K x0_null.
    omega: `[batch, K]` (marginal: `[batch, m, K]`).
    s: `[batch]`.
    t: `[batch]`.
    reference: alpha and sigma in float64.
    churn: of the transition.
    beta: kernel exponent.
    marginal: (5) in place of (4).
    mirror: whose noise each particle has, `[m]`; pairs with the same are left out.

  Returns:
    Two `[batch]`.
  """
  batch, m, dim = vectors[0].shape
  attraction, repulsion = np.zeros(batch), np.zeros(batch)
  for i in range(batch):
    eps, x0, x0_cond, *x0_null = (np.float64(a[i]) for a in (*vectors[:3], *vectors[3]))
    x0 = x0.reshape(-1, dim)
    x0_guided = x0_cond + sum(
      omega[i, ..., k : k + 1] * (x0_cond - null) for k, null in enumerate(x0_null)
    )
    scales, (coef_xt, coef_x0, variance) = _step(reference, s[i], t[i], churn)
    alpha_s, sigma_s, alpha_t, sigma_t = scales
    guided = coef_xt * (alpha_t * x0 + sigma_t * eps) + coef_x0 * x0_guided
    mirror = np.arange(m) if mirror is None else np.asarray(mirror)
    others = mirror[:, None] != mirror
    to_true = np.sum((guided[:, None] - alpha_s * x0) ** 2, axis=-1)
    to_true = to_true[others] if marginal else to_true
    to_guided = np.sum((guided[:, None] - guided) ** 2, axis=-1)[others]
    attraction[i] = np.mean(_norm_power(to_true, variance + sigma_s**2, dim, beta))
    if m > 1:
      repulsion[i] = np.mean(_norm_power(to_guided, 2.0 * variance, dim, beta))
  return attraction, repulsion


def _slopes(losses, omega, direction):
  """Derivatives of attraction and repulsion along `direction`: central differences."""
  step = 1e-4 * direction
  return [
    (above - below) / 2e-4
    for above, below in zip(losses(omega + step), losses(omega - step), strict=True)
  ]


def _draw(shape, *, seed=0, offset=0.0, common=0.5, own=0.5, delta=0.3, directions=1):
  """eps, x0, x0_cond and x0_null: predictions wrong in common, and each on its own."""
  rng = np.random.default_rng(seed)

  def normal(*size):
    return rng.normal(size=size)

  batch, _, dim = shape
  x0 = offset + normal(batch, dim)
  x0_cond = x0[:, None] + common * normal(batch, 1, dim) + own * normal(*shape)
  x0_null = [
    x0_cond - delta * normal(batch, 1, dim) - delta * min(own, 1.0) * normal(*shape)
    for _ in range(directions)
  ]
  eps, x0, x0_cond = (a.astype(np.float32) for a in (normal(*shape), x0, x0_cond))
  return eps, x0, x0_cond, [a.astype(np.float32) for a in x0_null]


def _group(vectors):
  """The same vectors as groups: every member its own datum."""
  eps, x0, x0_cond, x0_null = vectors
  x0 = x0[:, None] + np.random.default_rng(9).normal(size=eps.shape)
  x0 = x0.astype(np.float32)
  shift = x0 - vectors[1][:, None]
  return eps, x0, x0_cond + shift, [null + shift for null in x0_null]


@functools.partial(jax.jit, static_argnames=('fn', 'schedule', 'dim'))
def _evaluate(
  fn, vectors, omega, s, t, churn, beta, interaction, *, dim, schedule=FLOW[0]
):
  """Losses and their derivatives in omega; every setting is traced.

  One compiled program for all settings, or these tests would take minutes.
  """
  with jax.numpy_rank_promotion('raise'):
    gram = (
      statistics.gram if fn is statistics.self_consistency else statistics.group_gram
    )
    gram = gram(*vectors)

    def total(omega):
      losses = fn(
        gram,
        omega,
        s,
        t,
        schedule=schedule,
        churn=churn,
        beta=beta,
        interaction=interaction,
        dim=dim,
      )
      return jnp.sum(losses), losses

    grad, losses = jax.grad(total, has_aux=True)(omega)
  return losses, grad


class GramTest(parameterized.TestCase):
  @parameterized.product(
    shape=((3, 4, 5), (2, 1, 3), (2, 3, 4, 2, 3)), directions=(1, 2), jit=(False, True)
  )
  def test_inner_products(self, shape, directions, jit):
    """Every entry, by loops: e first, then r, then delta of each direction."""
    batch, m, *data = shape
    eps, x0, x0_cond, x0_null = _draw(
      (batch, m, math.prod(data)), directions=directions
    )
    vectors = [eps, x0_cond - x0[:, None]] + [x0_cond - null for null in x0_null]
    fn = jax.jit(statistics.gram) if jit else statistics.gram
    nulls = [null.reshape(shape) for null in x0_null]
    with jax.numpy_rank_promotion('raise'):
      gram = fn(
        eps.reshape(shape),
        x0.reshape(batch, *data),
        x0_cond.reshape(shape),
        nulls[0] if directions == 1 else nulls,
      )
    self.assertEqual(gram.shape, (batch, (2 + directions) * m, (2 + directions) * m))
    for i in range(batch):
      rows = [np.float64(vector[i, j]) for vector in vectors for j in range(m)]
      for a, row in enumerate(rows):
        for b, column in enumerate(rows):
          expected = math.fsum(row * column)
          self.assertAlmostEqual(float(gram[i, a, b]), expected, delta=2e-5)

  def test_group_inner_products(self):
    """x about its mean first; e, r and delta as above, r against one's own datum."""
    eps, x0, x0_cond, x0_null = _group(_draw((2, 3, 5), directions=2, offset=50.0))
    gram = statistics.group_gram(eps, x0, x0_cond, x0_null)
    self.assertEqual(gram.shape, (2, 15, 15))
    centred = np.float64(x0) - np.mean(np.float64(x0), axis=1, keepdims=True)
    deltas = [x0_cond - null for null in x0_null]
    for i in range(2):
      rows = np.concatenate([a[i] for a in (centred, eps, x0_cond - x0, *deltas)])
      np.testing.assert_allclose(gram[i], np.float64(rows) @ rows.T, atol=1e-4)

  def test_products_run_at_the_highest_precision(self):
    """What an accelerator would otherwise round to bfloat16."""
    for fn, vectors in (
      (statistics.gram, _draw((2, 3, 8))),
      (statistics.group_gram, _group(_draw((2, 3, 8)))),
    ):
      text = str(jax.make_jaxpr(fn)(*vectors))
      self.assertEqual(text.count('dot_general'), 1)
      self.assertRegex(text, r'precision=\(?Precision.HIGHEST')

  @parameterized.parameters(1, 3, 12)
  def test_pack_and_unpack(self, p):
    half = np.random.default_rng(0).normal(size=(2, p, p)).astype(np.float32)
    gram = jnp.asarray(half + np.swapaxes(half, 1, 2))
    packed = statistics.pack(gram)
    self.assertEqual(packed.shape, (2, p * (p + 1) // 2))
    np.testing.assert_array_equal(statistics.unpack(packed), gram)
    np.testing.assert_array_equal(jax.jit(statistics.unpack)(packed), gram)
    np.testing.assert_array_equal(statistics.pack(statistics.unpack(packed)), packed)

  def test_subset(self):
    """The Gram matrix of the subset; for groups up to its centre, without effect."""
    eps, x0, x0_cond, x0_null = _draw((2, 5, 4), directions=2)
    whole = statistics.gram(eps, x0, x0_cond, x0_null)
    for num in (1, 3):
      nulls = [null[:, :num] for null in x0_null]
      subset = statistics.gram(eps[:, :num], x0, x0_cond[:, :num], nulls)
      first = statistics.subset(whole, 5, num)
      np.testing.assert_allclose(first, subset, rtol=1e-5, atol=1e-5)
    eps, x0, x0_cond, x0_null = _group(_draw((2, 5, 20)))
    whole = statistics.group_gram(eps, x0, x0_cond, x0_null)
    subset = statistics.group_gram(*(a[:, :3] for a in (eps, x0, x0_cond, x0_null[0])))
    loss = jax.jit(
      functools.partial(
        statistics.marginal,
        omega=jnp.ones((2, 3)),
        s=jnp.full(2, 0.2),
        t=jnp.full(2, 0.5),
        schedule=FLOW[0],
        churn=0.5,
        beta=1.0,
        interaction=1.0,
        dim=20,
      )
    )
    np.testing.assert_allclose(
      loss(statistics.subset(whole, 5, 3)), loss(subset), rtol=1e-4
    )

  @parameterized.parameters(
    (8, 8, (0, 1, 2, 3, 4, 5, 6, 7)),
    (8, 5, (0, 1, 2, 4, 5)),
    (8, 4, (0, 1, 4, 5)),
    (8, 3, (0, 1, 4)),
    (8, 2, (0, 1)),
    (5, 4, (0, 1, 3, 4)),
    (4, 3, (0, 1, 2)),
    (4, 1, (0,)),
    (3, 2, (0, 1)),
    (2, 2, (0, 1)),
  )
  def test_antithetic_subset(self, m, num, kept):
    """What is kept is again noise of its own, then mirror images, in order."""
    eps, x0, x0_cond, x0_null = _draw((2, m, 6))
    whole = statistics.gram(eps, x0, x0_cond, x0_null)
    kept = list(kept)
    np.testing.assert_allclose(
      statistics.subset(whole, m, num, antithetic=True),
      statistics.gram(eps[:, kept], x0, x0_cond[:, kept], x0_null[0][:, kept]),
      rtol=1e-5,
      atol=1e-5,
    )

  def test_half_precision_predictions(self):
    """A network that computes in bfloat16: nothing more is lost than it rounds."""
    eps, x0, x0_cond, x0_null = _draw((2, 3, 400), offset=2.0)
    rounded = [jnp.asarray(a, jnp.bfloat16) for a in (x0_cond, x0_null[0])]
    np.testing.assert_array_equal(
      statistics.gram(eps, x0, *rounded),
      statistics.gram(eps, x0, *(a.astype(jnp.float32) for a in rounded)),
    )
    eps, x0, x0_cond, x0_null = (
      jnp.asarray(a, jnp.bfloat16)
      for a in (*_group(_draw((2, 3, 400)))[:3], x0_null[0])
    )
    np.testing.assert_array_equal(
      statistics.group_gram(eps, x0 + 50, x0_cond + 50, x0_null + 50),
      statistics.group_gram(
        *(a.astype(jnp.float32) for a in (eps, x0 + 50, x0_cond + 50, x0_null + 50))
      ),
    )

  def test_refused(self):
    """Directions that the Gram matrix does not have, and a group of one."""
    settings = {'schedule': FLOW[0], 'churn': 1.0, 'beta': 1.0, 'interaction': 1.0}
    times = jnp.full(2, 0.2), jnp.full(2, 0.5)
    gram = statistics.gram(*_draw((2, 5, 4)))
    with self.assertRaisesRegex(ValueError, 'omega of 2 directions, .* 15 vectors'):
      statistics.self_consistency(gram, jnp.ones((2, 2)), *times, dim=4, **settings)
    gram = statistics.group_gram(*_group(_draw((2, 1, 4))))
    with self.assertRaisesRegex(ValueError, '1 datum'):
      statistics.marginal(gram, jnp.ones((2, 1)), *times, dim=4, **settings)


# Name, arguments of `_draw`, (s, t) of two data; errors of loss and gradient allowed at
# beta .5, which is steep where particles are close, and at beta 1.75.
PRECISION = (
  ('ordinary', {}, ((0.3, 0.5), (0.01, 0.9)), (3e-6, 3e-6), (3e-6, 3e-6)),
  (
    'small_t',
    {'common': 0.01, 'own': 0.01, 'delta': 0.01},
    ((1e-3, 2e-3), (1e-3, 0.1)),
    (3e-6, 3e-6),
    (3e-6, 3e-6),
  ),
  (
    'large_norms',
    {'common': 100.0, 'own': 100.0},
    ((0.3, 0.5), (0.01, 0.9)),
    (3e-6, 3e-6),
    (3e-6, 3e-6),
  ),
  (
    'common_prediction',  # At large t: u_j - u_k is 1/400 of u_j.
    {'common': 0.7, 'own': 3e-3, 'delta': 0.5},
    ((1e-3, 0.99), (1e-2, 0.9)),
    (1e-3, 5e-3),
    (3e-6, 2e-5),
  ),
  (
    'close_at_large_norms',
    {'common': 100.0, 'own': 1.0, 'delta': 10.0},
    ((0.3, 0.5), (0.01, 0.9)),
    (1e-3, 5e-3),
    (3e-6, 2e-5),
  ),
)


class SelfConsistencyTest(parameterized.TestCase):
  @parameterized.parameters((FLOW, 1), (COSINE, 2))
  def test_explicit_vectors(self, case, directions):
    """Losses of four data with their own omega, s and t, and partial derivatives."""
    schedule, reference = case
    vectors = _draw((4, 3, 5), directions=directions)
    omega = np.linspace(-0.5, 2.0, 4 * directions).reshape(4, directions)
    s, t = np.float32([0.01, 0.2, 0.5, 0.7]), np.float32([0.3, 0.25, 0.9, 0.99])
    evaluate = functools.partial(
      _evaluate, statistics.self_consistency, vectors, schedule=schedule, dim=5
    )
    for churn, beta in itertools.product((0.0, 0.6, 1.0), (0.5, 1.0, 1.75)):
      exact = functools.partial(
        _losses, vectors, s=s, t=t, reference=reference, churn=churn, beta=beta
      )
      attraction, repulsion = exact(omega)
      for interaction in (0.0, 0.4, 1.0):
        losses, grad = evaluate(jnp.float32(omega), s, t, churn, beta, interaction)
        expected = attraction - 0.5 * interaction * repulsion
        np.testing.assert_allclose(losses, expected, rtol=2e-5, atol=2e-6)
      for direction in np.eye(directions):
        pull, push = _slopes(exact, omega, direction)
        np.testing.assert_allclose(
          grad @ direction, pull - 0.5 * push, rtol=1e-4, atol=2e-5
        )
    if directions == 1:
      flat, _ = evaluate(jnp.float32(omega[:, 0]), s, t, churn, beta, interaction)
      np.testing.assert_allclose(flat, losses, rtol=1e-6)

  @parameterized.parameters('ddpm', 'zero_snr', 'karras', 'variance_exploding')
  def test_other_paths(self, name):
    """Up to t = 1, where sigma is 80 or alpha 0."""
    schedule, scales = paths.PATHS[name]
    vectors = _draw((4, 3, 5))
    omega = np.linspace(-0.5, 2.0, 4)[:, None]
    s, t = np.float32([0.01, 0.2, 0.5, 0.7]), np.float32([0.3, 0.25, 0.9, 1.0])
    evaluate = functools.partial(
      _evaluate, statistics.self_consistency, vectors, schedule=schedule, dim=5
    )
    reference = np.vectorize(scales, otypes='dd')
    for churn in (0.0, 0.6, 1.0):
      attraction, repulsion = _losses(
        vectors, omega, s=s, t=t, reference=reference, churn=churn, beta=1.75
      )
      losses, _ = evaluate(jnp.float32(omega), s, t, churn, 1.75, 1.0)
      np.testing.assert_allclose(losses, attraction - 0.5 * repulsion, rtol=1e-4)

  @parameterized.parameters(0.5, 1.75)
  def test_rescaled_path(self, beta):
    """EDM's own x_s is 1 / alpha_s times the rescaled one; the loss its power beta."""
    vectors, omega = _draw((4, 3, 5)), jnp.linspace(-0.5, 2.0, 4)
    s, t = np.float32([0.01, 0.2, 0.5, 0.9]), np.float32([0.3, 0.25, 0.9, 1.0])
    rescaled, own = (
      _evaluate(
        statistics.self_consistency,
        vectors,
        omega,
        s,
        t,
        1.0,
        beta,
        1.0,
        schedule=paths.PATHS[name].schedule,
        dim=5,
      )[0]
      for name in ('karras', 'variance_exploding')
    )
    scales = paths.PATHS['karras'].scales
    ratio = [scales(float(u))[0] ** -beta for u in s]
    self.assertGreater(ratio[-1], 5.0)
    np.testing.assert_allclose(own / rescaled, ratio, rtol=1e-4)

  @parameterized.parameters(64, 3072)
  def test_precision(self, dim):
    """Quadratic forms in float32 against differences in float64.

    The error of the gradient is relative to the gradients of attraction and repulsion,
    which may cancel.
    """
    omega = np.full((2, 1), 0.75)
    for name, arguments, times, *allowed in PRECISION:
      vectors = _draw((2, 4, dim), **arguments)
      s, t = np.float32(times).T
      for churn, beta in itertools.product((0.0, 1.0), (0.5, 1.75)):
        losses, grad = _evaluate(
          statistics.self_consistency,
          vectors,
          jnp.float32(omega[:, 0]),
          s,
          t,
          churn,
          beta,
          1.0,
          dim=dim,
        )
        exact = functools.partial(
          _losses, vectors, s=s, t=t, reference=FLOW[1], churn=churn, beta=beta
        )
        attraction, repulsion = exact(omega)
        pull, push = _slopes(exact, omega, np.ones(1))
        expected = attraction - 0.5 * repulsion
        error = np.abs(grad - (pull - 0.5 * push)) / (np.abs(pull) + 0.5 * np.abs(push))
        loss_error, grad_error = allowed[beta == 1.75]
        with self.subTest(name, churn=churn, beta=beta):
          np.testing.assert_allclose(losses, expected, rtol=loss_error)
          np.testing.assert_array_less(error, np.full(2, grad_error))

  @parameterized.parameters(1, 4)
  def test_l2(self, m):
    """E||xg - x_s||^2: attraction at beta = 2. One particle has no repulsion."""
    vectors = _draw((3, m, 20))
    omega = np.asarray([[-0.3], [0.5], [2.0]])
    given = jnp.float32(omega[:, 0])
    s, t = np.float32([0.01, 0.2, 0.5]), np.float32([0.3, 0.25, 0.9])
    gram = statistics.gram(*vectors)
    l2 = jax.jit(
      functools.partial(statistics.l2, gram, given, s, t, schedule=FLOW[0], dim=20)
    )
    for churn in (0.0, 0.6, 1.0):
      exact = functools.partial(
        _losses, vectors, s=s, t=t, reference=FLOW[1], churn=churn, beta=2.0
      )
      np.testing.assert_allclose(l2(churn=churn), exact(omega)[0], rtol=1e-5)
      losses, grad = _evaluate(
        statistics.self_consistency, vectors, given, s, t, churn, 2.0, 0.0, dim=20
      )
      np.testing.assert_allclose(losses, exact(omega)[0], rtol=1e-5)
      slope = _slopes(exact, omega, np.ones(1))[0]
      np.testing.assert_allclose(grad, slope, rtol=1e-4, atol=1e-5)
      if m == 1:
        alone, _ = _evaluate(
          statistics.self_consistency, vectors, given, s, t, churn, 2.0, 1.0, dim=20
        )
        np.testing.assert_array_equal(alone, losses)

  @parameterized.parameters(1, 2)
  def test_score_matching(self, directions):
    """1/m sum_j ||x_0 - x0_guided_j||^2, in float64."""
    _, x0, x0_cond, x0_null = vectors = _draw((3, 4, 6), directions=directions)
    omega = np.linspace(-1.0, 2.0, 3 * directions).reshape(3, directions)
    guided = np.float64(x0_cond)
    for k, null in enumerate(x0_null):
      guided = guided + omega[:, k, None, None] * np.float64(x0_cond - null)
    expected = np.mean(np.sum((guided - x0[:, None]) ** 2, axis=-1), axis=1)
    losses = statistics.score_matching(statistics.gram(*vectors), jnp.float32(omega))
    np.testing.assert_allclose(losses, expected, rtol=1e-5)

  def test_best_weight_of_squared_losses(self):
    """The vertex of the mean l2, and of the mean score matching, over six data.

    They share omega, and neither s nor t.
    """
    vectors = _draw((6, 3, 4))
    gram = statistics.gram(*vectors)
    s = np.float32([0.01, 0.1, 0.2, 0.3, 0.5, 0.7])
    t = np.float32([0.3, 0.9, 0.25, 0.6, 0.55, 0.99])

    def vertex(loss):
      below, middle, above = (
        np.mean(loss(np.full((6, 1), w))) for w in (-1.0, 0.0, 1.0)
      )
      return 0.5 * (below - above) / (below - 2.0 * middle + above)

    for churn in (0.0, 0.6, 1.0):
      exact = functools.partial(
        _losses, vectors, s=s, t=t, reference=FLOW[1], churn=churn, beta=2.0
      )
      top, bottom = statistics.l2_terms(gram, s, t, schedule=FLOW[0], churn=churn)
      expected = vertex(lambda omega, exact=exact: exact(omega)[0])
      self.assertAlmostEqual(float(-jnp.sum(top) / jnp.sum(bottom)), expected, places=4)
    top, bottom = statistics.score_matching_terms(gram)
    _, x0, x0_cond, (x0_null,) = vectors
    delta, wrong = np.float64(x0_cond - x0_null), np.float64(x0_cond - x0[:, None])
    expected = vertex(lambda omega: np.sum((wrong + omega[0, 0] * delta) ** 2))
    self.assertAlmostEqual(float(-jnp.sum(top) / jnp.sum(bottom)), expected, places=4)

  @parameterized.parameters(2, 64)
  def test_finite_gradients(self, dim):
    """Coincident particles, exact predictions, no noise left; all at once."""
    eps, x0, x0_cond, x0_null = _draw((3, 4, dim))
    eps[1:] = eps[1:, :1]  # 0: all different; 1: all particles coincide.
    x0_cond[1:], x0_null[0][1:] = x0_cond[1:, :1], x0_null[0][1:, :1]
    eps[2], x0_cond[2] = 0.0, x0[2]  # 2: and are x_0, at omega = 0.
    for churn, (s, t), beta in itertools.product(
      (0.0, 1.0), ((0.0, 0.5), (0.2, 0.5), (0.0, 1.0)), (0.5, 1.0, 1.75, 2.0)
    ):
      losses, grad = _evaluate(
        statistics.self_consistency,
        (eps, x0, x0_cond, x0_null),
        jnp.asarray([0.5, 0.5, 0.0]),
        jnp.full(3, s),
        jnp.full(3, t),
        churn,
        beta,
        1.0,
        dim=dim,
      )
      self.assertTrue(np.all(np.isfinite(losses)), losses)
      self.assertTrue(np.all(np.isfinite(grad)), grad)
      if s == 0.0:
        self.assertEqual(float(losses[2]), 0.0)
        self.assertEqual(float(grad[2]), 0.0)

  def test_traced_settings(self):
    """vmap over churn, beta and lambda under jit is the loop over Python floats."""
    dim = 20
    vectors = _draw((3, 4, dim))
    s, t = jnp.asarray([0.1, 0.2, 0.5]), jnp.asarray([0.2, 0.9, 0.6])
    omega = jnp.asarray([-0.5, 0.0, 2.0])
    settings = [(0.0, 0.5, 0.0), (0.3, 1.0, 0.6), (1.0, 1.75, 1.0), (1.0, 2.0, 0.0)]
    evaluate = functools.partial(
      _evaluate, statistics.self_consistency, vectors, omega, s, t, dim=dim
    )
    losses, grads = jax.vmap(evaluate)(*jnp.asarray(settings).T)
    gram = statistics.gram(*vectors)
    for i, (churn, beta, interaction) in enumerate(settings):
      loop = statistics.self_consistency(
        gram,
        omega,
        s,
        t,
        schedule=FLOW[0],
        churn=churn,
        beta=beta,
        interaction=interaction,
        dim=dim,
      )
      np.testing.assert_allclose(losses[i], loop, rtol=1e-5)
      loop = evaluate(*settings[i])[1]
      np.testing.assert_allclose(grads[i], loop, rtol=2e-5, atol=1e-5)

  def test_memory_does_not_depend_on_the_size_of_a_datum(self):
    """The same program for 64 and for 12288 elements; no array above the statistics."""

    def shapes(dim):
      def loss(gram, omega, s, t):
        return jnp.sum(
          statistics.self_consistency(
            gram,
            omega,
            s,
            t,
            schedule=FLOW[0],
            churn=1.0,
            beta=1.75,
            interaction=1.0,
            dim=dim,
          )
        )

      batch = jnp.ones(7)
      grad = jax.grad(loss, argnums=1)
      jaxpr = jax.make_jaxpr(grad)(jnp.ones((7, 12, 12)), batch, batch, batch)
      return [v.aval.shape for eqn in jaxpr.eqns for v in eqn.outvars]

    self.assertEqual(shapes(64), shapes(12288))
    self.assertLessEqual(max(map(math.prod, shapes(64))), 7 * 12 * 12)

  @parameterized.parameters(2, 64)
  def test_rounding_below_zero(self, dim):
    """A squared distance that rounds below 0 is 0: coincident particles, no noise."""
    eps, x0, x0_cond, x0_null = (np.ones((1, 2, dim), np.float32) for _ in range(4))
    gram = statistics.gram(0.6 * eps, 0.1 * x0[:, 0], 0.7 * x0_cond, 0.3 * x0_null)
    between = np.tile(~np.eye(2, dtype=bool), (3, 3))
    rounded = jnp.where(between, np.nextafter(gram, np.float32(np.inf)), gram)

    @jax.jit
    def loss(gram, beta, interaction):
      return statistics.self_consistency(
        gram,
        jnp.ones(1),
        jnp.full(1, 0.2),
        jnp.full(1, 0.5),
        schedule=FLOW[0],
        churn=0.0,
        beta=beta,
        interaction=interaction,
        dim=dim,
      )

    for beta in (0.5, 1.75):
      np.testing.assert_array_equal(loss(rounded, beta, 1.0), loss(gram, beta, 0.0))


class MarginalTest(parameterized.TestCase):
  @parameterized.parameters((FLOW, 1), (COSINE, 2))
  def test_explicit_vectors(self, case, directions):
    """Three groups of five; every member has its own omega, as in a pooled group."""
    schedule, reference = case
    vectors = _group(_draw((3, 5, 4), directions=directions))
    omega = np.linspace(-0.5, 2.0, 15 * directions).reshape(3, 5, directions)
    s, t = np.float32([0.01, 0.2, 0.7]), np.float32([0.3, 0.25, 0.99])
    evaluate = functools.partial(
      _evaluate, statistics.marginal, vectors, schedule=schedule, dim=4
    )
    for churn, beta in itertools.product((0.0, 0.6, 1.0), (0.5, 1.75)):
      exact = functools.partial(
        _losses,
        vectors,
        s=s,
        t=t,
        reference=reference,
        churn=churn,
        beta=beta,
        marginal=True,
      )
      attraction, repulsion = exact(omega)
      for interaction in (0.0, 0.4, 1.0):
        losses, grad = evaluate(jnp.float32(omega), s, t, churn, beta, interaction)
        expected = attraction - 0.5 * interaction * repulsion
        np.testing.assert_allclose(losses, expected, rtol=2e-5, atol=2e-6)
      for i, k in ((0, 0), (3, directions - 1)):
        direction = np.zeros((5, directions))
        direction[i, k] = 1.0
        pull, push = _slopes(exact, omega, direction)
        expected = pull - 0.5 * push
        np.testing.assert_allclose(grad[:, i, k], expected, rtol=1e-4, atol=2e-5)
    if directions == 1:
      flat, _ = evaluate(jnp.float32(omega[..., 0]), s, t, churn, beta, interaction)
      np.testing.assert_allclose(flat, losses, rtol=1e-6)

  @parameterized.parameters(64, 3072)
  def test_precision(self, dim):
    """Data 1000 from the origin, at small s and t and at large ones."""
    vectors = _group(_draw((2, 4, dim), offset=1000.0))
    s, t = np.float32([1e-3, 0.5]), np.float32([2e-3, 0.95])
    omega = np.full((2, 4, 1), 0.75)
    for churn, beta in itertools.product((0.0, 1.0), (0.5, 1.75)):
      losses, _ = _evaluate(
        statistics.marginal, vectors, omega, s, t, churn, beta, 1.0, dim=dim
      )
      attraction, repulsion = _losses(
        vectors,
        omega,
        s,
        t,
        reference=FLOW[1],
        churn=churn,
        beta=beta,
        marginal=True,
      )
      np.testing.assert_allclose(losses, attraction - 0.5 * repulsion, rtol=2e-5)

  @parameterized.parameters(2, 64)
  def test_finite_gradients(self, dim):
    """Members that coincide, with exact predictions, next to others that do not."""
    eps, x0, x0_cond, x0_null = _group(_draw((2, 4, dim)))
    for a in (eps, x0, x0_cond, x0_null[0]):
      a[0] = a[0, :1]
      a[1, 1] = a[1, 0]
    eps[0], x0_cond[0] = 0.0, x0[0]
    for churn, s, beta in itertools.product((0.0, 1.0), (0.0, 0.2), (0.5, 1.0, 1.75)):
      losses, grad = _evaluate(
        statistics.marginal,
        (eps, x0, x0_cond, x0_null),
        jnp.zeros((2, 4)),
        jnp.full(2, s),
        jnp.full(2, 0.5),
        churn,
        beta,
        1.0,
        dim=dim,
      )
      self.assertTrue(np.all(np.isfinite(losses)), losses)
      self.assertTrue(np.all(np.isfinite(grad)), grad)

  def test_traced_settings(self):
    """vmap over churn, beta and lambda under jit is the loop over Python floats."""
    dim = 20
    vectors = _group(_draw((2, 4, dim)))
    omega = jnp.asarray([[0.0, 0.5, 1.0, 2.0], [1.0, 1.0, 1.0, 1.0]])
    s, t = jnp.asarray([0.1, 0.5]), jnp.asarray([0.2, 0.9])
    settings = [(0.0, 0.5, 0.0), (0.3, 1.0, 0.6), (1.0, 1.75, 1.0)]
    evaluate = functools.partial(
      _evaluate, statistics.marginal, vectors, omega, s, t, dim=dim
    )
    losses, _ = jax.vmap(evaluate)(*jnp.asarray(settings).T)
    gram = statistics.group_gram(*vectors)
    for i, (churn, beta, interaction) in enumerate(settings):
      loop = statistics.marginal(
        gram,
        omega,
        s,
        t,
        schedule=FLOW[0],
        churn=churn,
        beta=beta,
        interaction=interaction,
        dim=dim,
      )
      np.testing.assert_allclose(losses[i], loop, rtol=1e-5)


def _denoiser(params, xt, t, cond):
  """Neither linear nor diagonal; a bad one, so that no term of the loss is small."""
  mixed = xt + 0.5 * jnp.roll(xt, 1, axis=-1)
  return jnp.tanh((params - t[:, None]) * mixed + 0.4 * cond[:, None])


PAIR = denoiser_lib.classifier_free(_denoiser, -1.0)


@functools.partial(jax.jit, static_argnames=('num', 'dim'))
def _points(seed, num, dim):
  """Random x_0, c, s, t and omega."""
  key_x0, key_cond, key_times, key_omega = jax.random.split(jax.random.key(seed), 4)
  x0 = 0.8 * jax.random.normal(key_x0, (num, dim))
  cond = jax.random.randint(key_cond, (num,), 0, 4).astype(jnp.float32)
  s, t = objectives.sample_times(key_times, num, s_min=0.01, zeta=0.01, gap=0.02)
  return x0, cond, s, t, jax.random.uniform(key_omega, (num,), minval=-0.5, maxval=3.0)


@functools.partial(jax.jit, static_argnames=('m', 'antithetic'))
def _predict(key, x0, cond, t, m, antithetic=False):
  """eps, xt, x0_cond and x0_null of m particles, each `[num, m, dim]`."""
  num, dim = x0.shape
  eps = jax.random.normal(key, (num, m, dim))
  if antithetic:
    eps = jnp.concatenate([eps[:, : m // 2], -eps[:, : m // 2]], axis=1)
  xt = noising.add_noise(FLOW[0], x0[:, None], eps, t)
  repeat = functools.partial(jnp.repeat, repeats=m, axis=0)
  pair = PAIR(1.3, xt.reshape(-1, dim), repeat(t), repeat(cond))
  return eps, xt, *(a.reshape(num, m, dim) for a in pair)


def _t_statistics(sampled, exact, omega):
  """A function of churn and the number of draws: t statistics of a difference.

  Of `sampled(key, churn, omega) - exact(churn, omega)`: those of the losses, and those
  of their derivatives in omega. The standard error includes 1e-5 of either, which is
  the rounding of float32: a few differences have next to no variance.
  """

  def with_grad(fn):
    def total(omega):
      losses = fn(omega)
      return jnp.sum(losses), losses

    grad, losses = jax.grad(total, has_aux=True)(omega)
    return losses, grad

  @jax.jit
  def sums(keys, churn):
    centre = with_grad(functools.partial(exact, churn))

    def draw(carry, key):
      draws = with_grad(functools.partial(sampled, key, churn))
      diff = jax.tree.map(jnp.subtract, draws, centre)
      return jax.tree.map(lambda c, d: c + jnp.stack([d, d**2]), carry, diff), None

    zero = jax.tree.map(lambda c: jnp.zeros((2, *c.shape)), centre)
    return centre, jax.lax.scan(draw, zero, keys)[0]

  def t_statistics(churn, num_draws):
    keys = jax.random.split(jax.random.key(7), num_draws)
    results = []
    for centre, (total, square) in zip(*sums(keys, churn), strict=True):
      mean = np.float64(total) / num_draws
      variance = (np.float64(square) / num_draws - mean**2) / (num_draws - 1)
      results.append((mean / np.sqrt(variance + (1e-5 * centre) ** 2)).ravel())
    return results

  return t_statistics


class UnbiasedTest(parameterized.TestCase):
  """The mean of Algorithm 1 over the noise that the statistics integrate out."""

  def _check(self, t_statistics, num_draws, num_independent):
    """The largest by a union bound at 1e-4, and their mean square at 5 deviations."""
    freedom, num = num_draws - 1, t_statistics.size
    largest = stats.t.isf(0.5e-4 / num, freedom)
    self.assertLess(np.max(np.abs(t_statistics)), largest)
    mean_square = np.mean(t_statistics**2) * (freedom - 2) / freedom
    error = math.sqrt((2.0 + 6.0 / (freedom - 4)) / num_independent)
    self.assertLess(abs(mean_square - 1.0), 5.0 * error)

  @parameterized.parameters(
    (2, 300, 300, 1.75), (2, 300, 300, 1.0), (64, 200, 40, 1.75), (3072, 12, 24, 1.75)
  )
  def test_self_consistency(self, dim, num, num_draws, beta):
    """The same e_j on both sides; the true particles and z_j are drawn again."""
    kernel = {'beta': beta, 'interaction': 0.9}
    x0, cond, s, t, omega = _points(dim, num, dim)
    eps, xt, x0_cond, x0_null = _predict(jax.random.key(1), x0, cond, t, 4)
    gram = jax.jit(statistics.gram)(eps, x0, x0_cond, x0_null)

    def sampled(key, churn, omega):
      key_xs, key_step = jax.random.split(key)
      noise = jax.random.normal(key_xs, xt.shape)
      xs = noising.add_noise(FLOW[0], x0[:, None], noise, s)
      x_guided = objectives.guided_particles(
        key_step,
        objectives.Particles(s, t, xs, xt, x0_cond, x0_null),
        omega,
        schedule=FLOW[0],
        churn=churn,
        rule=guidance.linear,
      )
      return objectives.self_consistency(x_guided, xs, **kernel)

    def exact(churn, omega):
      return statistics.self_consistency(
        gram, omega, s, t, schedule=FLOW[0], churn=churn, dim=dim, **kernel
      )

    t_statistics = _t_statistics(sampled, exact, omega)
    for churn in (0.0, 0.5, 1.0):
      for values in t_statistics(churn, num_draws):
        self._check(values, num_draws, num)

  @parameterized.parameters(False, True)
  def test_self_consistency_with_nothing_shared(self, antithetic):
    """Eight points, 10,000 draws of everything on either side, independent."""
    num, num_draws, m, dim, churn = 8, 10_000, 4, 2, 0.5
    points = _points(5, num, dim)
    x0, cond, s, t, omega = (jnp.repeat(a, num_draws, axis=0) for a in points)
    kernel = {'beta': 1.75, 'interaction': 1.0}

    def sampled(omega):
      key_draw, key_step = jax.random.split(jax.random.key(2))
      particles = objectives.draw_particles(
        key_draw, PAIR, 1.3, FLOW[0], x0, cond, s, t, num_particles=m
      )
      x_guided = objectives.guided_particles(
        key_step,
        particles,
        omega,
        schedule=FLOW[0],
        churn=churn,
        rule=guidance.linear,
      )
      losses = objectives.self_consistency(x_guided, particles.xs, **kernel)
      return jnp.sum(losses), losses

    def integrated(omega):
      eps, _, x0_cond, x0_null = _predict(jax.random.key(3), x0, cond, t, m, antithetic)
      gram = statistics.gram(eps, x0, x0_cond, x0_null)
      losses = statistics.self_consistency(
        gram,
        omega,
        s,
        t,
        schedule=FLOW[0],
        churn=churn,
        dim=dim,
        antithetic=antithetic,
        **kernel,
      )
      return jnp.sum(losses), losses

    results = [
      jax.jit(jax.grad(fn, has_aux=True))(omega) for fn in (sampled, integrated)
    ]
    for i in range(2):
      a, b = (np.float64(result[i]).reshape(num, num_draws) for result in results)
      error = np.sqrt((np.var(a, axis=1) + np.var(b, axis=1)) / num_draws)
      self._check((np.mean(a, axis=1) - np.mean(b, axis=1)) / error, num_draws, num)
      # Integrating noise out can only lower the variance.
      self.assertTrue(np.all(np.var(b, axis=1) < np.var(a, axis=1)))

  @parameterized.parameters((2, 40, 200, 1.0), (64, 40, 40, 1.75))
  def test_marginal(self, dim, groups, num_draws, beta):
    """Groups of six with their own omega; the same e_i on both sides."""
    n, kernel = 6, {'beta': beta, 'interaction': 0.9}
    x0, cond, _, _, omega = _points(dim, groups * n, dim)
    _, _, s, t, _ = _points(dim + 1, groups, dim)
    every_s, every_t = jnp.repeat(s, n), jnp.repeat(t, n)
    vectors = eps, xt, x0_cond, x0_null = _predict(
      jax.random.key(1), x0, cond, every_t, 1
    )
    shape = (groups, n, dim)
    gram = jax.jit(statistics.group_gram)(
      *(a.reshape(shape) for a in (eps, x0, x0_cond, x0_null))
    )

    def sampled(key, churn, omega):
      key_xs, key_step = jax.random.split(key)
      noise = jax.random.normal(key_xs, xt.shape)
      xs = noising.add_noise(FLOW[0], x0[:, None], noise, every_s)
      x_guided = objectives.guided_particles(
        key_step,
        objectives.Particles(every_s, every_t, xs, *vectors[1:]),
        omega.ravel(),
        schedule=FLOW[0],
        churn=churn,
        rule=guidance.linear,
      )
      return objectives.marginal(x_guided.reshape(shape), xs.reshape(shape), **kernel)

    def exact(churn, omega):
      return statistics.marginal(
        gram, omega, s, t, schedule=FLOW[0], churn=churn, dim=dim, **kernel
      )

    t_statistics = _t_statistics(sampled, exact, omega.reshape(groups, n))
    for churn in (0.0, 0.5, 1.0):
      for values in t_statistics(churn, num_draws):
        self._check(values, num_draws, groups)

  @parameterized.parameters(1, 20)
  def test_exact_prediction(self, dim):
    """x0_cond = x_0: guided and true particles have one law at omega = 0.

    Then the mean loss is (1 - lambda / 2) E||X - X'||^beta, X - X' ~ N(0, 2 sigma_s^2),
    and, for lambda = 1 and any direction delta(x_t), omega = 0 is stationary, since the
    energy distance is smallest between equal laws. 5 standard errors; for groups all of
    one datum the same holds of the marginal loss.
    """
    num, m, s = 5_000, 3, 0.4
    rng = np.random.default_rng(0)
    eps = rng.normal(size=(num, m, dim)).astype(np.float32)
    x0 = np.full((num, m, dim), np.float32(0.7))
    x0_null = x0 - np.sin(2.0 * eps) - np.float32(0.5)
    times = np.full(num, np.float32(s)), np.full(num, np.float32(0.6))
    for churn, beta in itertools.product((0.0, 0.5, 1.0), (1.0, 1.75)):
      moment = special.gammaln(0.5 * (dim + beta)) - special.gammaln(0.5 * dim)
      moment = (4.0 * s**2) ** (0.5 * beta) * np.exp(moment)
      for interaction in (0.5, 1.0):
        settings = (*times, churn, beta, interaction)
        own = _evaluate(
          statistics.self_consistency,
          (eps, x0[:, 0], x0, x0_null),
          np.zeros(num, np.float32),
          *settings,
          dim=dim,
        )
        pooled = _evaluate(
          statistics.marginal,
          (eps, x0, x0, x0_null),
          np.zeros((num, m), np.float32),
          *settings,
          dim=dim,
        )
        for losses, grad in (own, (pooled[0], np.sum(pooled[1], axis=1))):
          error = 5.0 * np.std(losses) / math.sqrt(num) + 1e-5 * moment
          expected = (1.0 - 0.5 * interaction) * moment
          self.assertLess(abs(np.mean(losses) - expected), error)
          if interaction == 1.0:
            self.assertLess(abs(np.mean(grad)), 5.0 * np.std(grad) / math.sqrt(num))


if __name__ == '__main__':
  absltest.main()
