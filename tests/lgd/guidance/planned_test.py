"""Planned sampling: the samples of plain guidance, from fewer evaluations."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized

from lgd import denoiser as denoiser_lib
from lgd import guidance
from lgd import sampling
from lgd import schedules
from lgd.data import mixtures
from lgd.training import sharding
from tests import helpers

NUM_DEVICES = 8

FLOW = schedules.RectifiedFlow()
MIXTURE = mixtures.ring(4)
EXACT = mixtures.denoiser(FLOW)
PAIR = denoiser_lib.classifier_free(EXACT, 4)
NUM_STEPS = 6
TIMES = sampling.time_grid(NUM_STEPS)


def sparse_weights(n, share, seed=0):
  """Weights of which about `share` are 0, some others below 0."""
  rng = np.random.default_rng(seed)
  omega = rng.normal(1.0, 1.0, (n, NUM_STEPS))
  return np.float32(np.where(rng.uniform(size=omega.shape) < share, 0.0, omega))


def labels(n):
  return jnp.arange(n) % 4


def draw(denoise, n, churn=0.0, plan=None):
  keys = jax.random.split(jax.random.key(1), n)
  return sampling.sample(
    keys,
    denoise,
    FLOW,
    labels(n),
    (n, 2),
    num_steps=NUM_STEPS,
    churn=churn,
    times=TIMES,
    inputs=None if plan is None else plan.steps,
  )


def at(plan, i):
  """Transition i of a plan."""
  return jax.tree.map(lambda x: x[i], plan.steps)


@jax.jit
def plain(omega):
  weight = guidance.per_sample(omega, TIMES)
  return draw(guidance.guided(PAIR, MIXTURE, weight), len(omega))


@jax.jit
def with_plan(plan):
  denoise = guidance.planned(PAIR, MIXTURE, plan)
  return draw(denoise, len(plan.omega), plan=plan)


def count(plan):
  """Evaluations that the compiled program makes."""
  counter = denoiser_lib.EvaluationCounter()
  denoiser = counter.wrap(lambda params, xt, t, cond: 0.9 * xt)
  pair = denoiser_lib.classifier_free(denoiser, 4)

  @jax.jit
  def run(plan):
    denoise = guidance.planned(pair, None, plan)
    return draw(denoise, len(plan.omega), plan=plan)

  run(plan)
  return counter.count


class PlannedTest(parameterized.TestCase):
  @parameterized.product(num_levels=(1, 3, 4), share=(0.1, 0.6, 0.95))
  def test_samples_of_plain_guidance(self, num_levels, share):
    omega = sparse_weights(12, share)
    plan = guidance.make_plan(omega, num_levels=num_levels)
    np.testing.assert_allclose(with_plan(plan), plain(omega), rtol=1e-4, atol=1e-5)

  def test_bit_for_bit_where_nothing_is_left_out_or_everything(self):
    """Operation by operation; compilers fuse a branch in their own way."""
    full, none = np.full((8, NUM_STEPS), 0.7, np.float32), np.zeros((8, NUM_STEPS))
    weight = guidance.per_sample(full, TIMES)
    xt, s, t = jnp.ones((8, 2)), jnp.full(8, TIMES[3]), jnp.full(8, TIMES[2])

    def denoiser(params, xt, t, cond):
      return jnp.tanh(params * xt + t[:, None]) * (1.0 + cond[:, None])

    pair = denoiser_lib.classifier_free(denoiser, 4)
    with jax.disable_jit():
      for omega, expected in (
        (full, guidance.guided(pair, 0.3, weight)),
        (none, guidance.unguided(denoiser, 0.3)),
      ):
        plan = guidance.make_plan(omega)
        denoise = guidance.planned(pair, 0.3, plan)
        np.testing.assert_array_equal(
          denoise(xt, s, t, labels(8), at(plan, 2)), expected(xt, s, t, labels(8))
        )

  def test_one_program_where_everything_is_needed(self):
    """No switch, whatever the weights are."""
    omega = 0.1 + np.random.default_rng(0).random((8, NUM_STEPS))

    def program(omega):
      plan = guidance.make_plan(omega)
      denoise = guidance.planned(PAIR, MIXTURE, plan)
      args = jnp.ones((8, 2)), jnp.full(8, TIMES[3]), jnp.full(8, TIMES[2]), labels(8)
      return str(jax.make_jaxpr(denoise)(*args, at(plan, 2)))

    self.assertNotIn('cond[', program(omega))
    omega[0, 0] = 0.0  # Rounded up.
    self.assertNotIn('cond[', program(omega))
    omega[:, 0] = 0.0
    self.assertIn('cond[', program(omega))

  @parameterized.parameters((1, 1), (3, 1), (4, 1), (100, 1), (3, 2))
  def test_counts_evaluations(self, num_levels, num_shards):
    """What runs, what the plan says, and a loop over (1), of the fullest part."""
    omega = sparse_weights(10, 0.5)
    plan = guidance.make_plan(omega, num_levels=num_levels, num_shards=num_shards)
    n = 10 // num_shards
    sizes = [np.ceil(n * i / num_levels) for i in range(num_levels + 1)]
    expected = 0
    for step in range(NUM_STEPS):
      needed = omega[:, step].reshape(num_shards, n) != 0.0
      k = max(int(np.sum(part)) for part in needed)
      expected += 10 + num_shards * min(size for size in sizes if size >= k)
    self.assertEqual(plan.num_evaluations, expected)
    self.assertEqual(count(plan), expected)
    if num_levels == 100:  # Nothing is rounded up.
      self.assertEqual(expected, omega.size + np.sum(omega != 0.0))

  def test_rules_see_the_pair_of_their_sample(self):
    def rule(x0_cond, x0_null, omega):
      return x0_cond + omega[:, None] * jnp.tanh(x0_cond - 2.0 * x0_null)

    omega = sparse_weights(9, 0.5)
    weight = guidance.per_sample(omega, TIMES)
    expected = draw(guidance.guided(PAIR, MIXTURE, weight, rule=rule), 9, churn=1.0)
    plan = guidance.make_plan(omega)
    denoise = guidance.planned(PAIR, MIXTURE, plan, rule=rule)
    x = draw(denoise, 9, churn=1.0, plan=plan)
    np.testing.assert_allclose(x, expected, atol=1e-5)

  def test_conditions_that_are_trees(self):
    """A vector and a label for every sample, each with its null."""

    def denoiser(params, xt, t, cond):
      shift = cond['vector'] + cond['label'][:, None]
      return params * xt + (1.0 - t[:, None]) * shift

    n, null = 7, {'vector': np.array([0.5, 0.5], np.float32), 'label': 9}
    rng = np.random.default_rng(0)
    cond = {'vector': rng.normal(size=(n, 2)), 'label': np.arange(n)}
    cond = jax.tree.map(lambda c: jnp.asarray(c, jnp.float32), cond)
    pair = denoiser_lib.classifier_free(denoiser, null)
    omega = sparse_weights(n, 0.5)
    xt, s, t = jnp.ones((n, 2)), jnp.full(n, TIMES[3]), jnp.full(n, TIMES[2])
    plan = guidance.make_plan(omega)
    self.assertBetween(int(plan.level[2]), 1, 3)
    x0 = guidance.planned(pair, 0.5, plan)(xt, s, t, cond, at(plan, 2))
    weight = guidance.per_sample(omega, TIMES)
    expected = guidance.guided(pair, 0.5, weight)(xt, s, t, cond)
    np.testing.assert_allclose(x0, expected, rtol=1e-5)

  def test_tolerance(self):
    """Small weights, of either sign, are 0."""
    omega = sparse_weights(12, 0.3)
    kept = np.where(np.abs(omega) > 0.8, omega, 0.0)
    plan = guidance.make_plan(omega, tolerance=0.8)
    np.testing.assert_allclose(with_plan(plan), plain(kept), rtol=1e-4, atol=1e-5)
    fewer = np.sum(np.abs(omega) > 0.8) < np.sum(omega != 0.0)
    self.assertTrue(fewer)
    exact = {'num_levels': 12}
    self.assertEqual(
      guidance.make_plan(omega, tolerance=0.8, **exact).num_evaluations,
      omega.size + np.sum(np.abs(omega) > 0.8),
    )

  def test_parts_stay_on_their_device(self):
    """Eight devices: the samples of one, and nothing moves between them."""
    mesh = sharding.make_mesh()
    omega = sparse_weights(40, 0.6)
    plan = guidance.make_plan(omega, num_shards=8)
    self.assertGreater(len({int(i) for i in plan.level}), 1)
    split, whole = sharding.split(mesh), sharding.replicated(mesh)
    plan = dataclasses.replace(
      plan,
      omega=jax.device_put(plan.omega, split),
      rows=jax.device_put(plan.rows, split),
      level=jax.device_put(plan.level, whole),
    )

    @jax.jit
    def denoise_once(plan, xt, cond):
      denoise = guidance.planned(PAIR, MIXTURE, plan)
      s, t = jnp.full(40, TIMES[3]), jnp.full(40, TIMES[2])
      return denoise(xt, s, t, cond, at(plan, 2))

    xt = jax.device_put(jax.random.normal(jax.random.key(0), (40, 2)), split)
    cond = jax.device_put(labels(40), split)
    compiled = denoise_once.lower(plan, xt, cond).compile()
    self.assertEqual(helpers.elements_moved(compiled.as_text()), {})
    weight = guidance.per_sample(omega, TIMES)
    expected = guidance.guided(PAIR, MIXTURE, weight)(
      xt, jnp.full(40, TIMES[3]), jnp.full(40, TIMES[2]), cond
    )
    np.testing.assert_allclose(
      denoise_once(plan, xt, cond), expected, rtol=1e-4, atol=1e-5
    )

  def test_half_precision(self):
    """A denoiser's bfloat16 leaves the state in float32, whatever branch runs."""

    def denoiser(params, xt, t, cond):
      return (params * xt + cond[:, None]).astype(jnp.bfloat16)

    pair = denoiser_lib.classifier_free(denoiser, 4)
    omega = sparse_weights(9, 0.5)
    plan, weight = guidance.make_plan(omega), guidance.per_sample(omega, TIMES)
    x = draw(guidance.planned(pair, 0.5, plan), 9, plan=plan)
    expected = draw(guidance.guided(pair, 0.5, weight), 9)
    self.assertEqual(x.dtype, jnp.float32)
    np.testing.assert_allclose(x, expected, atol=0.1)

  def test_another_grid(self):
    plan = guidance.make_plan(np.ones((4, 3)))
    denoise = guidance.planned(PAIR, MIXTURE, plan)
    with self.assertRaisesRegex(ValueError, r'must be \(6, ...\), for 6 transitions'):
      draw(denoise, 4, plan=plan)

  @parameterized.parameters(
    ({'omega': np.full((4, 3), np.nan)}, 'finite'),
    ({'omega': np.zeros(4)}, r'\[n, num_steps\]'),
    ({'num_levels': 0}, 'num_levels=0'),
    ({'tolerance': -0.1}, 'tolerance=-0.1'),
    ({'num_shards': 3}, 'divisor of the 4 samples'),
  )
  def test_refuses(self, changes, message):
    arguments = {'omega': np.ones((4, 3)), **changes}
    with self.assertRaisesRegex(ValueError, message):
      guidance.make_plan(arguments.pop('omega'), **arguments)


class SimilarFirstTest(absltest.TestCase):
  def test_batches_of_similar_samples_cost_what_is_needed(self):
    """Classes guided over intervals of their own, shuffled: ideal within 5%."""
    num_steps, rng = 50, np.random.default_rng(0)
    by_class = np.zeros((20, num_steps))
    for row in by_class:
      lo, hi = sorted(rng.integers(0, num_steps, 2))
      row[lo:hi] = 1.0
    omega = by_class[rng.permutation(np.repeat(np.arange(20), 64))]
    order = guidance.similar_first(omega)
    np.testing.assert_array_equal(np.sort(order), np.arange(len(omega)))

    def cost(omega):
      batches = omega.reshape(-1, 64, num_steps)
      return sum(guidance.make_plan(b, num_levels=1).num_evaluations for b in batches)

    zero = np.mean(omega == 0.0)
    ideal = (2.0 - zero) / 2.0 * 2.0 * omega.size
    self.assertLess(cost(omega[order]), 1.05 * ideal)
    self.assertGreater(cost(omega), 1.2 * ideal)


if __name__ == '__main__':
  absltest.main()
