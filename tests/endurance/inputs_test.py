"""A few cases of every property of inputs; `inputs.py` draws thousands."""

import pathlib
import shutil
import tempfile

import hypothesis
from absl.testing import absltest
from absl.testing import parameterized

from tests.endurance import input_properties

# The same cases every time: what is new is drawn by `tests.endurance.inputs`.
hypothesis.settings.register_profile(
  'suite',
  derandomize=True,
  database=None,
  deadline=None,
  phases=[hypothesis.Phase.generate],
  suppress_health_check=list(hypothesis.HealthCheck),
)

NUM_CASES = {
  'configs': 16,
  'command_lines': 40,
  'arguments': 40,
  'workdirs': 8,
  'methods': 12,
  'calls': 30,
  'transitions': 40,
  'grids': 40,
  'moments': 8,
  'files': 60,
  'files_of_others': 60,
}


class InputsTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    root = pathlib.Path(tempfile.mkdtemp())
    cls.addClassCleanup(shutil.rmtree, root)
    cls.properties = input_properties.make(root)

  def test_every_property_is_tested(self):
    self.assertEqual(self.properties.keys(), NUM_CASES.keys())

  @parameterized.parameters(*NUM_CASES)
  def test_property(self, name):
    cases, check = self.properties[name]

    @hypothesis.settings(
      hypothesis.settings.get_profile('suite'), max_examples=NUM_CASES[name]
    )
    @hypothesis.given(cases)
    def holds(case):
      check(case)

    holds()


if __name__ == '__main__':
  absltest.main()
