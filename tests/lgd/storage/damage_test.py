"""Damaged files of every kind that is read back: as they were, or one line."""

import json
import pathlib
from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import jax
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized

from experiments import fid
from experiments import judges
from experiments import workdirs
from lgd import errors
from lgd import metrics
from lgd.data.prompts import embeddings
from lgd.data.prompts import latents
from lgd.data.tfds import loader
from lgd.data.tfds import sources
from lgd.storage import files
from lgd.storage import shards

NUM_ROWS, LENGTH = 7, 5
RNG = np.random.default_rng(0)
IDENTITY = {'base': {'seed': 1, 'name': 'é'}, 'denoiser_step': 300, 'num_samples': 7}
TREE = {'b': [1, 2.5, None], 'a': {'é': 'x'}}
ROWS = [
  {'method': f'constant:0.{i}', 'seed': i, 'metrics': {'fid': i / 3}} for i in range(3)
]


class Kind(NamedTuple):
  """A kind of file: what writes it, and what reads the same from it."""

  file: str
  write: Callable[[pathlib.Path], Any]  # Into a directory; returns what was written.
  read: Callable[[pathlib.Path], Any]  # From it.


def _statistics(num):
  gram = RNG.normal(size=(num, 6)).astype(np.float32)
  t, label = gram[:, 0], np.arange(num, dtype=np.int32)
  return workdirs.statistics.Statistics(gram, t, label, np.arange(num), np.int64(12))


def _write_shard(directory):
  written = _statistics(NUM_ROWS)
  workdirs.statistics.write_shard(directory, 3, written)
  return written


def _write_statistics_config(directory):
  workdirs.configs.write_statistics_config(directory, IDENTITY)
  return IDENTITY


def _write_embeddings(directory):
  encoder = embeddings.ENCODERS['clip_tiny']
  length = RNG.integers(1, LENGTH + 1, NUM_ROWS).astype(np.int32)
  arrays = {
    'pooled': RNG.normal(size=(NUM_ROWS, encoder.pooled_dim)),
    'tokens': RNG.normal(size=(length.sum(), encoder.dim)),
  }
  arrays = {k: v.astype(np.float16) for k, v in arrays.items()} | {'length': length}
  config = {'encoder': 'clip_tiny', 'length': LENGTH, 'weights': 'ab' * 32}
  shards.begin(directory, {**config, 'num_rows': NUM_ROWS, 'shard_size': NUM_ROWS})
  shards.write(directory, 0, arrays)
  mask = np.arange(LENGTH) < length[:, None]
  tokens = np.zeros((NUM_ROWS, LENGTH, encoder.dim), np.float16)
  tokens[mask] = arrays['tokens']
  written = {'pooled': arrays['pooled'], 'tokens': tokens, 'mask': mask}
  return written, {**config, 'num_rows': NUM_ROWS}


def _read_embeddings(directory):
  store = embeddings.Store(directory, 'clip_tiny', LENGTH)
  return store[np.arange(NUM_ROWS)], store.identity


def _write_latents(directory):
  z = RNG.normal(size=(NUM_ROWS, 2, 2, 3)).astype(np.float16)
  config = {'shape': [2, 2, 3], 'num_rows': NUM_ROWS, 'shard_size': NUM_ROWS}
  shards.begin(directory, config)
  shards.write(directory, 0, {'latents': z})
  reader = latents.reader(directory, (2, 2, 3), shards.Layout(NUM_ROWS, NUM_ROWS))
  latents.write_scale(directory, reader, NUM_ROWS)
  scale = 1.0 / np.std(z.astype(np.float64))
  np.testing.assert_allclose(latents.Store(directory, {}).scale, scale, rtol=1e-12)
  return z * np.float32(latents.Store(directory, {}).scale)


def _read_latents(directory):
  return latents.Store(directory, {})[np.arange(NUM_ROWS)]


def _network():
  def apply(params, x):
    x = x.astype(np.float32).reshape(len(x), -1)
    return x[:, :4], -x[:, :3]

  extractor = metrics.Extractor('fid', None, apply)
  return judges.features.Network('inception', 'none', '0' * 64, extractor)


def _features(directory):
  """Written where they are missing, read where they are there."""
  x = np.arange(NUM_ROWS * 12).astype(np.uint8).reshape(NUM_ROWS, 2, 2, 3)
  return judges.features.collect(
    directory, IDENTITY, _network(), lambda i, j: x[i:j], shard_size=4
  )


