"""Pairs of predictions: order, direction, gradient, and the count of evaluations."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized

from lgd import denoiser
from lgd import guidance
from lgd import noising
from lgd import objectives
from lgd import sampling
from lgd import schedules
from lgd import statistics


def _toy(params, xt, t, cond):
  """A denoiser in which every argument can be told apart; data `[batch, 2, 3]`."""
  scale = (params['scale'] * t + cond['label'])[:, None, None]
  return scale * xt + jnp.sum(cond['text'], axis=-1)[:, None, None]


def _arguments():
  xt = jax.random.normal(jax.random.key(0), (4, 2, 3))
  t = jnp.linspace(0.1, 0.9, 4)
  cond = {'label': jnp.arange(4), 'text': jnp.ones((4, 5))}
  null_cond = {'label': 7, 'text': np.zeros(5)}
  return {'scale': jnp.float32(3.0)}, xt, t, cond, null_cond


class DenoiserTest(parameterized.TestCase):
  @parameterized.product(
    kind=noising.PREDICTIONS, schedule=(schedules.RectifiedFlow(), schedules.Cosine())
  )
  def test_from_network(self, kind, schedule):
    """A network that outputs the true target denoises exactly, whatever it predicts."""
    x0, eps = jax.random.normal(jax.random.key(0), (2, 5, 3))
    t = jnp.linspace(0.1, 0.9, 5)
    xt = noising.add_noise(schedule, x0, eps, t)

    def apply(params, xt, t, cond):
      del xt, cond
      return params * noising.target(schedule, x0, eps, t, kind)

    denoise = denoiser.from_network(apply, schedule, kind)
    np.testing.assert_allclose(denoise(1.0, xt, t, None), x0, atol=1e-5)

  def test_gradient_is_stopped(self):
    """Exactly zero towards the parameters and towards xt."""
    params, xt, t, cond, null_cond = _arguments()

    def loss(params, xt):
      x0_cond, x0_null = denoiser.classifier_free(_toy, null_cond)(params, xt, t, cond)
      return jnp.sum(x0_cond**2) + jnp.sum(x0_null**3)

    grad = jax.grad(loss, argnums=(0, 1))(params, xt)
    for leaf in jax.tree.leaves(grad):
      np.testing.assert_array_equal(leaf, np.zeros(leaf.shape))

  @parameterized.parameters(False, True)
  def test_counter_sees_one_call_of_twice_the_batch(self, jit):
    params, xt, t, cond, null_cond = _arguments()
    counter = denoiser.EvaluationCounter()
    counted = counter.wrap(_toy)
    fn = denoiser.classifier_free(counted, null_cond).both
    fn = jax.jit(fn) if jit else fn
    pair = fn(params, xt, t, cond)
    jax.effects_barrier()
    self.assertEqual(counter.count, 8)
    expected = denoiser.classifier_free(_toy, null_cond)(params, xt, t, cond)
    np.testing.assert_allclose(pair, expected, rtol=1e-6)
    fn(params, xt, t, cond)
    jax.effects_barrier()
    self.assertEqual(counter.count, 16)  # A second run of a compiled program counts.

  def test_counter_counts_only_executed_branches(self):
    params, xt, t, cond, _ = _arguments()
    counter = denoiser.EvaluationCounter()
    counted = counter.wrap(_toy)

    @jax.jit
    def run(flag):
      return jax.lax.cond(
        flag, lambda: counted(params, xt, t, cond), lambda: jnp.zeros_like(xt)
      )

    run(False)
    jax.effects_barrier()
    self.assertEqual(counter.count, 0)
    run(True)
    jax.effects_barrier()
    self.assertEqual(counter.count, 4)


def _gaussian(variance, xt, t, cond):
  """E[x_0 | x_t] for N(cond, variance) data on the rectified flow."""
  alpha, cond = 1.0 - t[:, None], cond[:, None]
  gain = alpha * variance / (alpha**2 * variance + t[:, None] ** 2)
  return cond + gain * (xt - alpha * cond)


class PairTest(parameterized.TestCase):
  @parameterized.parameters(False, True)
  def test_classifier_free_is_the_two_calls(self, jit):
    """Against the toy formula in NumPy, with a pytree condition."""
    params, xt, t, cond, null_cond = _arguments()
    fn = denoiser.classifier_free(_toy, null_cond)
    x0_cond, x0_null = (jax.jit(fn.both) if jit else fn)(params, xt, t, cond)
    np.testing.assert_allclose(fn.conditional(params, xt, t, cond), x0_cond, rtol=1e-6)
    np.testing.assert_allclose(
      fn.null(params, xt, t, cond, x0_cond), x0_null, rtol=1e-6
    )
    x, time = np.asarray(xt), np.asarray(t)
    for i in range(4):
      expected = (3.0 * time[i] + i) * x[i] + 5.0
      np.testing.assert_allclose(x0_cond[i], expected, rtol=1e-6)
      np.testing.assert_allclose(x0_null[i], (3.0 * time[i] + 7) * x[i], rtol=1e-6)

  @parameterized.parameters(False, True)
  def test_autoguidance_is_the_product_of_densities(self, jit):
    """p_strong^w / p_weak^(w - 1), w = 1 + omega, of Gaussians N(m, v): Tweedie.

    Its score at x_t is -(w / V_strong - (w - 1) / V_weak) (x_t - alpha m), where V =
    alpha^2 v + sigma^2; the guided prediction is (x_t + sigma^2 score) / alpha.
    """
    v_strong, v_weak, w = 0.25, 0.5, 2.5
    xt = jax.random.normal(jax.random.key(0), (5, 3))
    t, cond = jnp.linspace(0.1, 0.9, 5), jnp.linspace(-1.0, 2.0, 5)
    fn = denoiser.autoguidance(_gaussian, _gaussian)
    pair = (jax.jit(fn) if jit else fn)((v_strong, v_weak), xt, t, cond)
    guided = guidance.linear(*pair, jnp.full(5, w - 1.0))
    for i in range(5):
      sigma = float(t[i])
      alpha = 1.0 - sigma
      x, mean = np.float64(xt[i]), alpha * float(cond[i])
      precision = w / (alpha**2 * v_strong + sigma**2) - (w - 1.0) / (
        alpha**2 * v_weak + sigma**2
      )
      expected = (x - sigma**2 * precision * (x - mean)) / alpha
      np.testing.assert_allclose(guided[i], expected, rtol=1e-4, atol=1e-5)

  def test_autoguidance_takes_two_kinds_of_parameters(self):
    """Each network gets its own, here of different structure."""
    params, xt, t, cond, _ = _arguments()
    fn = denoiser.autoguidance(_toy, lambda offset, xt, t, cond: xt + offset)
    x0_strong, x0_weak = fn((params, jnp.float32(2.0)), xt, t, cond)
    np.testing.assert_array_equal(x0_strong, _toy(params, xt, t, cond))
    np.testing.assert_array_equal(x0_weak, xt + 2.0)

  def test_gradient_of_autoguidance_is_stopped(self):
    """Exactly zero towards both networks' parameters and towards xt."""
    params, xt, t, cond, _ = _arguments()
    fn = denoiser.autoguidance(_toy, _toy)

    def loss(params, xt):
      x0_strong, x0_weak = fn(params, xt, t, cond)
      return jnp.sum(x0_strong**2) + jnp.sum(x0_weak**3)

    grad = jax.grad(loss, argnums=(0, 1))((params, params), xt)
    for leaf in jax.tree.leaves(grad):
      np.testing.assert_array_equal(leaf, np.zeros(leaf.shape))

  def test_autoguidance_costs_one_evaluation_of_each(self):
    """In a jitted sampler of 7 transitions and 3 samples."""
    strong, weak = denoiser.EvaluationCounter(), denoiser.EvaluationCounter()
    pair = denoiser.autoguidance(strong.wrap(_gaussian), weak.wrap(_gaussian))

    @jax.jit
    def run(key, params):
      def denoise(xt, s, t, cond):
        return guidance.linear(*pair(params, xt, t, cond), 0.5 + 0.0 * s)

      return sampling.sample(
        key,
        denoise,
        schedules.RectifiedFlow(),
        jnp.arange(3.0),
        (3, 1),
        num_steps=7,
        churn=0.0,
      )

    jax.block_until_ready(run(jax.random.key(0), (0.25, 0.5)))
    self.assertEqual((strong.count, weak.count), (7 * 3, 7 * 3))


