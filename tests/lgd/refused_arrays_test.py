"""Calls that returned nonsense, or failed with no ValueError, and what they say now."""

import jax
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized

from lgd import guidance
from lgd import metrics
from lgd import mmd
from lgd import noising
from lgd import sampling
from lgd import schedules
from lgd import statistics
from lgd import trajectory
from lgd import transitions

ONE = np.ones
FLOW = schedules.RectifiedFlow()
LOSS = {'schedule': FLOW, 'churn': 1.0, 'beta': 1.0, 'interaction': 1.0, 'dim': 4}


def coefficients(churn):
  return transitions.coefficients(FLOW, np.float32(0.2), np.float32(0.5), churn)


def sample(times):
  return sampling.sample(
    jax.random.key(0),
    lambda xt, s, t, cond: xt,
    FLOW,
    ONE(2, int),
    (2, 3),
    num_steps=2,
    churn=0.0,
    times=times,
  )


NAN = ONE((2, 3, 4))
NAN[1] = np.nan


def search(times):
  return trajectory.search(
    jax.random.key(0),
    None,
    None,
    FLOW,
    None,
    ONE(2, int),
    (3,),
    times=np.float32(times),
    churn=0.0,
    num_particles=2,
    omegas=ONE(2),
    fade=0.0,
    confidence=0.0,
    lookahead=0.0,
    lookahead_churn=0.0,
  )


