"""Every config and variant loads, validates and builds."""

import importlib
import pathlib

import jax
import jax.numpy as jnp
from absl.testing import absltest
from absl.testing import parameterized

from configs import common
from experiments import builders
from experiments import report
from experiments import sweep
from experiments import validation
from lgd import conditions
from lgd.data import splits

NAMES = sorted(
  p.stem
  for p in (pathlib.Path(__file__).parents[1] / 'configs').glob('*.py')
  if p.stem not in ('__init__', 'common', 'coco512', 'emoji')  # Prompts: tested apart.
)
SECTIONS = (
  'data', 'denoiser', 'statistics', 'guidance', 'trajectory', 'sweep', 'evaluation'
)  # fmt: skip
VARIANTS = ('under_trained', 'well_trained', 'smoke')
OTHER_VARIANTS = {
  'mnist': (
    'under_trained',
    'well_trained',
    'unet_under_trained',
    'unet_well_trained',
    'smoke',
  ),
  'imagenet64': ('full', 'small', 'smoke'),
  'celeba64': ('full', 'small', 'classes', 'smoke'),
  'cifar10': ('full', 'smoke'),
}

# Shape and conditions: known without the data, which may not be there.
DATA = {
  'digits': splits.Spec((8, 8, 1), conditions.Labels(10)),
  'mixture': splits.Spec((2,), conditions.Labels(8)),
  'mixture40': splits.Spec((16,), conditions.Labels(40)),
  'mnist': splits.Spec((28, 28, 1), conditions.Labels(10)),  # mnist_test.py checks it.
  'cifar10': splits.Spec((32, 32, 3), conditions.Labels(10)),
  'imagenet64': splits.Spec((64, 64, 3), conditions.Labels(1000)),
  'celeba64': splits.Spec((64, 64, 3), conditions.Attributes(40)),
}
ALL = [
  (name, variant) for name in DATA for variant in OTHER_VARIANTS.get(name, VARIANTS)
]


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

  @parameterized.parameters(*ALL)
  def test_builds(self, name, variant):
    config = load(name, variant)
    validation.validate(config)
    spec = builders.data.spec(config)
    if variant != 'classes':
      self.assertEqual(spec, DATA[name])
    # As wide as they are, and less deep: more blocks are more of the same.
    config.denoiser.update(depth=2, num_blocks=1)
    net = builders.models.network(config, spec)
    args = jnp.zeros((4, *spec.shape)), jnp.full(4, 0.5), spec.conditions.zeros(4)
    out, _ = jax.eval_shape(net.init_with_output, jax.random.key(0), *args)
    self.assertEqual(out.shape, (4, *spec.shape))

  @parameterized.product(name=NAMES, kind=('network', 'table'))
  def test_builds_weights(self, name, kind):
    config = load(name, 'classes') if name == 'celeba64' else load(name)
    config.guidance.update(weight=kind, objective='l2')
    validation.validate(config)
    spec = builders.data.spec(config)
    weight = builders.models.weight_model(config, spec)

    def evaluated(key):
      t = jnp.full(4, 0.5)
      return weight.apply(weight.init(key), spec.conditions.zeros(4), 0.5 * t, t)

    self.assertEqual(jax.eval_shape(evaluated, jax.random.key(0)).shape, (4,))

  @parameterized.parameters(*ALL)
  def test_sweep_has_only_valid_points(self, name, variant):
    config = load(name, variant)
    for point in sweep.make_grid(config):
      config.guidance.update({axis: point[axis] for axis in report.sweep.AXES})
      validation.validate(config)

  @parameterized.product(
    name=('digits', 'mixture', 'mixture40'), kind=builders.objectives.STATISTICS
  )
  def test_plans_of_statistics(self, name, kind):
    """On one device as on eight, with what the configs say of sizes."""
    for variant in VARIANTS:
      config = load(name, variant)
      config.statistics.kind = kind
      data = builders.data.load(config)
      plan = builders.statistics.Plan(config, data.train, data.num_classes)
      index, _, label, _ = plan.batch(plan.items(0)[:2])
      self.assertLen(index, plan.items_per_batch)
      self.assertEqual(label.shape, (plan.items_per_batch, plan.group_size))

  @parameterized.parameters('digits', 'mixture', 'mixture40')
  def test_data(self, name):
    data = builders.data.load(load(name))
    self.assertEqual(data.spec, DATA[name])
    for split in (data.train, data.validation, data.test):
      self.assertEqual(set(split.label), set(range(data.num_classes)))

  @parameterized.parameters(*NAMES)
  def test_default_is_the_first_variant(self, name):
    first = OTHER_VARIANTS.get(name, VARIANTS)[0]
    self.assertEqual(load(name), load(name, first))

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
