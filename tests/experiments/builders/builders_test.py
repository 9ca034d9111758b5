"""The tables of rules and of objectives: what an entry says holds everywhere."""

import inspect
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized

from configs import digits
from experiments import builders
from experiments import validation
from experiments import workdirs
from lgd import errors
from lgd import noising

RULES, OBJECTIVES = builders.rules.RULES, builders.objectives.OBJECTIVES


class RulesTest(parameterized.TestCase):
  @parameterized.parameters(*RULES)
  def test_an_entry_is_whole(self, name):
    rule = RULES[name]
    makers = [m for m in (rule.direction, rule.act, rule.improve) if m]
    self.assertLessEqual(len(makers), 1)
    self.assertIn(rule.space, noising.PREDICTIONS)
    if makers:
      known = inspect.signature(makers[0]).parameters
      self.assertLessEqual(set(rule.constants.values()), set(known))
    else:
      self.assertFalse(rule.constants)

  @parameterized.parameters(
    *((name, key) for name, rule in RULES.items() for key in rule.constants)
  )
  def test_another_constant_is_another_identity(self, name, key):
    config = digits.get_config()
    config.rule.name = name
    other = config.copy_and_resolve_references()
    other.rule[key] = config.rule[key] + 1
    identities = [workdirs.identity.rule_identity(c) for c in (config, other)]
    self.assertNotEqual(*identities)
    with self.assertRaisesRegex(errors.InputError, f'{key}={other.rule[key]}'):
      workdirs.refuse.require_same(*({'rule': i} for i in identities), 'there')

  def test_constants_of_other_rules_are_not_in_an_identity(self):
    config = digits.get_config()
    self.assertEqual(workdirs.identity.rule_identity(config), {'name': 'linear'})

  def test_every_constant_of_the_config_belongs_to_a_rule(self):
    keys = set(digits.get_config().rule) - {'name', 'weak_workdir'}
    self.assertEqual(keys, {key for rule in RULES.values() for key in rule.constants})


class ObjectivesTest(parameterized.TestCase):
  def test_without_a_stored_form_statistics_are_refused(self):
    entry = OBJECTIVES['l2']._replace(stored=None)
    config = digits.get_config()
    config.guidance.objective = 'of_mine'
    with mock.patch.dict(OBJECTIVES, of_mine=entry):
      with self.assertRaisesRegex(
        errors.InputError,
        r"guidance.objective='of_mine': has no .*; use --config.guidance.source=direct",
      ):
        validation.validate(config)
      config.guidance.source = 'direct'
      validation.validate(config)

  @parameterized.parameters(*OBJECTIVES)
  def test_groups_have_statistics_of_groups(self, name):
    entry = OBJECTIVES[name]
    self.assertEqual(entry.is_grouped, entry.statistics != 'particles')
    self.assertLessEqual(entry.by_class, entry.is_grouped)


if __name__ == '__main__':
  absltest.main()
