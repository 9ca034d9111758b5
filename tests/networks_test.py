"""Shapes, the zero start, and what each input moves."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized

from lgd import networks

SHAPES = ((8, 8, 1), (2,))


def _inputs(shape, n=5):
  xt = jax.random.normal(jax.random.key(0), (n, *shape))
  return xt, jnp.linspace(0.0, 1.0, n), jnp.arange(n)


def _perturbed(params):
  leaves, treedef = jax.tree.flatten(params)
  keys = jax.random.split(jax.random.key(7), len(leaves))
  moved = [
    x + 0.2 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)
  ]
  return jax.tree.unflatten(treedef, moved)


class ResidualMLPTest(parameterized.TestCase):
  @parameterized.product(shape=SHAPES, jit=(False, True))
  def test_starts_as_the_zero_function(self, shape, jit):
    """Exactly zero, of the shape of x_t; the null label 4 is accepted."""
    net = networks.ResidualMLP(num_classes=4, width=16, depth=2)
    args = _inputs(shape)
    params = jax.jit(net.init)(jax.random.key(0), *args)
    out = (jax.jit(net.apply) if jit else net.apply)(params, *args)
    np.testing.assert_array_equal(out, np.zeros((5, *shape)))

  @parameterized.parameters(*SHAPES)
  def test_zero_start_does_not_block_training(self, *shape):
    """The output layer has a gradient at once."""
    net = networks.ResidualMLP(num_classes=4, width=16, depth=2)
    args = _inputs(shape)
    params = jax.jit(net.init)(jax.random.key(0), *args)
    loss = jax.jit(lambda p: jnp.sum((net.apply(p, *args) - 1.0) ** 2))
    grad = jax.grad(loss)(params)
    self.assertGreater(np.max(np.abs(grad['params']['out']['kernel'])), 0.0)

  @parameterized.parameters(*SHAPES)
  def test_every_input_matters(self, *shape):
    """x_t, t (its two ends too), the label, and the null label."""
    net = networks.ResidualMLP(num_classes=4, width=16, depth=2)
    x = jax.random.normal(jax.random.key(0), shape)
    xt = jnp.stack([x, x + 0.1, x, x, x, x])
    t = jnp.asarray([0.0, 0.0, 1.0, 0.01, 0.0, 0.0])
    label = jnp.asarray([0, 0, 0, 0, 1, 4])
    params = _perturbed(jax.jit(net.init)(jax.random.key(0), xt, t, label))
    out = np.asarray(jax.jit(net.apply)(params, xt, t, label)).reshape(6, -1)
    self.assertTrue(np.all(np.isfinite(out)))
    for i in range(1, 6):
      self.assertGreater(np.max(np.abs(out[i] - out[0])), 1e-4, i)

  def test_rows_are_independent(self):
    """An element's output does not depend on the rest of the batch."""
    net = networks.ResidualMLP(num_classes=4, width=16, depth=2)
    args = _inputs((8, 8, 1))
    params = _perturbed(jax.jit(net.init)(jax.random.key(0), *args))
    apply = jax.jit(net.apply)
    whole = apply(params, *args)
    part = apply(params, *(a[3:4] for a in args))
    np.testing.assert_allclose(part, whole[3:4], rtol=1e-4, atol=1e-5)


class ClassifierTest(parameterized.TestCase):
  @parameterized.product(shape=SHAPES, jit=(False, True))
  def test_shapes(self, shape, jit):
    net = networks.Classifier(num_classes=4, width=16)
    x, _, _ = _inputs(shape)
    params = jax.jit(net.init)(jax.random.key(0), x)
    logits, features = (jax.jit(net.apply) if jit else net.apply)(params, x)
    self.assertEqual((logits.shape, features.shape), ((5, 4), (5, 16)))

  def test_logits_are_affine_in_the_features(self):
    """What the features are for: the logits are one matrix product away, in NumPy."""
    net = networks.Classifier(num_classes=4, width=16)
    x, _, _ = _inputs((8, 8, 1))
    params = _perturbed(jax.jit(net.init)(jax.random.key(0), x))
    logits, features = net.apply(params, x)
    head = params['params']['logits']
    expected = np.float64(features) @ np.float64(head['kernel']) + head['bias']
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-4)


class NoisyClassifierTest(absltest.TestCase):
  def test_time_and_data_matter(self):
    net = networks.NoisyClassifier(num_classes=3, width=8)
    xt, t, _ = _inputs((4, 4, 1))
    params = jax.jit(net.init)(jax.random.key(0), xt, t)
    logits, features = jax.jit(net.apply)(params, xt, t)
    self.assertEqual((logits.shape, features.shape), ((5, 3), (5, 8)))
    for changed in ((xt + 0.1, t), (xt, t[::-1])):
      other, _ = jax.jit(net.apply)(params, *changed)
      self.assertGreater(np.max(np.abs(other[0] - logits[0])), 1e-4)


class UNetTest(absltest.TestCase):
  def test_starts_as_the_zero_function_and_every_input_matters(self):
    net = networks.UNet(4, 4, (1, 2), 1, attention_sizes=(2,), head_dim=4)
    x = jax.random.normal(jax.random.key(0), (4, 4, 3))
    xt = jnp.stack([x, x.at[0, 0].add(0.5), x, x, x])
    t = jnp.asarray([0.3, 0.3, 0.9, 0.3, 0.3])
    label = jnp.asarray([0, 0, 0, 1, 4])
    params = jax.jit(net.init)(jax.random.key(0), xt, t, label)
    apply = jax.jit(net.apply)
    np.testing.assert_array_equal(apply(params, xt, t, label), np.zeros((5, 4, 4, 3)))
    out = np.asarray(apply(_perturbed(params), xt, t, label))
    self.assertTrue(np.all(np.isfinite(out)))
    for i in range(1, 5):
      self.assertGreater(np.max(np.abs(out[i] - out[0])), 1e-4, i)
    # Attention carries a change of one corner to the other.
    self.assertGreater(np.max(np.abs(out[1] - out[0])[-1, -1]), 1e-7)

  def test_the_recipe_of_the_paper_has_260_million_parameters(self):
    net = networks.UNet(1000, 192, (1, 2, 3, 4), 3, attention_sizes=(16, 8))
    args = (jnp.zeros((1, 64, 64, 3)), jnp.zeros(1), jnp.zeros(1, int))
    params = jax.eval_shape(net.init, jax.random.key(0), *args)
    total = sum(leaf.size for leaf in jax.tree.leaves(params))
    self.assertBetween(total, 250e6, 270e6)


if __name__ == '__main__':
  absltest.main()
