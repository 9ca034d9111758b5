"""What README and docs say can be done: programs run, and names are there, and all."""

import ast
import pathlib
import re
from unittest import mock

import numpy as np
from absl.testing import absltest
from absl.testing import parameterized

from configs import digits
from experiments import builders
from experiments import train_denoiser
from experiments import train_guidance
from lgd import errors

ROOT = pathlib.Path(__file__).parents[1]
PAGES = (ROOT / 'README.md', *sorted((ROOT / 'docs').rglob('*.md')))


def blocks(page: str) -> list[str]:
  return re.findall(r'```python\n(.*?)```', (ROOT / page).read_text(), flags=re.DOTALL)


def commands(run_sh: str) -> set[str]:
  """The labels of run.sh's `case $command`."""
  body = run_sh[run_sh.index('case $command in') :]
  labels = re.findall(r'^  ([\w |]+)\)$', body, flags=re.MULTILINE)
  return {name for label in labels for name in re.findall(r'\w+', label)}


def misnamed(text: str, folder: pathlib.Path = ROOT) -> set[str]:
  """Commands, files and links that a page of `folder` names and that are not there."""
  named = {f'experiments/{n}.py' for n in re.findall(r'-m experiments\.(\w+)', text)}
  modules_of_tests = re.findall(r'-m (tests(?:\.\w+)+)', text)
  named |= {f'{name.replace(".", "/")}.py' for name in modules_of_tests}
  named |= set(re.findall(r'\b(?:configs/|requirements)[\w-]*\.\w+', text))
  missing = {path for path in named if not (ROOT / path).exists()}
  links = {link.split('#')[0] for link in re.findall(r'\]\(([^)]+)\)', text)}
  links = {link for link in links if link and '://' not in link}
  missing |= {link for link in links if not (folder / link).exists()}
  known = commands((ROOT / 'run.sh').read_text())
  return missing | set(re.findall(r'\./run\.sh (\w+)', text)) - known


def modules() -> dict[str, str]:
  """'lgd/mmd.py' -> the first line of its docstring, of all but packages."""
  found = {}
  for folder in ('lgd', 'experiments', 'configs'):
    for path in (ROOT / folder).rglob('*.py'):
      if path.name != '__init__.py':
        text = ast.get_docstring(ast.parse(path.read_text()))
        found[str(path.relative_to(ROOT))] = text.splitlines()[0]
  return found


def in_architecture(text: str) -> dict[str, str]:
  """The same, as docs/architecture.md has it."""
  found, room = {}, ''
  for line in text.splitlines():
    if line.startswith('## '):
      room = line.removeprefix('## ')
    elif row := re.fullmatch(r'\| `(\w+\.py)` \| (.*) \|', line):
      found[room + row[1]] = row[2].replace('\\|', '|')
  return found


