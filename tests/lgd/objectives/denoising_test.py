"""The reweighted denoising loss: whose minimiser it is, on an exact mixture.

With J = 1 / p(c | x_0) the reweighted denoiser is the null one. The classes overlap and
every component has the same variance, so J has moments of all orders.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized

from lgd import noising
from lgd import objectives
from lgd import schedules
from lgd.data import mixtures

SCHEDULE = schedules.RectifiedFlow()
DENOISER = jax.jit(mixtures.denoiser(SCHEDULE))
VARIANCE = 0.5
MEANS = np.asarray([[-0.8, -0.3], [0.0, 0.4], [0.3, 0.9]])
WEIGHTS = np.asarray([[0.3, 0.7], [0.5, 0.5], [0.6, 0.4]])
MIXTURE = mixtures.Mixture(
  means=jnp.asarray(MEANS, jnp.float32)[..., None],
  variances=jnp.full((3, 2), VARIANCE),
  log_weights=jnp.log(jnp.asarray(WEIGHTS, jnp.float32)),
)


@jax.jit
def _importance(x0, label):
  """1 / p(label | x_0) = 3 p(x_0) / p(x_0 | label), of `[batch, 1]` data."""
  zero = jnp.zeros(x0.shape[0])
  log_null, log_cond = (
    mixtures.log_density(MIXTURE, SCHEDULE, x0, zero, c)
    for c in (jnp.full_like(label, 3), label)
  )
  return 3.0 * jnp.exp(log_null - log_cond)


@functools.partial(jax.jit, static_argnames='prediction')
def _offset_gradients(keys, weighted, at_null, prediction):
  """Gradients of an offset's loss, per bin of (c, t, x_t): `[keys, 3, 4, 6]`."""

  def apply(offset, xt, t, label):
    seen = jnp.where(at_null, 3, label)
    x0_hat = DENOISER(MIXTURE, xt, t, seen)
    network = noising.from_x0(SCHEDULE, x0_hat, xt, jnp.maximum(t, 1e-3), prediction)
    x_bin = jnp.clip(xt[:, 0] + 3.0, 0.0, 5.0).astype(int)
    return network + offset[label, (4.0 * t).astype(int), x_bin][:, None]

  def loss(offset, key):
    key_label, key_x0, key_loss = jax.random.split(key, 3)
    label = jax.random.randint(key_label, (2000,), 0, 3)
    x0 = mixtures.sample(key_x0, MIXTURE, label)
    losses = objectives.denoising(
      key_loss,
      apply,
      offset,
      SCHEDULE,
      x0,
      label,
      3,
      dropout=0.0,
      prediction=prediction,
      importance=jnp.where(weighted, _importance(x0, label), 1.0),
    )
    return jnp.mean(losses)

  return jax.lax.map(lambda key: jax.grad(loss)(jnp.zeros((3, 4, 6)), key), keys)


class ImportanceTest(parameterized.TestCase):
  @parameterized.product(label=(0, 1, 2), t=(0.1, 0.5, 0.9))
  def test_reweighted_denoiser_is_the_null_one(self, label, t):
    """E[J x_0 | x_t, c] / E[J | x_t, c] by quadrature in float64; not so without J."""
    x0 = np.linspace(-8.0, 8.0, 4001)
    importance = np.float64(
      _importance(jnp.asarray(x0[:, None], jnp.float32), jnp.full(4001, label))
    )
    density = sum(
      w * np.exp(-0.5 * (x0 - m) ** 2 / VARIANCE)
      for w, m in zip(WEIGHTS[label], MEANS[label], strict=True)
    )
    xt = np.linspace(-2.0, 2.0, 9)
    likelihood = np.exp(-0.5 * ((xt[:, None] - (1.0 - t) * x0) / t) ** 2)

    def mean(weight):
      joint = likelihood * density * weight
      return np.sum(joint * x0, axis=1) / np.sum(joint, axis=1)

    args = MIXTURE, jnp.asarray(xt[:, None]), jnp.full(9, t)
    x0_null, x0_cond = (DENOISER(*args, jnp.full(9, c))[:, 0] for c in (3, label))
    np.testing.assert_allclose(mean(importance), x0_null, atol=2e-5)
    np.testing.assert_allclose(mean(np.ones_like(x0)), x0_cond, atol=2e-5)
    self.assertGreater(np.max(np.abs(x0_cond - x0_null)), 1e-3)

  @parameterized.product(
    case=((False, 'x0'), (True, 'x0'), (True, 'velocity')), at_null=(False, True)
  )
  def test_minimiser(self, case, at_null):
    """With J the gradient vanishes at the null denoiser, without at the conditional.

    Its mean over 150 batches is within 5 standard errors of 0 in every one of 72 bins
    of (c, t, x_t), or else 20 off in some.
    """
    weighted, prediction = case
    keys = jax.random.split(jax.random.key(0), 150)
    grads = np.float64(_offset_gradients(keys, weighted, at_null, prediction))
    t_statistic = np.mean(grads, axis=0) / (np.std(grads, axis=0) / np.sqrt(149.0))
    self.assertTrue(np.all(np.std(grads, axis=0) > 0.0))
    if weighted == at_null:
      self.assertLess(np.max(np.abs(t_statistic)), 5.0)
    else:
      self.assertGreater(np.max(np.abs(t_statistic)), 20.0)

  @parameterized.parameters(None, 1.0)
  def test_weights_each_loss(self, sigmoid_bias):
    """J times the loss without it, whatever else weights that."""
    x0, importance = jnp.arange(6.0)[:, None], jnp.asarray([0.5, 2, 1, 3, 0, 1])

    def losses(importance):
      return objectives.denoising(
        jax.random.key(0),
        lambda params, xt, t, label: jnp.zeros_like(xt),
        None,
        SCHEDULE,
        x0,
        jnp.zeros(6, int),
        3,
        dropout=0.1,
        prediction='x0',
        sigmoid_bias=sigmoid_bias,
        importance=importance,
      )

    expected = np.float64(importance) * np.float64(losses(None))
    np.testing.assert_allclose(losses(importance), expected, rtol=1e-6)
    with self.assertRaisesRegex(ValueError, r'importance.shape=\(6, 1\).*\(6,\)'):
      losses(importance[:, None])


if __name__ == '__main__':
  absltest.main()
