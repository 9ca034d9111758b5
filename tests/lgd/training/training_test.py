"""The training step against its update written out, on one device and on eight."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest
from absl.testing import parameterized

from lgd import training
from lgd.training import sharding
from tests import helpers

NUM_DEVICES = 8


def quadratic_loss(params, frozen, batch, key):
  """mean (w x - target)^2 with a little noise from the key."""
  noise = 0.1 * jax.random.normal(key, batch.shape)
  loss = jnp.mean(jnp.square(params['w'] * batch + noise - frozen))
  return loss, {'w': params['w']}


def fresh_state(tx):
  return training.init_state({'w': jnp.array(2.0)}, tx)


class TrainStepTest(parameterized.TestCase):
  def test_equals_sgd_and_average_written_out(self):
    tx = optax.sgd(0.1)
    step = training.make_train_step(quadratic_loss, tx, ema_decay=0.75)
    batch, frozen, key = jnp.arange(4.0), jnp.array(1.0), jax.random.key(0)
    state, metrics = step(fresh_state(tx), frozen, batch, key)

    noise = 0.1 * np.asarray(jax.random.normal(jax.random.fold_in(key, 0), (4,)))
    x = np.arange(4.0)
    residual = 2.0 * x + noise - 1.0
    gradient = np.mean(2.0 * residual * x)
    new_w = 2.0 - 0.1 * gradient
    np.testing.assert_allclose(state.params['w'], new_w, rtol=1e-6)
    np.testing.assert_allclose(
      state.ema_params['w'], 0.75 * 2.0 + 0.25 * new_w, rtol=1e-6
    )
    np.testing.assert_allclose(metrics['loss'], np.mean(residual**2), rtol=1e-6)
    np.testing.assert_allclose(metrics['grad_norm'], abs(gradient), rtol=1e-6)
    self.assertEqual(int(state.step), 1)
    self.assertEqual(float(metrics['w']), 2.0)

  @parameterized.parameters('loss', 'gradient')
  def test_steps_that_are_not_finite_change_their_number_alone(self, bad):
    """sqrt has a finite value and no finite slope at 0."""

    def loss_fn(params, frozen, batch, key):
      del frozen, key
      value = jnp.sqrt(jnp.maximum(params['w'] - batch, 0.0)).sum()
      return value / (batch.sum() * 0.0 if bad == 'loss' else 1.0), {}

    tx = optax.adam(0.1)
    args = None, jnp.full(1, 2.0), jax.random.key(0)  # w = 2.
    for skip in (False, True):
      step = training.make_train_step(loss_fn, tx, ema_decay=0.5, skip_nonfinite=skip)
      state, metrics = step(fresh_state(tx), *args)
      self.assertEqual(bool(np.isfinite(metrics['loss'])), bad != 'loss')
      self.assertEqual(int(state.step), 1)
      if skip:
        self.assertEqual(float(metrics['skipped']), 1.0)
        chex.assert_trees_all_equal(state, fresh_state(tx)._replace(step=1))
      else:
        self.assertFalse(np.isfinite(state.params['w']))

  def test_finite_steps_are_the_same_whether_others_may_be_skipped(self):
    tx = optax.adam(0.1)
    args = jnp.array(1.0), jnp.arange(4.0), jax.random.key(0)
    states = []
    for skip in (False, True):
      step = training.make_train_step(
        quadratic_loss, tx, ema_decay=0.5, skip_nonfinite=skip
      )
      state, metrics = step(fresh_state(tx), *args)
      states.append(state)
    self.assertEqual(float(metrics['skipped']), 0.0)
    chex.assert_trees_all_equal(*states)

  def test_every_step_draws_anew(self):
    tx = optax.sgd(0.0)
    step = training.make_train_step(quadratic_loss, tx, ema_decay=0.0)
    args = jnp.array(1.0), jnp.arange(4.0), jax.random.key(0)
    state, first = step(fresh_state(tx), *args)
    _, second = step(state, *args)
    self.assertNotEqual(float(first['loss']), float(second['loss']))

  def test_eight_devices_equal_one(self):
    tx = optax.adam(0.1)
    step = training.make_train_step(quadratic_loss, tx, ema_decay=0.9)
    results = []
    for devices in (jax.devices()[:1], jax.devices()):
      mesh = sharding.make_mesh(devices)
      compiled = training.compile_step(step, mesh, sharding.replicated(mesh))
      state = jax.device_put(fresh_state(tx), sharding.replicated(mesh))
      for i in range(3):
        batch = sharding.global_batch(np.arange(16.0, dtype=np.float32) + i, mesh)
        self.assertLen(batch.sharding.device_set, len(devices))
        state, metrics = compiled(state, jnp.array(1.0), batch, jax.random.key(0))
      results.append(jax.device_get((state, metrics)))
    self.assertLen(jax.devices(), 8)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), results[0], results[1]
    )

  @parameterized.parameters(1, 2, 4)
  def test_fsdp_equals_one_device(self, fsdp):
    """A two-layer network whose kernels are split; so are their Adam moments."""

    def loss_fn(params, frozen, batch, key):
      noise = 0.1 * jax.random.normal(key, batch.shape)
      hidden = jnp.tanh((batch + noise) @ params['in'])
      return jnp.mean(jnp.square(hidden @ params['out'] - frozen)), {}

    def init(key):
      k_in, k_out = jax.random.split(key)
      return training.init_state(
        {
          'in': 0.1 * jax.random.normal(k_in, (40, 1000)),
          'out': 0.1 * jax.random.normal(k_out, (1000, 40)),
        },
        tx,
      )

    tx = optax.adam(0.1)
    step = training.make_train_step(loss_fn, tx, ema_decay=0.9)
    key, results = jax.random.key(0), []
    for mesh in (
      sharding.make_mesh(jax.devices()[:1]),
      sharding.make_mesh(fsdp=fsdp),
    ):
      shardings = sharding.fsdp(jax.eval_shape(init, key), mesh)
      state = jax.jit(init, out_shardings=shardings)(key)
      compiled = training.compile_step(step, mesh, shardings)
      for i in range(3):
        batch = np.random.default_rng(i).normal(size=(16, 40)).astype(np.float32)
        state, metrics = compiled(
          state, jnp.float32(0.3), sharding.global_batch(batch, mesh), key
        )
      results.append(jax.device_get((state, metrics)))
      for kernels in (state.params, state.ema_params, state.opt_state[0].mu):
        self.assertEqual(
          kernels['in'].addressable_shards[0].data.size, 40_000 // mesh.shape['fsdp']
        )
    # A thousandth of one of Adam's steps, which makes much of gradients near 0.
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), *results
    )

  def test_microbatches_are_averaged(self):
    """SGD on the mean of the gradients of each part, with its own noise, in NumPy."""
    tx = optax.sgd(0.1)
    step = training.make_train_step(
      quadratic_loss, tx, ema_decay=0.5, num_microbatches=3
    )
    x, key = np.arange(6.0, dtype=np.float32), jax.random.key(0)
    state, metrics = jax.jit(step)(fresh_state(tx), jnp.array(1.0), x, key)
    keys = jax.random.split(jax.random.fold_in(key, 0), 3)
    losses, gradients = [], []
    for i in range(3):
      part = x[i::3]
      residual = 2.0 * part + 0.1 * np.asarray(jax.random.normal(keys[i], (2,))) - 1.0
      losses.append(np.mean(residual**2))
      gradients.append(np.mean(2.0 * residual * part))
    np.testing.assert_allclose(metrics['loss'], np.mean(losses), rtol=1e-6)
    np.testing.assert_allclose(metrics['w'], 2.0, rtol=1e-6)
    np.testing.assert_allclose(
      state.params['w'], 2.0 - 0.1 * np.mean(gradients), rtol=1e-6
    )

  def test_microbatches_do_not_move_between_devices(self):
    """Rows of a part lie on all devices: only scalars and gradients are reduced."""
    tx = optax.sgd(0.1)
    step = training.make_train_step(
      quadratic_loss, tx, ema_decay=0.5, num_microbatches=2
    )
    mesh = sharding.make_mesh()
    compiled = training.compile_step(step, mesh, sharding.replicated(mesh))
    batch = sharding.global_batch(np.zeros(4096, np.float32), mesh)
    text = (
      compiled.lower(fresh_state(tx), jnp.array(1.0), batch, jax.random.key(0))
      .compile()
      .as_text()
    )
    self.assertEqual(helpers.elements_moved(text).keys(), {'all-reduce'})
    self.assertLessEqual(max(helpers.elements_moved(text)['all-reduce']), 4)

  def test_state_is_donated(self):
    tx = optax.sgd(0.1)
    step = training.make_train_step(quadratic_loss, tx, ema_decay=0.9)
    mesh = sharding.make_mesh()
    state = jax.device_put(fresh_state(tx), sharding.replicated(mesh))
    compiled = training.compile_step(step, mesh, sharding.replicated(mesh))
    batch = sharding.global_batch(np.arange(8.0, dtype=np.float32), mesh)
    compiled(state, jnp.array(1.0), batch, jax.random.key(0))
    self.assertTrue(state.params['w'].is_deleted())


if __name__ == '__main__':
  absltest.main()
