"""Rewards through the binaries: profiles in shards, weights by gamma, refusals."""

import shutil
from unittest import mock

import chex
import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized

from configs import mixture
from experiments import builders
from experiments import collect_statistics
from experiments import frontier
from experiments import judges
from experiments import train_denoiser
from experiments import train_guidance
from experiments import workdirs
from lgd import arrays
from lgd import errors
from lgd.training import checkpoints
from tests import helpers

NODES = (0.0, 0.5, 1.0, 2.0)


def wave(x0_hat, cond):
  """A reward of the user's: `--config.reward.name=frontier_test:wave`."""
  return jnp.sin(x0_hat[:, 0] - 0.5 * x0_hat[:, 1]) + 0.1 * cond


def nowhere(x0_hat, cond):
  return jnp.sqrt(-1.0 - x0_hat[:, 0] ** 2) * cond


def of_every_number(x0_hat, cond):
  return x0_hat * cond[:, None]


@jax.custom_vjp
def backward_only(x0_hat, cond):
  return wave(x0_hat, cond)


backward_only.defvjp(lambda *args: (wave(*args), None), lambda residuals, grad: None)


def smoke_config(**overrides):
  config = mixture.get_config('smoke')
  # A base whose null prediction is not that of the class, and quick weights.
  config.denoiser.update(learning_rate=0.05, ema_decay=0.5)
  config.guidance.update(learning_rate=0.1, ema_decay=0.5)
  config.reward.update(name=f'{__name__}:wave', nodes=NODES)
  config.frontier.gammas = (0.0, 20.0)
  config.update_from_flattened_dict(overrides)
  return config


def read(workdir, name='particles_reward'):
  """Arrays of all shards, with plain numpy."""
  paths = sorted((workdir / 'statistics' / name).glob('shard-*.npz'))
  loaded = [dict(np.load(p)) for p in paths]
  return {k: np.concatenate([np.atleast_1d(a[k]) for a in loaded]) for k in loaded[0]}


