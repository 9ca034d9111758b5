"""Eight virtual CPU devices for the whole suite; set before jax starts."""

import gc
import os

os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['JAX_NUM_CPU_DEVICES'] = '8'

import jax
import pytest
from absl import flags
from jax.experimental.compilation_cache import compilation_cache

flags.FLAGS.mark_as_parsed()  # absltest reads its temporary directory from a flag.


@pytest.fixture(scope='module', autouse=True)
def cleared_caches():
  """What JAX keeps of a module fills memory, and every collection walks it again."""
  yield
  jax.clear_caches()
  gc.collect()


@pytest.fixture(scope='module')
def fast_compilation(tmp_path_factory):
  """For programs that run a few times, some of them again: compiling costs more."""
  jax.config.update('jax_disable_most_optimizations', True)
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
  compilation_cache.set_cache_dir(str(tmp_path_factory.mktemp('compilation_cache')))
  compilation_cache.reset_cache()  # Whether there is one is asked only once.
  yield
  jax.config.update('jax_disable_most_optimizations', False)
  compilation_cache.set_cache_dir(None)
  compilation_cache.reset_cache()
