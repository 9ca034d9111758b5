"""Shapes, the zero start, and what each input moves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import absltest
from absl.testing import parameterized

from lgd import conditions
from lgd import networks
from lgd.networks import unet

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

  def test_every_attribute_matters(self):
    """Every entry of a vector matters; and so does the null, a value of its own."""
    kinds = conditions.Attributes(4)
    nets = (
      (networks.ResidualMLP(num_classes=None, width=16, depth=2), (2,)),
      (networks.UNet(None, channels=8, multipliers=(1,), num_blocks=1), (4, 4, 1)),
    )
    cond = jnp.stack([kinds.zeros(1)[0], kinds.null, *jnp.eye(4)])
    for net, shape in nets:
      xt, t = jnp.ones((6, *shape)), jnp.full(6, 0.5)
      params = jax.jit(net.init)(jax.random.key(0), xt[:1], t[:1], kinds.zeros(1))
      out = np.asarray(jax.jit(net.apply)(_perturbed(params), xt, t, cond))
      distance = np.abs(out[:, None] - out[None]).reshape(6, 6, -1).max(axis=-1)
      self.assertGreater(distance[~np.eye(6, dtype=bool)].min(), 1e-4)

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

  @pytest.mark.slow
  def test_remat_changes_nothing(self):
    """Same parameters, outputs and gradients; and the activations are made again."""
    net = networks.UNet(4, 4, (1,), 1, attention_sizes=(4,), head_dim=4)
    args = _inputs((4, 4, 3))
    params = _perturbed(jax.jit(net.init)(jax.random.key(0), *args))
    results, programs = [], []
    for each in (net, net.clone(remat=True)):

      def loss(params, each=each):
        return jnp.sum(jnp.square(each.apply(params, *args)))

      results.append(jax.jit(jax.value_and_grad(loss))(params))
      programs.append(str(jax.make_jaxpr(jax.grad(loss))(params)))
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-4), *results
    )
    self.assertEqual(['remat' in program for program in programs], [False, True])

  @pytest.mark.slow
  def test_half_precision(self):
    """Parameters and output stay float32, the matrix products do not."""
    net = networks.UNet(4, 8, (1,), 1, attention_sizes=(4,), head_dim=4)
    half = net.clone(dtype=jnp.bfloat16)
    args = _inputs((4, 4, 3))
    params = _perturbed(jax.jit(half.init)(jax.random.key(0), *args))
    self.assertEqual({x.dtype for x in jax.tree.leaves(params)}, {jnp.dtype('float32')})
    exact, rounded = (
      jax.jit(net.apply)(params, *args),
      jax.jit(half.apply)(params, *args),
    )
    self.assertEqual(rounded.dtype, jnp.float32)
    error = np.linalg.norm(rounded - exact) / np.linalg.norm(exact)
    self.assertBetween(error, 1e-4, 0.03)
    program = str(jax.make_jaxpr(half.apply)(params, *args))
    convolutions = [
      line for line in program.split('\n') if 'conv_general_dilated[' in line
    ]
    self.assertLen(convolutions, 12)  # 4 blocks of 2, 2 skips, in and out.
    for line in convolutions:
      self.assertIn('bf16', line)
    # The softmax of attention: exponentials of float32.
    exponentials = [line for line in program.split('\n') if '= exp ' in line]
    self.assertNotEmpty(exponentials)
    for line in exponentials:
      self.assertIn('f32', line)

  def test_rotation_is_that_of_the_position(self):
    """Against rotation matrices, pair by pair in float64; lengths stay."""
    height, width, dim = 2, 3, 8
    x = np.random.default_rng(0).normal(size=(2, height * width, 1, dim))
    rotated = unet.rotate(jnp.asarray(x, jnp.float32), height, width)
    for position in range(height * width):
      row, column = divmod(position, width)
      for i in range(4):
        frequency = (1.0, 0.01)[i % 2]
        angle = (row if i < 2 else column) * frequency
        pair = x[:, position, 0, [i, i + 4]]
        matrix = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        np.testing.assert_allclose(
          rotated[:, position, 0, [i, i + 4]], pair @ np.transpose(matrix), atol=1e-6
        )

  def test_products_of_rotated_features_depend_on_the_shift_alone(self):
    """One query and key at every position: <q, k> at equal shifts is equal."""
    size = 5
    q, k = np.random.default_rng(1).normal(size=(2, 1, 1, 1, 12))
    q, k = (
      np.float64(unet.rotate(jnp.broadcast_to(v, (1, size**2, 1, 12)), size, size))
      for v in (q, k)
    )
    products = np.einsum('bihd,bjhd->ij', q, k).reshape(size, size, size, size)
    for shift in ((0, 0), (1, 0), (0, 2), (3, 1)):
      equal = [
        products[y, x, y + shift[0], x + shift[1]]
        for y in range(size - shift[0])
        for x in range(size - shift[1])
      ]
      np.testing.assert_allclose(equal, equal[0], atol=1e-5)
    self.assertGreater(np.ptp(products), 0.1)

  def test_the_recipe_of_the_paper_has_260_million_parameters(self):
    net = networks.UNet(1000, 192, (1, 2, 3, 4), 3, attention_sizes=(16, 8))
    args = (jnp.zeros((1, 64, 64, 3)), jnp.zeros(1), jnp.zeros(1, int))
    params = jax.eval_shape(net.init, jax.random.key(0), *args)
    total = sum(leaf.size for leaf in jax.tree.leaves(params))
    self.assertBetween(total, 250e6, 270e6)


if __name__ == '__main__':
  absltest.main()
