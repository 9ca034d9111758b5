"""The statistics pass: what it stores, what it survives, and what it refuses."""

import pathlib
import shutil
from unittest import mock

import chex
import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized

from configs import digits
from experiments import builders
from experiments import collect_statistics
from experiments import train_denoiser
from experiments import train_guidance
from experiments import workdirs
from lgd import arrays
from lgd import errors
from lgd.data import splits
from lgd.storage import files
from lgd.training import sharding
from tests import helpers

NUM_DEVICES = 8

KINDS = ('particles', 'class_groups', 'pooled_groups')
GOLDEN_RATIO = 2.0 / (1.0 + np.sqrt(5.0))  # Less 1: the same fractions.


def smoke_config(**overrides):
  config = digits.get_config('smoke')
  # More than one pass over the 1,077 data of the training split, and a last shard
  # that is shorter than the others.
  config.statistics.update(num_data=1216, shard_size=512, batch_size=64)
  # A base whose null prediction is not that of the class.
  config.denoiser.update(learning_rate=0.05, ema_decay=0.5, label_dropout=0.3)
  config.update_from_flattened_dict(overrides)
  return config


def shards(workdir, kind='particles'):
  return sorted((workdir / 'statistics' / kind).glob('shard-*.npz'))


def read(workdir, kind='particles'):
  """Arrays of all shards, with plain numpy."""
  loaded = [dict(np.load(p)) for p in shards(workdir, kind)]
  return {k: np.concatenate([np.atleast_1d(a[k]) for a in loaded]) for k in loaded[0]}


def unpack(packed):
  """One upper triangle, row by row, to a symmetric matrix."""
  p = int(np.sqrt(2 * len(packed)))
  full = np.zeros((p, p))
  full[np.triu_indices(p)] = packed
  return full + np.triu(full, 1).T


class WorkdirCase(helpers.WorkdirCase):
  """A base model, trained once, and a pass of each kind over its data."""

  @classmethod
  def fill(cls):
    train_denoiser.run(smoke_config(), cls.root)
    for kind in cls.kinds:
      collect_statistics.run(smoke_config(**{'statistics.kind': kind}), cls.root)

  kinds = ('particles',)

  def copy(self, *, with_statistics=True):
    workdir = super().copy()
    if not with_statistics:
      shutil.rmtree(workdir / 'statistics')
    return workdir

  def assert_same_files(self, one, other, kind='particles'):
    names = [p.name for p in shards(one, kind)]
    self.assertEqual(names, [p.name for p in shards(other, kind)])
    for a, b in zip(shards(one, kind), shards(other, kind), strict=True):
      self.assertEqual(a.read_bytes(), b.read_bytes(), a.name)