class NullTest(absltest.TestCase):
  def test_a_value_that_conditions_cannot_hold(self):
    """Half an attribute among integers would be none."""
    pair = denoiser.classifier_free(lambda p, xt, t, cond: xt, np.full(2, 0.5))
    args = None, jnp.ones((3, 1)), jnp.ones(3), jnp.ones((3, 2), int)
    with self.assertRaisesRegex(ValueError, 'int32 cannot hold it.*as float64'):
      pair(*args)

  def test_labels_of_any_type_that_holds_it(self):
    """A null label of 10 fits a byte, though Python's integers are longer; 300 not."""
    for dtype in (np.uint8, np.int16, np.int32, np.float32):
      pair = denoiser.classifier_free(lambda p, xt, t, cond: cond[:, None] * xt, 10)
      both = pair(None, jnp.ones((3, 1)), jnp.ones(3), jnp.arange(3).astype(dtype))
      np.testing.assert_array_equal(both[0][:, 0], [0, 1, 2])
      np.testing.assert_array_equal(both[1][:, 0], [10, 10, 10])
    pair = denoiser.classifier_free(lambda p, xt, t, cond: xt, 300)
    with self.assertRaisesRegex(ValueError, 'null_cond=300: .*uint8 cannot hold it'):
      pair(None, jnp.ones((3, 1)), jnp.ones(3), jnp.ones(3, np.uint8))


