"""Eight virtual CPU devices, of which a test file sees one unless it asks for more.

Most of the suite's time is tracing, lowering and compilation. What a test compiles is
therefore kept for all others, of every worker of pytest-xdist; programs are compiled
without most optimisations, but for files that say OPTIMIZED, whose programs run for
long; lowering notes no lines of Python; garbage is collected between files alone; and
figures are small.
"""

import gc
import importlib.metadata
import os
import re
from unittest import mock

if importlib.metadata.version('jaxlib').startswith('0.10.'):
  # The older emitter of loops compiles faster: the suite takes a fifth less CPU time.
  # Other versions may not know the flag, and abort.
  fast = '--xla_cpu_use_fusion_emitters=false'
  os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {fast}'
os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['JAX_NUM_CPU_DEVICES'] = '8'

import jax
import matplotlib
import pytest
from absl import flags
from jax.experimental.compilation_cache import compilation_cache

flags.FLAGS.mark_as_parsed()  # absltest reads its temporary directory from a flag.

# What takes longest, longest first: whoever starts it last works on it alone.
LONGEST_FIRST = (
  'experiments_test.py::EndToEndTest',
  'images_experiments_test.py',
  'prompts_experiments_test.py',
  'compare_test.py',
  'multihost_test.py',
  'experiments_test.py',
  'coco_experiments_test.py',
  'statistics_test.py',
  'objectives_test.py',
  'frontier_test.py',
  'sweep_test.py',
)


def pytest_configure(config):
  """Keeps xdist from starting with the classes of most tests: they are not long."""
  if hasattr(config.option, 'loadscopereorder'):
    config.option.loadscopereorder = False


# More of what other parameters or tests of the same files show in seconds: statistical
# oracles of many draws, meshes, processes, and networks at full width.
SLOW = re.compile(
  r'objectives_test.py::OracleTableTest::test_library(?!0$|5$|10$)'
  r'|passes_test.py::PassTest::test_is_the_pass_in_torch'  # Installed for these.
  r'|exchange_test.py::ReadersTest::test_torch|diffusers_test.py::'
  r'|probe_test.py::TrainedTest'
  r'|statistics_test.py::UnbiasedTest::test_(marginal1|self_consistency[023])$'
  r'|statistics_test.py::UnbiasedTest::test_\w+_with_nothing_shared0$'
  r'|statistics_test.py::UnbiasedTest::test_exact_prediction0$'
  r'|devices_test.py::DevicesTest::test_(direct[12]|statistics[12])$'
  r'|trajectory_test.py::SearchTest::test_finds_what_mends_the_prediction[0135]$'
  r'|compare_test.py::RunTest::test_(cut_short|equal_evaluations)$'
  r'|coco_experiments_test.py::BinariesTest'
  r'|fid_test.py::FidTest::test_features_of_other_weights_are_refused$'
  r'|frontier_test.py::RunTest::test_direct$'
  r'|inception_test.py::\w+::test_(counters|has_the_published_number)'
  r'|inputs_test.py::InputsTest::test_property0$'
  r'|launch_test.py::ProcessTest::test_one_line_exit_code_2_nothing_written[1-4]$'
  r'|mmdit_test.py::MMDiTTest::test_(padding|prompts_and_times|a_null_prompt)'
  r'|networks_test.py::ResidualMLPTest::test_every_attribute_matters$'
  r'|networks_test.py::UNetTest::test_starts_as_the_zero_function'
  r'|sweep_test.py::TrainTest::test_as_many_steps'
  r'|experiments_test.py::ResumeTest::test_guidance1$'
)


@pytest.hookimpl(tryfirst=True)  # Before pytest looks at the marks.
def pytest_collection_modifyitems(items):
  for item in items:
    if SLOW.search(item.nodeid):
      item.add_marker(pytest.mark.slow)

  def rank(item):
    long = (i for i, name in enumerate(LONGEST_FIRST) if f'/{name}' in item.nodeid)
    return next(long, len(LONGEST_FIRST))

  items.sort(key=rank)  # Stable: the rest keeps its order.


@pytest.fixture(scope='session', autouse=True)
def shared_compilations(tmp_path_factory):
  """A compilation cache of this run of the suite, shared by its workers."""
  root = tmp_path_factory.getbasetemp()
  if 'PYTEST_XDIST_WORKER' in os.environ:
    root = root.parent  # The root of each worker is a directory of the run's.
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
  compilation_cache.set_cache_dir(str(root / 'compilation_cache'))
  jax.config.update('jax_traceback_in_locations_limit', 0)
  matplotlib.rcParams['savefig.dpi'] = 20
  compilation_cache.reset_cache()  # Whether there is one is asked only once.


@pytest.fixture(scope='module', autouse=True)
def devices(request):
  """The first device alone, or as many as a file's NUM_DEVICES says.

  A program for eight takes much longer to compile than the same for one.
  """
  num = getattr(request.module, 'NUM_DEVICES', 1)
  every = jax.devices()
  with (
    mock.patch.object(jax, 'devices', lambda *args: every[:num]),
    mock.patch.object(jax, 'device_count', lambda: num),
  ):
    yield


@pytest.fixture(scope='module', autouse=True)
def cleared_caches():
  """What JAX keeps of a module fills memory."""
  gc.disable()
  yield
  jax.clear_caches()
  gc.collect()


@pytest.fixture(scope='module', autouse=True)
def compilation(request):
  """Fast, unless the file's programs run for longer than optimising them takes."""
  optimized = getattr(request.module, 'OPTIMIZED', False)
  jax.config.update('jax_disable_most_optimizations', not optimized)
