"""Smoke variants of 64x64 images through their binaries, streamed from files."""

import pathlib
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import absltest

from configs import celeba64
from configs import imagenet64
from experiments import benchmark_sampling
from experiments import benchmark_unet
from experiments import builders
from experiments import collect_statistics
from experiments import evaluate
from experiments import fid
from experiments import judges
from experiments import sample
from experiments import sampling
from experiments import search_trajectory
from experiments import sweep
from experiments import train_denoiser
from experiments import train_guidance
from lgd import errors
from lgd import metrics
from lgd import networks
from tests.lgd.data.tfds import tfds_files


def write_data(data_dir):
  """64x64 images of noise around a colour of their class, 30 of 1000 classes."""
  rng = np.random.default_rng(0)

  def examples(num):
    label = rng.integers(30, size=num) * 33
    x = 4 * label[:, None, None, None] % 256 + rng.integers(-9, 9, (num, 64, 64, 3))
    x = np.clip(x, 0, 255).astype(np.uint8)
    return [{'image': i, 'label': int(k)} for i, k in zip(x, label, strict=True)]

  tfds_files.write(
    data_dir,
    'imagenet_resized/64x64',
    {'train': examples(96), 'validation': examples(16)},
    tfds_files.labelled((64, 64, 3), 1000),
    num_shards=2,
  )


def shrunk(module, data_dir):
  """The smoke variant, smaller still."""
  config = module.get_config('smoke')
  config.data.dir = data_dir
  config.denoiser.update(num_steps=4, batch_size=8)
  config.guidance.num_steps = 4
  config.statistics.update(num_data=16, batch_size=8, shard_size=16)
  config.evaluation.num_steps = 2
  return config


