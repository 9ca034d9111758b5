"""A few kills of the first commands; `kill.py` has more of all."""

import os
import pathlib
import random
from unittest import mock

import pytest
from absl.testing import absltest

from tests.endurance import kill


@pytest.mark.slow
class KillTest(absltest.TestCase):
  def test_reruns_make_what_an_undisturbed_run_makes(self):
    top = pathlib.Path(self.create_tempdir().full_path)
    cache = {
      'JAX_COMPILATION_CACHE_DIR': str(top / 'cache'),
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    }
    base = top / 'base'
    base.mkdir()
    with mock.patch.dict(os.environ, cache):
      for binary, num in (('train_denoiser', 2), ('collect_statistics', 1)):
        moments, different = kill.try_binary(binary, base, top, num, random.Random(0))
        self.assertEmpty(different, (binary, moments))
        self.assertGreaterEqual(sum(moments.values()), num)


if __name__ == '__main__':
  absltest.main()