class ClipTest(absltest.TestCase):
  def test_predictions_of_eps_near_1(self):
    """An error of .1 in eps is one of 9.9 in x_0 at t = .99: clipped to [-1, 1].

    Where it is inside, nothing changes.
    """
    schedule, x0 = schedules.RectifiedFlow(), jnp.array([[0.3], [-0.4]])
    t, eps = jnp.array([0.99, 0.2]), jnp.array([[1.0], [-1.0]])
    xt = noising.add_noise(schedule, x0, eps, t)

    def apply(params, xt, t, cond):
      return eps - 0.1

    plain, clipped = (
      denoiser.from_network(apply, schedule, 'eps', clip=clip)(None, xt, t, None)
      for clip in (None, 1.0)
    )
    np.testing.assert_allclose(plain[:, 0], [0.3 + 9.9, -0.4 + 0.025], rtol=1e-3)
    np.testing.assert_allclose(clipped[:, 0], [1.0, -0.375], rtol=1e-3)
    for settings, message in (
      ({'prediction': 'v_prediction'}, "prediction='v_prediction': must be one of"),
      ({'prediction': 'eps', 'clip': 0.0}, 'clip=0.0: must be above 0'),
    ):
      with self.assertRaisesRegex(ValueError, message):
        denoiser.from_network(apply, schedule, **settings)


class SeveralTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    strong, weak = ((lambda p, xt, t, c, b=b: p * xt + b * c[:, None]) for b in (1, 2))
    self.counter = denoiser.EvaluationCounter()
    strong, weak = self.counter.wrap(strong), self.counter.wrap(weak)
    self.pair = denoiser.several(
      denoiser.classifier_free(strong, -1.0), denoiser.autoguidance(strong, weak)
    )
    self.params = 0.5, (0.5, 0.25)
    self.t, self.cond = jnp.full(4, 0.5), jnp.arange(4.0)
    self.xt = jax.random.normal(jax.random.key(0), (4, 3))

  def expected(self):
    """The conditional prediction, and those of the null condition and the weak one."""
    xt, cond = np.float64(self.xt), np.arange(4.0)[:, None]
    return 0.5 * xt + cond, 0.5 * xt - 1.0, 0.25 * xt + 2.0 * cond

  def test_guides_along_each(self):
    omega = jnp.asarray([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0], [0.7, -0.3]])
    s = jnp.zeros(4)
    weight = lambda cond, s, t: omega  # noqa: E731
    args = self.xt, s, self.t, self.cond
    c, u, v = self.expected()
    w = np.float64(omega)[:, :, None]
    expected = c + w[:, 0] * (c - u) + w[:, 1] * (c - v)
    for space in ('x0', 'velocity'):
      settings = {'space': space, 'schedule': schedules.RectifiedFlow()}
      denoise = jax.jit(guidance.guided(self.pair, self.params, weight, **settings))
      np.testing.assert_allclose(denoise(*args), expected, rtol=1e-4, atol=1e-5)
    self.assertEqual(self.counter.count, 2 * 3 * 4)  # Three evaluations a sample.

  def test_statistics_find_the_best_weights(self):
    """Score matching in two directions: least squares over all particles, in float64.

    Its gradient, from the Gram matrix, is 0 there for weights that all data share.
    """
    x0 = jax.random.normal(jax.random.key(1), (4, 3))
    flow = schedules.RectifiedFlow()
    predictions = objectives.predict(
      *(jax.random.key(2), self.pair, self.params, flow, x0, self.cond, self.t),
      num_particles=5,
    )
    gram = statistics.gram(predictions.eps, x0, *predictions[2:])
    self.assertEqual(gram.shape, (4, 20, 20))
    cond, (null, weak) = np.float64(predictions.x0_cond), predictions.x0_null
    columns = [(cond - np.float64(other)).ravel() for other in (null, weak)]
    residual = (np.float64(x0)[:, None] - cond).ravel()
    best, *_ = np.linalg.lstsq(np.stack(columns, axis=1), residual, rcond=None)

    def loss(omega):
      shared = jnp.broadcast_to(omega, (4, 2))
      return statistics.score_matching(gram, shared).mean()

    grad = jax.grad(loss)
    scale = np.abs(grad(jnp.zeros(2))).max()
    np.testing.assert_allclose(grad(jnp.asarray(best)) / scale, np.zeros(2), atol=1e-4)

  def test_a_network_has_a_weight_for_each(self):
    embed = guidance.VectorEmbedding(width=8)
    flow = schedules.RectifiedFlow()
    net = guidance.GuidanceNet(flow, embed, width=8, depth=2, num_directions=2)
    args = jnp.ones((4, 3)), jnp.full(4, 0.2), self.t
    params = jax.tree.map(lambda p: p + 0.1, net.init(jax.random.key(0), *args))
    omega = net.apply(params, *args)
    self.assertEqual(omega.shape, (4, 2))
    self.assertTrue(np.all(omega > 0.0))


if __name__ == '__main__':
  absltest.main()