@pytest.mark.slow
class ImageNet64Test(absltest.TestCase):
  def test_all_binaries(self):
    data_dir = self.create_tempdir().full_path
    workdir = pathlib.Path(self.create_tempdir().full_path)
    write_data(data_dir)
    config = shrunk(imagenet64, data_dir)
    state = train_denoiser.run(config, workdir)
    self.assertEqual(int(state.step), 4)
    collect_statistics.run(config, workdir)
    shard = np.load(workdir / 'statistics' / 'particles' / 'shard-00000.npz')
    self.assertEqual(shard['gram'].shape, (16, 45))
    self.assertTrue(set(shard['label']) <= set(33 * np.arange(30)))
    state = train_guidance.run(config, workdir)
    self.assertEqual(int(state.step), 4)

    net = networks.SqueezeNet()
    params = jax.jit(net.init)(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    network = judges.features.Network(
      'squeezenet', 'random', '0' * 64, metrics.squeezenet(params)
    )
    for method in ('self_consistency', 'real'):
      row = fid.run(config, workdir, method=method, seed=0, network=network)
      self.assertTrue(np.isfinite(list(row['metrics'].values())).all())
    for binary in (evaluate, sweep):
      with self.assertRaisesRegex(errors.InputError, 'in_memory.* use experiments.fid'):
        binary.run(config, workdir)
    with self.assertRaisesRegex(errors.InputError, 'holds 0 data of class'):
      search_trajectory.run(config, workdir)  # 9 validation data, 1000 classes.

  @pytest.mark.slow
  def test_benchmark(self):
    config = imagenet64.get_config('smoke')
    config.statistics.batch_size = 64
    with self.subTest('counts'):
      counted = benchmark_unet.run(config, count_only=True)
      # A convolution of 3x3 from 8 to 8 channels at 64x64 alone has this many.
      self.assertGreater(counted['evaluation_flops'], 2 * 9 * 8 * 8 * 64**2)
    with self.subTest('measures'):
      config.denoiser.update(batch_size=8, multipliers=(1,))
      measured = benchmark_unet.run(config, count_only=False)
      self.assertGreater(measured['train_images_per_second'], 0.0)
      config.fid.batch_size = 8
      config.evaluation.num_steps = 2
      measured = benchmark_sampling.run(config, method='interval:1,0,0.5', workdir=None)
      self.assertEqual(measured['evaluations_per_sample'], 3.0)  # Of 4.
      self.assertGreater(measured['sample_over_bare_evaluations'], 0.0)
      self.assertEqual(measured['planned_full_evaluations_over_ideal'], 1.0)
      self.assertBetween(measured['planned_half_evaluations_over_plain'], 0.75, 1.0)


class CelebA64Test(absltest.TestCase):
  """Conditions that are vectors of 40 attributes."""

  @pytest.mark.slow
  def test_all_binaries(self):
    data_dir = self.create_tempdir().full_path
    workdir = pathlib.Path(self.create_tempdir().full_path)
    _, bits, examples, features = tfds_files.faces(24)
    official = {'train': examples, 'validation': examples[:2], 'test': examples[:4]}
    tfds_files.write(data_dir, 'celeb_a', official, features)
    config = shrunk(celeba64, data_dir)
    config.denoiser.multipliers = (1,)
    # The null prediction differs from the conditional ones after a few steps.
    config.denoiser.update(learning_rate=0.05, ema_decay=0.5)
    train_denoiser.run(config, workdir)
    collect_statistics.run(config, workdir)
    shard = np.load(workdir / 'statistics' / 'particles' / 'shard-00000.npz')
    self.assertEqual(shard['label'].shape, (16, 40))
    self.assertTrue({*map(tuple, shard['label'])} <= {*map(tuple, bits.astype(float))})
    self.assertTrue(np.isfinite(shard['gram']).all())
    for source in ('statistics', 'direct'):
      config.guidance.source = source
      train_guidance.run(config, workdir)
    x = sample.run(config, workdir, method='self_consistency', seed=0)
    self.assertEqual(x.shape[1:], (64, 64, 3))
    stored = np.load(workdir / 'samples' / 'self_consistency_seed0.npz')
    per_cond = config.evaluation.samples_per_class
    np.testing.assert_array_equal(stored['label'], np.repeat(bits[:4], per_cond, 0))
    strong = sample.run(config, workdir, method='constant:3', seed=0)
    self.assertGreater(np.abs(strong - x).max(), 1e-3)  # The learned ones are near 0.

    net = networks.SqueezeNet()
    params = jax.jit(net.init)(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    network = judges.features.Network(
      'squeezenet', 'random', '0' * 64, metrics.squeezenet(params)
    )
    row = fid.run(config, workdir, method='self_consistency', seed=0, network=network)
    self.assertTrue(np.isfinite(list(row['metrics'].values())).all())
    for binary in (evaluate, search_trajectory, sweep):
      with self.assertRaisesRegex(errors.InputError, 'attributes.* experiments.fid'):
        binary.run(config, workdir)

  def test_every_vector_has_its_weights(self):
    """More of them than are tabulated at a time, some of them repeated."""
    config = shrunk(celeba64, '')
    model = builders.models.weight_model(config, builders.data.spec(config))
    params = model.init(jax.random.key(0))
    params = jax.tree.map(lambda p: p + 0.1, params)
    rng = np.random.default_rng(0)
    cond = rng.integers(0, 2, (300, 40)).astype(np.float32)[rng.integers(300, size=500)]
    self.assertGreater(len(np.unique(cond, axis=0)), 220)
    with mock.patch.object(sampling.sampler, '_CHUNK', 64):
      omega = sampling.sampler.make_tabulate(config, model)(params, cond)
    times = np.linspace(1.0, 0.0, config.evaluation.num_steps + 1)
    self.assertEqual(omega.shape, (500, config.evaluation.num_steps))
    for i in range(config.evaluation.num_steps):
      s, t = np.full(500, times[i + 1]), np.full(500, times[i])
      expected = model.apply(params, cond, s, t)
      np.testing.assert_allclose(omega[:, i], expected, rtol=1e-4, atol=1e-6)
    self.assertGreater(np.std(omega), 1e-3)


if __name__ == '__main__':
  absltest.main()
