"""Stores of embeddings, what refuses them, and the networks that read them."""

import pathlib
import pickle

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized

from lgd import errors
from lgd import guidance
from lgd import networks
from lgd import objectives
from lgd import schedules
from lgd.data.prompts import embeddings
from lgd.storage import files
from lgd.storage import shards

LENGTH, SIZE = 7, 4
CAPTIONS = tuple(f'caption {i}' for i in range(10))


def _expected(name, row):
  """What an encoder that is made up gives: a function of the row alone."""
  rng = np.random.default_rng((row, len(name)))
  dims = embeddings.ENCODERS[name]
  length = 2 + row % (LENGTH - 1)
  tokens = rng.normal(size=(length, dims.dim)).astype(np.float16)
  return rng.normal(size=dims.pooled_dim).astype(np.float16), tokens


def _config(name):
  return {
    'encoder': name,
    'length': LENGTH,
    'captions_sha256': embeddings.captions_sha256(CAPTIONS),
    'num_rows': len(CAPTIONS),
    'shard_size': SIZE,
  }


def _write(directory, name):
  shards.begin(directory, _config(name))
  layout = shards.Layout(len(CAPTIONS), SIZE)
  for shard in range(layout.num_shards):
    rows = [_expected(name, row) for row in layout.rows(shard)]
    arrays = {
      'pooled': np.stack([pooled for pooled, _ in rows]),
      'tokens': np.concatenate([tokens for _, tokens in rows]),
      'length': np.array([len(tokens) for _, tokens in rows], np.int32),
    }
    shards.write(directory, shard, arrays)


class EmbeddingsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(self.create_tempdir().full_path)
    self.names = ('clip_tiny', 't5_small')
    for name in self.names:
      _write(self.root / name, name)

  def store(self, name='clip_tiny', length=LENGTH):
    return embeddings.Store(self.root / name, name, length)

  def lookup(self):
    return embeddings.Lookup({name: self.store(name) for name in self.names})

  def _check(self, cond, label):
    for name in self.names:
      for i, row in enumerate(label):
        pooled, tokens = _expected(name, row)
        ours = jax.tree.map(lambda x, i=i: x[i], cond[name])
        np.testing.assert_array_equal(ours['pooled'], pooled)
        np.testing.assert_array_equal(ours['tokens'][: len(tokens)], tokens)
        self.assertFalse(np.any(ours['tokens'][len(tokens) :]))
        np.testing.assert_array_equal(ours['mask'], np.arange(LENGTH) < len(tokens))

  def test_rows_in_any_order_and_twice(self):
    label = np.array([9, 0, 3, 4, 0, 8])
    self._check(self.lookup()(label), label)

  def test_labels_of_any_shape(self):
    label = np.array([[9, 0, 3], [4, 0, 8]])
    cond = self.lookup()(label)
    self._check(jax.tree.map(lambda x: x[1], cond), label[1])
    pooled = self.lookup().pooled(label)
    for name in self.names:
      self.assertEqual(set(pooled[name]), {'pooled'})
      np.testing.assert_array_equal(pooled[name]['pooled'], cond[name]['pooled'])

  def test_conditions_have_the_shapes_that_networks_are_built_for(self):
    spec = embeddings.conditions_of(self.names, LENGTH)
    self.assertIsNone(spec.num_classes)
    cond = self.lookup()(np.arange(3))

    def check(a, b):
      self.assertEqual((a.shape, a.dtype), (b.shape, b.dtype))

    jax.tree.map(check, cond, spec.zeros(3))
    jax.tree.map(lambda n, z: check(n, z[0]), spec.null, spec.zeros(3))
    self.assertFalse(any(np.any(x) for x in jax.tree.leaves(spec.null)))
    hash(spec)  # As part of a static argument.

  def test_without_stores_a_label_is_its_condition(self):
    label = np.array([3, 1])
    self.assertIs(embeddings.Lookup({})(label), label)
    self.assertIs(embeddings.Lookup({}).pooled(label), label)

  def test_is_pickled_without_its_arrays(self):
    lookup = self.lookup()
    lookup(np.arange(10))
    self.assertLess(len(pickle.dumps(lookup)), 4000)  # A pooled row alone has 1 kB.
    self._check(pickle.loads(pickle.dumps(lookup))(np.arange(10)), range(10))

  def test_local_files_are_mapped(self):
    part = self.store()._reader.part('tokens', 0)
    self.assertIsInstance(part, np.memmap)

  @parameterized.parameters(-1, 10)
  def test_no_such_caption(self, row):
    with self.assertRaisesRegex(IndexError, f'rows 0..9, not {row}'):
      self.store().pooled(np.array([0, row]))

  @parameterized.parameters('pooled', 'tokens', 'length')
  def test_missing_file(self, name):
    (self.root / 'clip_tiny' / f'{name}-00001.npy').unlink()
    store = self.store()
    store[np.array([0, 9])]  # Of other shards.
    with self.assertRaisesRegex(
      errors.FileError, f'{name}-00001.npy: is missing; to finish run .*encode_text'
    ):
      store[np.array([5])]

  @parameterized.parameters('pooled', 'tokens', 'length')
  def test_cut_short(self, name):
    path = self.root / 'clip_tiny' / f'{name}-00002.npy'
    path.write_bytes(path.read_bytes()[:-3])
    with self.assertRaisesRegex(errors.FileError, f'{name}-00002.npy: is cut short or'):
      self.store()[np.array([9])]

  def test_of_other_dimensions(self):
    np.save(self.root / 'clip_tiny' / 'pooled-00000.npy', np.zeros((4, 63), np.float16))
    with self.assertRaisesRegex(
      errors.FileError, r'float16 \(4, 63\), must be float16 \(4, 64\); delete it'
    ):
      self.store().pooled(np.array([0]))

  @parameterized.parameters(([2, 3, 4, 6],), ([1, 3, 4, 5],), ([0, 5, 4, 5],))
  def test_lengths_that_do_not_fit_the_tokens(self, length):
    """Rows would be those of other captions, or one token all over."""
    directory = self.root / 'clip_tiny'
    whole = {
      name: np.load(directory / f'{name}-00000.npy')
      for name in ('pooled', 'tokens', 'length')
    }
    self.assertEqual(list(whole['length']), [2, 3, 4, 5])
    shards.write(directory, 0, {**whole, 'length': np.array(length, np.int32)})
    with self.assertRaisesRegex(errors.FileError, 'shard 0 has 14 tokens for captions'):
      self.store()[np.array([3])]

  def test_of_another_encoder(self):
    with self.assertRaisesRegex(
      errors.FileError, "encoder is 'clip_tiny', not 'clip_l14'; encode again"
    ):
      embeddings.Store(self.root / 'clip_tiny', 'clip_l14', LENGTH)
    with self.assertRaisesRegex(errors.FileError, 'length is 7, not 77'):
      self.store(length=77)

  def test_of_other_captions(self):
    self.lookup().require_captions(CAPTIONS)
    with self.assertRaisesRegex(errors.FileError, 'num_rows is 10, not 9'):
      self.lookup().require_captions(CAPTIONS[:-1])
    for changed in ((*CAPTIONS[:-1], 'another'), CAPTIONS[::-1]):
      with self.assertRaisesRegex(errors.FileError, "captions_sha256 is '.*', not '"):
        self.lookup().require_captions(changed)

  def test_hash_tells_captions_apart(self):
    pairs = ((('ab', 'c'), ('a', 'bc')), (('', 'a'), ('a', '')), (('a',), ('a', '')))
    for a, b in pairs:
      self.assertNotEqual(embeddings.captions_sha256(a), embeddings.captions_sha256(b))

  def test_nothing_there(self):
    with self.assertRaisesRegex(errors.FileError, 'holds no encoded data'):
      embeddings.Store(self.root / 'none', 'clip_tiny', LENGTH)
    (self.root / 'clip_tiny' / 'config.json').write_text('{')
    with self.assertRaisesRegex(
      errors.FileError, 'config.json: is cut short, damaged or no JSON .* encode'
    ):
      self.store()
    files.write_sealed(self.root / 'clip_tiny' / 'config.json', {'num_rows': 3})
    with self.assertRaisesRegex(errors.FileError, 'has no shard_size'):
      self.store()


class ShardsTest(absltest.TestCase):
  def test_read_only(self):
    with self.assertRaisesRegex(errors.FileError, '/proc/none: no file can be written'):
      shards.begin('/proc/none', shards.Layout(10, 4)._asdict())

  def test_resumes(self):
    directory = pathlib.Path(self.create_tempdir().full_path)
    layout, names = shards.Layout(10, 4), ('a', 'b')
    self.assertEqual([list(layout.rows(i)) for i in (0, 2)], [[0, 1, 2, 3], [8, 9]])
    shards.begin(directory, {**layout._asdict(), 'of': 1})
    self.assertEqual(shards.missing(directory, names, layout), [0, 1, 2])
    shards.write(directory, 1, {'a': np.zeros(4), 'b': np.ones(4)})
    shards.write(directory, 0, {'a': np.zeros(4)})  # Stopped before the second file.
    (directory / 'b-00002.npy.partial').touch()
    self.assertEqual(shards.missing(directory, names, layout), [0, 2])
    shards.begin(directory, {**layout._asdict(), 'of': 1})
    with self.assertRaisesRegex(errors.FileError, 'of is 1, not 2'):
      shards.begin(directory, {**layout._asdict(), 'of': 2})


