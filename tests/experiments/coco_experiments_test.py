"""coco512: its sizes, and its smoke variant through the binaries; latents, too."""

import shutil
import sys
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import absltest
from absl.testing import parameterized

from configs import coco512
from configs import common
from experiments import builders
from experiments import collect_statistics
from experiments import encode_latents
from experiments import encode_text
from experiments import evaluate
from experiments import fid
from experiments import judges
from experiments import learning
from experiments import sample
from experiments import sampling
from experiments import train_denoiser
from experiments import train_guidance
from experiments import validation
from experiments import workdirs
from lgd import errors
from lgd import metrics
from lgd import networks
from lgd import training
from lgd.data import images
from lgd.data.prompts import latents
from lgd.data.prompts import text
from lgd.networks import published
from lgd.storage import files
from tests import helpers
from tests.experiments import encode_text_test

AUTOENCODER = 'tests.experiments.coco_experiments_test:space_to_depth'
BLOCK = 4


def space_to_depth():
  """Blocks of 4x4 pixels as channels, three times as large, and back."""

  def encode(x):
    n, size, _, c = x.shape
    z = x.reshape(n, size // BLOCK, BLOCK, size // BLOCK, BLOCK, c)
    return 3.0 * z.swapaxes(2, 3).reshape(n, size // BLOCK, size // BLOCK, -1)

  def decode(z):
    n, side = z.shape[:2]
    x = (z / 3.0).reshape(n, side, side, BLOCK, BLOCK, 3)
    return x.swapaxes(2, 3).reshape(n, side * BLOCK, side * BLOCK, 3)

  return latents.Autoencoder(encode, decode)


def shrunk(root):
  """The smoke variant, smaller still, on latents of 8x8."""
  config = coco512.get_config('smoke')
  config.data.update(autoencoder=AUTOENCODER, latent_shape=(8, 8, 48))
  config.denoiser.patch_size = 2
  config.data.update(dir=str(root / 'data'), encoded_dir=str(root / 'encoded'))
  # The null prediction differs from the conditional ones after a few steps.
  config.denoiser.update(num_steps=4, batch_size=8, learning_rate=0.05, ema_decay=0.5)
  config.guidance.num_steps = 4
  config.statistics.update(num_data=16, batch_size=16, shard_size=16)
  # One compiled program samples for both.
  config.evaluation.update(num_steps=2, samples_per_class=4, plan_levels=1)
  config.fid.update(num_samples=8, num_reference=16, batch_size=40)
  return config


def encode(config, clip):
  encode_text.run(config, encoder='clip_tiny', batch_size=16, **clip)
  encode_latents.run(config, batch_size=5, shard_size=8)


def colours():
  """Features that cost nothing: means and spreads of the three channels."""

  def apply(params, x):
    x = x.astype(np.float32)
    return np.concatenate([x.mean(axis=(1, 2)), x.std(axis=(1, 2))], axis=1), None

  extractor = metrics.Extractor('far', None, apply)
  return judges.features.Network('colours', 'none', '0' * 64, extractor)


class ConfigTest(parameterized.TestCase):
  @parameterized.parameters('full', 'small', 'smoke')
  def test_builds(self, variant):
    """`coco_lowering_test` does it at full depth."""
    config = coco512.get_config(variant)
    validation.validate(config)
    config.denoiser.depth = 2
    spec = builders.data.spec(config)
    net, denoiser = (
      builders.models.network(config, spec),
      builders.models.denoiser(config, spec),
    )
    weight = builders.models.weight_model(config, spec)

    def initialised(key):
      params = builders.models.init_network(net, key, spec)
      t, cond = jnp.full(4, 0.5), spec.conditions.zeros(4)
      x0_hat = denoiser(params, jnp.zeros((4, *spec.shape)), t, cond)
      return x0_hat, weight.apply(weight.init(key), cond, 0.5 * t, t)

    x0_hat, omega = jax.eval_shape(initialised, jax.random.key(0))
    self.assertEqual(x0_hat.shape, (4, *spec.shape))
    self.assertEqual(omega.shape, (4,))

  def test_adds_no_keys(self):
    default = common.get_default().to_dict()
    self.assertEqual(
      *({k: set(v) for k, v in c.items() if isinstance(v, dict)}
        for c in (default, coco512.get_config().to_dict()))
    )  # fmt: skip

  @parameterized.parameters(
    ({'encoders': ()}, r'data.encoders=\(\): .*has captions; give encoders'),
    ({'encoders': ('clip_s',)}, "data.encoders=.'clip_s',.: must be different ones of"),
    ({'in_memory': True}, 'data.in_memory=True: captioned images stay on disk'),
    ({'flip': True}, 'data.flip=True: latents of mirrored images'),
    ({'latent_shape': (64, 32, 4)}, r'data.latent_shape=\(64, 32, 4\): must be'),
    ({'latent_shape': (63, 63, 4)}, 'patch_size=2: must divide the side of data, 63'),
    ({'name': 'mnist'}, "data.encoders=.*'mnist' has none"),
    ({'name': 'mnist', 'encoders': ()}, 'data.autoencoder=.* captioned images alone'),
  )
  def test_refused(self, changes, message):
    config = coco512.get_config()
    config.data.update(changes)
    with self.assertRaisesRegex(errors.InputError, message):
      validation.validate(config)


class BinariesTest(helpers.WorkdirCase):
  """`root/data`, `root/encoded` and `root/workdir`, trained and collected."""

  @classmethod
  def fill(cls):
    encode_text_test.write_data(str(cls.root / 'data'))
    cls.clip = encode_text_test.write_clip(cls.root)
    config = shrunk(cls.root)
    encode(config, cls.clip)
    train_denoiser.run(config, cls.root / 'workdir')
    collect_statistics.run(config, cls.root / 'workdir')

  @pytest.mark.slow
  def test_all_binaries(self):
    root = self.copy()
    config, workdir = shrunk(root), root / 'workdir'
    shard = np.load(workdir / 'statistics' / 'particles' / 'shard-00000.npz')
    self.assertEqual(shard['label'].dtype, np.int32)
    self.assertTrue({*shard['label']} <= {*range(44)})  # 22 training images.
    self.assertTrue(np.isfinite(shard['gram']).all())
    self.assertEqual(int(train_guidance.run(config, workdir).step), 4)
    x = sample.run(config, workdir, method='self_consistency', seed=0)
    self.assertEqual(x.shape, (40, 32, 32, 3))
    stored = np.load(workdir / 'samples' / 'self_consistency_seed0.npz')
    np.testing.assert_array_equal(stored['label'], np.repeat(np.arange(48, 58), 4))
    for method, num in (('self_consistency', 8), ('real', 6)):  # All test images.
      row = fid.run(config, workdir, method=method, seed=0, network=colours())
      self.assertTrue(np.isfinite(list(row['metrics'].values())).all())
      self.assertEqual(row['num_samples'], num)
    self.assertAlmostEqual(row['metrics']['far'], 0.0, places=3)  # To themselves.
    with self.assertRaisesRegex(errors.InputError, 'make no classes'):
      evaluate.run(config, workdir)

  def test_clip_scores(self):
    """Scores of real images and of samples, by both towers from the words."""
    root = self.copy()
    config, rng = shrunk(root), np.random.default_rng(0)
    network = judges.features.load_network('', '', self.clip['weights'], None)
    real = np.arange(6)[:, None, None, None] * np.full((32, 32, 3), 8)
    samples = rng.integers(0, 256, (config.fid.num_samples, 32, 32, 3))
    captioned = builders.captions.captions(config)
    label = sampling.images.sample_labels(config, builders.data.load(config), 0)
    numbers = [*(captioned.test.first + np.arange(6)), *label]
    net = networks.CLIP(judges.text_encoders.CLIP['clip_tiny'])
    x = np.concatenate([real, samples]).astype(np.float32) / 127.5 - 1.0
    images, texts, _ = jax.jit(net.apply)(
      published.clip.load(self.clip['weights'], net.config),
      networks.clip.preprocess(jnp.asarray(x), net.config),
      text.load(self.clip['tokenizer'], length=24)(
        [captioned.texts[i] for i in numbers]
      ),
    )
    cosines = [
      a @ b / np.sqrt(a @ a * (b @ b))
      for a, b in zip(np.float64(images), np.float64(texts), strict=True)
    ]
    with mock.patch.object(
      sampling.images,
      'sampled_images',
      lambda *_: lambda i, j: samples[i:j].astype(np.uint8),
    ):
      for method, expected in (('real', cosines[:6]), ('unguided', cosines[6:])):
        row = fid.run(config, root / 'workdir', method=method, seed=0, network=network)
        score = row['metrics']['clip_score']
        self.assertAlmostEqual(score, np.mean(expected), delta=1e-3)  # Of float16.
        self.assertIn('frechet_clip_tiny_proxy', row['metrics'])
    arrays, other = files.read_npz(self.clip['weights']), root / 'other.npz'
    files.write_npz(other, {**arrays, 'logit_scale': np.float32(1.0)})
    network = judges.features.load_network('', '', str(other), None)
    with self.assertRaisesRegex(errors.InputError, 'other.npz: its sha256 starts with'):
      fid.run(config, root / 'workdir', method='real', seed=0, network=network)

  def test_clip_rewards(self):
    """Known by their weights, wherever these lie; not needed to sample."""
    root = self.copy()
    config, workdir = shrunk(root), workdirs.Workdir(root / 'workdir')
    moved, other = root / 'moved.npz', root / 'other.npz'
    shutil.copy(self.clip['weights'], moved)
    arrays = files.read_npz(moved)
    files.write_npz(other, {**arrays, 'logit_scale': np.float32(1.0)})
    config.reward.update(name='clip', weights=self.clip['weights'])
    config.guidance.gamma = 1.0
    collect_statistics.run(config, workdir.path)
    directory = workdir.statistics('particles_reward')
    profile = np.load(directory / 'shard-00000.npz')['profile']
    self.assertBetween(np.abs(profile[:, 0]).max(), 1e-4, 1.0)
    self.assertGreater(np.abs(profile[:, 1]).max(), 1e-6)

    spec, name = builders.data.spec(config), workdirs.layout.guidance_name(config)
    init = builders.models.weight_model(config, spec).init
    params = jax.tree.map(
      lambda p: jnp.zeros(p.shape), jax.eval_shape(init, jax.random.key(0))
    )
    state = training.TrainState(jnp.ones((), jnp.int32), params, {}, params)
    session = helpers.session(workdir, config)
    workdirs.weights.save(session, state, 0)
    config.reward.weights = str(moved)
    workdirs.statistics.require_same(session)
    workdirs.weights.require_same(session)
    config.reward.weights = str(other)
    for refuse in (
      workdirs.statistics.require_same,
      workdirs.weights.require_same,
    ):
      with self.assertRaisesRegex(errors.InputError, 'reward_model.weights=.* with'):
        refuse(session)
    workdirs.weights.load(session.with_config(shrunk(root)), name)

  @parameterized.product(autoencoder=(AUTOENCODER, ''), group_size=(1, 2))
  def test_batches_match_their_captions(self, autoencoder, group_size):
    """Image i of a split is i everywhere; through Grain and, in groups, without."""
    config = shrunk(self.root)
    config.data.autoencoder = autoencoder
    data, captioned = builders.data.load(config), builders.captions.captions(config)
    look_up, decode = builders.captions.lookup(config), builders.captions.decode(config)
    batches = builders.data.batches(
      config, 'denoiser', data.train, group_size=group_size
    )
    batch = next(batches(3))
    self.assertEqual((len(batch.x), batch.x.dtype), (8, np.float32))
    for i, x in enumerate(decode(batch.x)):
      ours = jax.tree.map(lambda c, i=i: c[i], batch.cond['clip_tiny'])
      rows = np.flatnonzero(captioned.train.image == _image_number(x))
      pooled = look_up.pooled(rows)['clip_tiny']['pooled']
      rows = rows[np.all(pooled == ours['pooled'], axis=1)]
      self.assertNotEmpty(rows)
      tokens = look_up(rows)['clip_tiny']['tokens'][0]
      np.testing.assert_array_equal(ours['tokens'], tokens)

  def test_direct_objective_takes_embeddings(self):
    config = shrunk(self.root)
    data, spec = builders.data.load(config), builders.data.spec(config)
    batch = next(builders.data.batches(config, 'guidance', data.train)(0))

    def loss(key):
      params = builders.models.init_network(
        builders.models.network(config, spec), key, spec
      )
      weights = builders.models.weight_model(config, spec).init(key)
      return learning.losses.make_direct_loss_fn(config, spec)(
        weights, params, batch, key
      )

    self.assertEqual(jax.eval_shape(loss, jax.random.key(0))[0].shape, ())

  def test_collected_for_the_captions_of_the_data(self):
    """Gram matrices again, from conditions looked up one by one."""
    config, workdir = shrunk(self.root), workdirs.Workdir(self.root / 'workdir')
    data, look_up = builders.data.load(config), builders.captions.lookup(config)
    session = helpers.session(workdir, config)
    store, _ = workdirs.statistics.load(session)
    shard = np.load(workdir.path / 'statistics' / 'particles' / 'shard-00000.npz')
    order = np.argsort(shard['t'])
    expected = look_up.pooled(shard['label'][order])
    np.testing.assert_array_equal(
      store.cond['clip_tiny']['pooled'], expected['clip_tiny']['pooled']
    )
    params = workdirs.base_model.load_pair(session)
    pair = jax.jit(builders.rules.pair(config, data.spec))
    null = pair(
      params, data.test.x[np.array([0])], np.array([0.5]), look_up(np.array([0]))
    )
    other = pair(
      params, data.test.x[np.array([0])], np.array([0.5]), look_up(np.array([9]))
    )
    np.testing.assert_array_equal(null[1], other[1])  # Of no caption.
    self.assertGreater(np.abs(null[0] - other[0]).max(), 1e-5)

  def test_weights_of_captions(self):
    """Tabulated by number, as the network is by pooled embeddings alone."""
    config = shrunk(self.root)
    spec, look_up = builders.data.spec(config), builders.captions.lookup(config)
    model = builders.models.weight_model(config, spec)
    params = jax.tree.map(lambda p: p + 0.1, model.init(jax.random.key(0)))
    label = np.array([5, 40, 5, 0], np.int32)
    tabulate = sampling.sampler.make_tabulate(
      config, model, builders.captions.lookup(config).pooled
    )
    omega = np.asarray(tabulate(params, label))
    times = np.linspace(1.0, 0.0, config.evaluation.num_steps + 1)
    for i in range(config.evaluation.num_steps):
      args = np.full(4, times[i + 1]), np.full(4, times[i])
      for cond in (look_up(label), look_up.pooled(label)):
        np.testing.assert_allclose(
          omega[:, i], model.apply(params, cond, *args), rtol=1e-4
        )
    np.testing.assert_array_equal(omega[0], omega[2])
    self.assertGreater(np.abs(omega[0] - omega[1]).max(), 1e-4)

  def test_embeddings_of_other_weights(self):
    """Than the base model was trained on: the config does not tell them apart."""
    root = self.copy()
    config = shrunk(root)
    shutil.rmtree(root / 'encoded')
    arrays = files.read_npz(self.clip['weights'])
    files.write_npz(root / 'clip.npz', {**arrays, 'logit_scale': np.float32(1.0)})
    encode(config, {**self.clip, 'weights': str(root / 'clip.npz')})
    for run in (
      lambda: sample.run(config, root / 'workdir', method='unguided', seed=0),
      lambda: train_guidance.run(config, root / 'workdir'),
      lambda: train_denoiser.run(config, root / 'workdir'),
      lambda: fid.run(
        config, root / 'workdir', method='real', seed=0, network=colours()
      ),
    ):
      with self.assertRaisesRegex(
        errors.InputError, 'encoded_dir=.*not what the model .*clip_tiny.weights='
      ):
        run()
    self.assertFalse((root / 'workdir' / 'fid').exists())  # No features of them.

  def test_no_embeddings(self):
    config = shrunk(self.root)
    config.data.encoded_dir = '/none'
    with self.assertRaisesRegex(
      errors.InputError, "encoded_dir='/none': .*holds no encoded.*encode_text"
    ):
      train_denoiser.run(config, self.create_tempdir().full_path)

  def test_data_are_scaled_latents_of_the_images(self):
    config = shrunk(self.root)
    data, captioned = builders.data.load(config), builders.captions.captions(config)
    self.assertEqual(data.shape, (8, 8, 48))
    train = data.train.x[np.arange(22)]  # Every training image once.
    self.assertAlmostEqual(float(np.var(train.astype(float))), 1.0, places=3)
    decode, x = builders.captions.decode(config), data.test.x[np.arange(6)]
    expected = images.to_float(captioned.test[np.arange(6)].x)
    np.testing.assert_allclose(decode(x), expected, atol=2e-3)  # float16

  def test_latents_of_other_weights(self):
    """Latents of an autoencoder of the same name: the scale tells."""
    root = self.copy()
    files.write_sealed(root / 'encoded' / 'latents' / 'scale.json', {'scale': 2.0})
    with self.assertRaisesRegex(errors.InputError, 'latents.scale=2.0: .* was written'):
      sample.run(shrunk(root), root / 'workdir', method='unguided', seed=0)

  def test_latents_resume(self):
    root = self.copy()
    directory, config = root / 'encoded' / 'latents', shrunk(root)
    before = {p.name: p.read_bytes() for p in directory.iterdir()}
    (directory / 'latents-00001.npy').unlink()
    (directory / 'scale.json').write_text('half')
    with self.assertRaisesRegex(errors.InputError, 'scale.json: holds no scale'):
      builders.data.load(config)
    (directory / 'scale.json').unlink()
    with self.assertRaisesRegex(errors.InputError, 'scale.json: is missing; to finish'):
      builders.data.load(config)
    encode_latents.run(config, batch_size=5, shard_size=8)
    self.assertEqual(before, {p.name: p.read_bytes() for p in directory.iterdir()})

  def test_latents_refused(self):
    for changes, message in (
      (
        {'autoencoder': 'tests:none'},
        "autoencoder='tests:none': module 'tests'",
      ),
      (
        {'autoencoder': 'nonexistent:f'},
        "No module .* 'module:function' that",
      ),
      ({'latent_shape': (8, 8, 4)}, r'gives \(30, 8, 8, 48\) for images'),
      ({'encoded_dir': ''}, "encoded_dir='': must both be given"),
    ):
      config = shrunk(self.root)
      config.data.encoded_dir = self.create_tempdir().full_path
      config.data.update(changes)
      with self.assertRaisesRegex(errors.InputError, message):
        encode_latents.run(config)
    config = shrunk(self.root)
    config.data.size = 64
    config.data.latent_shape = (16, 16, 48)
    with self.assertRaisesRegex(errors.InputError, 'size is 32, not 64'):
      builders.data.load(config)


def _image_number(x):
  """The number of an image that `write_data` made, from its value, [-1, 1]."""
  return int(np.rint((np.mean(x) + 1.0) * 127.5 / 8.0))


if __name__ == '__main__':
  sys.modules['tests.experiments.coco_experiments_test'] = sys.modules['__main__']
  absltest.main()