class DocsTest(parameterized.TestCase):
  def check_weights(self, names):
    self.assertTrue(np.isfinite(names['metrics']['loss']))
    self.assertEqual(names['x'].shape, (8, 2))
    # The exact denoiser, barely guided: every point lands in its own class.
    means = np.asarray(names['denoiser_params'].means[:, 0])
    distance = np.linalg.norm(np.asarray(names['x'])[:, None] - means, axis=-1)
    np.testing.assert_array_equal(np.argmin(distance, axis=1), np.arange(8))

  def test_programs_run(self):
    """The README's, and then those of the library's page, which go on from it."""
    programs = blocks('README.md') + blocks('docs/library.md')
    self.assertLen(programs, 2)
    names = {}
    for program in programs:
      exec(compile(program, 'docs', 'exec'), names)
      self.check_weights(names)

  def test_a_checkpoint_that_others_trained(self):
    """A third of the condition is lost: omega 1/2 mends it, and the verdict says so."""
    (program,) = blocks('docs/models.md')
    names = {}
    exec(compile(program, 'docs/models.md', 'exec'), names)
    # Where the classes are told apart, to a step of the candidates.
    np.testing.assert_allclose(names['table'][:, :12], 0.5, atol=0.11)
    self.assertEqual(names['kappa'], 1.0)
    energy = names['energy']
    self.assertLess(energy[1.0][0], 0.3 * energy[0.0][0])

  def test_extensions_run(self):
    """Every one of the page in one training, and the rule against its formula."""
    tables = (
      builders.rules.RULES,
      builders.objectives.OBJECTIVES,
      builders.data.SOURCES,
      builders.models.NETWORKS,
    )
    for table in tables:
      self.enter_context(mock.patch.dict(table))
    names = {}
    for program in blocks('docs/extending.md'):
      exec(compile(program, 'docs/extending.md', 'exec'), names)
    added = [list(table)[-1] for table in tables]
    self.assertEqual(added, ['shortened', 'mean_difference', 'two_points', 'linear'])
    config = digits.get_config('smoke')
    config.rule.update(name=added[0], power=0.5)
    config.guidance.update(objective=added[1], source='direct', depth=2)
    config.data.name, config.denoiser.network = added[2:]
    workdir = self.create_tempdir().full_path
    train_denoiser.run(config, workdir)
    state = train_guidance.run(config, workdir)
    self.assertEqual(int(state.step), config.guidance.num_steps)
    config.rule.power = 0.25
    with self.assertRaisesRegex(errors.InputError, 'rule.power=0.25: .* with 0.5'):
      train_guidance.run(config, workdir)
    config.guidance.source = 'statistics'
    with self.assertRaisesRegex(errors.InputError, 'guidance.source=direct'):
      train_guidance.run(config, workdir)
    cond, null = np.float32([[2.0, 0.0]]), np.float32([[0.0, 4.0]])
    direction = builders.rules.RULES['shortened'].direction(share=0.5)
    np.testing.assert_array_equal(direction(cond, null), [[1.0, -2.0]])

  @parameterized.parameters(*PAGES)
  def test_what_a_page_names_is_there(self, page):
    self.assertEqual(misnamed(page.read_text(), page.parent), set())

  @parameterized.parameters(
    ('python -m experiments.fids', 'experiments/fids.py'),
    ('python -m tests.endurance.kills', 'tests/endurance/kills.py'),
    ('./run.sh digit', 'digit'),
    ('configs/digit.py', 'configs/digit.py'),
    ('![A figure](docs/none.png)', 'docs/none.png'),
    ('[a page](docs/none.md#there)', 'docs/none.md'),
  )
  def test_a_wrong_name_is_noticed(self, text, name):
    self.assertEqual(misnamed(text), {name})

  def test_every_page_is_linked(self):
    """From the README, or from a page that it links."""
    linked = set()
    for page in PAGES:
      for link in re.findall(r'\]\(([^)#]+\.md)', page.read_text()):
        linked.add((page.parent / link).resolve())
    self.assertLessEqual(set(PAGES) - linked, {ROOT / 'README.md'})

  def test_every_command_is_listed(self):
    text = (ROOT / 'docs/commands.md').read_text()
    listed = re.findall(r'^\| `(\w+)` \|', text, flags=re.MULTILINE)
    files = (ROOT / 'experiments').glob('[a-z]*.py')
    self.assertCountEqual(listed, [path.stem for path in files])  # Each once.

  def test_architecture_is_the_tree(self):
    page = (ROOT / 'docs/architecture.md').read_text()
    self.assertEqual(in_architecture(page), modules())

  def test_a_module_that_architecture_lacks_is_noticed(self):
    page = (ROOT / 'docs/architecture.md').read_text()
    lines = [x for x in page.splitlines() if not x.startswith('| `sampler.py`')]
    missing = modules().items() - in_architecture('\n'.join(lines)).items()
    self.assertEqual({name for name, _ in missing}, {'experiments/sampling/sampler.py'})


if __name__ == '__main__':
  absltest.main()
