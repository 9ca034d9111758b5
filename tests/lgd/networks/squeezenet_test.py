"""SqueezeNet v1.1 against its layers in NumPy float64, and its weights' file."""

import importlib.util
import pathlib
import unittest
from unittest import mock

import chex
import jax
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized

from lgd import errors
from lgd import metrics
from lgd.networks import published
from tests.lgd.networks import reference_layers

# Squeezed and expanded channels of fire2 to fire9, and what pools follow them.
FIRES = ((16, 64), (16, 64), (32, 128), (32, 128), (48, 192), (48, 192), (64, 256),
         (64, 256))  # fmt: skip
POOLED = (3, 5)


def _layers(seed=0):
  """Random arrays as the published file has them, by layer."""
  rng = np.random.default_rng(seed)

  def layer(size, fan_in, out):
    shape = (size, size, fan_in, out)
    kernel = rng.normal(size=shape) * (2.0 / (size**2 * fan_in)) ** 0.5
    return [np.float32(0.1 * rng.normal(size=out)), np.float32(kernel)]

  layers = {'conv1': layer(3, 3, 64)}
  fan_in = 64
  for i, (squeezed, expanded) in enumerate(FIRES, start=2):
    layers[f'fire{i}/squeeze1x1'] = layer(1, fan_in, squeezed)
    layers[f'fire{i}/expand1x1'] = layer(1, squeezed, expanded)
    layers[f'fire{i}/expand3x3'] = layer(3, squeezed, expanded)
    fan_in = 2 * expanded
  return layers


def _reference(layers, images):
  """Float64 features of `[batch, h, w, 3]` images of the size that needs no resize."""
  mean = {'blue': 103.939, 'green': 116.779, 'red': 123.68}
  red, green, blue = np.moveaxis(np.float64(images), -1, 0)
  x = np.stack([blue - mean['blue'], green - mean['green'], red - mean['red']], axis=1)

  def conv(name, x, stride=1, pad=0):
    bias, kernel = layers[name]
    kernel = kernel.transpose(3, 2, 0, 1)
    x = reference_layers.conv(x, kernel, stride, (pad, pad))
    return np.maximum(x + np.float64(bias)[:, None, None], 0.0)

  x = reference_layers.max_pool(conv('conv1', x, stride=2), 2)
  for i in range(2, 10):
    x = conv(f'fire{i}/squeeze1x1', x)
    one, three = conv(f'fire{i}/expand1x1', x), conv(f'fire{i}/expand3x3', x, pad=1)
    x = np.concatenate([one, three], axis=1)
    if i in POOLED:
      x = reference_layers.max_pool(x, 2)
  return x.mean(axis=(2, 3))


class SqueezeNetTest(parameterized.TestCase):
  def test_matches_the_reference_from_image_to_features(self):
    """Every array, the order of channels, the means; batches of 2 for 3 images."""
    layers = _layers()
    images = np.random.default_rng(1).integers(0, 256, (3, 128, 128, 3), dtype=np.uint8)
    expected = _reference(layers, images)
    extractor = metrics.squeezenet(published.squeezenet.from_keras(layers))
    out = metrics.extract(extractor, images, batch_size=2)
    self.assertIsNone(out.log_prob)
    self.assertEqual(out.features.shape, (3, 512))
    scale = np.max(np.abs(expected))
    np.testing.assert_allclose(out.features, expected, rtol=0, atol=1e-5 * scale)

  def test_is_small_and_called_a_proxy(self):
    """1,235,496 parameters are published, 513 for each of 1000 classes."""
    params = published.squeezenet.from_keras(_layers())
    total = sum(leaf.size for leaf in jax.tree.leaves(params))
    self.assertEqual(total, 1_235_496 - 513 * 1000)
    name = metrics.squeezenet(params).distance_name
    self.assertIn('proxy', name)
    self.assertNotIn('fid', name)

  @parameterized.parameters(
    ('missing', 'has no array fire4/squeeze1x1/bias'),
    ('extra', 'has an array conv10/bias'),
    ('misshapen', r'fire4/squeeze1x1/kernel is float32 \(1, 1, 32, 128\)'),
  )
  def test_names_what_is_wrong(self, what, message):
    layers = _layers()
    bias, kernel = layers['fire4/squeeze1x1']
    if what == 'missing':
      layers['fire4/squeeze1x1'] = [kernel]
    elif what == 'extra':
      layers['conv10'] = _layers()['conv1']
    else:
      layers['fire4/squeeze1x1'] = [bias, kernel.swapaxes(2, 3)]
    with self.assertRaisesRegex(errors.FileError, message):
      published.squeezenet.from_keras(layers)

  def test_errors_of_the_file(self):
    with self.assertRaisesRegex(errors.FileError, 'none.h5: no such file'):
      published.squeezenet.load('none.h5')
    path = self.create_tempfile('weights.h5', 'not HDF5').full_path
    with self.assertRaisesRegex(errors.FileError, 'sha256 starts with'):
      published.squeezenet.load(path, sha256='0' * 64)
    missing = mock.Mock(spec=[])
    type(missing).File = mock.PropertyMock(side_effect=ImportError)
    with mock.patch.object(published.squeezenet, 'h5py', missing):
      with self.assertRaisesRegex(ImportError, 'pip install -r requirements-weights'):
        published.squeezenet.load(path)

  @unittest.skipUnless(importlib.util.find_spec('h5py'), 'h5py is optional')
  def test_file(self):
    """As Keras wrote it: layers in groups of their names, arrays by other names."""
    import h5py  # noqa: PLC0415

    layers = _layers()
    path = pathlib.Path(self.create_tempdir()) / 'weights.h5'
    with h5py.File(path, 'w') as f:
      for i, (name, (bias, kernel)) in enumerate(layers.items()):
        f[f'{name}/{name}_b'] = bias
        f[f'{name}/uniform{i + 1}'] = kernel
        f.create_group(f'{name.replace("/", "/relu_")}_no_weights')
    actual = published.squeezenet.load(path)
    expected = published.squeezenet.from_keras(layers)
    chex.assert_trees_all_equal(actual, expected)
    path.write_bytes(path.read_bytes()[:1000])
    with self.assertRaisesRegex(errors.FileError, 'is cut short'):
      published.squeezenet.load(path)


if __name__ == '__main__':
  absltest.main()
