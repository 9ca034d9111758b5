"""Who may import whom: parsed, not trusted."""

import ast
import graphlib
import pathlib

from absl.testing import absltest
from absl.testing import parameterized

ROOT = pathlib.Path(__file__).parents[1]

# What each room may import of the repository, besides itself.
ROOMS = {
  'lgd.types': '',
  'lgd.errors': '',
  'lgd.arrays': '',
  'lgd.conditions': '',
  'lgd.jackknife': '',
  'lgd.checks': 'arrays',
  'lgd.schedules': 'checks',
  'lgd.mmd': 'checks',
  'lgd.noising': 'arrays checks types',
  'lgd.denoiser': 'noising types',
  'lgd.adapters': 'arrays denoiser noising schedules types',
  'lgd.probe': 'adapters denoiser noising schedules types',
  'lgd.transitions': 'arrays checks types',
  'lgd.sampling': 'arrays checks transitions types',
  'lgd.rewards': 'arrays checks transitions types',
  'lgd.trajectory': 'arrays checks denoiser jackknife mmd noising transitions types',
  'lgd.endpoint': 'arrays checks denoiser mmd sampling types',
  'lgd.guidance': 'arrays checks denoiser noising types',
  'lgd.statistics': 'checks mmd rewards transitions types',
  'lgd.objectives': (
    'arrays checks denoiser mmd noising rewards statistics transitions types'
  ),
  'lgd.passes': (
    'adapters arrays data denoiser errors noising objectives schedules statistics types'
  ),
  'lgd.exchange': 'errors',
  'lgd.networks': 'arrays types',
  'lgd.networks.published': 'errors networks storage types',
  'lgd.data': 'conditions types',
  'lgd.data.tfds': 'conditions data errors storage',
  'lgd.data.prompts': 'conditions data data.tfds errors storage types',
  'lgd.metrics': 'checks errors jackknife networks storage types',
  'lgd.storage': 'errors types',
  'lgd.training': 'errors storage types',
  'experiments.app': 'lgd.errors lgd.storage lgd.training',
  'experiments.builders': 'lgd',
  'experiments.validation': 'app builders configs lgd',
  'experiments.workdirs': 'app builders configs validation lgd',
  'experiments.judges': 'app builders workdirs lgd',
  'experiments.learning': 'app builders workdirs lgd',
  'experiments.report': 'builders judges workdirs lgd',
  'experiments.sampling': 'app builders judges report validation workdirs lgd',
  # The commands: any room, never another command.
  'experiments': (
    'app builders judges learning report sampling validation workdirs lgd'
  ),
}


def room_of(module: str) -> str | None:
  """The room that a dotted name lies in; None if it is not of the repository."""
  if module.split('.', maxsplit=1)[0] == 'configs':
    return 'configs'
  parts = module.split('.')
  named = ('.'.join(parts[:n]) for n in range(len(parts), 0, -1))
  return next((name for name in named if name in ROOMS), None)


def allowed(room: str) -> set[str]:
  """Full names of what a room may import; a whole package with all its rooms."""
  package = room.split('.', maxsplit=1)[0]
  names = set()
  for word in ROOMS[room].split():
    full = word if word.split('.')[0] in ('configs', 'lgd') else f'{package}.{word}'
    names |= {full} | {r for r in ROOMS if full == 'lgd' and r.startswith('lgd.')}
  return names | {room}


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


def dotted(path: pathlib.Path) -> str:
  return '.'.join(path.relative_to(ROOT).with_suffix('').parts)


class ImportsTest(parameterized.TestCase):
  @parameterized.parameters('lgd', 'experiments')
  def test_rooms(self, package):
    files = {
      p
      for p in (ROOT / package).rglob('*.py')
      if p.parent.name != package or p.name != '__init__.py'
    }
    seen = set()
    for path in files:
      room = room_of(dotted(path))
      self.assertIsNotNone(room, f'{path}: in no room')
      seen.add(room)
      of_us = {
        name
        for name in imported_modules(path)
        if name.split('.')[0] in ('lgd', 'experiments', 'configs')
      }
      for name in of_us:
        if room == 'experiments' and room_of(name) == room:
          self.fail(f'{path}: imports the command {name}')
        self.assertIn(room_of(name), allowed(room), f'{path}: imports {name}')
    self.assertEqual(seen, {r for r in ROOMS if r.split('.')[0] == package})

  def test_rooms_make_no_circle(self):
    graph = {room: allowed(room) - {room} for room in ROOMS}
    graphlib.TopologicalSorter(graph).prepare()  # A CycleError names the circle.

  def test_modules_of_a_room_make_no_circle(self):
    for package in ('lgd', 'experiments'):
      graph = {}
      for path in (ROOT / package).rglob('*.py'):
        if path.name != '__init__.py':
          graph[dotted(path)] = imported_modules(path)
      graphlib.TopologicalSorter(graph).prepare()

  def test_library_sees_no_flags_configs_or_experiments(self):
    for path in (ROOT / 'lgd').rglob('*.py'):
      names = imported_modules(path)
      self.assertFalse(
        top_level(names) & {'configs', 'experiments', 'ml_collections', 'tests'}, path
      )
      self.assertNotIn('absl.flags', names, path)

  def test_configs_import_only_configs(self):
    for path in (ROOT / 'configs').rglob('*.py'):
      self.assertLessEqual(
        top_level(imported_modules(path)), {'configs', 'ml_collections'}, path
      )

  def test_no_private_or_heavy_modules(self):
    # These read PyTorch's files, compare with it, or hand arrays to a model of it.
    torch_users = {
      'experiments/clip_parity.py',
      'experiments/inception_parity.py',
      'experiments/judges/text_encoders.py',
      'lgd/exchange/diffusers_guider.py',
      'lgd/exchange/torch_hook.py',
      'lgd/exchange/torch_net.py',
      'lgd/networks/published/inception.py',
      'lgd/passes.py',
    }
    for folder in ('lgd', 'experiments', 'configs'):
      for path in (ROOT / folder).rglob('*.py'):
        names = imported_modules(path)
        self.assertFalse([n for n in names if '._' in n], path)
        is_user = str(path.relative_to(ROOT)) in torch_users
        heavy = {'tensorflow'} if is_user else {'tensorflow', 'torch'}
        self.assertFalse(top_level(names) & heavy, path)


if __name__ == '__main__':
  absltest.main()
