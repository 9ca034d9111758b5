r"""Wrong and odd inputs by the thousand; `inputs_test.py` draws a few of them.

  python -m tests.endurance.inputs --cases=2000
  python -m tests.endurance.inputs --property=configs --cases=500 --seed=3

Operations run one at a time, each compiled once for all cases: the programs of a case
are its own, and to compile them takes five times as long. `--jit` does, as the suite.
Prints how many cases were refused, accepted and run, by property, and the keys of
configs that were drawn; for each failure a line and the command that repeats it. Exit
code 1 if there were any.
"""

import collections
import os
import pathlib
import shlex
import sys
import tempfile
import time
import warnings

os.environ.setdefault('JAX_PLATFORMS', 'cpu')

import hypothesis
import jax
from absl import app
from absl import flags
from absl import logging

from tests.endurance import config_inputs
from tests.endurance import input_properties

# Of all cases, for each property.
SHARES = {'configs': 4, 'command_lines': 4, 'arguments': 4, 'calls': 3, 'files': 4}
_OTHER = 1
_CASES_BETWEEN_LINES = 20
_CASES_BETWEEN_CLEARING = {True: 25, False: 500}  # With and without `--jit`.


class Tally:
  """Results of the cases of one property."""

  def __init__(self, name: str, seed: int):
    self._name, self._seed = name, seed
    self.outcomes, self.keys = collections.Counter(), collections.Counter()

  def check(self, check, case) -> None:
    """Counts an outcome, or prints a failure; does not raise."""
    try:
      outcome = check(case) or 'ran'
    except Exception as error:
      outcome = 'failed'
      line = ' '.join(f'{type(error).__name__}: {error}'.split())
      print(f'FAILED {self._name}: {case!r:.500}: {line:.500}')
      num = self.outcomes.total() + 1
      print(
        f'  python -m tests.endurance.inputs --property={self._name}'
        f' --seed={self._seed} --cases={num}'
      )
      if self._name in ('configs', 'command_lines'):
        args = config_inputs.arguments_of(*case)
        command = shlex.join(['python', '-m', 'experiments.train_denoiser', *args])
        print(f'  {command}'.encode('ascii', 'backslashreplace').decode())
    self.outcomes[outcome] += 1
    if self._name in ('configs', 'command_lines'):
      self.keys.update(f'{key} {outcome}' for key in case[1])
    if self.outcomes.total() % _CASES_BETWEEN_LINES == 0:
      print(f'  {self._name}: {dict(self.outcomes)} so far', flush=True)
    if self.outcomes.total() % _CASES_BETWEEN_CLEARING[JIT.value] == 0:
      jax.clear_caches()  # They fill memory.


def run(name: str, prop: input_properties.Property, num_cases: int, seed: int) -> Tally:
  """Draws and checks cases of one property."""
  tally = Tally(name, seed)

  @hypothesis.seed(seed)
  @hypothesis.settings(
    max_examples=num_cases,
    deadline=None,
    database=None,
    phases=[hypothesis.Phase.generate],  # A failure is repeated by its seed.
    suppress_health_check=list(hypothesis.HealthCheck),
  )
  @hypothesis.given(prop.cases)
  def draw(case):
    tally.check(prop.check, case)

  draw()
  return tally


def main(argv):
  del argv
  logging.set_verbosity(logging.ERROR)
  warnings.simplefilter('ignore')
  jax.config.update('jax_disable_most_optimizations', True)
  jax.config.update('jax_disable_jit', not JIT.value)
  seed = SEED.value
  if seed is None:
    seed = int.from_bytes(os.urandom(3), 'big')
  print(f'seed {seed}')
  keys, failed = collections.Counter(), 0
  with tempfile.TemporaryDirectory() as root:
    properties = input_properties.make(pathlib.Path(root))
    names = PROPERTY.value or list(properties)
    parts = {name: SHARES.get(name, _OTHER) for name in names}
    for name, part in parts.items():
      start = time.perf_counter()
      num_cases = -(-CASES.value * part // sum(parts.values()))
      tally = run(name, properties[name], num_cases, seed)
      seconds = time.perf_counter() - start
      print(f'{name}: {dict(tally.outcomes)}, {seconds:.0f} s', flush=True)
      keys.update(tally.keys)
      failed += tally.outcomes['failed']
  for key, count in sorted(keys.items()):
    print(f'  {key}: {count}')
  print(f'{failed} failed')
  sys.exit(1 if failed else 0)


if __name__ == '__main__':
  CASES = flags.DEFINE_integer('cases', 2000, 'Of all properties.', lower_bound=1)
  PROPERTY = flags.DEFINE_multi_string('property', [], 'These alone.')
  JIT = flags.DEFINE_bool('jit', False, 'Whether every case compiles its programs.')
  SEED = flags.DEFINE_integer('seed', None, 'Of the draws; a new one if none is given.')
  app.run(main)
