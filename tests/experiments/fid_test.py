"""The FID binary on digits, against features and moments made here; and its resume."""

import functools
import json
import pathlib
import tempfile
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import absltest

from configs import digits
from experiments import builders
from experiments import fid
from experiments import judges
from experiments import sample
from experiments import sampling
from experiments import train_denoiser
from lgd import conditions
from lgd import errors
from lgd import metrics
from lgd import networks
from lgd.data import splits
from tests import helpers


@functools.cache
def make_network():
  """SqueezeNet with random weights."""
  net = networks.SqueezeNet()
  params = jax.jit(net.init)(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
  return judges.features.Network(
    'squeezenet', 'random', '0' * 64, metrics.squeezenet(params)
  )


def extract(x):
  """Features of images in [-1, 1]: 8 bits, three channels."""
  levels = np.rint((np.clip(x, -1.0, 1.0) + 1.0) * 127.5).astype(np.uint8)
  images = np.concatenate([levels] * 3, axis=-1)
  return np.float64(metrics.extract(make_network().extractor, images).features)


def frechet(a, b):
  """With S_1 = A A^T, S_2 = B B^T, tr (S_1 S_2)^(1/2) is the nuclear norm of A^T B."""
  mean = np.sum((a.mean(axis=0) - b.mean(axis=0)) ** 2)
  a, b = ((x - x.mean(axis=0)) / np.sqrt(len(x) - 1) for x in (a, b))
  return mean + np.sum(a**2) + np.sum(b**2) - 2.0 * np.linalg.norm(a @ b.T, ord='nuc')


class FidTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.workdir = pathlib.Path(tempfile.mkdtemp())
    cls.config = digits.get_config('smoke')
    train_denoiser.run(cls.config, cls.workdir)

  def run_fid(self, method='unguided', **fid_settings):
    config = self.config.copy_and_resolve_references()
    config.fid.update(fid_settings)
    return fid.run(config, self.workdir, method=method, seed=0, network=make_network())

  def test_matches_samples_of_the_same_seed_and_resumes(self):
    """Sample i of a seed is sample i, in whatever batches and shards."""
    config = self.config.copy_and_resolve_references()
    # In `sample` labels come sorted: here every class in turn, so 10 samples of each
    # class one after the other are other samples. Those of one class are the same.
    config.evaluation.samples_per_class = 12
    row = self.run_fid(num_samples=12)
    self.assertEqual(row['num_samples'], 12)
    directory = self.workdir / 'fid' / 'unguided_seed0_squeezenet'
    shards = sorted(directory.glob('features-*.npz'))
    self.assertLen(shards, 2)  # 8 and 4.
    kept = np.concatenate([np.load(shard)['features'] for shard in shards])

    x = sample.run(config, self.workdir, method='unguided', seed=0)
    # The first 12 of `sample` are of class 0; sample 0 has the same key and class.
    np.testing.assert_allclose(kept[:1], extract(x[:1]), rtol=1e-3, atol=1e-3)

    real = extract(builders.data.load(config).train.x[:16])
    name = 'frechet_squeezenet_proxy'
    expected = frechet(np.float64(kept), real)
    self.assertAlmostEqual(row['metrics'][name] / expected, 1.0, delta=1e-4)
    self.assertNotIn('fid', row['metrics'])

    # Again: nothing is drawn, and a missing shard is made as it was.
    before = helpers.files_under(directory)
    again = self.run_fid(num_samples=12)
    self.assertEqual(again['metrics'], row['metrics'])
    self.assertEqual(helpers.files_under(directory), before)
    shards[1].unlink()
    again = self.run_fid(num_samples=12, batch_size=16)
    restored = np.load(shards[1])['features']
    np.testing.assert_allclose(restored, kept[8:], rtol=1e-3, atol=1e-3)
    rows = json.loads((self.workdir / 'fid' / 'results.json').read_text())
    self.assertLen([r for r in rows if r['method'] == 'unguided'], 1)

  def test_refused_before_features_are_kept(self):
    """A method, and a reference of somebody else's, that cannot be used."""
    before = helpers.files_under(self.workdir)
    with self.assertRaisesRegex(errors.InputError, '--method=nothing: must be'):
      self.run_fid(method='nothing')
    with self.assertRaisesRegex(errors.FileError, 'none.npz: no such file'):
      fid.run(
        self.config,
        self.workdir,
        method='unguided',
        seed=7,
        network=make_network(),
        reference=str(self.workdir / 'none.npz'),
      )
    # SqueezeNet has 1000 features, the test data of digits 360 images.
    other = pathlib.Path(self.create_tempdir().full_path, 'other.npz')
    metrics.save_gaussian(other, metrics.Gaussian(np.zeros(7), np.eye(7)))
    network = make_network()
    with self.assertRaisesRegex(
      errors.InputError, 'is of 7 features, and squeezenet has'
    ):
      fid.run(
        self.config,
        self.workdir,
        method='unguided',
        seed=7,
        network=network,
        reference=str(other),
      )
    for settings in ({'num_samples': 3}, {'num_reference': 1}):
      with self.assertRaisesRegex(
        errors.InputError, 'the third neighbour needs at least'
      ):
        self.run_fid(**settings)
    data = builders.data.load(self.config)
    few = data._replace(test=splits.Split(data.test.x[:3], data.test.label[:3]))
    with (
      mock.patch.object(builders.data, 'load', return_value=few),
      self.assertRaisesRegex(errors.InputError, 'fid: there are 3 samples'),
    ):
      self.run_fid('real')
    self.assertEqual(helpers.files_under(self.workdir), before)

  @pytest.mark.slow
  def test_real_data_are_the_floor(self):
    real = self.run_fid('real', num_samples=64, num_reference=64, split='validation')
    noise = self.run_fid(
      'constant:1.0', num_samples=64, num_reference=64, split='validation'
    )
    name = 'frechet_squeezenet_proxy'
    self.assertLess(real['metrics'][name], noise['metrics'][name])
    self.assertGreater(real['metrics']['recall_squeezenet_proxy'], 0.5)

  def test_samples_that_are_not_finite(self):
    """The first of them is named; by its number, in whatever order they were drawn."""
    x = np.zeros((4, 2, 2, 1))
    x[1, 0, 0, 0], x[3, 1, 1, 0] = np.nan, np.inf
    of_rule = sampling.sampler.RuleSampler(
      lambda params, omega, keys, cond: x[cond], None, None, np.asarray, np.asarray
    )
    draw = functools.partial(of_rule.draw, None, name='m', seed=7)
    with self.assertRaisesRegex(errors.NonFiniteError, 'm: sample 5 of seed 7 is'):
      draw(np.arange(4), numbers=np.array([3, 9, 0, 5]))
    draw(np.array([0, 2]), numbers=np.array([3, 0]))
    message = '--method=constant:1e38: sample 0 of seed 0 is not .*smaller weights'
    with self.assertRaisesRegex(errors.NonFiniteError, message):
      self.run_fid('constant:1e38', num_samples=8)
    self.assertEmpty([*(self.workdir / 'fid').glob('constant_1e38*/*.npz')])
    with self.assertRaisesRegex(errors.NonFiniteError, message):
      sample.run(self.config, self.workdir, method='constant:1e38', seed=0)
    self.assertEmpty([*self.workdir.glob('samples/constant_1e38*')])

  def test_images_of_another_rule_are_others(self):
    """The constants of the rule of the method, whatever rule the config names."""
    config = self.config.copy_and_resolve_references()
    session = helpers.session(self.workdir, config)

    def identity(method, **constants):
      config.rule.update(constants)
      return sampling.images.sampling_identity(session, method, 0)

    one, other = (identity('apg:0.5', apg_max_norm=norm) for norm in (1.0, 5.0))
    self.assertNotEqual(one, other)
    one, other = (identity('constant:0.5', apg_max_norm=norm) for norm in (1.0, 5.0))
    self.assertEqual(one, other)

  def test_other_settings_are_refused(self):
    self.run_fid('constant:0.5', num_samples=8)
    before = helpers.files_under(self.workdir / 'fid')
    with self.assertRaisesRegex(errors.InputError, 'num_samples=9: .* with 8'):
      self.run_fid('constant:0.5', num_samples=9)
    more_steps = self.config.copy_and_resolve_references()
    more_steps.evaluation.num_steps += 1
    more_steps.fid.num_samples = 8
    with self.assertRaisesRegex(errors.InputError, 'sampling_steps=4: .* with 3'):
      fid.run(
        more_steps, self.workdir, method='constant:0.5', seed=0, network=make_network()
      )
    self.assertEqual(helpers.files_under(self.workdir / 'fid'), before)

  def test_labels(self):
    """Every class in turn; or the shares of the training data, chi-squared."""
    data = builders.data.load(self.config)
    config = self.config.copy_and_resolve_references()
    config.fid.num_samples = 10_000
    label = sampling.images.sample_labels(config, data, 0)
    np.testing.assert_array_equal(label[:12], [*range(10), 0, 1])
    config.fid.labels = 'data'
    drawn = np.bincount(sampling.images.sample_labels(config, data, 0), minlength=10)
    expected = np.bincount(data.train.label) / len(data.train.label) * 10_000
    self.assertLess(np.sum((drawn - expected) ** 2 / expected), 27.9)  # p = .001

  def test_weights_of_one_network(self):
    for weights in (('', '', ''), ('a', 'b', ''), ('a', '', 'c'), ('', 'b', 'c')):
      with self.assertRaisesRegex(errors.InputError, 'give the weights of one'):
        judges.features.load_network(*weights, None)
    for weights in (('/nowhere', '', ''), ('', '', '/nowhere')):
      with self.assertRaisesRegex(errors.FileError, '/nowhere: no such file'):
        judges.features.load_network(*weights, None)
    with self.assertRaisesRegex(errors.InputError, "--sha256='abc': must be 8 to 64"):
      judges.features.load_network(__file__, '', '', 'abc')

  def test_labels_of_prompts(self):
    """Whole rows of tokens, every one of the test data once before any is again."""
    tokens = np.arange(12, dtype=np.int32).reshape(4, 3)
    split = splits.Split(np.zeros((4, 1)), tokens)
    data = splits.Dataset(split, split, split, conditions.Tokens(3, 300))
    config = self.config.copy_and_resolve_references()
    config.fid.update(labels='test', num_samples=6)
    label = sampling.images.sample_labels(config, data, 0)
    self.assertCountEqual(label[:4].tolist(), tokens.tolist())
    np.testing.assert_array_equal(label[4:], label[:2])

  def test_features_of_other_weights_are_refused(self):
    self.run_fid('constant:0.75', num_samples=8)
    other = make_network()._replace(sha256='1' * 64)
    config = self.config.copy_and_resolve_references()
    config.fid.num_samples = 8
    with self.assertRaisesRegex(errors.InputError, "weights='1111.* with '0000"):
      fid.run(config, self.workdir, method='constant:0.75', seed=0, network=other)


if __name__ == '__main__':
  absltest.main()
