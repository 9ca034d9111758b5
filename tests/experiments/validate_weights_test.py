"""Verdicts: chosen by what held-out data say, and obeyed by whoever samples."""

import pathlib
import shutil
from unittest import mock

import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from configs import mixture
from experiments import builders
from experiments import check_verdicts
from experiments import collect_statistics
from experiments import evaluate
from experiments import judges
from experiments import sample
from experiments import sampling
from experiments import train_denoiser
from experiments import train_guidance
from experiments import validate_weights
from experiments import workdirs
from lgd import errors
from lgd import guidance
from lgd import metrics
from lgd import sampling as sampling_lib
from lgd.storage import files
from tests import helpers

NAME = 'l2'


def smoke_config(**overrides):
  config = mixture.get_config('smoke')
  config.guidance.objective = 'l2'
  config.update_from_flattened_dict(overrides)
  return config


class JudgeTest(absltest.TestCase):
  def judge(self, *energies, confidence=1.0):
    """Of distances with a jackknife each; their kappas are 0, .5 and 1."""
    config = smoke_config(**{'verdict.confidence': confidence})
    found = [{'energy': np.array(e), 'num_evaluations': 10.4} for e in energies]
    return validate_weights.judge(config.verdict, found)

  def test_the_smallest_distance(self):
    """Gains of .2 and .3, whose replicates differ by .01 around them."""
    verdict = self.judge([1.0, 1.0, 1.0], [0.8, 0.79, 0.81], [0.7, 0.69, 0.71])
    self.assertEqual((verdict.kappa, verdict.kappas), (1.0, (0.0, 0.5, 1.0)))
    np.testing.assert_allclose(verdict.gain, [0.0, 0.2, 0.3], atol=1e-12)
    # sqrt((B - 1) / B sum (v_b - mean)^2), B = 2.
    np.testing.assert_allclose(verdict.error, [0.0, 0.01, 0.01], atol=1e-12)
    self.assertEqual(verdict.num_evaluations, 31)
    self.assertEqual(str(verdict), 'kappa 1: gains 0.3000 +- 0.0100')

  def test_what_is_within_its_noise_is_nothing(self):
    noisy = [1.0, 1.0, 1.0], [0.95, 0.8, 1.1], [1.1, 1.0, 1.2]
    self.assertEqual(self.judge(*noisy).kappa, 0.0)
    self.assertEqual(self.judge(*noisy, confidence=0.0).kappa, 0.5)

  def test_noise_that_both_share_does_not_count(self):
    verdict = self.judge([1.0, 0.5, 1.5], [0.9, 0.41, 1.39], [2.0, 1.5, 2.5])
    self.assertEqual(verdict.kappa, 0.5)
    self.assertAlmostEqual(verdict.error[1], 0.01)


