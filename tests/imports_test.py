"""Who may import whom: parsed, not trusted."""

import ast
import graphlib
import pathlib

from absl.testing import absltest

ROOT = pathlib.Path(__file__).parents[1]

# What each room of the library may import of the library, besides itself.
ALLOWED = {
  'types': set(),
  'arrays': set(),
  'checks': {'arrays'},
  'schedules': set(),
  'mmd': {'checks'},
  'networks': {'arrays', 'types'},
  'plots': {'files'},
  'prompt_plots': {'plots'},
  'reporting': {'files'},
  'noising': {'arrays', 'checks', 'types'},
  'transitions': {'arrays', 'checks', 'types'},
  'sampling': {'arrays', 'checks', 'transitions', 'types'},
  'rewards': {'arrays', 'checks', 'transitions', 'types'},
  'denoiser': {'noising', 'types'},
  'guidance': {'arrays', 'checks', 'denoiser', 'noising', 'types'},
  'statistics': {'checks', 'mmd', 'rewards', 'transitions', 'types'},
  'objectives': {
    'arrays',
    'checks',
    'denoiser',
    'mmd',
    'noising',
    'rewards',
    'statistics',
    'transitions',
    'types',
  },
  'trajectory': {
    'arrays',
    'checks',
    'denoiser',
    'mmd',
    'noising',
    'transitions',
    'types',
  },
  'conditions': set(),
  'data': {'conditions', 'files', 'sealed', 'types'},
  'files': {'types'},
  'sealed': {'files'},
  'metrics': {'checks', 'files', 'networks', 'types'},
  'sharding': set(),
  'training': {'sharding', 'types'},
  'fingerprints': {'sharding'},
  'checkpointing': {'files', 'fingerprints', 'types'},
  'saving': {'checkpointing', 'training'},
}


def imported_modules(path: pathlib.Path) -> set[str]:
  """Full dotted names of everything that a file imports."""
  names = set()
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      names |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}: relative import'
      names |= {f'{node.module}.{alias.name}' for alias in node.names}
  return names


def top_level(names: set[str]) -> set[str]:
  return {name.split('.')[0] for name in names}


class ImportsTest(absltest.TestCase):
  def test_library_rooms(self):
    files = [p for p in (ROOT / 'lgd').rglob('*.py') if p != ROOT / 'lgd/__init__.py']
    rooms = set()
    for path in files:
      room = path.relative_to(ROOT / 'lgd').parts[0].removesuffix('.py')
      rooms.add(room)
      names = imported_modules(path)
      ours = {n.split('.')[1] for n in names if n.split('.')[0] == 'lgd'}
      self.assertLessEqual(ours - {room}, ALLOWED[room], path)
    self.assertEqual(rooms, set(ALLOWED))  # No room without a rule, or a stale one.

  def test_library_sees_no_flags_configs_or_experiments(self):
    for path in (ROOT / 'lgd').rglob('*.py'):
      names = imported_modules(path)
      self.assertFalse(
        top_level(names) & {'configs', 'experiments', 'ml_collections', 'tests'}, path
      )
      self.assertNotIn('absl.flags', names, path)

  def test_experiments_import_each_other_one_way(self):
    graph = {}
    for path in (ROOT / 'experiments').glob('*.py'):
      ours = (n for n in imported_modules(path) if n.startswith('experiments.'))
      graph[path.stem] = {n.split('.')[1] for n in ours}
    self.assertIn('workdir', graph['stores'])
    graphlib.TopologicalSorter(graph).prepare()  # A CycleError names the cycle.

  def test_configs_import_only_configs(self):
    for path in (ROOT / 'configs').rglob('*.py'):
      self.assertLessEqual(
        top_level(imported_modules(path)), {'configs', 'ml_collections'}, path
      )

  def test_no_private_or_heavy_modules(self):
    # These read PyTorch's files, or compare with it, and do nothing else.
    torch_users = {
      'clip_parity.py',
      'convert_inception.py',
      'inception_parity.py',
      'text_encoders.py',
    }
    for folder in ('lgd', 'experiments', 'configs'):
      for path in (ROOT / folder).rglob('*.py'):
        names = imported_modules(path)
        self.assertFalse([n for n in names if '._' in n], path)
        heavy = {'tensorflow'} if path.name in torch_users else {'tensorflow', 'torch'}
        self.assertFalse(top_level(names) & heavy, path)


if __name__ == '__main__':
  absltest.main()
