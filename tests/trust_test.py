"""No file makes us run code, and no name leads out of a work directory."""

import ast
import importlib
import json
import pathlib
import sys
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import tensorflow_datasets as tfds
from absl.testing import absltest
from absl.testing import parameterized

from configs import coco512
from configs import mixture
from experiments import builders
from experiments import fid
from experiments import sample
from experiments import sampling
from experiments import workdirs
from lgd import errors
from lgd import networks
from lgd import training
from lgd.data.tfds import prepared
from lgd.training import checkpoints
from tests import helpers
from tests.lgd.data.tfds import tfds_files

ROOT = pathlib.Path(__file__).parents[1]
SOURCES = [
  p for d in ('lgd', 'experiments', 'configs') for p in (ROOT / d).rglob('*.py')
]

# Modules whose reading of a file may run what it holds.
UNSAFE_MODULES = {
  'cloudpickle', 'code', 'dill', 'joblib', 'marshal', 'pandas', 'pickle', 'runpy',
  'shelve', 'yaml',
}  # fmt: skip
UNSAFE_CALLS = {'eval', 'exec', 'compile', '__import__'}
# Readers that are safe with one argument alone.
SAFE_WITH = {
  'load': {'np': ('allow_pickle', False), 'torch': ('weights_only', True)},
  'from_pretrained': {
    'AutoTokenizer': ('trust_remote_code', False),
    'T5EncoderModel': ('weights_only', True),
  },
}
# (file, what it may have and no other).
EXCEPTIONS = {
  ('inception.py', 'pickle.UnpicklingError'),  # To catch it.
  ('user_functions.py', 'importlib.import_module'),  # Of a name that the command gave.
}


def _dotted(node):
  """'a.b.c' of names and attributes, '' of anything else."""
  if isinstance(node, ast.Name):
    return node.id
  if isinstance(node, ast.Attribute):
    return f'{_dotted(node.value)}.{node.attr}'
  return ''


def unsafe(tree: ast.AST) -> list[str]:
  """What in a program could run code of a file, each as it is written."""
  found, safe, aliases = [], set(), {}
  for node in ast.walk(tree):
    if isinstance(node, ast.ImportFrom):
      modules = [node.module, *(f'{node.module}.{a.name}' for a in node.names)]
      found += [m for m in modules if m.split('.')[0] in (*UNSAFE_MODULES, 'importlib')]
    if isinstance(node, ast.Assign):
      aliases |= {t.id: node.value for t in node.targets if isinstance(t, ast.Name)}
  calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
  for node in calls:
    function = node.func
    if isinstance(function, ast.Name):
      if function.id in UNSAFE_CALLS:
        found.append(function.id)
      function = aliases.get(function.id, function)
    owner, _, name = _dotted(function).rpartition('.')
    rule = SAFE_WITH.get(name, {}).get(owner.rpartition('.')[2])
    if rule and any(
      k.arg == rule[0]
      and isinstance(k.value, ast.Constant)
      and k.value.value is rule[1]
      for k in node.keywords
    ):
      safe.add(id(function))
  for node in ast.walk(tree):
    owner, _, name = _dotted(node).rpartition('.')
    if not owner:
      continue
    if owner in UNSAFE_MODULES or (owner, name) == ('importlib', 'import_module'):
      found.append(f'{owner}.{name}')
    of = SAFE_WITH.get(name, {})
    # Of Flax and others, too: none but those that are named is allowed.
    known = owner.rpartition('.')[2] in of or name == 'from_pretrained'
    if known and id(node) not in safe:
      found.append(f'{owner}.{name}')
  return found


