"""InceptionV3 against the published architecture in NumPy float64, under its names.

The reference below is written after torch-fidelity's PyTorch code: names, kernels and
paddings of its modules, arrays in its layout. `experiments/inception_parity.py` runs
that code itself.
"""

import functools
import io
import pathlib
import tempfile
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized

from experiments import convert_inception
from lgd import errors
from lgd import metrics
from lgd import networks
from lgd.networks import published
from lgd.storage import files
from tests.lgd.networks import reference_layers as layers


class _Reference:
  """The forward pass of PyTorch's module; draws each array when it is first used."""

  def __init__(self, seed):
    self._rng = np.random.default_rng(seed)
    self.state = {}
    self.shapes = {}  # Of what each block returns: channels, height, width.

  def __call__(self, x):
    """`x [batch, 3, height, width]` -> features, logits without and with bias."""
    x = self._conv('Conv2d_1a_3x3', x, 32, 3, stride=2)
    x = self._conv('Conv2d_2a_3x3', x, 32, 3)
    x = self._conv('Conv2d_2b_3x3', x, 64, 3, pad=1)
    x = layers.max_pool(x, 2)
    x = self._conv('Conv2d_3b_1x1', x, 80, 1)
    x = self._conv('Conv2d_4a_3x3', x, 192, 3)
    x = layers.max_pool(x, 2)
    self.shapes['stem'] = x.shape[1:]
    for name, pool_features in (('5b', 32), ('5c', 64), ('5d', 64)):
      x = self._block(name, self._a, x, pool_features)
    x = self._block('6a', self._b, x)
    for name, width in (('6b', 128), ('6c', 160), ('6d', 160), ('6e', 192)):
      x = self._block(name, self._c, x, width)
    x = self._block('7a', self._d, x)
    x = self._block('7b', self._e, x, layers.mean_pool)
    x = self._block('7c', self._e, x, lambda x: layers.max_pool(x, 1, 1))
    features = x.mean(axis=(2, 3))
    weight = self._array('fc.weight', (1008, 2048), 0.02)
    bias = self._array('fc.bias', (1008,), 1.0)
    return features, features @ np.float64(weight).T + bias

  def _a(self, conv, x, pool_features):
    five = conv('branch5x5_2', conv('branch5x5_1', x, 48, 1), 64, 5, pad=2)
    three = conv('branch3x3dbl_2', conv('branch3x3dbl_1', x, 64, 1), 96, 3, pad=1)
    return (
      conv('branch1x1', x, 64, 1),
      five,
      conv('branch3x3dbl_3', three, 96, 3, pad=1),
      conv('branch_pool', layers.mean_pool(x), pool_features, 1),
    )

  def _b(self, conv, x):
    three = conv('branch3x3dbl_2', conv('branch3x3dbl_1', x, 64, 1), 96, 3, pad=1)
    return (
      conv('branch3x3', x, 384, 3, stride=2),
      conv('branch3x3dbl_3', three, 96, 3, stride=2),
      layers.max_pool(x, 2),
    )

  def _c(self, conv, x, width):
    row, column = {'kernel': (1, 7), 'pad': (0, 3)}, {'kernel': (7, 1), 'pad': (3, 0)}
    one = conv('branch7x7_1', x, width, 1)
    one = conv('branch7x7_2', one, width, **row)
    one = conv('branch7x7_3', one, 192, **column)
    two = conv('branch7x7dbl_1', x, width, 1)
    two = conv('branch7x7dbl_2', two, width, **column)
    two = conv('branch7x7dbl_3', two, width, **row)
    two = conv('branch7x7dbl_4', two, width, **column)
    two = conv('branch7x7dbl_5', two, 192, **row)
    pool = conv('branch_pool', layers.mean_pool(x), 192, 1)
    return conv('branch1x1', x, 192, 1), one, two, pool

  def _d(self, conv, x):
    seven = conv('branch7x7x3_1', x, 192, 1)
    seven = conv('branch7x7x3_2', seven, 192, (1, 7), pad=(0, 3))
    seven = conv('branch7x7x3_3', seven, 192, (7, 1), pad=(3, 0))
    return (
      conv('branch3x3_2', conv('branch3x3_1', x, 192, 1), 320, 3, stride=2),
      conv('branch7x7x3_4', seven, 192, 3, stride=2),
      layers.max_pool(x, 2),
    )

  def _e(self, conv, x, pool):
    row, column = {'kernel': (1, 3), 'pad': (0, 1)}, {'kernel': (3, 1), 'pad': (1, 0)}
    one = conv('branch3x3_1', x, 384, 1)
    two = conv('branch3x3dbl_2', conv('branch3x3dbl_1', x, 448, 1), 384, 3, pad=1)
    return (
      conv('branch1x1', x, 320, 1),
      conv('branch3x3_2a', one, 384, **row),
      conv('branch3x3_2b', one, 384, **column),
      conv('branch3x3dbl_3a', two, 384, **row),
      conv('branch3x3dbl_3b', two, 384, **column),
      conv('branch_pool', pool(x), 192, 1),
    )

  def _block(self, name, block, x, *args):
    def conv(branch, *conv_args, **kwargs):
      return self._conv(f'Mixed_{name}.{branch}', *conv_args, **kwargs)

    x = np.concatenate(block(conv, x, *args), axis=1)
    self.shapes[f'mixed_{name}'] = x.shape[1:]
    return x

  def _conv(self, name, x, out, kernel, stride=1, pad=0):
    """Convolution, batch normalisation with running statistics, ReLU."""
    kernel = kernel if isinstance(kernel, tuple) else (kernel, kernel)
    pad = pad if isinstance(pad, tuple) else (pad, pad)
    fan_in = x.shape[1] * kernel[0] * kernel[1]
    shape = (out, x.shape[1], *kernel)
    weight = self._array(f'{name}.conv.weight', shape, (2.0 / fan_in) ** 0.5)
    scale, bias, mean, var = (
      self._array(f'{name}.bn.{key}', (out,), 0.2).astype(np.float64)[:, None, None]
      for key in ('weight', 'bias', 'running_mean', 'running_var')
    )
    x = layers.conv(x, weight, stride, pad)
    return np.maximum((x - mean) / np.sqrt(var + 1e-3) * scale + bias, 0.0)

  def _array(self, name, shape, deviation):
    if name not in self.state:
      draw = deviation * self._rng.standard_normal(shape, np.float32)
      if name.endswith(('bn.weight', 'running_var')):
        draw = np.exp(draw)
      self.state[name] = np.asarray(draw, np.float32)
    return self.state[name]


