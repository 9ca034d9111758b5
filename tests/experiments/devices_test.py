"""Eight devices as one: losses, updates, samples, and a run that moves between them."""

from unittest import mock

import jax
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized

from configs import digits
from experiments import builders
from experiments import learning
from experiments import sampling
from experiments import train_denoiser
from lgd import objectives
from lgd import statistics
from lgd import training
from lgd.data import splits
from lgd.training import sharding
from tests import helpers

NUM_DEVICES = 8


def smoke_config(**overrides):
  config = digits.get_config('smoke')
  config.update_from_flattened_dict({'guidance.depth': 2, **overrides})
  return config


class DevicesTest(parameterized.TestCase):
  """On any mesh of 8 devices as on one: losses, parameters after updates, samples."""

  def setUp(self):
    super().setUp()
    # Splits the arrays of the small networks of tests, too.
    self.enter_context(mock.patch.object(sharding, '_MIN_SIZE', 16))
    self.assertLen(jax.devices(), 8)
    self.one_device = sharding.make_mesh(jax.devices()[:1])

  def place(self, frozen, mesh):
    """Parameters as the rule has it, statistics everywhere."""
    if isinstance(frozen, objectives.Store):
      return jax.device_put(frozen, sharding.replicated(mesh))
    shardings = sharding.fsdp(frozen, mesh)
    num_split = sum(not s.is_fully_replicated for s in jax.tree.leaves(shardings))
    self.assertEqual(num_split > 5, mesh.shape['fsdp'] > 1)
    return jax.device_put(frozen, shardings)

  def assert_same_on_eight_devices(self, config, loss_fn, frozen, batches):
    model = builders.models.weight_model(config, builders.data.spec(config))
    key, tx = jax.random.key(0), builders.models.optimizer(config.guidance)
    step = training.make_train_step(loss_fn, tx, ema_decay=0.9)

    def train(mesh):
      state = training.init_state(model.init(key), tx)
      shardings = sharding.fsdp(state, mesh)
      compiled = training.compile_step(step, mesh, shardings)
      state, on_mesh = jax.device_put(state, shardings), self.place(frozen, mesh)
      losses = []
      for batch in batches:
        on_devices = sharding.global_batch(batch, mesh)
        state, metrics = compiled(state, on_mesh, on_devices, key)
        losses.append(float(metrics['loss']))
      return losses, jax.device_get(state.params)

    expected = train(self.one_device)
    for fsdp in (1, 2, 4):
      losses, params = train(sharding.make_mesh(fsdp=fsdp))
      np.testing.assert_allclose(losses, expected[0], rtol=1e-5)
      jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5),
        params,
        expected[1],
      )

  @parameterized.parameters('self_consistency', 'class_marginal')
  def test_particles_stay_on_their_device(self, objective):
    """A compiled direct update only adds up scalars and gradients of the weight."""
    config = smoke_config(
      **{'guidance.objective': objective, 'guidance.batch_size': 256}
    )
    data = builders.data.load(config)
    mesh = sharding.make_mesh()
    params = builders.models.init_network(
      builders.models.network(config, data.spec), jax.random.key(0), data.spec
    )
    model = builders.models.weight_model(config, data.spec)
    tx = builders.models.optimizer(config.guidance)
    state = training.init_state(model.init(jax.random.key(0)), tx)
    step = training.compile_step(
      training.make_train_step(
        learning.losses.make_direct_loss_fn(config, data.spec), tx, ema_decay=0.9
      ),
      mesh,
      sharding.replicated(mesh),
    )
    batch = splits.Batch(
      np.zeros((256, *data.shape), np.float32), np.zeros(256, np.int32)
    )
    lowered = step.lower(
      state, params, sharding.global_batch(batch, mesh), jax.random.key(0)
    )
    moved = helpers.elements_moved(lowered.compile().as_text())
    self.assertEqual(moved.keys(), {'all-reduce'}, moved)
    largest = max(leaf.size for leaf in jax.tree.leaves(state.params))
    num_params = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    self.assertLessEqual(max(moved['all-reduce']), largest)
    self.assertLessEqual(sum(moved['all-reduce']), num_params + 20)

  def test_groups_are_whole_on_every_device(self):
    """40 samples in groups of 2 on 8 devices, 6 on each: 48 are evaluated, 4 times."""
    config = smoke_config()
    config.rule.update(name='stein', num_particles=2)
    config.evaluation.num_steps = 4
    count_nfe = sampling.sampler.make_count_nfe(config, builders.data.spec(config))
    self.assertEqual(count_nfe(np.ones((40, 4), np.float32), 40), 4.8)

  def test_samples(self):
    config = smoke_config()
    data = builders.data.load(config)
    params = builders.models.init_network(
      builders.models.network(config, data.spec), jax.random.key(0), data.spec
    )
    params = jax.tree.map(lambda p: p + 0.1, params)
    label = sampling.sampler.balanced_labels(10, 4)
    keys = sampling.sampler.sample_keys(0, np.arange(len(label)))
    omega = np.random.default_rng(0).uniform(size=(len(label), 3))

    def sample(mesh):
      with mock.patch.object(builders.models, 'mesh', return_value=mesh):
        sample_fn = sampling.sampler.make_sample_fn(config, data.spec)
      return sample_fn(self.place(params, mesh), omega, keys, label)

    expected = np.asarray(sample(self.one_device))
    self.assertGreater(np.std(expected), 0.1)
    for fsdp in (1, 2, 4):
      x = sample(sharding.make_mesh(fsdp=fsdp))
      np.testing.assert_allclose(x, expected, rtol=1e-4, atol=1e-5)

  @parameterized.parameters('self_consistency', 'score_matching', 'class_marginal')
  def test_direct(self, objective):
    config = smoke_config(
      **{
        'guidance.objective': objective,
        'guidance.batch_size': 16,
      }
    )
    data = builders.data.load(config)
    params = builders.models.init_network(
      builders.models.network(config, data.spec), jax.random.key(0), data.spec
    )
    # Away from its start, where the network is 0 and so are both predictions.
    params = jax.tree.map(lambda p: p + 0.1, params)
    batches = builders.data.batches(
      config,
      'guidance',
      data.train,
      group_size=4 if objective == 'class_marginal' else 1,
      by_class=objective == 'class_marginal',
      num_classes=data.num_classes,
    )(0)
    loss_fn = learning.losses.make_direct_loss_fn(config, data.spec)
    self.assert_same_on_eight_devices(
      config, loss_fn, params, [next(batches), next(batches)]
    )

  @parameterized.parameters('self_consistency', 'l2', 'class_marginal')
  def test_statistics(self, objective):
    config = smoke_config(**{'guidance.objective': objective})
    num, num_vectors = 64, 4 * 8 if objective == 'class_marginal' else 3 * 3
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(num, num_vectors, 64)).astype(np.float32)
    label = rng.integers(10, size=(num, 8) if objective == 'class_marginal' else num)
    store = objectives.make_store(
      statistics.pack(vectors @ vectors.swapaxes(1, 2)),
      (np.arange(num, dtype=np.float32) + 0.5) / num,
      label,
      schedule=builders.models.schedule(config),
      dim=64,
      num_particles=8 if objective == 'class_marginal' else 3,
      grouped=objective == 'class_marginal',
    )
    spec = builders.data.spec(config)
    loss_fn = learning.losses.make_statistics_loss_fn(config, spec)
    self.assert_same_on_eight_devices(config, loss_fn, store, [(), ()])

  def test_on_fewer_devices(self):
    """Two steps on 8 devices, two on 2, two on 1: as six on one, to tolerance."""
    self.enter_context(mock.patch.object(sharding, '_MIN_SIZE', 16))
    devices = jax.devices()
    straight, moved = (self.create_tempdir().full_path for _ in range(2))
    for mesh, num_steps, workdir in (
      (sharding.make_mesh(devices[:1]), 6, straight),
      (sharding.make_mesh(fsdp=4), 2, moved),
      (sharding.make_mesh(devices[:2], fsdp=2), 4, moved),
      (sharding.make_mesh(devices[:1]), 6, moved),
    ):
      config = smoke_config(**{'checkpoint_every': 2, 'denoiser.num_steps': num_steps})
      with mock.patch.object(builders.models, 'mesh', return_value=mesh):
        state = train_denoiser.run(config, workdir)
      self.assertEqual(
        {len(x.sharding.device_set) for x in jax.tree.leaves(state)}, {mesh.size}
      )
      if workdir == straight:
        expected = jax.device_get(state)
    self.assertEqual(int(state.step), 6)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4),
      jax.device_get(state),
      expected,
    )


if __name__ == '__main__':
  absltest.main()