class CodeTest(parameterized.TestCase):
  def test_no_reader_runs_what_a_file_holds(self):
    found = {(p.name, x) for p in SOURCES for x in unsafe(ast.parse(p.read_text()))}
    self.assertEqual(found, EXCEPTIONS)

  @parameterized.parameters(
    'import pickle\npickle.load(f)',
    'from pickle import loads',
    'from joblib import load',
    'from importlib import import_module',
    'import yaml\nx = yaml.load(f)',
    'eval(s)',
    'exec(s)',
    '__import__(s)',
    'np.load(path)',
    'np.load(path, allow_pickle=True)',
    'np.load(path, allow_pickle=allow)',
    'load = np.load\nload(path)',
    'torch.load(path)',
    'load = torch.load\nload(path, weights_only=False)',
    'importlib.import_module(name)',
    'transformers.AutoModel.from_pretrained(path)',
    'transformers.AutoTokenizer.from_pretrained(path, trust_remote_code=True)',
  )
  def test_the_test_sees(self, program):
    self.assertNotEmpty(unsafe(ast.parse(program)))

  @parameterized.parameters(
    'np.load(path, mmap_mode=mode, allow_pickle=False)',
    'load = torch.load\nload(path, weights_only=True)',
    'model.eval()\njson.loads(s)\nre.compile(s)\njax.jit(f).lower(x).compile()',
  )
  def test_and_sees_no_more(self, program):
    self.assertEmpty(unsafe(ast.parse(program)))

  def test_who_imports_what_a_config_names(self):
    """No command with a config of a checkpoint, but for `captions.decode`."""
    names = (
      'user_functions.load',
      'builders.captions.autoencoder',
      'builders.models.reward',
    )
    users = {
      (path.stem, _dotted(node))
      for path in SOURCES
      for node in ast.walk(ast.parse(path.read_text()))
      if _dotted(node) in names
    }
    self.assertEqual(
      users,
      {
        ('models', 'user_functions.load'),
        ('captions', 'user_functions.load'),
        ('encode_latents', 'builders.captions.autoencoder'),
        ('rewards', 'builders.captions.autoencoder'),
        ('rewards', 'builders.models.reward'),
      },
    )


class PlantedCase(parameterized.TestCase):
  """A module that can be imported, and tells whether it was."""

  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(self.create_tempdir().full_path)
    (self.root / 'planted.py').write_text('def load(*args):\n  return args\n')
    sys.path.insert(0, str(self.root))
    self.addCleanup(sys.path.remove, str(self.root))
    self.addCleanup(sys.modules.pop, 'planted', None)
    importlib.invalidate_caches()

  def assert_imported(self, is_imported):
    self.assertEqual('planted' in sys.modules, is_imported)


class StoredNamesTest(PlantedCase):
  def save(self, config):
    """A work directory whose base model says that it was trained with `config`."""
    params = {'params': {'w': jnp.ones(3)}}
    state = training.TrainState(jnp.ones((), jnp.int32), params, {}, params)
    stored = {'config': workdirs.configs.to_json(config), 'encoded': {}}
    workdir = self.root / 'workdir'
    with checkpoints.Checkpointer(
      workdir / 'denoiser', config=stored, keep=1
    ) as checkpointer:
      checkpointer.save(state)
    return workdir

  def test_autoencoder(self):
    config = coco512.get_config('smoke')
    config.data.update(autoencoder='planted:load', latent_shape=(8, 8, 48))
    config.data.update(dir=str(self.root), encoded_dir=str(self.root))
    workdir = self.save(config)
    for run in (
      lambda: sample.run(None, workdir, method='unguided', seed=0),
      lambda: fid.run(None, workdir, method='unguided', seed=0, network=None),
    ):
      with self.assertRaisesRegex(
        errors.InputError,
        "^data.autoencoder='planted:load': is named by .*workdir/denoiser, and no"
        ' module .*--config.data.autoencoder=planted:load',
      ) as caught:
        run()
      self.assertNotIn('\n', str(caught.exception))
      self.assert_imported(False)
    with mock.patch.object(workdirs.refuse, 'require_encoded'):  # There are none.
      given = workdirs.open_trained(config, workdir).config
    self.assert_imported(False)
    builders.captions.autoencoder(given)  # As the command said so.
    self.assert_imported(True)

  def test_another_autoencoder_is_none_of_this_model(self):
    config = coco512.get_config('smoke')
    config.data.update(autoencoder='planted:load', latent_shape=(8, 8, 48))
    config.data.update(dir=str(self.root), encoded_dir=str(self.root))
    workdir = self.save(config)
    config.data.autoencoder = 'another:load'
    with self.assertRaisesRegex(
      errors.InputError, "data.autoencoder='another:load': .* with 'planted:load'"
    ):
      workdirs.open_trained(config, workdir)
    self.assert_imported(False)

  def test_reward_of_samplers_is_the_classifiers(self):
    """Whatever reward the base model's config names: MPGD's and Stein's."""
    config = mixture.get_config('smoke')
    config.reward.name = 'planted:load'
    tree = workdirs.configs.to_json(config)
    stored = workdirs.configs.config_from_json(tree)
    self.assertEqual(stored.reward.name, 'planted:load')
    spec, rng = builders.data.spec(stored), np.random.default_rng(0)
    net = networks.Classifier(
      spec.conditions.num_classes, stored.evaluation.classifier_width
    )
    x, label = rng.normal(size=(5, 2)), np.arange(5)
    shapes = jax.eval_shape(net.init, jax.random.key(1), x)
    params = jax.tree.map(lambda a: rng.normal(size=a.shape), shapes)
    logits = np.float64(net.apply(params, x)[0])
    log_prob = logits - np.log(np.sum(np.exp(logits), axis=1, keepdims=True))
    reward = builders.models.classifier_reward(stored, spec)
    np.testing.assert_allclose(
      reward(params, x, label), log_prob[label, label], rtol=1e-4, atol=1e-4
    )
    self.assert_imported(False)
    builders.models.reward(stored, spec)(None, x, label)
    self.assert_imported(True)