@functools.cache
def _reference():
  """After one image of 64x64, resized as FID does; and what it says of that."""
  image = np.random.default_rng(1).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
  position = np.arange(299) * 64 / 299
  low = np.floor(position).astype(int)
  weight = position - low
  matrix = np.zeros((299, 64))
  for i in range(299):
    matrix[i, low[i]] += 1.0 - weight[i]
    matrix[i, min(low[i] + 1, 63)] += weight[i]
  x = np.einsum('ih,jw,bhwc->bcij', matrix, matrix, image)
  reference = _Reference(seed=0)
  return reference, image, reference((x - 128.0) / 128.0)


class InceptionTest(absltest.TestCase):
  def test_matches_the_reference_from_image_to_features(self):
    """The resize, the scaling, every block, the order of channels and every array."""
    reference, image, (features, biased) = _reference()
    params = published.inception.from_torch(reference.state)
    out = metrics.extract(metrics.inception(params), image, batch_size=1)
    scale = np.max(np.abs(features))
    np.testing.assert_allclose(out.features, features, rtol=0, atol=1e-5 * scale)
    logits = biased - reference.state['fc.bias']
    log_prob = logits - np.log(np.sum(np.exp(logits - logits.max()))) - logits.max()
    scale = np.max(np.abs(log_prob))
    np.testing.assert_allclose(out.log_prob, log_prob, rtol=0, atol=1e-5 * scale)

  def test_non_square_images(self):
    """Kernels of 1x7 and 7x1 are not exchanged; 7c does not average."""
    reference, _, _ = _reference()
    x = np.random.default_rng(2).uniform(-1.0, 1.0, (2, 3, 107, 139))
    features, biased = reference(x)
    params = published.inception.from_torch(reference.state)
    apply = jax.jit(networks.InceptionV3().apply)
    actual = apply(params, jnp.asarray(x.transpose(0, 2, 3, 1), jnp.float32))
    expected = features, biased - reference.state['fc.bias']
    for ours, theirs in zip(actual, expected, strict=True):
      scale = np.max(np.abs(theirs))
      np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * scale)

  def test_stages(self):
    """Features of both programs, at 299."""
    x = jnp.zeros((1, 299, 299, 3))
    net = networks.InceptionV3()
    _, state = jax.eval_shape(
      lambda key: net.init_with_output(key, x, capture_intermediates=True),
      jax.random.key(0),
    )
    shapes = {
      name: tree['__call__'][0].shape
      for name, tree in state['intermediates'].items()
      if '__call__' in tree
    }
    self.assertEqual(shapes['conv2d_1a_3x3'], (1, 149, 149, 32))
    self.assertEqual(shapes['conv2d_4a_3x3'], (1, 71, 71, 192))
    reference, _, _ = _reference()
    reference(np.zeros((1, 3, 299, 299)))
    self.assertEqual(reference.shapes['stem'], (192, 35, 35))
    for name, expected in (
      ('mixed_5b', (1, 35, 35, 256)),
      ('mixed_5d', (1, 35, 35, 288)),
      ('mixed_6a', (1, 17, 17, 768)),
      ('mixed_6e', (1, 17, 17, 768)),
      ('mixed_7a', (1, 8, 8, 1280)),
      ('mixed_7c', (1, 8, 8, 2048)),
    ):
      self.assertEqual(shapes[name], expected)
      channels, *size = reference.shapes[name]
      self.assertEqual(expected, (1, *size, channels))

  def test_has_the_published_number_of_parameters(self):
    """23,885,392, of which ours leaves out the bias of 1008.

    Keras's InceptionV3 of 1000 classes has 23,851,784 and no scales, of which there are
    17,216; the matrix and bias of 8 more classes are 8 * 2049.
    """
    num_published = 23_851_784 + 17_216 + 8 * 2049
    reference, _, _ = _reference()
    self.assertEqual(sum(a.size for a in reference.state.values()), num_published)
    x = jnp.zeros((1, 299, 299, 3))
    params = jax.eval_shape(networks.InceptionV3().init, jax.random.key(0), x)
    total = sum(leaf.size for leaf in jax.tree.leaves(params))
    self.assertEqual(total, num_published - 1008)
    self.assertEqual(num_published, 23_885_392)


