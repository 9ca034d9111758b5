"""Published CLIPs as rewards: scores, their derivative, and what is refused."""

import functools
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized
from jax import tree_util

from experiments import builders
from experiments import encode_latents
from experiments import encode_text
from experiments import judges
from experiments import validation
from experiments import workdirs
from lgd import errors
from lgd import networks
from lgd import rewards
from lgd.data.prompts import latents
from lgd.data.prompts import text
from lgd.networks import published
from lgd.storage import files
from tests import helpers
from tests.experiments import encode_text_test

HERE = 'tests.experiments.judges.reward_models_test'
SIZE, BLOCK = 16, 4
GAIN = np.full(3, 2.0, np.float32)  # Of latents.


def _decode(gain, z):
  """Blocks of pixels, in place of their means."""
  return jnp.repeat(jnp.repeat(z / gain, BLOCK, axis=1), BLOCK, axis=2)


def _encode(x):
  n = len(x)
  x = x.reshape(n, SIZE // BLOCK, BLOCK, SIZE // BLOCK, BLOCK, 3)
  return GAIN * x.mean(axis=(2, 4))


def means():
  return latents.Autoencoder(_encode, lambda z: _decode(GAIN, z))


def means_with_arrays():
  return latents.Autoencoder(_encode, tree_util.Partial(_decode, GAIN))


def means_on_host():
  return latents.Autoencoder(_encode, lambda z: np.repeat(np.asarray(z), BLOCK, axis=1))


class RewardTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.root = pathlib.Path(cls().create_tempdir().full_path)
    encode_text_test.write_data(str(cls.root / 'data'), n=8)
    cls.clip = encode_text_test.write_clip(cls.root)
    encode_text.run(cls.config(), encoder='clip_tiny', **cls.clip)
    cls.reward = staticmethod(cls.load(cls.config()))

  @classmethod
  def config(cls, autoencoder=''):
    config = encode_text_test.make_config(cls.root / 'data', cls.root / 'encoded')
    config.reward.update(name='clip', weights=str(cls.root / 'clip.npz'))
    config.data.update(autoencoder=autoencoder, latent_shape=(4, 4, 3))
    return config

  @classmethod
  def load(cls, config):
    dataset = builders.data.load(config)
    reward, params = judges.rewards.load(helpers.session('/none', config), dataset)
    return functools.partial(jax.jit(reward), params)

  def expected(self, x, rows):
    """By both towers, from the words: cosines in float64."""
    config = judges.text_encoders.CLIP['clip_tiny']
    tokens_of = text.load(self.clip['tokenizer'], length=24)
    captions = builders.captions.captions(self.config()).texts
    image, words, _ = jax.jit(networks.CLIP(config).apply)(
      published.clip.load(self.clip['weights'], config),
      networks.clip.preprocess(x, config),
      tokens_of([captions[i] for i in rows]),
    )
    image, words = np.float64(image), np.float64(words)
    lengths = np.linalg.norm(image, axis=1) * np.linalg.norm(words, axis=1)
    return np.sum(image * words, axis=1) / lengths

  def test_scores_images_with_their_captions(self):
    rows = np.array([3, 0, 11])
    x = np.random.default_rng(0).uniform(-1.0, 1.0, (3, SIZE, SIZE, 3))
    x = np.float32(x * np.array([0.1, 0.5, 1.0])[:, None, None, None])
    actual = self.reward(x, builders.captions.lookup(self.config())(rows))
    expected = self.expected(x, rows)
    np.testing.assert_allclose(actual, expected, atol=1e-3)  # Of float16.
    self.assertGreater(np.std(expected), 5e-3)

  def test_scores_latents_by_what_they_decode_to(self):
    """And arrays of the decoder, if it shows them, are parameters."""
    config = self.config(f'{HERE}:means_with_arrays')
    encode_latents.run(config)
    scale = builders.captions.latents_store(config).scale
    x = np.random.default_rng(1).uniform(-0.9, 0.9, (3, 4, 4, 3)).astype(np.float32)
    rows, z = np.array([1, 2, 5]), 2.0 * scale * x
    expected = self.expected(np.repeat(np.repeat(x, BLOCK, 1), BLOCK, 2), rows)
    cond = builders.captions.lookup(config)(rows)
    scored = self.load(config)
    np.testing.assert_allclose(scored(z, cond), expected, atol=1e-3)
    store = builders.captions.latents_store(config)
    with absltest.mock.patch.object(
      builders.captions, 'latents_store', lambda *_: store
    ):
      config.data.autoencoder = f'{HERE}:means'
      plain = self.load(config)
      np.testing.assert_allclose(plain(z, cond), expected, atol=1e-3)
      is_gain = functools.partial(np.array_equal, GAIN)
      self.assertTrue(any(map(is_gain, jax.tree.leaves(scored.args))))
      self.assertFalse(any(map(is_gain, jax.tree.leaves(plain.args))))
      config.data.autoencoder = f'{HERE}:means_on_host'
      with self.assertRaisesRegex(
        errors.InputError, "means_on_host': its decode cannot be traced.*Tracer"
      ) as caught:
        self.load(config)
    self.assertNotIn('\n', str(caught.exception))

  def test_derivative_along_a_direction(self):
    """Central differences in float64; to no row but those that move."""
    rng = np.random.default_rng(2)
    with jax.enable_x64(True):
      x, delta = rng.uniform(-0.8, 0.8, (2, 3, SIZE, SIZE, 3))
      delta[1] = 0.0
      params = jax.tree.map(np.float64, self.reward.args[0])
      reward = functools.partial(self.reward.func, params)
      cond = builders.captions.lookup(self.config())(np.arange(3))
      _, slope = rewards.value_and_slope(reward, x, delta, jnp.zeros(3), cond)
      h = 1e-4  # Of 0.1: pixels stay inside of [-1, 1].
      after, before = (reward(x + sign * h * delta, cond) for sign in (1.0, -1.0))
      np.testing.assert_allclose(slope, (after - before) / (2.0 * h), atol=1e-7)
      self.assertGreater(np.min(np.abs(np.asarray(slope)[[0, 2]])), 1e-3)
      np.testing.assert_array_equal(slope[1], 0.0)

  def test_a_row_depends_on_itself_alone(self):
    look_up = builders.captions.lookup(self.config())
    x = np.random.default_rng(3).uniform(-1.0, 1.0, (3, SIZE, SIZE, 3))
    x = x.astype(np.float32)
    before = self.reward(x, look_up(np.array([0, 1, 2])))
    x[[0, 2]] *= -0.5
    after = self.reward(x, look_up(np.array([7, 1, 4])))
    np.testing.assert_allclose(before[1], after[1], atol=1e-6)
    self.assertGreater(np.min(np.abs(before - after)[jnp.array([0, 2])]), 1e-3)

  def test_weights_of_another_clip(self):
    arrays = files.read_npz(self.clip['weights'])
    other = self.root / 'other.npz'
    files.write_npz(other, {**arrays, 'logit_scale': np.float32(1.0)})
    config = self.config()
    config.reward.weights = str(other)
    digest = files.sha256(self.clip['weights'])[:8]
    with self.assertRaisesRegex(
      errors.InputError, rf'other.npz: its sha256 .* with {digest} \(clip_tiny\); give'
    ):
      self.load(config)
    one, another = (
      workdirs.identity.reward_model_identity(helpers.session('/none', c))
      for c in (self.config(), config)
    )
    self.assertNotEqual(one, another)
    self.assertEqual(
      *(workdirs.identity.reward_identity(c) for c in (self.config(), config))
    )
    stored = {'reward_model': one}
    with self.assertRaisesRegex(
      errors.InputError, 'weights=.*: there was written with'
    ):
      workdirs.refuse.require_same(stored, {'reward_model': another}, 'there')
    files.write_npz(other, {k: v for k, v in arrays.items() if 'block_0' not in k})
    with self.assertRaisesRegex(
      errors.FileError, 'other.npz: has no array image/block'
    ):
      judges.published_clip.load(other)
    files.write_npz(other, {'image/positions': np.zeros((2, 3))})
    with self.assertRaisesRegex(errors.FileError, r'\(2, 3\), of none of clip_b32'):
      judges.published_clip.load(other)

  @parameterized.parameters(
    ({'name': 'mnist', 'encoders': ()}, "data.name='mnist': has no embeddings"),
    ({'encoders': ('t5_small',)}, "data.encoders=.'t5_small',.: has no CLIP"),
  )
  def test_no_embeddings_of_a_clip(self, changes, message):
    config = self.config()
    config.data.update(changes)
    with self.assertRaisesRegex(errors.InputError, message):
      judges.published_clip.encoder_of(config, self.clip['weights'])

  def test_validation(self):
    config = self.config()
    validation.validate(config)
    for name, weights, message in (
      ('clip', '', "reward.weights='': no such file; it must be the npz"),
      ('clip', '/none.npz', "reward.weights='/none.npz': no such file"),
      ('', 'clip.npz', "reward.weights='clip.npz': is of reward.name='clip'"),
    ):
      config.reward.update(name=name, weights=weights)
      with self.assertRaisesRegex(errors.InputError, message):
        validation.validate(config)


if __name__ == '__main__':
  sys.modules[HERE] = sys.modules['__main__']
  absltest.main()