# (a call, what its error says).
REFUSED = (
  (lambda: coefficients(2.0), r'churn=2.0: must be in \[0, 1\]'),
  (lambda: coefficients(float('nan')), 'churn=nan'),
  (lambda: sampling.time_grid(3, t_min=0.5, t_max=0.2), 't_min=0.5, t_max=0.2: must'),
  (lambda: sampling.time_grid(3, t_max=float('nan')), 't_max=nan'),
  (lambda: sample(np.float32([0.5, 0.5, 0.0])), 'must decrease'),
  (lambda: sample([1.0, float('nan'), 0.0]), 'must decrease'),
  (lambda: sample([999.0, 333.0, 0.0]), r'times=999: must be in \[0, 1\]'),
  (lambda: sample([1.0, 0.5, -0.1]), r'times=-0.1: must be in'),
  (lambda: guidance.table(ONE((2, 1)), [999.0, 0.0]), r'times=999: must be in'),
  (lambda: guidance.beta_cfg(1.0, 2.0, 2.0, np.arange(3.0)), 'times.1.=1 after 0'),
  (lambda: noising.add_noise(FLOW, ONE((2, 3)), ONE((2, 3)), 500), 't=500: must be in'),
  (lambda: transitions.coefficients(FLOW, 1.0, 2.0, 0.0), 't=2: must be in'),
  (lambda: search([500.0, 0.0]), 'times=500: must be in'),
  (
    lambda: statistics.gram(NAN, ONE((2, 4)), *2 * [ONE((2, 3, 4))]),
    'eps: row 1 is not finite; look at the base model',
  ),
  (
    lambda: statistics.gram(ONE((2, 3, 4)), ONE((2, 4)), ONE((2, 3, 4)), NAN),
    r'x0_null\[0\]: row 1 is not finite',
  ),
  (lambda: statistics.group_gram(*3 * [ONE((2, 3, 4))], NAN), 'row 1 is not finite'),
  (lambda: metrics.class_sets(NAN[:, 0, :1], ONE(2, int)), 'x: row 1 is not finite'),
  (lambda: metrics.fit_gaussian(NAN), 'x: row 1 is not finite'),
  (lambda: metrics.to_uint8(NAN), 'images: row 1 is not finite'),
  (lambda: metrics.to_uint8(ONE((2, 3), np.int16)), 'images of int16: must be floats'),
  (
    lambda: metrics.precision_recall(NAN[:, 0], ONE((2, 4)), num_neighbors=1),
    'x: row 1 is not finite',
  ),
  (lambda: metrics.inception_score(NAN[:, 0], 1), 'log_prob: holds NaN'),
  (lambda: metrics.classification(NAN[:, 0], ONE(2, int)), 'log_prob: holds NaN'),
  (lambda: guidance.table(ONE((2, 0)), ONE(1)), 'at least 1 step'),
  (lambda: guidance.mean_in_time(ONE((2, 1)), [1.0, float('nan')]), 'must decrease'),
  (lambda: guidance.require_cover(ONE(1), ONE(3)), r'times.shape=\(1,\): must be'),
  (lambda: guidance.require_cover([1.0, 0.0], ONE((2, 2))), r'wanted.shape=\(2, 2\)'),
  (lambda: guidance.make_plan(ONE((0, 3))), r'omega\(0, 3\): must be finite'),
  (lambda: guidance.make_plan(ONE((4, 3)), num_shards=0), 'num_shards=0'),
  (lambda: guidance.make_plan(ONE((4, 3)), tolerance=float('nan')), 'tolerance=nan'),
  (lambda: mmd.expected_norm_power(ONE(2), ONE(2), 0, 1.0), 'dim=0: must be at least'),
  (lambda: mmd.expected_norm_power(ONE(2), ONE(2), 2, 3.0), r'beta=3.0: .*\(0, 2\]'),
  (
    lambda: statistics.gram(ONE((2, 2, 4)), ONE((2, 4)), *2 * [ONE((2, 3, 4))]),
    r'eps.shape=\(2, 2, 4\), x0_cond.shape=\(2, 3, 4\)',
  ),
  (
    lambda: statistics.gram(ONE((2, 3, 4)), ONE((1, 4)), *2 * [ONE((2, 3, 4))]),
    r'x0.shape=\(1, 4\)',
  ),
  (
    lambda: statistics.group_gram(*4 * [ONE(3)]),
    r'eps.shape=\(3,\): must have',
  ),
  (lambda: statistics.pack(ONE((2, 3, 4))), r'gram.shape=\(2, 3, 4\): must be'),
  (lambda: statistics.unpack(ONE((2, 7))), r'packed.shape=\(2, 7\): must be'),
  (lambda: statistics.unpack(ONE(6)), r'packed.shape=\(6,\)'),
  (lambda: statistics.subset(ONE((2, 9, 9)), 3, 4), r'num_particles=4: .*1..m=3'),
  (lambda: statistics.subset(ONE((2, 9, 9)), 2, 1), 'divides the 9 vectors'),
  (
    lambda: statistics.self_consistency(ONE((2, 6, 6)), *3 * [ONE(3)], **LOSS),
    r'omega.shape=\(3,\): must be \[2, ...\]',
  ),
  (lambda: statistics.marginal(ONE((2, 8, 8)), *3 * [ONE(2)], **LOSS), '0 datum'),
  (lambda: metrics.class_sets(ONE((4, 2)), ONE(3, int)), r'label.shape=\(3,\)'),
  (lambda: metrics.class_sets(ONE((0, 2)), ONE(0, int)), 'n >= 1'),
  (
    lambda: metrics.class_sets(ONE((4, 2)), ONE(4, int), group_size=0),
    'group_size=0: must',
  ),
  (
    lambda: metrics.classification(ONE((2, 3)), np.asarray([0, 3])),
    r'label=\[0 3\]: must be integers in 0..2',
  ),
  (
    lambda: metrics.classification(ONE((2, 3)), np.asarray([0, -1])),
    r'label=\[ 0 -1\]',
  ),
  (lambda: metrics.classification(ONE((0, 3)), ONE(0, int)), 'n >= 1'),
  (
    lambda: metrics.classification(ONE((2, 3)), ONE(2)),
    'must be integers',
  ),
  (
    lambda: metrics.kernel_distance(ONE((4, 2)), ONE((4, 3)), subset_size=2),
    r'x.shape=\(4, 2\), reference.shape=\(4, 3\): must be \[n, dim\]',
  ),
  (lambda: metrics.precision_recall(ONE(5), ONE(5)), r'must be \[n, dim\]'),
)


class RefusedArraysTest(parameterized.TestCase):
  @parameterized.parameters(*REFUSED)
  def test_says_what_is_wrong(self, call, message):
    with self.assertRaisesRegex(ValueError, message) as caught:
      call()
    self.assertNotIn('\n', str(caught.exception))

  def test_traced_constants_pass(self):
    """What is learned from a whole grid of settings is traced, and checked before."""
    power = jax.jit(lambda beta: mmd.expected_norm_power(ONE(2), ONE(2), 2, beta))
    np.testing.assert_allclose(power(2.0), 3.0 * ONE(2), rtol=1e-6)
    np.testing.assert_allclose(jax.jit(coefficients)(0.0).std, 0.0)


if __name__ == '__main__':
  absltest.main()