class InceptionWeightsTest(parameterized.TestCase):
  def test_counters_are_left_out(self):
    """PyTorch's batch norms count batches; the .pth may hold the counts."""
    state = dict(_reference()[0].state)
    before = published.inception.arrays_from_torch(state)
    state['Conv2d_1a_3x3.bn.num_batches_tracked'] = np.asarray(0)
    after = published.inception.arrays_from_torch(state)
    self.assertEqual(before.keys(), after.keys())

  @parameterized.parameters(
    ('missing', 'has no array mixed_6b/branch7x7_2/kernel'),
    ('extra', 'has an array mixed_9z/branch1x1/scale'),
    ('foreign', 'AuxLogits.fc.weight is no array of InceptionV3'),
    ('misshapen', r'mixed_6b/branch7x7_2/kernel is float32 \(7, 1, 128, 128\);'),
    ('double', 'mixed_6b/branch7x7_2/kernel is float64'),
  )
  def test_names_what_is_wrong_with_a_state_dict(self, what, message):
    state = dict(_reference()[0].state)
    key = 'Mixed_6b.branch7x7_2.conv.weight'
    if what == 'missing':
      del state[key]
    elif what == 'extra':
      state['Mixed_9z.branch1x1.bn.weight'] = np.zeros(3, np.float32)
    elif what == 'foreign':
      state['AuxLogits.fc.weight'] = np.zeros((3, 3), np.float32)
    elif what == 'misshapen':
      state[key] = state[key].swapaxes(2, 3)
    else:
      state[key] = state[key].astype(np.float64)
    with self.assertRaisesRegex(errors.FileError, message):
      published.inception.from_torch(state)

  def test_file(self):
    """Every array comes back; sha256; cut short by a byte."""
    arrays = published.inception.arrays_from_torch(_reference()[0].state)
    with tempfile.TemporaryDirectory() as directory:
      path = pathlib.Path(directory) / 'inception.npz'
      files.write_npz(path, arrays)
      digest = files.sha256(path)
      params = published.inception.load(path, sha256=digest)['params']
      self.assertLen(jax.tree.leaves(params), len(arrays))
      for name, expected in arrays.items():
        leaf = functools.reduce(lambda tree, key: tree[key], name.split('/'), params)
        np.testing.assert_array_equal(leaf, expected)
      wrong = '0' * 8 if digest[0] != '0' else '1' * 8
      with self.assertRaisesRegex(errors.FileError, f'{digest[:8]}, not {wrong}'):
        published.inception.load(path, sha256=wrong)
      path.write_bytes(path.read_bytes()[:-1])
      with self.assertRaisesRegex(errors.FileError, 'inception.npz: is cut short'):
        published.inception.load(path)


