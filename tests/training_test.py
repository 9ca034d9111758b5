"""The training step against its update written out, on one device and on eight."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest

from lgd import training


def quadratic_loss(params, frozen, batch, key):
  """mean (w x - target)^2 with a little noise from the key."""
  noise = 0.1 * jax.random.normal(key, batch.shape)
  loss = jnp.mean(jnp.square(params['w'] * batch + noise - frozen))
  return loss, {'w': params['w']}


def fresh_state(tx):
  return training.init_state({'w': jnp.array(2.0)}, tx)


class TrainStepTest(absltest.TestCase):
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
      mesh = training.make_mesh(devices)
      compiled = training.compile_step(step, mesh)
      state = jax.device_put(fresh_state(tx), training.replicated(mesh))
      for i in range(3):
        batch = training.global_batch(np.arange(16.0, dtype=np.float32) + i, mesh)
        self.assertLen(batch.sharding.device_set, len(devices))
        state, metrics = compiled(state, jnp.array(1.0), batch, jax.random.key(0))
      results.append(jax.device_get((state, metrics)))
    self.assertLen(jax.devices(), 8)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), results[0], results[1]
    )

  def test_state_is_donated(self):
    tx = optax.sgd(0.1)
    step = training.make_train_step(quadratic_loss, tx, ema_decay=0.9)
    mesh = training.make_mesh()
    state = jax.device_put(fresh_state(tx), training.replicated(mesh))
    compiled = training.compile_step(step, mesh)
    batch = training.global_batch(np.arange(8.0, dtype=np.float32), mesh)
    compiled(state, jnp.array(1.0), batch, jax.random.key(0))
    self.assertTrue(state.params['w'].is_deleted())


if __name__ == '__main__':
  absltest.main()