class RunTest(helpers.WorkdirCase):
  @classmethod
  def fill(cls):
    train_denoiser.run(smoke_config(), cls.root)
    collect_statistics.run(smoke_config(), cls.root)
    train_guidance.run(smoke_config(), cls.root)

  def decree(self, workdir, kappa):
    """A verdict that is made up."""
    verdict = workdirs.verdicts.Verdict(kappa, (0.0, kappa), (1, 1), (0, 0), (0, 0), 7)
    workdirs.verdicts.save(helpers.session(workdir, smoke_config()), NAME, verdict)

  def test_distances(self):
    """Of samples drawn by plain guidance, put together by hand."""
    workdir = self.copy()
    config = smoke_config(**{'verdict.samples_per_class': 6})
    verdict = validate_weights.run(config, workdir)[NAME]
    self.assertFalse((workdir / 'unfinished').exists())
    session = helpers.session(workdir, config)
    self.assertEqual(workdirs.verdicts.load(session, NAME), verdict)
    params = workdirs.base_model.load_denoiser(session)
    learned = workdirs.weights.load(session, NAME)
    label, times = np.repeat(np.arange(8), 6), builders.models.time_grid(config)
    data = builders.data.load(config)
    for kappa, energy in zip((0.0, 0.5, 1.0), verdict.energy, strict=True):
      denoise = guidance.guided(
        builders.rules.pair(config, data.spec),
        params,
        lambda cond, s, t, kappa=kappa: kappa * learned(cond, s, t),
      )
      x = sampling_lib.sample(
        sampling.sampler.sample_keys(config.seed, 1_000_000 + np.arange(48)),
        denoise,
        builders.models.schedule(config),
        jnp.asarray(label),
        (48, 2),
        num_steps=config.evaluation.num_steps,
        churn=0.0,
        times=times,
      )
      sets = metrics.class_sets(x, label), metrics.class_sets(*data.validation)
      expected = metrics.class_conditional_energy(*sets)
      self.assertAlmostEqual(energy, expected, delta=1e-4)
    again = validate_weights.run(config, workdir, names=[NAME])
    self.assertEqual(again, {NAME: verdict})

  def test_features(self):
    """What is compared are the features of samples and of data, at time 0."""
    workdir = self.copy()
    seen = []

    def train(config, dataset):
      del config, dataset
      return lambda params, x, t: params * x[:, :1] + t[:, None], jnp.float32(3.0)

    def spy(x, label, **settings):
      seen.append(np.asarray(x))
      return class_sets(x, label, **settings)

    class_sets, config = metrics.class_sets, smoke_config()
    config.verdict.distance = 'features'
    with (
      mock.patch.object(judges.classifiers, 'train_noisy_features', train),
      mock.patch.object(metrics, 'class_sets', spy),
    ):
      validate_weights.run(config, workdir)
    data = builders.data.load(config).validation.x
    np.testing.assert_allclose(seen[0], 3.0 * data[:, :1], rtol=1e-6)
    self.assertEqual([x.shape for x in seen[1:]], [(32, 1)] * 3)

  def test_samplers_obey(self):
    workdir = self.copy()
    raw = sample.run(None, workdir, method=NAME, seed=0)
    unguided = sample.run(None, workdir, method='unguided', seed=0)
    self.assertGreater(np.abs(raw - unguided).max(), 0.01)
    self.decree(workdir, 0.0)
    with self.assertLogs() as logged:
      none = sample.run(None, workdir, method=NAME, seed=0)
    np.testing.assert_allclose(none, unguided, atol=1e-4)
    self.assertIn('l2: kappa 0: no strength is better', '\n'.join(logged.output))
    rows = [row for row in evaluate.run(None, workdir) if row['method'] == NAME]
    strengths = {row['params'].get('kappa'): row for row in rows}
    self.assertEqual(set(strengths), {None, 1.0, *smoke_config().evaluation.kappas})
    self.assertEqual(strengths[None]['nfe'], 3.0)  # The null branch is left out.
    self.assertGreater(strengths[1.0]['nfe'], 3.0)
    cost = strengths[1.0]['learning_evaluations']
    self.assertEqual(strengths[None]['learning_evaluations'], cost + 7)

  def test_check_verdicts(self):
    """Gains by hand, from the rows of evaluate; the verdict, kappa .5, is made up."""
    root = pathlib.Path(self.create_tempdir().full_path)
    workdir = pathlib.Path(shutil.copytree(self.root, root / 'base'))
    verdict = workdirs.verdicts.Verdict(
      0.5, (0.0, 0.5, 1.0), (1.0, 0.9, 0.8), (0.0, 0.1, 0.2), (0.0, 0.01, 0.02), 7
    )
    workdirs.verdicts.save(helpers.session(workdir, smoke_config()), NAME, verdict)
    rows = evaluate.run(None, workdir)
    (row,) = check_verdicts.run(root)

    def replicates(method, kappa=None):
      of = [r for r in rows if r['method'] == method]
      of = [r for r in of if r['params'].get('kappa') == kappa]
      return np.mean([r['metrics']['energy_test_jackknife'] for r in of], axis=0)

    for kappa, gain, error in (
      (1.0, row.gain, row.gain_error), (None, row.used, row.used_error)
    ):  # fmt: skip
      expected = replicates('unguided') - replicates(NAME, kappa)
      self.assertAlmostEqual(gain, expected[0])
      # Two blocks: sqrt((B - 1) / B sum (v_b - mean)^2).
      self.assertAlmostEqual(error, abs(expected[1] - expected[2]) / 2.0)
    self.assertEqual((row.workdir, row.name, row.kappa), ('base', NAME, 0.5))
    self.assertEqual((row.promised, row.promised_error), (0.2, 0.02))
    learned = workdirs.weights.load(helpers.session(workdir, smoke_config()), NAME)
    times = builders.models.time_grid(smoke_config())
    table = guidance.tabulate(learned, np.arange(8), times)
    self.assertAlmostEqual(row.omega, float(table.mean()), places=5)
    self.assertIn(f'| base | {NAME} |', (root / 'verdicts.md').read_text())
    self.assertTrue((root / 'verdicts.png').exists())
    with self.assertRaisesRegex(errors.InputError, 'holds no work directory'):
      check_verdicts.run(workdir)

    session = helpers.session(workdir, smoke_config())
    new = verdict._replace(kappa=2.0, kappas=(0.0, 1.0, 2.0))
    workdirs.verdicts.save(session, NAME, new)
    with self.assertRaisesRegex(errors.InputError, 'not at 2, .* run evaluate again'):
      check_verdicts.run(root)
    workdirs.verdicts.save(session, NAME, verdict._replace(kappas=(0.0, 0.5, 2.0)))
    with self.assertRaisesRegex(errors.InputError, 'with 1.0 among --config.verdict'):
      check_verdicts.run(root)

  def test_results_older_than_the_verdict(self):
    """What was drawn at strength 1 is of strength 1, whatever is decreed since."""
    root = pathlib.Path(self.create_tempdir().full_path)
    workdir = pathlib.Path(shutil.copytree(self.root, root / 'base'))
    rows = evaluate.run(None, workdir)
    kappas = {row['kappa'] for row in rows if row['method'] == NAME}
    self.assertEqual(kappas, {1.0, *smoke_config().evaluation.kappas})
    self.assertEqual({r['kappa'] for r in rows if r['method'] == 'constant'}, {None})
    self.decree(workdir, 1.0)
    (expected,) = check_verdicts.run(root)
    self.assertNotEqual(expected.gain, 0.0)
    session = helpers.session(workdir, smoke_config())
    off = workdirs.verdicts.Verdict(0.0, (0.0, 1.0), (1, 1), (0, 0), (0, 0), 7)
    workdirs.verdicts.save(session, NAME, off)
    (row,) = check_verdicts.run(root)
    self.assertEqual((row.gain, row.used), (expected.gain, 0.0))

  def test_a_verdict_on_another_step_counts_no_more(self):
    workdir = self.copy()
    self.decree(workdir, 0.5)
    session = helpers.session(workdir, smoke_config())
    self.assertEqual(workdirs.weights.load(session, NAME).kappa, 0.5)
    train_guidance.run(smoke_config(**{'guidance.num_steps': 25}), workdir)
    with self.assertLogs(level='WARNING') as logged:
      self.assertEqual(workdirs.weights.load(session, NAME).kappa, 1.0)
    self.assertIn('is of another step', '\n'.join(logged.output))

  def test_a_verdict_on_another_weight_counts_no_more(self):
    """Removed and learned anew, otherwise, by as many steps."""
    workdir = self.copy()
    self.decree(workdir, 0.5)
    shutil.rmtree(workdir / 'guidance' / NAME)
    train_guidance.run(smoke_config(**{'guidance.learning_rate': 1e-4}), workdir)
    with self.assertLogs(level='WARNING') as logged:
      weight = workdirs.weights.load(helpers.session(workdir, smoke_config()), NAME)
    self.assertEqual(weight.kappa, 1.0)
    self.assertIn('or of another weight', '\n'.join(logged.output))

  def test_damage(self):
    workdir = self.copy()
    self.decree(workdir, 0.5)
    path = workdir / 'verdicts' / f'{NAME}.json'
    path.write_text(path.read_text().replace('0.5', '0.9', 1))
    session = helpers.session(workdir, smoke_config())
    with self.assertRaisesRegex(errors.InputError, f'{path}.* Remove '):
      workdirs.verdicts.load(session, NAME)
    made_of = workdirs.verdicts._made_of(session, NAME)
    files.write_sealed(path, made_of)
    with self.assertRaisesRegex(errors.InputError, 'kappa.* Remove '):
      workdirs.verdicts.load(session, NAME)


if __name__ == '__main__':
  absltest.main()