class ContentTest(WorkdirCase):
  kinds = KINDS

  def plan(self, kind):
    """Rows, time and label of every item, from the description of a pass alone."""
    config = smoke_config()
    data = builders.data.load(config).train
    n = 1 if kind == 'particles' else 8
    rows = []
    for epoch in range(3):
      if kind == 'particles':  # One shuffle of all data.
        order = np.random.default_rng((0, epoch)).permutation(len(data.label))
        rows += list(order[:, None])
      else:
        rows += list(
          splits.group_rows(
            data.label, n, by_class=kind == 'class_groups', seed=0, epoch=epoch
          )
        )
    rows = np.stack(rows[: 1216 // n])
    t = np.arange(1, len(rows) + 1) * GOLDEN_RATIO % 1.0 * 0.99
    return data, rows, t

  @parameterized.parameters(*KINDS)
  def test_items(self, kind):
    """Index, t and label of every item, and each Gram matrix from its vectors."""
    stored = read(self.root, kind)
    data, rows, t = self.plan(kind)
    n = rows.shape[1]
    np.testing.assert_array_equal(stored['index'], np.arange(len(rows)))
    np.testing.assert_allclose(stored['t'], t, atol=1e-6)
    label = data.label[rows]
    np.testing.assert_array_equal(
      stored['label'], label[:, 0] if kind == 'particles' else label
    )

    config = smoke_config()
    params = workdirs.base_model.load_denoiser(helpers.session(self.root, config))
    apply = jax.jit(builders.models.network(config, builders.data.spec(config)).apply)
    root = arrays.stream(0, f'statistics/{kind}')

    def predict(xt, t, label):
      velocity = apply(params, xt[None], jnp.full(1, t), jnp.full(1, label))
      return np.float64(xt - t * velocity[0]).ravel()

    for i in (0, 17, len(rows) - 1):
      eps, x0_cond, x0_null, x0 = [], [], [], []
      for j, row in enumerate(rows[i]):
        key = jax.random.fold_in(root, i * n + j)
        noises = jax.random.normal(key, (2 if kind == 'particles' else 1, 8, 8, 1))
        if kind == 'particles':  # The third of three mirrors the first.
          noises = [*noises, -noises[0]]
        for noise in noises:
          xt = np.float32((1.0 - t[i]) * data.x[row] + t[i] * noise)
          eps.append(np.float64(noise).ravel())
          x0_cond.append(predict(xt, t[i], data.label[row]))
          x0_null.append(predict(xt, t[i], 10))
          x0.append(np.float64(data.x[row]).ravel())
      eps, x0_cond, x0_null, x0 = map(np.stack, (eps, x0_cond, x0_null, x0))
      parts = [eps, x0_cond - x0, x0_cond - x0_null]
      if kind != 'particles':
        parts.insert(0, x0 - x0.mean(axis=0))
      vectors = np.concatenate(parts)
      norm = np.linalg.norm(vectors, axis=1)
      self.assertGreater(norm.min(), 0.01)
      error = unpack(stored['gram'][i]) - vectors @ vectors.T
      np.testing.assert_array_less(np.abs(error), 2e-4 * norm[:, None] * norm)

  @parameterized.parameters(*KINDS)
  def test_every_datum_once_a_pass(self, kind):
    """Items of the plan that the command follows: rows as data, padding left out."""
    config = smoke_config(**{'statistics.kind': kind, 'statistics.num_data': 3200})
    label = builders.data.load(config).train.label
    rows = np.arange(len(label), dtype=np.float32)
    plan = builders.statistics.Plan(config, splits.Split(rows, label), 10)
    items, seen = [], []
    for shard in range(plan.num_shards):
      of_shard = plan.items(shard)
      for i in range(0, len(of_shard), plan.items_per_batch):
        batch = of_shard[i : i + plan.items_per_batch]
        index, x0, labels, _ = plan.batch(batch)
        self.assertLen(index, plan.items_per_batch)
        np.testing.assert_array_equal(labels, label[x0.astype(int)])
        items += list(index[: len(batch)])
        seen += list(x0[: len(batch)])
    np.testing.assert_array_equal(items, np.arange(plan.num_items))
    per_pass = {'particles': 1077, 'class_groups': None, 'pooled_groups': 1072}[kind]
    if per_pass is None:  # What does not fill a group of its class waits.
      per_pass = sum(n - n % 8 for n in np.bincount(label))
    seen = np.concatenate(seen).reshape(-1)
    for start in range(0, len(seen), per_pass):
      one_pass = seen[start : start + per_pass]
      self.assertLen(np.unique(one_pass), len(one_pass))

  def test_groups_share_a_class_or_do_not(self):
    of_class = read(self.root, 'class_groups')['label']
    np.testing.assert_array_equal(of_class.min(axis=1), of_class.max(axis=1))
    pooled = read(self.root, 'pooled_groups')['label']
    self.assertTrue(np.all(pooled.min(axis=1) < pooled.max(axis=1)))

  def test_times_are_evenly_spread_after_any_number_of_items(self):
    config = smoke_config(**{'statistics.num_data': 4096})
    data = builders.data.load(config).train
    plan = builders.statistics.Plan(config, data, 10)
    t = plan.batch(np.arange(64))[3]
    for first in range(64, 4096, 64):
      t = np.concatenate([t, plan.batch(np.arange(first, first + 64))[3]])
    self.assertLess(t.max(), 0.99)
    for n in (8, 50, 333, 1024, 4096):
      unit = np.sort(t[:n]) / 0.99
      i = np.arange(n)
      discrepancy = max(np.max((i + 1) / n - unit), np.max(unit - i / n))
      self.assertLess(n * discrepancy, 1.0 + np.log(n))  # Uniform draws: n^0.5.
      spacing = np.diff(np.concatenate([[0.0], unit, [1.0]]))
      self.assertLess(n * spacing.max(), 2.5)  # Uniform draws: log n.

  def test_what_it_costs(self):
    """Two evaluations for each noisy particle, and at most 400 bytes a datum."""
    self.assertEqual(read(self.root)['num_evaluations'].sum(), 2 * 3 * 1216)
    for kind in KINDS[1:]:
      self.assertEqual(read(self.root, kind)['num_evaluations'].sum(), 2 * 1216)
    workdir = self.copy(with_statistics=False)
    config = smoke_config(
      **{
        'statistics.num_data': 4096,
        'statistics.num_particles': 4,
        'statistics.batch_size': 512,
        'statistics.shard_size': 4096,
      }
    )
    collect_statistics.run(config, workdir)
    size = sum(p.stat().st_size for p in (workdir / 'statistics').rglob('*.*'))
    self.assertLessEqual(size / 4096, 400.0)
    self.assertEqual(read(workdir)['num_evaluations'].sum(), 2 * 4 * 4096)

  @parameterized.parameters('particles', 'class_groups')
  def test_does_not_depend_on_batches_or_devices(self, kind):
    workdir = self.copy(with_statistics=False)
    config = smoke_config(**{'statistics.kind': kind, 'statistics.batch_size': 128})
    one_device = sharding.make_mesh(jax.devices()[:1])
    with mock.patch.object(sharding, 'make_mesh', return_value=one_device):
      collect_statistics.run(config, workdir)
    self.assertLen(jax.devices(), 8)
    here, there = read(self.root, kind), read(workdir, kind)
    for name in ('index', 't', 'label'):
      np.testing.assert_array_equal(here[name], there[name])
    np.testing.assert_allclose(here['gram'], there['gram'], rtol=1e-4, atol=1e-3)


class ResumeTest(WorkdirCase):
  def test_a_pass_that_was_cut_short_ends_as_if_it_had_not_been(self):
    """It dies in the middle of writing shard 1; then the same command again."""
    workdir = self.copy(with_statistics=False)
    savez, calls = np.savez, []

    def dies(file, **named):
      calls.append(file)
      if len(calls) == 2:
        file.write(b'PK')
        file.flush()
        raise KeyboardInterrupt
      savez(file, **named)

    with mock.patch.object(np, 'savez', dies), self.assertRaises(KeyboardInterrupt):
      collect_statistics.run(smoke_config(), workdir)
    self.assertEqual([p.name for p in shards(workdir)], ['shard-00000.npz'])
    self.assertLen(list((workdir / 'statistics' / 'particles').glob('*.partial')), 1)
    before = shards(workdir)[0].stat().st_mtime_ns
    with self.assertRaisesRegex(errors.InputError, 'shard-00001.npz: is missing'):
      train_guidance.run(smoke_config(), workdir)

    collect_statistics.run(smoke_config(), workdir)
    self.assertEqual(shards(workdir)[0].stat().st_mtime_ns, before)
    self.assert_same_files(workdir, self.root)
    self.assertEmpty(list((workdir / 'statistics' / 'particles').glob('*.partial')))

  def test_done_is_done(self):
    """However it is cut into calls."""
    workdir = self.copy()
    before = {p: p.stat().st_mtime_ns for p in shards(workdir)}
    collect_statistics.run(smoke_config(**{'statistics.batch_size': 128}), workdir)
    self.assertEqual({p: p.stat().st_mtime_ns for p in shards(workdir)}, before)

  def test_non_finite_statistics_are_not_written(self):
    """A datum of shard 1 is bad; shard 0 is kept, and nothing of shard 1."""
    workdir = self.copy(with_statistics=False)
    data = builders.data.load(smoke_config())
    row = np.random.default_rng((0, 0)).permutation(len(data.train.label))[700]
    x = data.train.x.copy()
    x[row, 3, 3] = np.nan
    bad = data._replace(train=data.train._replace(x=x))
    with (
      mock.patch.object(builders.data, 'load', return_value=bad),
      self.assertRaisesRegex(errors.NonFiniteError, 'item 700 are not finite'),
    ):
      collect_statistics.run(smoke_config(), workdir)
    self.assertEqual([p.name for p in shards(workdir)], ['shard-00000.npz'])
    collect_statistics.run(smoke_config(), workdir)
    self.assert_same_files(workdir, self.root)


def truncate(path):
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path):
  path.write_bytes(b'')


def flip_a_bit_of_the_data(path):
  content = bytearray(path.read_bytes())
  content[len(content) // 3] ^= 1
  path.write_bytes(content)


def flip_a_bit_of_the_directory(path):
  """Where the archive says how its first member is compressed."""
  content = bytearray(path.read_bytes())
  content[content.index(b'PK\x01\x02') + 10] ^= 8
  path.write_bytes(content)


def resave(**changes):
  def damage(path):
    with np.load(path) as stored:
      named = dict(stored) | {k: change(stored[k]) for k, change in changes.items()}
    np.savez(path, **{k: v for k, v in named.items() if v is not None})

  return damage


def poison(gram):
  gram[3, 5] = np.nan
  return gram


DAMAGES = {
  'truncated': (truncate, 'is cut short or damaged'),
  'empty': (empty, 'is cut short or damaged'),
  'bit_flip': (flip_a_bit_of_the_data, 'is cut short or damaged'),
  'bit_flip_of_the_directory': (
    flip_a_bit_of_the_directory,
    'is cut short or damaged',
  ),
  'missing_array': (resave(t=lambda t: None), 'is cut short or damaged'),
  'pickled': (resave(label=lambda x: x.astype(object)), 'is cut short or damaged'),
  'nan': (resave(gram=poison), 'datum 515 is not finite'),
  'nan_in_t': (resave(t=lambda t: t * np.nan), 'datum 512 is not finite'),
  'missing': (pathlib.Path.unlink, 'is missing'),
}


class DamageTest(WorkdirCase):
  def load(self, workdir):
    config = smoke_config()
    return workdirs.statistics.load(helpers.session(workdir, config))

  def assert_mended(self, workdir):
    """Collecting again gives what there was."""
    collect_statistics.run(smoke_config(), workdir)
    self.assert_same_files(workdir, self.root)
    here, there = self.load(workdir), self.load(self.root)
    chex.assert_trees_all_equal(here, there)

  @parameterized.named_parameters((name, *args) for name, args in DAMAGES.items())
  def test_shard(self, damage, message):
    workdir = self.copy()
    path = shards(workdir)[1]
    damage(path)
    before = helpers.files_under(workdir)
    readers = [train_guidance]
    if path.exists():
      readers.append(collect_statistics)  # Before it makes those that are missing.
    for binary in readers:
      with self.assertRaisesRegex(errors.InputError, message) as caught:
        binary.run(smoke_config(), workdir)
      self.assertStartsWith(str(caught.exception), f'{path}: ')
      self.assertRegex(str(caught.exception), 'run collect_statistics again')
      self.assertEqual(helpers.files_under(workdir), before)

    path.unlink(missing_ok=True)
    others = {p: p.stat().st_mtime_ns for p in shards(workdir)}
    self.assertLen(others, 2)
    self.assert_mended(workdir)
    self.assertEqual({p: p.stat().st_mtime_ns for p in others}, others)

  def test_full_disk(self):
    """What there was is kept, and with space again the pass ends as it should."""
    workdir = self.copy()
    _, path, _ = shards(workdir)
    path.unlink()
    before = helpers.files_under(workdir / 'statistics' / 'particles')
    with (
      helpers.full_disk(50_000),
      self.assertRaisesRegex(
        errors.WriteError, f'{path}: cannot be written .File too large.; what'
      ),
    ):
      collect_statistics.run(smoke_config(), workdir)
    after = helpers.files_under(workdir / 'statistics' / 'particles')
    for kept in shards(workdir):
      self.assertEqual(before[kept], after[kept])
    self.assertEqual(before.keys(), after.keys())
    self.assert_mended(workdir)

  def test_shards_that_changed_places(self):
    workdir = self.copy()
    shutil.copy(shards(workdir)[0], shards(workdir)[1])
    with self.assertRaisesRegex(errors.InputError, 'every datum once'):
      self.load(workdir)

  @parameterized.parameters('', '{"seed": 0, "stati')
  def test_config(self, content):
    workdir = self.copy()
    path = workdir / 'statistics' / 'particles' / 'config.json'
    path.write_text(content)
    for binary in (train_guidance, collect_statistics):
      with self.assertRaises(errors.InputError) as caught:
        binary.run(smoke_config(), workdir)
      self.assertRegex(
        str(caught.exception),
        f'{path}: is cut short, damaged or no JSON.*collect again',
      )
      self.assertNotIn('\n', str(caught.exception))
    shutil.rmtree(path.parent)
    self.assert_mended(workdir)


class RefusalTest(WorkdirCase):
  @parameterized.parameters(
    ('statistics.num_particles', 4, 3),
    ('statistics.num_data', 1280, 1216),
    ('statistics.shard_size', 256, 512),
    ('statistics.t_max', 0.995, 0.99),
    ('seed', 1, 0),
    ('data.name', 'mixture', 'digits'),
    ('denoiser.clip', 1.0, 0.0),
  )
  def test_statistics_of_another_config(self, key, value, stored):
    config = smoke_config(**{key: value})
    before = helpers.files_under(self.root)
    for binary in (collect_statistics, train_guidance):
      with self.assertRaises(errors.InputError) as caught:
        binary.run(config, self.root)
      message = str(caught.exception)
      self.assertStartsWith(message, f'{key}={value!r}: {self.root}')
      self.assertIn(f'was written with {stored!r}', message)
      self.assertNotIn('\n', message)
    self.assertEqual(helpers.files_under(self.root), before)

  def test_another_step_of_the_base(self):
    """Said by the stored config, of one that was at another step."""
    workdir = self.copy()
    path = workdir / 'statistics' / 'particles' / 'config.json'
    files.write_sealed(path, files.read_sealed(path) | {'denoiser_step': 10})
    before = helpers.files_under(workdir)
    for binary in (collect_statistics, train_guidance):
      with self.assertRaisesRegex(
        errors.InputError,
        f'{path.parent}: was made with the base model at step 10, .*20',
      ):
        binary.run(smoke_config(), workdir)
    self.assertEqual(helpers.files_under(workdir), before)

  def test_groups_larger_than_a_class(self):
    config = smoke_config(
      **{
        'statistics.kind': 'class_groups',
        'statistics.group_size': 128,
        'statistics.num_data': 1024,
        'statistics.batch_size': 1024,
      }
    )
    before = helpers.files_under(self.root)
    pattern = (
      r'statistics.group_size=128: .* only 1\d\d data of class \d\.'
      ' Take smaller groups'
    )
    with self.assertRaisesRegex(errors.InputError, pattern):
      collect_statistics.run(config, self.root)
    self.assertEqual(helpers.files_under(self.root), before)

  def test_calls_that_the_devices_cannot_share(self):
    config = smoke_config(**{'statistics.batch_size': 72})
    config.statistics.kind = 'pooled_groups'
    before = helpers.files_under(self.root)
    with self.assertRaisesRegex(
      errors.InputError, 'statistics.batch_size=72: makes 9 items a call, .* 8 devices'
    ):
      collect_statistics.run(config, self.root)
    self.assertEqual(helpers.files_under(self.root), before)


class FilesTest(parameterized.TestCase):
  @parameterized.parameters(None, 5)
  def test_round_trip(self, num_nodes):
    """With a reward's profiles and without."""
    directory = workdirs.Workdir(self.create_tempdir().full_path).path / 'pass'
    stored = {'base': {}, 'denoiser_step': 1}
    workdirs.configs.write_statistics_config(directory, stored)
    self.assertEqual(workdirs.configs.load_statistics_config(directory), stored)
    rng = np.random.default_rng(0)
    whole = workdirs.statistics.Statistics(
      rng.normal(size=(7, 6)).astype(np.float32),
      rng.uniform(size=7).astype(np.float32),
      np.arange(7, dtype=np.int32),
      np.arange(7),
      np.array([8, 6]),
    )
    shape = num_nodes and (2, num_nodes)
    if shape:
      whole = whole._replace(profile=rng.normal(size=(7, *shape)).astype(np.float32))
    for i, rows in enumerate((slice(0, 4), slice(4, 7))):
      shard = jax.tree.map(
        lambda a, rows=rows: a[rows], whole._replace(num_evaluations=None)
      )
      shard = shard._replace(num_evaluations=whole.num_evaluations[i])
      workdirs.statistics.write_shard(directory, i, shard)
    again = workdirs.statistics.read(directory, 2, num_vectors=3, profile_shape=shape)
    self.assertEqual(again.profile is None, shape is None)
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(whole), strict=True):
      np.testing.assert_array_equal(a, b)
      self.assertEqual(a.dtype, b.dtype)


if __name__ == '__main__':
  absltest.main()