class FeaturesTest(PlantedCase):
  """TFDS imports what features.json names."""

  def write(self, change):
    features = tfds_files.labelled((4, 4, 1), 10)
    path = tfds_files.write(
      str(self.root), 'mnist', {'train': [], 'test': []}, features
    )
    file = path / 'features.json'
    file.write_text(json.dumps(change(json.loads(file.read_text()))))
    return path

  @parameterized.named_parameters(
    ('class', lambda tree: tree | {'pythonClassName': 'planted.Feature'}),
    (
      'spelled_otherwise',
      lambda tree: {
        **{k: v for k, v in tree.items() if k != 'pythonClassName'},
        'python_class_name': 'planted.Feature',
      },
    ),
    ('older', lambda tree: {'type': 'planted.Feature', 'content': {}}),
    (
      'in_a_string',
      lambda tree: {
        'pythonClassName': f'{tfds.features.FeaturesDict.__module__}.FeaturesDict',
        'jsonFeature': {
          'json': json.dumps({'a': {'type': 'planted.Feature', 'content': {}}})
        },
      },
    ),
  )
  def test_foreign(self, change):
    path = self.write(change)
    with self.assertRaisesRegex(
      errors.NotPreparedError, "features.json: names the feature 'planted.Feature'"
    ) as caught:
      prepared.builder('mnist', str(self.root))
    self.assertNotIn('\n', str(caught.exception))
    self.assert_imported(False)
    with self.assertRaises(ValueError):  # What TFDS does.
      tfds.builder_from_directory(path)
    self.assert_imported(True)

  def test_own(self):
    self.write(lambda tree: tree)
    prepared.builder('mnist', str(self.root))

  @parameterized.parameters('', '{"pythonClassName', '[' * 100_000, '\x00')
  def test_damaged(self, content):
    path = self.write(lambda tree: tree) / 'features.json'
    path.write_text(content)
    with self.assertRaisesRegex(errors.NotPreparedError, f'{path}: .*prepare'):
      prepared.builder('mnist', str(self.root))


class PathsTest(parameterized.TestCase):
  @parameterized.product(
    kind=('guidance', 'statistics', 'clip'),
    name=('', '.', '..', '../x', 'a/b', '/etc', 'a/../../b', '..\\x', 'a\0b'),
  )
  def test_names_stay_inside(self, kind, name):
    with self.assertRaisesRegex(
      errors.InputError, f'names a directory of .*{kind}, so'
    ):
      getattr(workdirs.Workdir('w'), kind)(name)

  @parameterized.parameters('guidance', 'statistics', 'clip')
  def test_names_of_ours(self, kind):
    path = getattr(workdirs.Workdir('w'), kind)('l2_reward0.5_validation..')
    self.assertEqual(str(path), f'w/{kind}/l2_reward0.5_validation..')

  @parameterized.parameters(
    '../x', '/etc/passwd', 'a/b', 'constant:../0', 'constant:0.5/..', 'constant:/',
    'constant:0.5,../x', 'interval:0.5,0.1,/', 'unguided/..', 'unguided:..', '..', '',
    'constant:\0', 'constant:0.5\0', '\0',
  )  # fmt: skip
  def test_methods_that_name_files(self, method):
    """Refused before anything has a name made of them."""
    config = mixture.get_config('smoke')
    session = helpers.session(self.create_tempdir().full_path, config)
    with self.assertRaisesRegex(errors.InputError, '^--method='):
      sampling.resolve.resolve_method(session, method, np.arange(8, dtype=np.int32))

  def test_half_a_file_of_a_killed_process(self):
    root = pathlib.Path(self.create_tempdir().full_path)
    (root / 'results.json.partial').touch()
    workdirs.Workdir(root).refuse_foreign()
    (root / 'thesis.tex.partial').touch()
    with self.assertRaisesRegex(errors.InputError, 'thesis.tex.partial'):
      workdirs.Workdir(root).refuse_foreign()


if __name__ == '__main__':
  absltest.main()