class _Tensor:
  def __init__(self, array):
    self._array = array

  def numpy(self):
    return self._array


class ConvertInceptionTest(absltest.TestCase):
  def _run(self, torch, **kwargs):
    directory = self.create_tempdir()
    source = directory.create_file('weights.pth', content='of some kind')
    self.output = pathlib.Path(directory) / 'out.npz'
    kwargs = {'sha256': files.sha256(source.full_path)[:8], **kwargs}
    with mock.patch.object(published.inception, 'torch', torch):
      convert_inception.run(source.full_path, self.output, **kwargs)

  def test_converts_what_torch_reads(self):
    """The bytes of the file, without running what they hold."""
    state = _reference()[0].state
    torch = mock.Mock()
    torch.load.return_value = {k: _Tensor(v) for k, v in state.items()}
    self._run(torch)
    (content,), kwargs = torch.load.call_args
    self.assertIsInstance(content, io.BytesIO)
    self.assertEqual(content.getvalue(), b'of some kind')
    self.assertEqual(kwargs, {'map_location': 'cpu', 'weights_only': True})
    stored = files.read_npz(self.output)
    np.testing.assert_array_equal(stored['fc/kernel'], state['fc.weight'].T)

  def test_errors_are_one_line_and_write_nothing(self):
    missing = mock.Mock(spec=[])
    type(missing).load = mock.PropertyMock(side_effect=ImportError)
    damaged, empty = mock.Mock(), mock.Mock()
    damaged.load.side_effect = RuntimeError('PytorchStreamReader failed')
    empty.load.return_value = {}
    for torch, message in (
      (missing, 'torch is needed to read it; pip install -r requirements-weights.txt'),
      (damaged, 'is cut short, damaged or no state dict of tensors'),
      (empty, 'has no array conv2d_1a_3x3/bias'),
    ):
      with self.assertRaisesRegex(errors.InputError, message):
        self._run(torch)
      self.assertFalse(self.output.exists())
    with self.assertRaisesRegex(errors.InputError, 'sha256 starts with'):
      self._run(empty, sha256=published.inception.PUBLISHED_SHA256)
    with self.assertRaisesRegex(errors.InputError, '--output: missing'):
      convert_inception.run('a', None, sha256='0' * 8)


if __name__ == '__main__':
  absltest.main()
