"""The comparison of methods on digits, shrunk; and what their schedules are."""

import functools
import json
import pathlib
import shutil
import tempfile
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized
from etils import epath

from configs import digits
from experiments import app
from experiments import builders
from experiments import collect_statistics
from experiments import compare
from experiments import judges
from experiments import report
from experiments import sampling
from experiments import train_denoiser
from experiments import train_guidance
from experiments import workdirs
from lgd import errors
from lgd import guidance
from lgd import metrics
from lgd import networks
from lgd import rewards
from lgd import sampling as sampling_lib
from lgd.training import checkpoints
from lgd.training import sharding
from tests import helpers


def smoke_config(**overrides):
  config = digits.get_config('smoke')
  config.compare.update(num_steps=(4,), omegas=(0.5, 2.0))
  config.compare.methods = (
    'constant', 'interval', 'angle_domain', 'apg_momentum', 'stein'
  )  # fmt: skip
  config.compare.rates = (0.1, 1.0)
  # Away from 0, so that methods differ: a base that has begun to learn.
  config.denoiser.update(num_steps=60, ema_decay=0.5)
  config.update_from_flattened_dict(overrides)
  return config


class SchedulesTest(parameterized.TestCase):
  @parameterized.parameters(*builders.families.FAMILIES)
  def test_strength_is_in_omega(self, name):
    """Finite at any number of steps; stronger for larger omega."""
    for num_steps in (2, 10, 250):
      config = digits.get_config()
      config.evaluation.num_steps = num_steps
      weak, strong = (
        builders.families.schedule(name, omega, config) for omega in (0.5, 1.0)
      )
      self.assertEqual(weak.shape, (num_steps,))
      self.assertTrue(np.all(np.isfinite(strong)))
      if num_steps > 2:
        self.assertGreater(np.sum(strong), np.sum(weak))

  def test_cfg_plus_plus_has_the_mean_of_its_strength(self):
    config = digits.get_config()
    omega = builders.families.schedule('cfg_plus_plus', 0.7, config)
    np.testing.assert_allclose(np.mean(omega), 0.7, rtol=1e-4)

  def test_every_rule_is_known(self):
    self.assertLessEqual(
      {f.rule for f in builders.families.FAMILIES.values()}, {*builders.rules.RULES}
    )


class OverviewTest(absltest.TestCase):
  def test_the_smallest_mean_rank_first(self):
    def row(steps, method, energy, **params):
      return {
        'method': method,
        'params': params,
        'nfe': 1.0,
        'learning_evaluations': 0,
        'metrics': {'energy_test': energy},
        'asked_steps': steps,
      }

    by_steps = {
      10: [row(10, 'unguided', 0.3), row(10, 'apg', 0.2, omega=0.5), row(10, 'x', 0.1)],
      50: [row(50, 'unguided', 0.1), row(50, 'mpgd', 0.3, rate=3.0), row(50, 'x', 0.2)],
    }
    by_steps[50].append(row(50, 'apg', 0.05, omega=0.1))
    by_steps[10].append(row(10, 'mpgd', 0.4, rate=0.3))
    self.assertEqual(
      report.comparison.overview(by_steps),
      [
        '| method | 10 steps | 50 steps |',
        '| --- | --- | --- |',
        '| apg | 0.2000 (1.5) | 0.0500 (1.1) |',
        '| **x** | 0.1000 | 0.2000 |',
        '| unguided | 0.3000 | 0.1000 |',
        '| mpgd | 0.4000 (rate 0.3) | 0.3000 (rate 3) |',
      ],
    )


class StoredConfigTest(absltest.TestCase):
  def test_keys_that_the_file_lacks(self):
    config = digits.get_config('well_trained')
    tree = json.loads(json.dumps(config.to_dict()))
    del tree['rule'], tree['evaluation']['solver']
    self.assertEqual(workdirs.configs.config_from_json(tree), config)


