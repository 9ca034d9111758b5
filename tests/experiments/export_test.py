"""Exported files against the weights that samplers here use."""

import json
import pathlib

import jsonschema
import numpy as np
from absl.testing import absltest

from configs import mixture
from experiments import builders
from experiments import collect_statistics
from experiments import export
from experiments import train_denoiser
from experiments import train_guidance
from experiments import workdirs
from lgd import errors
from lgd import exchange
from lgd import guidance
from lgd.exchange import numpy_net
from tests import helpers

ROOT = pathlib.Path(__file__).parents[2]
NAME = 'self_consistency'


def smoke_config(**overrides):
  config = mixture.get_config('smoke')
  config.update_from_flattened_dict(overrides)
  return config


class ExportTest(helpers.WorkdirCase):
  @classmethod
  def fill(cls):
    train_denoiser.run(smoke_config(), cls.root)
    collect_statistics.run(smoke_config(), cls.root)
    train_guidance.run(smoke_config(), cls.root)
    table = {'guidance.weight': 'table', 'guidance.objective': 'l2'}
    train_guidance.run(smoke_config(**table), cls.root)

  def table(self, workdir):
    """omega of every class on the grid, at strength 1; and the grid."""
    learned = workdirs.weights.load(helpers.session(workdir, smoke_config()), NAME)
    times = builders.models.time_grid(smoke_config())
    return np.asarray(guidance.tabulate(learned, np.arange(8), times)), times

  def export(self, workdir, format_name, **settings):
    settings = {'method': NAME, **settings}
    return export.run(None, workdir, format_name=format_name, **settings)

  def test_json(self):
    """At the strength of the verdict, .5, which is made up."""
    workdir = self.copy()
    verdict = workdirs.verdicts.Verdict(0.5, (0.0, 0.5), (1, 1), (0, 0), (0, 0), 7)
    session = helpers.session(workdir, smoke_config())
    workdirs.verdicts.save(session, NAME, verdict)
    path = self.export(workdir, 'json')
    self.assertEqual(path, workdir / 'export' / f'{NAME}.json')
    tree = json.loads(path.read_text())
    schema = json.loads((ROOT / 'docs' / 'schedule.schema.json').read_text())
    jsonschema.validate(tree, schema)
    schedule = exchange.WeightSchedule.from_json(tree, 'FILE')
    omega, times = self.table(workdir)
    np.testing.assert_allclose(np.append(schedule.t, schedule.s[-1]), times)
    self.assertEqual(list(schedule.omega), [str(c) for c in range(8)])
    exported = np.stack(list(schedule.omega.values()))
    np.testing.assert_allclose(exported, 0.5 * omega, rtol=1e-5, atol=1e-7)
    params = workdirs.base_model.load_denoiser(session)
    self.assertEqual(schedule.base['sha256'], export.sha256_of(params))
    other = {**params, 'more': np.zeros(1)}
    self.assertNotEqual(export.sha256_of(other), schedule.base['sha256'])
    one = json.loads(self.export(workdir, 'list', label='mean').read_text())
    np.testing.assert_allclose(one, 1.0 + 0.5 * omega.mean(axis=0), rtol=1e-5)
    one = json.loads(self.export(workdir, 'list', label='3').read_text())
    np.testing.assert_allclose(one, 1.0 + 0.5 * omega[3], rtol=1e-5)

    network = numpy_net.NumpyNet(self.export(workdir, 'network'))
    logsnr = np.asarray(builders.models.schedule(smoke_config()).logsnr(times))
    for i in range(len(times) - 1):
      ends = (np.full(8, logsnr[j]) for j in (i + 1, i))
      np.testing.assert_allclose(
        network(np.arange(8), *ends), 0.5 * omega[:, i], rtol=1e-4, atol=1e-6
      )

  def test_given_weights(self):
    workdir = self.copy()
    path = self.export(
      workdir, 'stable_diffusion_cpp', method='constant:0.5', label='0'
    )
    self.assertEqual(path.read_text(), '1.5x3\n')
    output = workdir / 'elsewhere' / 'w.json'
    path = self.export(workdir, 'json', method='unguided', output=str(output))
    tree = json.loads(output.read_text())
    self.assertEqual((path, tree['omega']['7']), (output, [0.0, 0.0, 0.0]))
    inside_a_file = str(output / 'w.json')
    with self.assertRaisesRegex(errors.FileError, str(output)):
      self.export(workdir, 'json', method='unguided', output=inside_a_file)

  def test_errors(self):
    for format_name, settings, message in (
      ('list', {}, '8 conditions; take one by --label'),
      ('list', {'label': '8'}, '--label=8: must be mean or a class, 0 to 7'),
      ('json', {'method': 'l1'}, '--method=l1: must be unguided'),
      ('json', {'method': 'cfg_zero:0.5'}, '--method=cfg_zero:0.5: is of the rule'),
      ('network', {'method': 'l2_table'}, '--method=l2_table: is a table'),
      ('network', {'label': '3'}, '--label=3: a network is of all conditions'),
    ):
      with self.subTest(message):
        with self.assertRaisesRegex(errors.InputError, message):
          self.export(self.root, format_name, **settings)


if __name__ == '__main__':
  absltest.main()
