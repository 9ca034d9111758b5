"""The loss at the end of sampling: explicit sums, differences, a known optimum."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest
from absl.testing import parameterized

from lgd import denoiser as denoiser_lib
from lgd import endpoint
from lgd import guidance
from lgd import sampling
from lgd import schedules
from lgd.data import mixtures

OPTIMIZED = True

FLOW = schedules.RectifiedFlow()
MIXTURE = mixtures.ring(4, radius=2.0, std=0.5)
TIMES = sampling.time_grid(8)
EXACT = mixtures.denoiser(FLOW)


def blunted(mixture, xt, t, label):
  """The exact denoiser, its conditional prediction moved by .4 towards the null one."""
  null = EXACT(mixture, xt, t, jnp.full_like(label, 4))
  return 0.6 * EXACT(mixture, xt, t, label) + 0.4 * null


def data(num, seed):
  label = jnp.repeat(jnp.arange(4), num)
  return mixtures.sample(jax.random.key(seed), MIXTURE, label).reshape(4, num, 2)


def loss(key, omega, reference, *, num_particles, churn=0.0, beta=1.0, **settings):
  return endpoint.loss(
    key,
    omega,
    denoiser_lib.classifier_free(blunted, 4, stops_gradient=False),
    MIXTURE,
    FLOW,
    jnp.arange(4),
    reference,
    times=TIMES,
    churn=churn,
    num_particles=num_particles,
    beta=beta,
    **settings,
  )


class EndpointTest(parameterized.TestCase):
  @parameterized.product(churn=(0.0, 1.0), beta=(1.0, 1.5))
  def test_energy_of_what_the_sampler_draws(self, churn, beta):
    """Sums in float64 over samples of a table, drawn as everywhere else."""
    key, reference, counts = jax.random.key(0), np.array(data(5, 1)), [5, 3, 4, 2]
    reference[1, 3:] = 100.0  # No data.
    omega = jax.random.uniform(jax.random.key(2), (4, 8), maxval=2.0)
    out = loss(
      key,
      omega,
      jnp.asarray(reference),
      num_particles=3,
      churn=churn,
      beta=beta,
      num_references=jnp.asarray(counts),
    )
    label = jnp.repeat(jnp.arange(4), 3)
    denoise = guidance.guided(
      denoiser_lib.classifier_free(blunted, 4), MIXTURE, guidance.table(omega, TIMES)
    )
    x = sampling.sample(
      key, denoise, FLOW, label, (12, 2), num_steps=8, churn=churn, times=TIMES
    )
    x, expected = np.float64(x).reshape(4, 3, 2), []
    for own, y, num in zip(x, np.float64(reference), counts, strict=True):
      to_data = [np.linalg.norm(a - b) ** beta for a in own for b in y[:num]]
      pairs = [
        np.linalg.norm(own[i] - own[j]) ** beta for i, j in ((0, 1), (0, 2), (1, 2))
      ]
      expected.append(np.mean(to_data) - 0.5 * np.mean(pairs))
    np.testing.assert_allclose(out, np.mean(expected), rtol=1e-5)

  def test_gradient_is_the_slope(self):
    """Along a random direction, against central differences."""
    reference = data(16, 1)
    of_omega = jax.jit(
      functools.partial(loss, jax.random.key(0), reference=reference, num_particles=8)
    )
    omega = jax.random.uniform(jax.random.key(2), (4, 8))
    direction = jax.random.uniform(jax.random.key(3), (4, 8))
    gradient = jax.grad(of_omega)(omega)
    h = 0.02
    slope = (of_omega(omega + h * direction) - of_omega(omega - h * direction)) / (
      2 * h
    )
    self.assertGreater(abs(slope), 0.01)
    np.testing.assert_allclose(jnp.sum(gradient * direction), slope, rtol=0.02)

  def test_finds_what_mends_the_prediction(self):
    """Omega = 2/3 gives exact predictions; the end is then as close as it gets."""
    reference, tx = data(256, 1), optax.adam(0.1)
    of_omega = functools.partial(loss, reference=reference, num_particles=64)

    @jax.jit
    def update(omega, state, key):
      updates, state = tx.update(jax.grad(of_omega, argnums=1)(key, omega), state)
      return optax.apply_updates(omega, updates), state

    omega = jnp.zeros((4, 8))
    state = tx.init(omega)
    for i in range(60):
      omega, state = update(omega, state, jax.random.key(i))
    judge = jax.jit(functools.partial(loss, reference=data(512, 2), num_particles=512))
    start, mended, found = (
      judge(jax.random.key(99), w) for w in (0.0 * omega, 0.0 * omega + 2 / 3, omega)
    )
    self.assertGreater(start - mended, 0.02)
    self.assertLess(found, mended + 0.1 * (start - mended))

  def test_one_particle_has_no_distance(self):
    with self.assertRaisesRegex(ValueError, 'num_particles=1: .* at least 2'):
      loss(jax.random.key(0), jnp.zeros((4, 8)), data(4, 1), num_particles=1)


if __name__ == '__main__':
  absltest.main()
