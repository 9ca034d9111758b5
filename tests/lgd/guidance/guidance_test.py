"""Rules and the guidance network against their formulas."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized

from lgd import denoiser as denoiser_lib
from lgd import guidance
from lgd import sampling
from lgd import schedules
from lgd.guidance import network


class LinearTest(parameterized.TestCase):
  @parameterized.parameters((4, 3), (4, 5, 2, 2, 1))
  def test_formula(self, *shape):
    """The other convention, x0_null + (1 + omega) delta, in float64."""
    x0_cond, x0_null = jax.random.normal(jax.random.key(0), (2, *shape))
    omega = jnp.asarray([-0.7, 0.0, 0.5, 3.0])
    guided = guidance.linear(x0_cond, x0_null, omega)
    cond, null = np.float64(x0_cond), np.float64(x0_null)
    for i in range(4):
      scale = 1.0 + float(omega[i])
      expected = null[i] + scale * (cond[i] - null[i])
      np.testing.assert_allclose(guided[i], expected, rtol=1e-5, atol=1e-5)

  @parameterized.parameters(False, True)
  def test_omega_0_is_the_conditional_bit_for_bit(self, jit):
    x0_cond, x0_null = jax.random.normal(jax.random.key(0), (2, 64, 3))
    fn = jax.jit(guidance.linear) if jit else guidance.linear
    np.testing.assert_array_equal(fn(x0_cond, 1e4 * x0_null, jnp.zeros(64)), x0_cond)

  def test_omega_minus_1_is_the_null(self):
    x0_cond, x0_null = jax.random.normal(jax.random.key(0), (2, 4, 3))
    guided = guidance.linear(x0_cond, x0_null, -jnp.ones(4))
    np.testing.assert_allclose(guided, x0_null, atol=1e-6)


def _affine(params, xt, t, cond):
  """A denoiser in which every argument shows."""
  return params * xt + t[:, None] + 10.0 * cond[:, None]


PAIR = denoiser_lib.classifier_free(_affine, -1.0)


class GuidedTest(parameterized.TestCase):
  @parameterized.parameters(False, True)
  def test_guided(self, jit):
    """x0_cond + omega (x0_cond - x0_null) with omega(cond, s, t) = cond + s - 2 t."""

    def weight(cond, s, t):
      return cond + s - 2.0 * t

    def run(params, xt, s, t, cond):
      return guidance.guided(PAIR, params, weight)(xt, s, t, cond)

    xt = jax.random.normal(jax.random.key(0), (3, 2))
    s, t = jnp.asarray([0.0, 0.2, 0.5]), jnp.asarray([0.3, 0.6, 1.0])
    cond = jnp.asarray([0.0, 1.0, 2.0])
    out = (jax.jit(run) if jit else run)(0.5, xt, s, t, cond)
    for i in range(3):
      c, x = float(cond[i]), np.float64(xt[i])
      omega = c + float(s[i]) - 2.0 * float(t[i])
      x0_cond, x0_null = (0.5 * x + float(t[i]) + 10.0 * v for v in (c, -1.0))
      expected = x0_cond + omega * (x0_cond - x0_null)
      np.testing.assert_allclose(out[i], expected, rtol=1e-5, atol=1e-5)

  def test_rule_is_the_callers(self):
    out = guidance.guided(
      PAIR, 0.5, guidance.constant(2.0), rule=lambda c, n, omega: n
    )(jnp.ones((2, 1)), jnp.zeros(2), jnp.full(2, 0.5), jnp.ones(2))
    np.testing.assert_allclose(out, np.full((2, 1), 0.5 + 0.5 - 10.0))

  def test_unguided_is_the_conditional_without_gradient(self):
    args = jnp.ones((2, 1)), jnp.zeros(2), jnp.full(2, 0.5), jnp.ones(2)
    out = guidance.unguided(_affine, 0.5)(*args)
    np.testing.assert_allclose(out, np.full((2, 1), 11.0))
    grad = jax.grad(lambda p: jnp.sum(guidance.unguided(_affine, p)(*args)))(0.5)
    self.assertEqual(float(grad), 0.0)


class ProjectTest(parameterized.TestCase):
  def test_forward(self):
    u = jnp.asarray([-2.0, -0.0, 0.0, 3.0])
    np.testing.assert_array_equal(network.project(u), [0.0, 0.0, 0.0, 3.0])

  @parameterized.parameters(
    (2.0, 1.5, 1.5),  # Inside: the gradient passes,
    (2.0, -1.5, -1.5),  # in both directions.
    (-2.0, -1.5, -1.5),  # Outside: passes when descent raises u,
    (-2.0, 1.5, 0.0),  # and not when it would lower it further.
    (0.0, 1.5, 0.0),  # The boundary counts as outside.
    (0.0, -1.5, -1.5),
  )
  def test_backward(self, u, incoming, expected):
    for wrap in (lambda fn: fn, jax.jit):
      _, pullback = jax.vjp(wrap(network.project), jnp.float32(u))
      self.assertEqual(float(pullback(jnp.float32(incoming))[0]), expected)

  def _descend(self, fn, u, target, steps=300):
    grad = jax.jit(jax.grad(lambda u: (fn(u) - target) ** 2))
    for _ in range(steps):
      u = u - 0.05 * grad(u)
    return float(u)

  def test_cannot_die(self):
    """Descent on (omega - target)^2 from u = -3, where a ReLU stays for good."""
    self.assertEqual(self._descend(jax.nn.relu, jnp.float32(-3.0), 1.0), -3.0)
    self.assertAlmostEqual(
      self._descend(network.project, jnp.float32(-3.0), 1.0), 1.0, 4
    )

  def test_stays_at_the_constraint(self):
    """Target -1: from either side omega ends at 0, the constrained minimum."""
    for start in (2.0, -0.5):
      u = self._descend(network.project, jnp.float32(start), -1.0)
      self.assertEqual(float(network.project(u)), 0.0)
      self.assertGreater(u, -1.0)  # Not pushed down any further.


def _perturbed(net, *args):
  """Parameters moved off their initial values, so that no kernel is zero."""
  params = jax.jit(net.init)(jax.random.key(0), *args)
  leaves, treedef = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(1), len(leaves))
  moved = [
    x + 0.3 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)
  ]
  return jax.tree.unflatten(treedef, moved)


class GuidanceNetTest(parameterized.TestCase):
  def _net(self, schedule=None, **kwargs):
    embed = guidance.LabelEmbedding(num_classes=5, width=16)
    return guidance.GuidanceNet(
      schedule or schedules.RectifiedFlow(), embed, width=16, **kwargs
    )

  def test_starts_at_zero_and_can_leave(self):
    """omega = 0 exactly; a loss that wants omega > 0 has a gradient."""
    net = self._net()
    args = jnp.arange(5), jnp.full(5, 0.2), jnp.full(5, 0.6)
    params = jax.jit(net.init)(jax.random.key(0), *args)
    np.testing.assert_array_equal(net.apply(params, *args), np.zeros(5))
    grad = jax.grad(lambda p: -jnp.sum(net.apply(p, *args)))(params)
    np.testing.assert_allclose(grad['params']['out']['bias'], [-5.0])
    self.assertGreater(np.max(np.abs(grad['params']['out']['kernel'])), 0.0)

  @parameterized.product(
    schedule=(schedules.RectifiedFlow(), schedules.Cosine()), jit=(False, True)
  )
  def test_non_negative_and_finite_at_the_ends(self, schedule, jit):
    """All (s, t) of a grid with s = 0 and t = 1; values and gradients."""
    net = self._net(schedule)
    s, t = (a.ravel() for a in jnp.meshgrid(jnp.linspace(0, 0.9, 10), jnp.ones(5)))
    s = jnp.concatenate([s, jnp.zeros(50)])
    t = jnp.concatenate([t, jnp.linspace(0.02, 1.0, 50)])
    cond = jnp.arange(100) % 5
    params = _perturbed(net, cond, s, t)
    apply = jax.jit(net.apply) if jit else net.apply
    omega = apply(params, cond, s, t)
    self.assertEqual(omega.shape, (100,))
    self.assertTrue(np.all(np.isfinite(omega)))
    self.assertGreaterEqual(np.min(omega), 0.0)
    grad = jax.grad(lambda p: jnp.sum((apply(p, cond, s, t) - 1.0) ** 2))(params)
    self.assertTrue(all(np.all(np.isfinite(g)) for g in jax.tree.leaves(grad)))

  def test_some_outputs_are_clipped_and_some_are_not(self):
    """The constraint is at work over random networks: neither all 0 nor none."""
    net = self._net(depth=2)
    cond, s, t = jnp.arange(50) % 5, jnp.linspace(0, 0.8, 50), jnp.linspace(0.1, 1, 50)
    params = _perturbed(net, cond, s, t)
    params['params']['out']['bias'] = jnp.zeros(1)
    omega = [net.apply(params, cond, s, t)]
    kernel = params['params']['out']['kernel']
    params['params']['out']['kernel'] = -kernel
    omega.append(net.apply(params, cond, s, t))
    # u and -u: at most one of the two is positive.
    np.testing.assert_array_equal(np.minimum(*omega), np.zeros(50))
    self.assertGreater(np.max(omega), 0.0)

  def test_depends_on_cond_s_and_t(self):
    """Each input moves the output when the others are fixed; biased to u > 0."""
    net = self._net()
    cond = jnp.asarray([0, 3, 0, 0])
    s = jnp.asarray([0.2, 0.2, 0.4, 0.2])
    t = jnp.asarray([0.6, 0.6, 0.6, 0.8])
    params = _perturbed(net, cond, s, t)
    params['params']['out']['bias'] = jnp.full(1, 100.0)
    omega = net.apply(params, cond, s, t)
    self.assertGreater(np.min(np.abs(omega[1:] - omega[0])), 1e-4)
    # s and t have embeddings of their own: swapping them matters.
    swapped = net.apply(params, cond, t, s)
    self.assertGreater(abs(float(swapped[0] - omega[0])), 1e-4)

  def test_times_enter_through_clipped_logsnr(self):
    """Equal logsnr gives equal omega: times from the two schedules' inverses."""
    logsnr = np.asarray([-30.0, -12.0, -2.0, 0.0, 3.0, 12.0, 30.0])
    t_flow = jnp.asarray(1.0 / (1.0 + np.exp(logsnr / 2.0)), jnp.float32)
    t_cosine = jnp.asarray(2.0 / np.pi * np.arctan(np.exp(-logsnr / 2.0)), jnp.float32)
    cond = jnp.zeros(7, jnp.int32)
    flow, cosine = self._net(), self._net(schedules.Cosine())
    params = _perturbed(flow, cond, t_flow, t_flow)
    params['params']['out']['bias'] = jnp.full(1, 100.0)
    omega = flow.apply(params, cond, t_flow, t_flow)
    np.testing.assert_allclose(
      cosine.apply(params, cond, t_cosine, t_cosine), omega, rtol=1e-5
    )
    np.testing.assert_allclose(omega[0], omega[1], rtol=1e-5)  # -30 is clipped.
    np.testing.assert_allclose(omega[-1], omega[-2], rtol=1e-5)
    self.assertGreater(np.min(np.abs(np.diff(omega[1:-1]))), 1e-4)

  def test_vector_embedding(self):
    """Attributes or text embeddings as the condition; each coordinate matters."""
    net = guidance.GuidanceNet(
      schedules.Cosine(), guidance.VectorEmbedding(width=16), width=16, depth=3
    )
    cond = jnp.concatenate([jnp.zeros((1, 4)), jnp.eye(4)])
    s, t = jnp.full(5, 0.2), jnp.full(5, 0.6)
    params = _perturbed(net, cond, s, t)
    params['params']['out']['bias'] = jnp.full(1, 100.0)
    omega = net.apply(params, cond, s, t)
    self.assertEqual(omega.shape, (5,))
    self.assertGreater(np.min(np.abs(omega[1:] - omega[0])), 1e-4)

  @parameterized.parameters(1, 2, 6)
  def test_depth_counts_the_output_layer(self, depth):
    net = self._net(depth=depth)
    args = jnp.zeros(1, jnp.int32), jnp.zeros(1), jnp.ones(1)
    params = jax.jit(net.init)(jax.random.key(0), *args)['params']
    trunk = [name for name in params if name.startswith('trunk')]
    self.assertLen(trunk, depth - 1)
    self.assertEqual(params['out']['kernel'].shape, (16, 1))

  def test_tabulates_as_it_is_applied(self):
    """tabulate over the network equals one call per class and transition."""
    net = self._net(depth=2)
    times = sampling.time_grid(4)
    params = _perturbed(net, jnp.arange(5), jnp.zeros(5), jnp.ones(5))
    table = guidance.tabulate(
      functools.partial(net.apply, params), jnp.arange(5), times
    )
    for c in range(5):
      for i in range(4):
        omega = net.apply(
          params, jnp.asarray([c]), times[i + 1 : i + 2], times[i : i + 1]
        )
        np.testing.assert_allclose(table[c, i], omega[0], rtol=1e-5, atol=1e-6)


class TokenEmbeddingTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.embed = guidance.TokenEmbedding(vocab_size=9, width=4)
    self.tokens = jnp.array([[1, 5, 7, 2, 0, 0], [1, 8, 2, 0, 0, 0]])
    self.params = self.embed.init(jax.random.key(0), self.tokens)

  def test_is_the_projected_mean_of_what_is_no_padding(self):
    table = np.asarray(self.params['params']['table']['embedding'], np.float64)
    projection = self.params['params']['projection']
    for tokens, row in zip(([1, 5, 7, 2], [1, 8, 2]), self.tokens, strict=True):
      mean = jnp.asarray(np.mean(table[tokens], axis=0)[None], jnp.float32)
      expected = guidance.VectorEmbedding(4).apply({'params': projection}, mean)
      actual = self.embed.apply(self.params, row[None])
      np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)

  def test_no_prompt_is_finite(self):
    out = self.embed.apply(self.params, jnp.zeros((1, 6), jnp.int32))
    self.assertTrue(np.isfinite(out).all())


if __name__ == '__main__':
  absltest.main()
