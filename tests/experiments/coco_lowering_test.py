"""The full-size text-to-image model lowers for eight devices; nothing is allocated."""

import jax
import numpy as np
import pytest
from absl.testing import absltest

from configs import coco512
from experiments import builders
from experiments import learning
from lgd import training
from lgd.data import splits
from lgd.training import sharding

NUM_DEVICES = 8


@pytest.mark.slow
class LoweringTest(absltest.TestCase):
  def test_train_step(self):
    config = coco512.get_config()
    spec, mesh = builders.data.spec(config), builders.models.mesh(config)
    net, tx = (
      builders.models.network(config, spec),
      builders.models.optimizer(config.denoiser),
    )

    def init(key):
      return training.init_state(builders.models.init_network(net, key, spec), tx)

    key, n = jax.random.key(0), config.denoiser.batch_size
    state = jax.eval_shape(init, key)
    shardings = sharding.fsdp(state, mesh)
    of_device = sum(
      np.prod(s.shard_shape(x.shape), dtype=float) * x.dtype.itemsize
      for x, s in zip(*map(jax.tree.leaves, (state, shardings)), strict=True)
    )
    num_params = sum(x.size for x in jax.tree.leaves(state.params))
    self.assertBetween(num_params, 0.9 * 1.05e9, 1.1 * 1.05e9)  # The paper's.
    # Parameters, their average and Adam's two moments, in float32, on eight devices.
    self.assertBetween(of_device / (16 * num_params / 8), 1.0, 1.01)

    zeros = jax.ShapeDtypeStruct((n, *spec.shape), np.float32)
    cond = jax.eval_shape(lambda: spec.conditions.zeros(n))
    step = training.make_train_step(
      learning.losses.make_denoiser_loss_fn(config, spec),
      tx,
      ema_decay=config.denoiser.ema_decay,
    )
    step = training.compile_step(step, mesh, shardings)
    lowered = step.lower(state, None, splits.Batch(zeros, cond), key)
    # Of a block, products with 12 width^2 weights and between all pairs of tokens; one
    # evaluation forward, again by remat, and two backward.
    width, depth = config.denoiser.width, config.denoiser.depth
    num_tokens = 32**2 + 2 * 77
    block = 2 * num_tokens * 12 * width**2 + 4 * num_tokens**2 * width
    self.assertBetween(
      lowered.cost_analysis()['flops'] / (4 * n * depth * block), 0.95, 1.1
    )


if __name__ == '__main__':
  absltest.main()
