"""Stores of embeddings: random access, resumption, and everything that refuses."""

import pathlib
import pickle

import jax
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized

from lgd import files
from lgd.data import embeddings
from lgd.data import shards

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
      files.FileError, f'{name}-00001.npy: is missing; to finish run .*encode_text'
    ):
      store[np.array([5])]

  @parameterized.parameters('pooled', 'tokens', 'length')
  def test_cut_short(self, name):
    path = self.root / 'clip_tiny' / f'{name}-00002.npy'
    path.write_bytes(path.read_bytes()[:-3])
    with self.assertRaisesRegex(files.FileError, f'{name}-00002.npy: is cut short or'):
      self.store()[np.array([9])]

  def test_of_other_dimensions(self):
    np.save(self.root / 'clip_tiny' / 'pooled-00000.npy', np.zeros((4, 63), np.float16))
    with self.assertRaisesRegex(
      files.FileError, r'float16 \(4, 63\), must be float16 \(4, 64\); delete it'
    ):
      self.store().pooled(np.array([0]))

  def test_of_another_encoder(self):
    with self.assertRaisesRegex(
      files.FileError, "encoder is 'clip_tiny', not 'clip_l14'; encode again"
    ):
      embeddings.Store(self.root / 'clip_tiny', 'clip_l14', LENGTH)
    with self.assertRaisesRegex(files.FileError, 'length is 7, not 77'):
      self.store(length=77)

  def test_of_other_captions(self):
    self.lookup().require_captions(CAPTIONS)
    with self.assertRaisesRegex(files.FileError, 'num_rows is 10, not 9'):
      self.lookup().require_captions(CAPTIONS[:-1])
    for changed in ((*CAPTIONS[:-1], 'another'), CAPTIONS[::-1]):
      with self.assertRaisesRegex(files.FileError, "captions_sha256 is '.*', not '"):
        self.lookup().require_captions(changed)

  def test_hash_tells_captions_apart(self):
    pairs = ((('ab', 'c'), ('a', 'bc')), (('', 'a'), ('a', '')), (('a',), ('a', '')))
    for a, b in pairs:
      self.assertNotEqual(embeddings.captions_sha256(a), embeddings.captions_sha256(b))

  def test_nothing_there(self):
    with self.assertRaisesRegex(files.FileError, 'holds no encoded data'):
      embeddings.Store(self.root / 'none', 'clip_tiny', LENGTH)
    (self.root / 'clip_tiny' / 'config.json').write_text('{')
    with self.assertRaisesRegex(files.FileError, 'is damaged; remove'):
      self.store()
    (self.root / 'clip_tiny' / 'config.json').write_text('{"num_rows": 3}')
    with self.assertRaisesRegex(files.FileError, 'has no shard_size'):
      self.store()


class ShardsTest(absltest.TestCase):
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
    with self.assertRaisesRegex(files.FileError, 'of is 1, not 2'):
      shards.begin(directory, {**layout._asdict(), 'of': 2})


if __name__ == '__main__':
  absltest.main()
