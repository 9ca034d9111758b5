"""The denoiser pair: order, gradient, and the count of evaluations."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized

from lgd import denoiser
from lgd import noising
from lgd import schedules


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

  @parameterized.parameters(False, True)
  def test_pair_is_the_two_calls(self, jit):
    """Against the toy formula in NumPy, with a pytree condition."""
    params, xt, t, cond, null_cond = _arguments()
    fn = jax.jit(denoiser.pair, static_argnums=0) if jit else denoiser.pair
    x0_cond, x0_null = fn(_toy, params, xt, t, cond, null_cond)
    x, time = np.asarray(xt), np.asarray(t)
    for i in range(4):
      expected = (3.0 * time[i] + i) * x[i] + 5.0
      np.testing.assert_allclose(x0_cond[i], expected, rtol=1e-6)
      np.testing.assert_allclose(x0_null[i], (3.0 * time[i] + 7) * x[i], rtol=1e-6)

  def test_gradient_is_stopped(self):
    """Exactly zero towards the parameters and towards xt."""
    params, xt, t, cond, null_cond = _arguments()

    def loss(params, xt):
      x0_cond, x0_null = denoiser.pair(_toy, params, xt, t, cond, null_cond)
      return jnp.sum(x0_cond**2) + jnp.sum(x0_null**3)

    grad = jax.grad(loss, argnums=(0, 1))(params, xt)
    for leaf in jax.tree.leaves(grad):
      np.testing.assert_array_equal(leaf, np.zeros(leaf.shape))

  @parameterized.parameters(False, True)
  def test_counter_sees_one_call_of_twice_the_batch(self, jit):
    params, xt, t, cond, null_cond = _arguments()
    counter = denoiser.EvaluationCounter()
    counted = counter.wrap(_toy)
    fn = jax.jit(denoiser.pair, static_argnums=0) if jit else denoiser.pair
    pair = fn(counted, params, xt, t, cond, null_cond)
    jax.effects_barrier()
    self.assertEqual(counter.count, 8)
    expected = denoiser.pair(_toy, params, xt, t, cond, null_cond)
    np.testing.assert_allclose(pair, expected, rtol=1e-6)
    fn(counted, params, xt, t, cond, null_cond)
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


if __name__ == '__main__':
  absltest.main()
