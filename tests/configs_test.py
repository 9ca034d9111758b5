"""Every config and variant loads, validates and builds."""

import importlib
import pathlib

import jax
import jax.numpy as jnp
from absl.testing import absltest
from absl.testing import parameterized

from configs import common
from experiments import builders
from experiments import validation

NAMES = sorted(
  p.stem
  for p in (pathlib.Path(__file__).parents[1] / 'configs').glob('*.py')
  if p.stem not in ('__init__', 'common')
)
VARIANTS = ('under_trained', 'well_trained', 'smoke')

# Shape and number of classes: known without the data, which may not be there.
DATA = {
  'digits': ((8, 8, 1), 10),
  'mixture': ((2,), 8),
  'mixture40': ((16,), 40),
  'mnist': ((28, 28, 1), 10),  # mnist_test.py checks it.
}


def load(name, *variant):
  return importlib.import_module(f'configs.{name}').get_config(*variant)


def _keys(tree):
  """All paths of keys."""
  if not isinstance(tree, dict):
    return {()}
  return {(key, *rest) for key, node in tree.items() for rest in _keys(node)}


class ConfigsTest(parameterized.TestCase):
  def test_finds_the_configs(self):
    self.assertEqual(NAMES, sorted(DATA))

  @parameterized.product(name=NAMES, variant=VARIANTS)
  def test_builds(self, name, variant):
    config = load(name, variant)
    validation.validate(config)
    shape, num_classes = DATA[name]
    net = builders.network(config, num_classes)
    denoiser = builders.denoiser(config, num_classes)
    weight = builders.weight_model(config, num_classes)

    def build(key):
      params = builders.init_network(net, key, shape)
      x, t = jnp.zeros((4, *shape)), jnp.full(4, 0.5)
      label = jnp.zeros(4, int)
      x0_hat = denoiser(params, x, t, label)
      return x0_hat, weight.apply(weight.init(key), label, 0.5 * t, t)

    x0_hat, omega = jax.eval_shape(build, jax.random.key(0))
    self.assertEqual(x0_hat.shape, (4, *shape))
    self.assertEqual(omega.shape, (4,))

  @parameterized.parameters('digits', 'mixture', 'mixture40')
  def test_data(self, name):
    data = builders.dataset(load(name))
    self.assertEqual((data.shape, data.num_classes), DATA[name])
    for split in (data.train, data.validation, data.test):
      self.assertEqual(set(split.label), set(range(data.num_classes)))

  @parameterized.parameters(*NAMES)
  def test_default_is_the_under_trained_variant(self, name):
    self.assertEqual(load(name), load(name, 'under_trained'))

  @parameterized.parameters(*NAMES)
  def test_unknown_variant(self, name):
    with self.assertRaisesRegex(ValueError, "'bogus'.*smoke"):
      load(name, 'bogus')

  @parameterized.parameters(*NAMES)
  def test_configs_add_no_keys(self, name):
    """One family: every key is in the default, where its comment is."""
    default, config = common.get_default(), load(name)
    self.assertEqual(_keys(default.to_dict()), _keys(config.to_dict()))


if __name__ == '__main__':
  absltest.main()