def _write_rows(directory):
  for row in ROWS:
    fid.add_row(directory / 'results.json', row)
  return ROWS


KINDS = (
  Kind(
    'shard-00003.npz',
    _write_shard,
    lambda d: workdirs.statistics.read_shard(d / 'shard-00003.npz', 3),
  ),
  Kind(
    'config.json', _write_statistics_config, workdirs.configs.load_statistics_config
  ),
  Kind('features-00001.npz', _features, _features),
  Kind('config.json', _features, _features),
  Kind('results.json', _write_rows, lambda d: fid.read_rows(d / 'results.json')),
  Kind('latents-00000.npy', _write_latents, _read_latents),
  Kind('scale.json', _write_latents, _read_latents),
  Kind('config.json', _write_embeddings, _read_embeddings),
  Kind('pooled-00000.npy', _write_embeddings, _read_embeddings),
  Kind('tokens-00000.npy', _write_embeddings, _read_embeddings),
  Kind('length-00000.npy', _write_embeddings, _read_embeddings),
  Kind('crc32-00000.npz', _write_embeddings, _read_embeddings),
)


def _is_same(a, b):
  a, b = jax.tree.leaves(a), jax.tree.leaves(b)
  return len(a) == len(b) and all(map(np.array_equal, a, b))


class DamageTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(self.create_tempdir().full_path)

  def outcome(self, kind, path, written):
    """'same', or the error."""
    try:
      read = kind.read(self.root)
    except (errors.FileError, errors.InputError) as error:
      message = str(error)
      self.assertNotIn('\n', message)
      self.assertIn(str(path), message)
      self.assertRegex(message, '(delete|[Rr]emove|again|copy)')
      return message
    self.assertTrue(_is_same(read, written), 'read otherwise than written')
    return 'same'

  @parameterized.parameters(*((kind,) for kind in KINDS))
  def test_bit_flips(self, kind):
    path, written = self.root / kind.file, kind.write(self.root)
    whole = path.read_bytes()
    self.assertEqual(self.outcome(kind, path, written), 'same')
    # Both ends, where formats say what they hold, and anywhere.
    rng = np.random.default_rng(1)
    anywhere = rng.integers(0, len(whole), 24)
    ends = [*range(0, 140, 7), *range(len(whole) - 60, len(whole), 6)]
    outcomes = []
    for i in {*anywhere, *(i for i in ends if 0 <= i < len(whole))}:
      damaged = bytearray(whole)
      damaged[i] ^= 1 << rng.integers(8)
      path.write_bytes(damaged)
      outcomes.append(self.outcome(kind, path, written))
    self.assertGreater(sum(outcome != 'same' for outcome in outcomes), 10)

  @parameterized.parameters(*((kind,) for kind in KINDS))
  def test_cut_short(self, kind):
    path, written = self.root / kind.file, kind.write(self.root)
    whole = path.read_bytes()
    for size in (0, 1, 10, len(whole) // 2, len(whole) - 1):
      path.write_bytes(whole[:size])
      self.assertNotEqual(self.outcome(kind, path, written), 'same')

  @parameterized.parameters(*((kind,) for kind in KINDS))
  def test_something_else(self, kind):
    """Files of other formats, and of the same with nothing in it that is wanted."""
    path, written = self.root / kind.file, kind.write(self.root)
    for content in (b'\xff\xfe\x00', b'null', b'[1, "a"]', b'{"crc32": "00000000"}'):
      path.write_bytes(content)
      self.assertNotEqual(self.outcome(kind, path, written), 'same')
    for save in (
      lambda f: np.save(f, np.zeros(3)),
      lambda f: np.savez(f, other=np.zeros(3)),
      lambda f: np.save(f, np.array([{}]), allow_pickle=True),
    ):
      files.write_whole(path, save)
      self.assertNotEqual(self.outcome(kind, path, written), 'same')


class SealedTest(parameterized.TestCase):
  def test_known_checksum(self):
    """CRC-32 of '{"a": 1}', by another implementation: bit by bit."""
    register = 0xFFFFFFFF
    for byte in b'{"a": 1}':
      register ^= byte
      for _ in range(8):
        register = (register >> 1) ^ (0xEDB88320 if register & 1 else 0)
    self.assertEqual(
      files.seal({'a': 1}), {'a': 1, 'crc32': f'{register ^ 0xFFFFFFFF:08x}'}
    )

  def test_what_json_writes_otherwise(self):
    """Tuples are lists then, and numbers that are names are sorted as such."""
    tree = {'a': (1, 2), 'b': {10: 0, 9: 1}}
    self.assertEqual(
      files.unseal(json.loads(json.dumps(files.seal(tree))), 'there'),
      {'a': [1, 2], 'b': {'10': 0, '9': 1}},
    )

  def test_layout_does_not_matter(self):
    path = pathlib.Path(self.create_tempdir().full_path) / 'file.json'
    files.write_sealed(path, TREE)
    content = ''.join(line.strip() for line in path.read_text().splitlines())
    path.write_text(content)
    self.assertEqual(files.read_sealed(path), TREE)

  @parameterized.parameters(
    {'b': [1, 2.5, None], 'a': {'é': 'y'}},
    {'b': [1, 2.5], 'a': {'é': 'x'}},
    {'b': [2.5, 1, None], 'a': {'é': 'x'}},
    {'b': [1, 2.5, None]},
    {'b': [1, 2.5, None], 'a': {'é': 'x'}, 'c': 0},
  )
  def test_other_values(self, **tree):
    changed = tree | {'crc32': files.seal(TREE)['crc32']}
    with self.assertRaisesRegex(errors.FileError, '^there: is damaged, for its crc32'):
      files.unseal(changed, 'there')

  @parameterized.parameters(({},), ([],), (3,), (None,), ({'a': 1},))
  def test_without(self, tree):
    with self.assertRaisesRegex(
      errors.FileError, '^there: has no crc32; it is of some'
    ):
      files.unseal(tree, 'there')


class StoresTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(self.create_tempdir().full_path)

  def test_a_damaged_row_is_named_and_others_are_read(self):
    (written, _), path = _write_embeddings(self.root), self.root / 'pooled-00000.npy'
    content = bytearray(path.read_bytes())
    dim = embeddings.ENCODERS['clip_tiny'].pooled_dim
    content[-2 * dim * 3 + 5] ^= 16  # Of row 4 of 7.
    path.write_bytes(content)
    store, others = embeddings.Store(self.root, 'clip_tiny', LENGTH), [0, 3, 5, 6]
    np.testing.assert_array_equal(
      store.pooled(np.array(others)), written['pooled'][others]
    )
    with self.assertRaisesRegex(
      errors.FileError, 'pooled-00000.npy: row 4 is damaged, .*crc32-00000.npz; delete'
    ):
      store.pooled(np.array([3, 4]))

  def test_while_training_reads(self):
    """A line that names it, through Grain's threads."""
    _write_embeddings(self.root)
    path = self.root / 'tokens-00000.npy'
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # Of the last row.
    path.write_bytes(content)

    class Numbered:
      def __len__(self):
        return NUM_ROWS

      def __getitem__(self, rows):
        x = np.zeros((len(rows), 2, 2, 3), np.uint8)
        return sources.Example(x, np.asarray(rows))

    store = embeddings.Store(self.root, 'clip_tiny', LENGTH)
    source = embeddings.Conditioned(Numbered(), embeddings.Lookup({'clip': store}))
    batches = loader.batches(source, NUM_ROWS, seed=0, num_threads=2, num_workers=0)
    with self.assertRaisesRegex(
      errors.DataError,
      f'^{path}: element .* is damaged, .* run python -m experiments.',
    ) as caught:
      next(batches)
    self.assertNotIn('\n', str(caught.exception))

  def test_without_checksums(self):
    """As an older version wrote them: missing, and made anew."""
    _write_latents(self.root)
    (self.root / 'crc32-00000.npz').unlink()
    with self.assertRaisesRegex(
      errors.FileError, 'crc32-00000.npz: is missing; to fin'
    ):
      _read_latents(self.root)
    layout = shards.Layout(NUM_ROWS, NUM_ROWS)
    self.assertEqual(shards.missing(self.root, ('latents',), layout), [0])

  def test_features_cut_with_another_shard_size(self):
    _features(self.root)
    with self.assertRaisesRegex(
      errors.FileError,
      'features-00000.npz: holds features of 4 images, not 3; give the',
    ):
      judges.features.collect(self.root, IDENTITY, _network(), None, shard_size=3)


if __name__ == '__main__':
  absltest.main()
