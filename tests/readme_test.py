"""The README's code runs as it stands, and its commands name real things."""

import pathlib
import re

import numpy as np
from absl.testing import absltest

ROOT = pathlib.Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text()


class ReadmeTest(absltest.TestCase):
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

  def test_binaries_files_and_commands_exist(self):
    for name in re.findall(r'python -m experiments\.(\w+)', README):
      self.assertTrue((ROOT / 'experiments' / f'{name}.py').exists(), name)
    for path in re.findall(r'!\[[^]]*\]\(([^)]+)\)', README):
      self.assertTrue((ROOT / path).exists(), path)
    for path in re.findall(r'\b(?:configs|requirements)[\w/-]*\.(?:py|txt)', README):
      self.assertTrue((ROOT / path).exists(), path)
    run_sh = (ROOT / 'run.sh').read_text()
    for command in re.findall(r'\./run\.sh (\w+)', README):
      self.assertIn(command, run_sh)

  def test_architecture_lists_every_module(self):
    for path in (ROOT / 'lgd').iterdir():
      if path.name.startswith('_'):
        continue
      name = f'{path.name}/' if path.is_dir() else path.name
      self.assertIn(f'      {name} ', README)
    for path in (ROOT / 'experiments').glob('[a-z]*.py'):
      self.assertTrue(f' {path.name} ' in README or path.stem in README, path)


if __name__ == '__main__':
  absltest.main()