class RunTest(helpers.WorkdirCase):
  @classmethod
  def fill(cls):
    train_denoiser.run(smoke_config(), cls.root)
    collect_statistics.run(smoke_config(), cls.root)

  def assert_refused(self, error, pattern, run, config):
    before = helpers.files_under(self.root)
    with self.assertRaisesRegex(error, pattern) as caught:
      run(config, self.root)
    self.assertNotIn('\n', str(caught.exception))
    self.assertEqual(helpers.files_under(self.root), before)

  def test_profiles(self):
    """Profiles of three items, from their noise and the network; means in float64."""
    config, stored = smoke_config(), read(self.root)
    self.assertEqual(stored['profile'].shape, (64, 2, len(NODES)))
    spec = builders.data.spec(config)
    params = workdirs.base_model.load_denoiser(helpers.session(self.root, config))
    apply = jax.jit(builders.models.network(config, spec).apply)
    data = builders.data.load(config).train
    order = np.random.default_rng((0, 0)).permutation(len(data.label))
    root = arrays.stream(0, 'statistics/particles')
    for i in (0, 17, 63):
      t, x0, label = stored['t'][i], data.x[order[i]], data.label[order[i]]
      noise = np.float64(jax.random.normal(jax.random.fold_in(root, i), (2, 2)))
      rewards, slopes = np.zeros(len(NODES)), np.zeros(len(NODES))
      for eps in (noise[0], noise[1], -noise[0]):
        xt = (1.0 - t) * x0 + t * eps
        x0_cond, x0_null = (
          np.float64(
            xt - t * apply(params, xt[None], jnp.full(1, t), jnp.full(1, c))[0]
          )
          for c in (label, 8)
        )
        delta = x0_cond - x0_null
        self.assertGreater(np.max(np.abs(delta)), 0.01)
        for k, node in enumerate(NODES):
          x, y = x0_cond + node * delta
          rewards[k] += (np.sin(x - 0.5 * y) + 0.1 * label) / 3
          slopes[k] += np.cos(x - 0.5 * y) * (delta[0] - 0.5 * delta[1]) / 3
      np.testing.assert_allclose(stored['profile'][i, 0], rewards, rtol=1e-4, atol=1e-4)
      np.testing.assert_allclose(stored['profile'][i, 1], slopes, rtol=1e-3, atol=1e-4)

  def test_nothing_else_changes(self):
    """A pass without reward lies beside it and has the same Gram matrices."""
    workdir = self.copy()
    collect_statistics.run(smoke_config(**{'reward.name': ''}), workdir)
    without, with_reward = read(workdir, 'particles'), read(workdir)
    self.assertNotIn('profile', without)
    for name, array in without.items():
      np.testing.assert_allclose(array, with_reward[name], rtol=1e-5, atol=1e-5)

  def test_rewards_that_are_not_finite(self):
    """Shard 1 is not written, shard 0 is kept; mended, the pass ends as it should."""
    workdir = self.copy()
    first, second = sorted((workdir / 'statistics/particles_reward').glob('shard-*'))
    second.unlink()
    before = first.stat().st_mtime_ns
    with (
      mock.patch.dict(globals(), wave=nowhere),
      self.assertRaisesRegex(
        errors.NonFiniteError,
        'rewards of item 32 are not finite; nothing of shard 1 .*frontier_test:wave',
      ),
    ):
      collect_statistics.run(smoke_config(), workdir)
    self.assertFalse(second.exists())
    collect_statistics.run(smoke_config(), workdir)
    self.assertEqual(first.stat().st_mtime_ns, before)
    np.testing.assert_array_equal(read(workdir)['profile'], read(self.root)['profile'])

  @parameterized.parameters(
    ('no_module:reward', 'No module named'),
    (f'{__name__}:no_reward', "has no attribute 'no_reward'"),
    (f'{__name__}:of_every_number', r'is of shape \(2, 2\) .*must be \(2,\)'),
    (f'{__name__}:backward_only', 'forward-mode'),
  )
  def test_functions_that_are_no_reward(self, name, message):
    """Refused before anything is written, where there was no pass."""
    workdir = self.copy()
    shutil.rmtree(workdir / 'statistics')
    before = helpers.files_under(workdir)
    with self.assertRaisesRegex(
      errors.InputError, f"reward.name='{name}': .*{message}"
    ):
      collect_statistics.run(smoke_config(**{'reward.name': name}), workdir)
    self.assertEqual(helpers.files_under(workdir), before)

  @parameterized.parameters(
    ('reward.name', 'classifier', f"'{__name__}:wave'"),
    ('reward.nodes', (0.0, 1.0), r'\[0.0, 0.5'),
  )
  def test_another_reward(self, key, value, stored):
    config = smoke_config(**{key: value, 'guidance.gamma': 0.5})
    for binary in (collect_statistics, train_guidance, frontier):
      pattern = f'{key}=.*particles_reward was written with {stored}'
      self.assert_refused(errors.InputError, pattern, binary.run, config)

  def test_damaged_profile(self):
    workdir = self.copy()
    path = workdir / 'statistics/particles_reward/shard-00001.npz'
    whole = dict(np.load(path))
    whole['profile'][3, 1, 2] = np.nan
    for profile, message in (
      (whole['profile'], 'datum 35 is not finite'),
      (whole['profile'][:, :, 1:], r'reward profiles of shape \(32, 2, 3\)'),
    ):
      np.savez(path, **{**whole, 'profile': profile})
      with self.assertRaisesRegex(errors.InputError, message):
        frontier.run(smoke_config(), workdir)

  def test_weights_by_gamma(self):
    """Stored as train_guidance stores them, and equal to what it learns alone."""
    workdir = self.copy()
    config = smoke_config()
    rows = frontier.run(config, workdir)
    names = ['self_consistency', 'self_consistency_reward20']
    self.assertCountEqual([p.name for p in (workdir / 'guidance').iterdir()], names)
    self.assertGreater(rows[1]['reward'], rows[0]['reward'] + 0.05)
    before = helpers.files_under(workdir)
    self.assertEqual(frontier.run(config, workdir), rows)
    point = smoke_config(**{'guidance.gamma': 20.0})
    found = train_guidance.run(point, workdir)  # With nothing left to do.
    self.assertEqual(int(found.step), 20)
    self.assertEqual(
      helpers.files_under(workdir / 'guidance'),
      {
        path: time
        for path, time in before.items()
        if workdir / 'guidance' in path.parents
      },
    )
    alone = self.copy()
    state = train_guidance.run(point, alone)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-2, atol=2e-3),
      jax.device_get(found.ema_params),
      jax.device_get(state.ema_params),
    )
    path = f'guidance/{names[1]}'
    one, other = (checkpoints.load_config(w / path) for w in (workdir, alone))
    self.assertEqual(one, other)

  @parameterized.parameters(
    ({'reward.name': ''}, "reward.name='': a frontier"),
    ({'guidance.objective': 'reward'}, "guidance.objective='reward': has no gamma"),
    (
      {'guidance.objective': 'l2', 'guidance.weight': 'table'},
      "guidance.weight='table': a frontier trains networks",
    ),
    (
      {'guidance.objective': 'class_marginal'},
      'class_groups_reward: holds no statistics; .*statistics.kind=class_groups'
      f' --config.reward.name={__name__}:wave first',
    ),
  )
  def test_no_frontier(self, overrides, pattern):
    config = smoke_config(**overrides)
    self.assert_refused(errors.InputError, pattern, frontier.run, config)

  def test_no_frontier_without_a_stored_form(self):
    entry = builders.objectives.OBJECTIVES['l2']._replace(stored=None)
    with mock.patch.dict(builders.objectives.OBJECTIVES, of_mine=entry):
      config = smoke_config(
        **{'guidance.objective': 'of_mine', 'guidance.source': 'direct'}
      )
      pattern = "guidance.objective='of_mine': has no form on stored statistics"
      self.assert_refused(errors.InputError, pattern, frontier.run, config)

  def test_direct(self):
    """Algorithm 4 with the denoiser in each step, of groups."""
    workdir = self.copy()
    config = smoke_config(
      **{'guidance.source': 'direct', 'guidance.objective': 'class_marginal'}
    )
    config.guidance.update(gamma=0.5, num_steps=5)
    name = 'class_marginal_reward0.5_direct'
    train_guidance.run(config, workdir)
    weight = workdirs.weights.load(helpers.session(workdir, config), name)
    self.assertEqual(weight.num_evaluations, 5 * 8 * 2 * 2)
    config.reward.name = 'classifier'
    with self.assertRaisesRegex(errors.InputError, "reward.name='classifier': .*:wave"):
      train_guidance.run(config, workdir)

  def test_groups(self):
    """A profile for every member."""
    workdir = self.copy()
    config = smoke_config(**{'statistics.kind': 'class_groups'})
    collect_statistics.run(config, workdir)
    profile = read(workdir, 'class_groups_reward')['profile']
    self.assertEqual(profile.shape, (8, 8, 2, len(NODES)))
    self.assertGreater(np.min(np.std(profile[:, :, 0], axis=1)), 1e-3)

  def test_classifier(self):
    """Is the same wherever it is made, and known by what makes it."""
    config = smoke_config(**{'reward.name': 'classifier'})
    data = builders.data.load(config)
    reward, params = judges.rewards.load(helpers.session(self.root, config), data)
    again = judges.classifiers.train_reward(config, data)
    chex.assert_trees_all_equal(params, again)
    x, label = data.test.x[:50], data.test.label[:50]
    own, others = reward(params, x, label), reward(params, x, (label + 3) % 8)
    self.assertGreater(np.mean(own), np.mean(others) + 0.05)
    self.assertTrue(np.all(np.asarray(own) < 0.0))
    stored = workdirs.identity.reward_identity(config)
    config.evaluation.classifier_steps = 21
    with self.assertRaisesRegex(
      errors.InputError, 'evaluation.classifier_steps=21: there was written with 20'
    ):
      wanted = workdirs.identity.reward_identity(config)
      workdirs.refuse.require_same(stored, wanted, 'there')


if __name__ == '__main__':
  absltest.main()