class RunTest(helpers.WorkdirCase):
  @classmethod
  def fill(cls):
    config = smoke_config()
    train_denoiser.run(config, cls.root)
    cls.weak = pathlib.Path(tempfile.mkdtemp())
    cls.addClassCleanup(shutil.rmtree, cls.weak)
    train_denoiser.run(smoke_config(**{'denoiser.num_steps': 30}), cls.weak)
    config.rule.update(apg_max_norm=1e-6, weak_workdir=str(cls.weak))
    for rule in ('linear', 'apg', 'autoguidance'):
      config.rule.name = rule
      collect_statistics.run(config, cls.root)
      train_guidance.run(config, cls.root)
    cls.rows = compare.run(smoke_config(), cls.root)

  @functools.cached_property
  def parts(self):
    session = helpers.session(self.root, smoke_config())
    session = sampling.strengths.with_steps(session, 4)
    config, dataset = session.config, builders.data.load(session.config)
    params = workdirs.base_model.load_denoiser(session)
    classifier = judges.classifiers.train_reward(config, dataset)
    sampler = sampling.methods.ClassSampler(session, dataset, params, classifier)
    return config, session, dataset, sampler

  def pieces(self):
    return app.Pieces(epath.Path(self.create_tempdir().full_path), {})

  def test_rows(self):
    path = self.root / 'compare'
    self.assertEqual(json.loads((path / 'results.json').read_text()), self.rows)
    self.assertTrue((path / 'nfe.png').exists())
    real, *rows = self.rows
    self.assertEqual(real['method'], 'real')
    learned = {'self_consistency': 'linear'}
    learned['self_consistency_apg'] = 'apg'
    learned['self_consistency_autoguidance'] = 'autoguidance'
    rules = learned | {
      n: builders.families.FAMILIES[n].rule for n in smoke_config().compare.methods
    }
    self.assertEqual(
      {r['method']: r['rule'] for r in rows if r['method'] != 'unguided'}, rules
    )
    given = {'unguided': 4, 'constant': 8, 'apg_momentum': 8, 'angle_domain': 8}
    given['stein'] = 4.0  # `devices_test` has it where groups fill devices up.
    given['interval'] = 7  # t = 1, .75, .5, .25: guided at the last three.
    for row in rows:
      self.assertEqual(row['nfe'], given.get(row['method'], row['nfe']), row['method'])
      self.assertGreater(row['seconds'], 0.0)
      if row['params']:  # Two strengths, one seed each.
        self.assertEqual(
          row['learning_evaluations'], 2 * row['nfe'] * row['num_samples']
        )
    table = (path / 'results.md').read_text()
    self.assertIn('**self_consistency_apg**', table)
    self.assertRegex(table, r'\| stein \| stein \| rate (0.1|1) \|')
    self.assertRegex(table, r'\*\*self_consistency\*\* \| linear \| mean 1')

  def test_cut_short(self):
    """After the searches: these are not made again, and rows are what they were."""
    names = ('constant', 'apg_momentum')
    config, workdir = smoke_config(**{'compare.methods': names}), self.copy()
    again = functools.partial(compare.run, config, workdir)
    num = 1 + 2 * 2 + 4 + 2  # The judge, searches, unguided and learned, the two.
    self.assertEqual(helpers.pieces_made(again, dies_at=7), 7)
    self.assertEqual(helpers.pieces_made(again), num - 7)
    rows = json.loads((workdir / 'compare' / 'results.json').read_text())

    def without_seconds(rows):
      return [{k: v for k, v in row.items() if k != 'seconds'} for row in rows]

    left_out = set(smoke_config().compare.methods) - set(names)
    expected = [row for row in self.rows if row['method'] not in left_out]
    self.assertEqual(without_seconds(rows), without_seconds(expected))
    self.assertFalse((workdir / 'unfinished').exists())

  def test_what_decides_a_piece(self):
    config, session, _, _ = self.parts
    method = sampling.strengths.given_method(config, 10, 'constant', 0.5)
    power, higher = config.rule.copy_and_resolve_references(), 2.0 * method.table
    power.power += 0.5
    others = [
      method._replace(**change)
      for change in (
        {'name': 'x'}, {'params': {}}, {'rule': power}, {'table': higher}, {'cost': 1}
      )
    ]  # fmt: skip
    names = {app.pieces._digest(m.identity) for m in (method, *others)}
    self.assertLen(names, 6)
    self.assertIn(app.pieces._digest(method._replace().identity), names)
    session = session.with_config(config)
    identity = workdirs.identity.run_identity(session)
    self.assertEqual(workdirs.identity.run_identity(session), identity)
    config.evaluation.tolerance += 0.1
    self.assertNotEqual(workdirs.identity.run_identity(session), identity)

  def test_search_takes_the_best_on_validation_data(self):
    """By the file's own rows: other strengths are farther from validation data."""
    config, _, dataset, sampler = self.parts
    validation = metrics.class_sets(*dataset.validation)
    distances = []
    for omega in config.compare.omegas:
      method = sampling.strengths.given_method(config, 10, 'constant', omega)
      x, _ = sampler.sample(method, config.seed)
      by_class = metrics.class_sets(x, sampler.label)
      distances.append(metrics.class_conditional_energy(by_class, validation))
    best = config.compare.omegas[int(np.argmin(distances))]
    chosen = {r['params']['omega'] for r in self.rows if r['method'] == 'constant'}
    self.assertEqual(chosen, {best})
    self.assertGreater(abs(distances[0] - distances[1]), 1e-3)

  def test_learned_weights_are_sampled_with_their_own_rule(self):
    """As `builders.rules` guides, not as `linear` would."""
    config, session, _, sampler = self.parts
    name = 'self_consistency_apg'
    learned = workdirs.weights.load_all(session)[name]
    method = sampling.methods.learned_method(config, name, learned, np.arange(10))
    strong = method._replace(table=np.full_like(method.table, 2.0))
    x, _ = sampler.sample(strong, 0)
    # All of the difference is cut to next to nothing, as the weight was learned.
    zero, _ = sampler.sample(strong._replace(table=0.0 * strong.table), 0)
    np.testing.assert_allclose(x, zero, atol=1e-3)
    other, _ = sampler.sample(strong._replace(rule=config.rule), 0)
    self.assertGreater(np.abs(x - other).max(), 1e-2)

  @parameterized.parameters(
    ({'evaluation.solver': '2m'}, {'solver': '2m'}),
    ({'evaluation.solver': 'heun'}, {'solver': 'heun'}),
    ({'schedule': 'karras', 'evaluation.t_max': 0.9}, {}),
    ({'evaluation.plan_levels': 1}, {}),
    ({'evaluation.tolerance': 0.6}, {'omega': (1.0, 0.0, 0.7, 0.0)}),
    ({'rule.name': 'power_normalized', 'evaluation.t_max': 0.9}, {'space': 'eps'}),
  )
  def test_the_sampler_that_the_config_describes(self, changes, expected):
    """Against plain guidance, put together by hand."""
    config, session, dataset, sampler = self.parts
    config.update_from_flattened_dict(changes)
    omega = np.float32([1.0, 0.0, 0.7, 0.6])
    method = sampling.methods.Method('given', {}, config.rule, np.tile(omega, (10, 1)))
    session = session.with_config(config)
    x, _ = sampling.methods.ClassSampler(session, dataset, sampler.params).sample(
      method, 0
    )
    omega = np.tile(expected.get('omega', omega), (len(x), 1))
    times, schedule = (
      builders.models.time_grid(config),
      builders.models.schedule(config),
    )
    rule = guidance.linear
    if 'space' in expected:
      rule = guidance.power_normalized(config.rule.power)
    denoise = guidance.guided(
      builders.rules.pair(config, dataset.spec),
      sampler.params,
      guidance.per_sample(omega, times),
      rule=rule,
      space=expected.get('space', 'x0'),
      schedule=schedule,
    )
    plain = sampling_lib.sample(
      sampling.sampler.sample_keys(0, np.arange(len(x))),
      denoise,
      schedule,
      sampler.label,
      x.shape,
      num_steps=4,
      churn=0.0,
      times=times,
      solver=expected.get('solver', 'first_order'),
    )
    np.testing.assert_allclose(x, plain, atol=1e-4)

  def test_autoguidance(self):
    """At omega = -1 samples are the weak model's; away from itself it goes nowhere."""
    config, _, dataset, sampler = self.parts
    x = {}
    for weak in (self.weak, self.root):
      config.rule.weak_workdir = str(weak)
      method = sampling.strengths.given_method(config, 10, 'autoguidance', -1.0)
      x[weak], _ = sampler.sample(method, 0)
    unguided = sampling.methods.Method('unguided', {}, config.rule, None)
    expected, _ = sampler.sample(unguided, 0)
    np.testing.assert_allclose(x[self.root], expected, atol=1e-5)
    self.assertEqual(sampler.count_nfe(method), 8)
    weak = helpers.session(self.weak, config)
    params = workdirs.base_model.load_denoiser(weak)
    expected, _ = sampling.methods.ClassSampler(weak, dataset, params).sample(
      unguided, 0
    )
    np.testing.assert_allclose(x[self.weak], expected, atol=1e-4)
    self.assertGreater(np.abs(x[self.weak] - x[self.root]).max(), 0.1)

  @parameterized.parameters(
    ('denoiser.width', 32),
    ('denoiser.prediction', 'x0'),
    ('schedule', 'cosine'),
    ('data.flip', True),
  )
  def test_a_weak_model_of_another_kind(self, key, value):
    config, session, _, _ = self.parts
    config.rule.weak_workdir = str(self.weak)
    workdirs.base_model.load_weak(session)
    config.update_from_flattened_dict({key: value})
    with self.assertRaisesRegex(errors.InputError, 'weak_workdir=.*another network'):
      workdirs.base_model.load_weak(session)

  def test_the_weak_model_of_a_weight(self):
    """It may move, but not change."""
    config, session, _, _ = self.parts
    config.rule.weak_workdir = self.create_tempdir().full_path
    shutil.copytree(self.weak, config.rule.weak_workdir, dirs_exist_ok=True)
    name = 'self_consistency_autoguidance'
    weight = workdirs.weights.load(session, name)
    self.assertEqual(weight.rule.weak_workdir, config.rule.weak_workdir)
    config.rule.weak_workdir = str(self.root)
    with self.assertRaisesRegex(errors.InputError, 'of the weak model, step=60: .* 30'):
      workdirs.weights.load(session, name)
    config.rule.name = 'autoguidance'
    with self.assertRaisesRegex(errors.InputError, 'of the weak model, step=60: .* 30'):
      collect_statistics.run(config, self.root)

  def test_a_work_directory_older_than_some_keys(self):
    config, session, _, _ = self.parts
    load = checkpoints.load_config

    def without(tree):
      if not isinstance(tree, dict):
        return tree
      new = ('rule', 'adam_b2', 'weak')
      return {k: without(v) for k, v in tree.items() if k not in new}

    with mock.patch.object(checkpoints, 'load_config', lambda p: without(load(p))):
      stored = workdirs.open_trained(None, self.root).config
      self.assertEqual(stored.denoiser.adam_b2, config.denoiser.adam_b2)
      workdirs.weights.load(session, 'self_consistency')
      train_guidance.run(smoke_config(), self.root)  # Done.
      with self.assertRaisesRegex(errors.InputError, r'denoiser\.width=8'):
        workdirs.open_to_learn(smoke_config(**{'denoiser.width': 8}), self.root)

  @parameterized.parameters(('mpgd', 1), ('stein', 1), ('stein', 2))
  def test_rewards(self, name, num_particles):
    """One step, from noise to data: the clean prediction, and what the reward adds.

    Eight devices hold five samples each, and neighbours stay together.
    """
    _, session, dataset, sampler = self.parts
    session = sampling.strengths.with_steps(session, 1)
    config = session.config
    config.rule.num_particles = num_particles
    mesh = sharding.make_mesh(jax.local_devices())  # All eight.
    self.enter_context(mock.patch.object(builders.models, 'mesh', return_value=mesh))
    frozen = sampler.params, sampler.classifier
    sampler = sampling.methods.ClassSampler(
      session, dataset, *sharding.replicate(frozen, mesh)
    )
    unguided = sampling.methods.Method('unguided', {}, config.rule, None)
    x, _ = sampler.sample(unguided, 0)
    net = networks.Classifier(10, config.evaluation.classifier_width)

    def log_prob(x, label):
      logits, _ = net.apply(sampler.classifier, x)
      return jnp.take_along_axis(jax.nn.log_softmax(logits), label[:, None], 1)[:, 0]

    method = sampling.strengths.given_method(config, 10, name, 3.0)
    self.assertEqual(method.params, {'rate': 3.0})
    raised, _ = sampler.sample(method, 0)
    if num_particles == 1:
      gradient = jax.grad(lambda x: jnp.sum(log_prob(x, sampler.label)))(x)
      expected = x + 3.0 * gradient
    else:
      improve = rewards.stein(
        lambda xt, *_: xt, log_prob, guidance.constant(3.0), num_particles
      )
      expected = improve(x, jnp.zeros(len(x)), jnp.ones(len(x)), sampler.label)
      self.assertEqual(sampler.count_nfe(method), 48 / 40)  # Whole groups per device.
    np.testing.assert_allclose(raised, expected, atol=1e-4)
    self.assertGreater(np.abs(raised - x).max(), 0.01)

  def test_equal_means(self):
    config, _, _, _ = self.parts
    names = ('constant', 'triangle', 'beta_cfg', 'cfg_plus_plus', 'interval')
    config.compare.methods = names
    table = np.array([[0.1, 0.2, 0.3, 0.4], [1.0, 2.0, 3.0, 4.0]])
    learned = [sampling.methods.Method('self_consistency', {}, config.rule, table)]
    matched = sampling.strengths.matched_methods(config, learned)
    self.assertEqual(tuple(m.name for m in matched), names)
    for method in matched:
      np.testing.assert_allclose(method.table.mean(axis=1), 1.375, rtol=1e-5)
    learned = [learned[0]._replace(table=0.0 * table)]
    with self.assertRaisesRegex(errors.InputError, 'mean 0'):
      sampling.strengths.matched_methods(config, learned)

  @parameterized.parameters(
    ({'compare.match': 'mean', 'compare.reference': 'l2'}, "reference='l2': must be"),
    (
      {'compare.methods': ('mpgd',), 'evaluation.solver': '2m'},
      "evaluation.solver='2m': mpgd is a step of first order",
    ),
    (
      {'compare.methods': ('apg_momentum',), 'evaluation.solver': 'heun'},
      "evaluation.solver='heun': apg_momentum remembers",
    ),
    (
      {'compare.methods': ('cfg_plus_plus',), 'evaluation.churn': 1.0},
      'churn=1.0: CFG',
    ),
    (
      {
        'compare.match': 'mean',
        'compare.methods': ('interval',),
        'evaluation.t_max': 0.2,
      },
      'interval on this grid',
    ),
    ({'rule.name': 'power_normalized'}, 'evaluation.t_max=1.0: rule.name'),
    ({'rule.name': 'mpgd'}, "rule.name='mpgd': must be one of linear"),
    ({'rule.name': 'autoguidance'}, "weak_workdir='': .* needs the work dir"),
    ({'compare.methods': ('autoguidance',)}, "weak_workdir='': autoguidance needs"),
    ({'compare.methods': ('mpgd',), 'compare.match': 'mean'}, 'mpgd has a rate'),
  )
  def test_refuses(self, overrides, message):
    with self.assertRaisesRegex(errors.InputError, message):
      config = smoke_config(**overrides)
      session = workdirs.open_trained(config, self.root)
      config = session.config
      compare.require_comparable(session, {'self_consistency': None})
      table = np.ones((10, config.evaluation.num_steps))
      method = sampling.methods.Method('self_consistency', {}, config.rule, table)
      sampling.strengths.matched_methods(config, [method])

  def test_a_candidate_that_is_not_finite_is_not_chosen(self):
    config, session, _, sampler = self.parts
    config = config.copy_and_resolve_references()
    config.compare.omegas = (1e38, 0.5)
    session = session.with_config(config)
    sampler = sampling.methods.ClassSampler(session, sampler.dataset, sampler.params)
    self.assertEqual(
      sampling.strengths.searched_method(sampler, 'constant', self.pieces()).params,
      {'omega': 0.5},
    )
    config.compare.omegas = (1e38,)
    with self.assertRaisesRegex(errors.NonFiniteError, 'constant: no samples'):
      sampling.strengths.searched_method(sampler, 'constant', self.pieces())

  def test_rules_that_need_both_are_not_cut(self):
    """`tolerance` leaves out what has no effect, and only that."""
    config = smoke_config()
    omega = np.full((8, 4), 0.2, np.float32)
    for rule, kept in (('linear', 0.0), ('apg_momentum', 0.2), ('mpgd', 0.2)):
      changed = config.copy_and_resolve_references()
      changed.rule.name, changed.evaluation.tolerance = rule, 0.3
      plan = sampling.sampler.make_plan(changed, omega)
      np.testing.assert_allclose(plan.omega, np.full((8, 4), kept))

  def test_equal_evaluations(self):
    """Twice the steps for unguided, as many for a constant, more for an interval."""
    config, session, dataset, sampler = self.parts
    config.compare.update(match='nfe', methods=('constant', 'interval', 'mpgd'))
    name = 'self_consistency'
    learned = {name: workdirs.weights.load(session, name)}

    @functools.cache
    def sampler_at(num_steps):
      at_steps = sampling.strengths.with_steps(session, num_steps)
      frozen = sampler.params, sampler.classifier
      return sampling.methods.ClassSampler(at_steps, dataset, *frozen)

    entries = {
      m.name: (a, m)
      for a, m in sampling.strengths.gather(sampler_at, 4, learned, self.pieces())
    }
    expected = {'unguided': 8, 'constant': 4, 'interval': 5, 'mpgd': 8}
    for name, num_steps in expected.items():
      sampler, method = entries[name]
      self.assertEqual(sampler.config.evaluation.num_steps, num_steps)
      self.assertEqual(sampler.count_nfe(method), 8.0)
    sampler, method = entries['self_consistency']
    self.assertEqual(method.table.shape, (10, sampler.config.evaluation.num_steps))
    for name, weight in (('constant', 8.0), ('mpgd', 8.0)):  # Searched where measured.
      cost = (
        len(sampling.strengths.strengths(config, name)) * weight * len(sampler.label)
      )
      self.assertEqual(entries[name][1].cost, cost)

  def test_a_table_that_does_not_cover_the_sampler(self):
    config, session, _, _ = self.parts
    name = 'self_consistency'
    weight = workdirs.weights.load(session, name)
    times = np.linspace(0.8, 0.2, 5)
    learned = weight.guidance.copy_and_resolve_references()
    learned.weight = 'table'
    weight = weight._replace(guidance=learned, params={'times': times})
    with self.assertRaisesRegex(errors.InputError, r't=1: outside of \[0.2'):
      sampling.sampler.tabulate_learned(config, weight, np.arange(10))
    guidance.require_cover(np.linspace(1.0, 0.0, 5), builders.models.time_grid(config))


if __name__ == '__main__':
  absltest.main()