def _cond(scale=1.0):
  """Embeddings of two encoders; the first has rows of three tokens, one padding."""
  rng = np.random.default_rng(0)
  mask = np.array([[True, True, False], [True, True, True]])

  def of(pooled_dim, dim):
    tokens = rng.normal(size=(2, 3, dim)) * mask[..., None]
    pooled = rng.normal(size=(2, pooled_dim))
    half = {
      k: (scale * v).astype(np.float16) for k, v in (('p', pooled), ('t', tokens))
    }
    return {'pooled': half['p'], 'tokens': half['t'], 'mask': mask}

  return {'t5': of(5, 6), 'clip': of(4, 3)}


def _scaled(x):
  x = np.asarray(x, np.float64)
  return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + 1e-6)


class NetworksTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.encoder = networks.EmbeddingEncoder(7)
    self.params = self.encoder.init(jax.random.key(0), _cond())
    self.params = jax.tree.map(lambda p: p + 0.1, self.params)  # Biases, too.

  def test_encoder_against_numpy(self):
    cond, p = _cond(), self.params['params']
    text = self.encoder.apply(self.params, cond)
    tokens = [
      _scaled(cond[name]['tokens']) @ p[f'{name}_tokens']['kernel']
      + p[f'{name}_tokens']['bias']
      for name in ('clip', 't5')
    ]
    np.testing.assert_allclose(text.tokens, np.concatenate(tokens, axis=1), atol=1e-5)
    pooled = [_scaled(cond[name]['pooled']) for name in ('clip', 't5')]
    pooled = (
      np.concatenate(pooled, axis=1) @ p['pooled']['kernel'] + p['pooled']['bias']
    )
    np.testing.assert_allclose(text.pooled, pooled, atol=1e-5)
    np.testing.assert_array_equal(text.mask[0], [True, True, False] * 2)

  def test_units_of_embeddings_do_not_matter(self):
    ones = self.encoder.apply(self.params, _cond())
    eights = self.encoder.apply(self.params, _cond(8.0))
    np.testing.assert_allclose(ones.tokens, eights.tokens, atol=1e-4)
    np.testing.assert_allclose(ones.pooled, eights.pooled, atol=1e-4)

  def test_null_is_finite_and_constant(self):
    null = jax.tree.map(np.zeros_like, _cond())
    text, grad = jax.value_and_grad(
      lambda p: jnp.sum(self.encoder.apply(p, null).pooled)
    )(self.params)
    bias = self.params['params']['pooled']['bias']
    np.testing.assert_allclose(text, 2.0 * np.sum(bias), rtol=1e-6)
    self.assertTrue(all(np.isfinite(g).all() for g in jax.tree.leaves(grad)))

  def test_weights_read_pooled_embeddings_alone(self):
    embed, cond = guidance.PooledEmbedding(5), _cond()
    params = embed.init(jax.random.key(0), cond)
    pooled = {name: {'pooled': c['pooled']} for name, c in cond.items()}
    expected = guidance.VectorEmbedding(5).apply(
      {'params': params['params']['projection']},
      np.concatenate([_scaled(cond[k]['pooled']) for k in ('clip', 't5')], axis=1),
    )
    for c in (cond, pooled):
      np.testing.assert_allclose(embed.apply(params, c), expected, atol=1e-5)

  def test_dropped_conditions_keep_their_types(self):
    """And are 0: the loss with all of them dropped is that of the null condition."""
    spec = embeddings.conditions_of(('clip_tiny', 't5_small'), 3)
    cond = jax.tree.map(lambda x: x + np.ones_like(x), spec.zeros(2))
    seen = []

    def apply(params, xt, t, cond):
      seen.append(cond)
      return xt

    @jax.jit
    def dropped(key):
      objectives.denoising(
        key, apply, None, schedules.RectifiedFlow(), jnp.ones((2, 4)), cond, spec.null,
        dropout=1.0, prediction='x0',
      )  # fmt: skip
      return seen.pop()

    got = dropped(jax.random.key(0))
    for x, zeros in zip(*map(jax.tree.leaves, (got, spec.zeros(2))), strict=True):
      np.testing.assert_array_equal(x, zeros)
      self.assertEqual(x.dtype, zeros.dtype)


if __name__ == '__main__':
  absltest.main()
