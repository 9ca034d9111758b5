"""The README's code runs as it stands, and what it names is there, and all of it."""

import pathlib
import re

import numpy as np
from absl.testing import absltest
from absl.testing import parameterized

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text()


def commands(run_sh: str) -> set[str]:
  """The labels of run.sh's `case $command`."""
  body = run_sh[run_sh.index('case $command in') :]
  labels = re.findall(r'^  ([\w |]+)\)$', body, flags=re.MULTILINE)
  return {name for label in labels for name in re.findall(r'\w+', label)}


def misnamed(readme: str) -> set[str]:
  """Commands, binaries and files that the text names and that are not there."""
  named = {
    f'experiments/{name}.py'
    for name in re.findall(r'python -m experiments\.(\w+)', readme)
  }
  named |= {
    f'tests/{name}.py' for name in re.findall(r'python -m tests\.(\w+)', readme)
  }
  named |= set(re.findall(r'!\[[^]]*\]\(([^)]+)\)', readme))
  named |= set(re.findall(r'\b(?:configs|docs|requirements)[\w/-]*\.\w+', readme))
  missing = {path for path in named if not (ROOT / path).exists()}
  known = commands((ROOT / 'run.sh').read_text())
  return missing | set(re.findall(r'\./run\.sh (\w+)', readme)) - known


def unlisted(readme: str) -> set[str]:
  """Modules that the map lacks, and modules of the map that are not there."""
  house = readme[readme.index('## Map of the house') :]
  house = house[: house.index('\n## ')]
  library, experiments = house.split('\n    experiments/', 1)
  experiments = experiments.split('\n    configs/')[0]
  in_library = set(re.findall(r'\b[\w/]+(?:\.py|/)(?= )', library)) - {'lgd/'}
  of_library = {
    f'{path.name}/' if path.is_dir() else path.name
    for path in (ROOT / 'lgd').iterdir()
    if not path.name.startswith('_')
  }
  stems = set(re.findall(r'\b\w+(?=\.py\b)', experiments))
  # Commands stand in a list before the first file.
  binaries = re.sub(r'\([^)]*\)', '', experiments.split('.py', 1)[0])
  stems |= set(re.findall(r'\b[a-z_]+\b(?= ?[,;]|$)', binaries, flags=re.MULTILINE))
  of_experiments = {path.stem for path in (ROOT / 'experiments').glob('[a-z]*.py')}
  below = {path.name for path in (ROOT / 'lgd').rglob('*.py')}
  wrong = {name for name in in_library if name not in of_library | below}
  absent = {name for name in stems if '_' in name} - of_experiments
  return (of_library - in_library) | (of_experiments - stems) | wrong | absent


class ReadmeTest(parameterized.TestCase):
  def test_library_examples_run(self):
    """The blocks, one after the other: the second goes on from the first."""
    blocks = re.findall(r'```python\n(.*?)```', README, flags=re.DOTALL)
    self.assertLen(blocks, 2)
    names = {}
    for block in blocks:
      exec(compile(block, 'README.md', 'exec'), names)
    self.assertTrue(np.isfinite(names['metrics']['loss']))
    self.assertEqual(names['x'].shape, (8, 2))
    # The exact denoiser, barely guided: every point lands in its own class.
    means = np.asarray(names['denoiser_params'].means[:, 0])
    distance = np.linalg.norm(np.asarray(names['x'])[:, None] - means, axis=-1)
    np.testing.assert_array_equal(np.argmin(distance, axis=1), np.arange(8))

  def test_what_it_names_is_there(self):
    self.assertEqual(misnamed(README), set())
    for text, name in (
      ('python -m experiments.fids', 'experiments/fids.py'),
      ('python -m tests.kills', 'tests/kills.py'),
      ('./run.sh digit', 'digit'),
      ('configs/digit.py', 'configs/digit.py'),
      ('![A figure](docs/none.png)', 'docs/none.png'),
    ):
      self.assertEqual(misnamed(f'{README}\n{text}\n'), {name})

  def test_the_map_has_every_module(self):
    self.assertEqual(unlisted(README), set())

  @parameterized.parameters(
    ('sample, ', 'sample'),
    ('fid, ', 'fid'),
    ('mmd.py ', 'mmd.py'),
    ('judge.py ', 'judge'),
    ('arena.py ', 'arena'),
    ('guidance/ ', 'guidance/'),
  )
  def test_a_module_that_the_map_lacks_is_noticed(self, entry, name):
    """Also where its name is a word that the text has anyway."""
    start = README.index('## Map of the house')
    without = README[:start] + README[start:].replace(entry, '', 1)
    self.assertIn(name, unlisted(without))


if __name__ == '__main__':
  absltest.main()
