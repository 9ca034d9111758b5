"""ImageNet 64's smoke variant through its binaries, streamed from files."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tfds_files
from absl.testing import absltest

from configs import imagenet64
from experiments import benchmark_unet
from experiments import collect_statistics
from experiments import evaluate
from experiments import feature_files
from experiments import fid
from experiments import launch
from experiments import train_denoiser
from experiments import train_guidance
from lgd import metrics
from lgd import networks

pytestmark = pytest.mark.usefixtures('fast_compilation')


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


class ImageNet64Test(absltest.TestCase):
  def config(self, data_dir):
    config = imagenet64.get_config('smoke')
    config.data.dir = data_dir
    config.denoiser.update(num_steps=4, batch_size=8)
    config.guidance.num_steps = 4
    config.statistics.update(num_data=16, batch_size=8, shard_size=16)
    config.evaluation.num_steps = 2
    return config

  def test_all_binaries(self):
    data_dir = self.create_tempdir().full_path
    workdir = pathlib.Path(self.create_tempdir().full_path)
    write_data(data_dir)
    config = self.config(data_dir)
    state = train_denoiser.run(config, workdir)
    self.assertEqual(int(state.step), 4)
    collect_statistics.run(config, workdir)
    shard = np.load(workdir / 'statistics' / 'particles' / 'shard-00000.npz')
    self.assertEqual(shard['gram'].shape, (16, 45))
    self.assertTrue(set(shard['label']) <= set(33 * np.arange(30)))
    for source in ('statistics', 'direct'):
      config.guidance.source = source
      state = train_guidance.run(config, workdir)
      self.assertEqual(int(state.step), 4)

    net = networks.SqueezeNet()
    params = jax.jit(net.init)(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    network = feature_files.Network('squeezenet', 'random', metrics.squeezenet(params))
    for method in ('self_consistency', 'unguided', 'real'):
      row = fid.run(config, workdir, method=method, seed=0, network=network)
      self.assertTrue(np.isfinite(list(row['metrics'].values())).all())
    with self.assertRaisesRegex(launch.UserError, 'use experiments.fid'):
      evaluate.run(config, workdir)

  def test_benchmark(self):
    config = imagenet64.get_config('smoke')
    config.statistics.batch_size = 64
    with self.subTest('counts'):
      counted = benchmark_unet.run(config, count_only=True)
      # A convolution of 3x3 from 8 to 8 channels at 64x64 alone has this many.
      self.assertGreater(counted['evaluation_flops'], 2 * 9 * 8 * 8 * 64**2)
    with self.subTest('measures'):
      config.denoiser.batch_size = 8
      config.statistics.batch_size = 8
      config.evaluation.num_steps = 2
      measured = benchmark_unet.run(config, count_only=False)
      self.assertGreater(measured['sample_over_bare_evaluations'], 0.0)


if __name__ == '__main__':
  absltest.main()
