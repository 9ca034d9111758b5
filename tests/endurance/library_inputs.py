"""Properties of functions of `lgd`, and of what reads files of a user's.

A call with numbers of any shape, dtype and content returns, or raises ValueError or
TypeError with one line (of text, JAX says in several that it has none). With arrays
that fit, it agrees with float64 arithmetic that shares nothing with it. A reader of a
damaged file raises its own error in one line, or reads what was written: npz and sealed
JSON carry checksums. `metrics.jsonl` has none: only the form of its lines is certain.
"""

import functools
import io
import json
import pathlib
import warnings
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from experiments import workdirs
from lgd import errors
from lgd import guidance
from lgd import metrics
from lgd import mmd
from lgd import noising
from lgd import sampling
from lgd import schedules
from lgd import statistics
from lgd import transitions
from lgd.data.prompts import pairs
from lgd.storage import files
from lgd.training import reporting
from tests.endurance import input_strategies

SCHEDULES = (schedules.RectifiedFlow(), schedules.Cosine())
_FLOW = SCHEDULES[0]
_STEP = {'schedule': _FLOW, 'churn': 1.0, 'dim': 4}
_LOSS = {**_STEP, 'beta': 1.0, 'interaction': 1.0}

# What is in the npz files of each kind.
ARRAYS = {
  'pairs': ('image', 'caption'),
  'shard': ('gram', 't', 'label', 'index', 'num_evaluations'),
  'gaussian': ('mu', 'sigma'),
  'arrays': ('block/kernel',),
}

# By the number of arrays that they take.
FUNCTIONS: dict[str, tuple[int, Callable[..., Any]]] = {
  'transitions.coefficients': (
    2,
    lambda s, t: transitions.coefficients(_FLOW, s, t, 1.0),
  ),
  'noising.add_noise': (3, functools.partial(noising.add_noise, _FLOW)),
  'noising.to_x0': (3, lambda *x: noising.to_x0(_FLOW, *x, 'velocity')),
  'noising.target': (3, lambda *x: noising.target(_FLOW, *x, 'velocity')),
  'guidance.mean_in_time': (2, guidance.mean_in_time),
  'guidance.matched_mean': (3, guidance.matched_mean),
  'guidance.table': (
    4,
    lambda values, times, cond, t: guidance.table(values, times)(cond, t, t),
  ),
  'guidance.require_cover': (2, guidance.require_cover),
  'guidance.make_plan': (1, guidance.make_plan),
  'mmd.energy_mmd2': (2, mmd.energy_mmd2),
  'mmd.expected_norm_power': (2, lambda q, v: mmd.expected_norm_power(q, v, 3, 1.0)),
  'statistics.gram': (4, statistics.gram),
  'statistics.group_gram': (4, statistics.group_gram),
  'statistics.pack': (1, statistics.pack),
  'statistics.unpack': (1, statistics.unpack),
  'statistics.subset': (1, lambda gram: statistics.subset(gram, 2, 1)),
  'statistics.self_consistency': (
    4,
    lambda *x: statistics.self_consistency(*x, **_LOSS),
  ),
  'statistics.l2': (4, lambda *x: statistics.l2(*x, **_STEP)),
  'statistics.marginal': (4, lambda *x: statistics.marginal(*x, **_LOSS)),
  'metrics.class_sets': (2, metrics.class_sets),
  'metrics.classification': (2, metrics.classification),
  'metrics.kernel_distance': (
    2,
    lambda x, y: metrics.kernel_distance(x, y, subset_size=2, num_subsets=1),
  ),
  'metrics.precision_recall': (
    2,
    lambda x, y: metrics.precision_recall(x, y, num_neighbors=1),
  ),
  'metrics.fit_gaussian': (1, metrics.fit_gaussian),
  'metrics.inception_score': (1, lambda x: metrics.inception_score(x, 1)),
}


@st.composite
def calls(draw) -> tuple[str, list[np.ndarray]]:
  """A function by its name, and arrays of any kind."""
  name = draw(st.sampled_from(sorted(FUNCTIONS)))
  num = FUNCTIONS[name][0]
  arrays = input_strategies.arrays()
  return name, draw(st.lists(arrays, min_size=num, max_size=num))


def check_call(call: tuple[str, list[np.ndarray]]) -> str:
  """Returns, or says in one line what is wrong."""
  name, arrays = call
  try:
    with warnings.catch_warnings(action='ignore'):  # Of what overflows, and the like.
      FUNCTIONS[name][1](*arrays)
  except (TypeError, ValueError) as error:
    lines = str(error).splitlines()
    assert len(lines) == 1, f'{name}: not one line: {lines}'
    return 'refused'
  return 'ran'


def check_transition(
  schedule: Any, times: tuple[float, float], churn: float, x: list[float]
) -> None:
  """(5) and (6) of `transitions`, and the round trips of `noising`, in float64."""
  s, t = times
  is_flow = isinstance(schedule, schedules.RectifiedFlow)
  alpha = (lambda u: 1.0 - u) if is_flow else (lambda u: np.cos(0.5 * np.pi * u))
  sigma = (lambda u: u) if is_flow else (lambda u: np.sin(0.5 * np.pi * u))
  c = [np.float64(v) for v in transitions.coefficients(schedule, s, t, churn)]
  assert np.all(np.isfinite(c)), (s, t, churn, c)
  np.testing.assert_allclose(c[0] * alpha(t) + c[1], alpha(s), atol=2e-6)
  total = (c[0] * sigma(t)) ** 2 + c[2] ** 2
  np.testing.assert_allclose(total, sigma(s) ** 2, atol=2e-6)
  x0, eps = np.float32(x)
  xt = noising.add_noise(schedule, x0[None], eps[None], np.float32([t]))
  scale = 1.0 + abs(x0) + abs(eps)
  expected = alpha(t) * np.float64(x0) + sigma(t) * np.float64(eps)
  np.testing.assert_allclose(xt, [expected], atol=1e-6 * scale)
  velocity = noising.target(schedule, x0[None], eps[None], np.float32([t]), 'velocity')
  back = noising.to_x0(schedule, velocity, xt, np.float32([t]), 'velocity')
  np.testing.assert_allclose(back, [x0], atol=3e-6 * scale)


def check_grid(num_steps: int, ends: tuple[float, float], values: list[float]) -> None:
  """A grid is equidistant; a table on it interpolates linearly in t."""
  low, high = ends
  try:
    times = sampling.time_grid(num_steps, t_min=low, t_max=high)
    weight = guidance.table(np.float32([values[:num_steps]]), times)
  except ValueError as error:
    spacing = (high - low) / max(num_steps, 1)
    assert num_steps < 1 or not 0.0 <= low < high <= 1.0 or spacing < 1e-6, error
    return
  expected = np.linspace(high, low, num_steps + 1)
  np.testing.assert_allclose(times, expected, atol=1e-6)
  t = np.float32(0.5 * (expected[0] + expected[-1]))
  omega = weight(np.zeros(1, int), None, t[None])
  nodes = np.float64(times)[-2::-1]
  np.testing.assert_allclose(
    omega, [np.interp(t, nodes, values[:num_steps][::-1])], rtol=1e-4, atol=1e-4
  )


def check_mmd(seed: int, n: int, m: int, dim: int, beta: float) -> None:
  """The estimate by loops in float64; the moments by those of the same numbers."""
  rng = np.random.default_rng(seed)
  x, y = rng.normal(size=(n, dim)), rng.normal(size=(m, dim)) + 1.0
  try:
    estimate = mmd.energy_mmd2(jnp.asarray(x), jnp.asarray(y), beta=beta)
  except ValueError as error:
    assert min(n, m) < 2 or not 0.0 < beta < 2.0, error
    return

  def mean(a, b, num):
    return sum(np.sum((u - v) ** 2) ** (0.5 * beta) for u in a for v in b) / num

  expected = 2.0 * mean(x, y, n * m)
  expected -= mean(x, x, n * (n - 1)) + mean(y, y, m * (m - 1))
  np.testing.assert_allclose(estimate, expected, rtol=1e-4, atol=1e-4)
  joined = metrics.gaussian(metrics.merge(metrics.moments(x), metrics.moments(y)))
  both = np.concatenate([x, y])
  np.testing.assert_allclose(joined.mean, both.mean(axis=0), atol=1e-9)
  np.testing.assert_allclose(joined.cov, np.cov(both.T).reshape(dim, dim), atol=1e-9)
  gram = (x @ x.T)[None]
  np.testing.assert_array_equal(statistics.unpack(statistics.pack(gram)), gram)


class Readers:
  """Sound files of every kind in memory, and what reads them from a directory."""

  def __init__(self, root: pathlib.Path):
    rng = np.random.default_rng(0)
    self._path = root / 'file'
    image = rng.integers(0, 255, (40, 4, 4, 3), np.uint8)
    caption = np.array([f'caption {i}' for i in range(40)])
    cov = np.cov(rng.normal(size=(3, 9)))
    line = json.dumps({'stage': 'denoiser', 'step': 5, 'denoiser/loss': 1.0})
    shard = {
      'gram': rng.normal(size=(8, 6)).astype(np.float32),
      't': rng.random(8).astype(np.float32),
      'label': np.arange(8, dtype=np.int32),
      'index': np.arange(8),
      'num_evaluations': np.int64(16),
    }
    config = {'base': {'seed': 0}, 'denoiser_step': 2, 'statistics': {'t_max': 0.9}}
    self.contents = {
      'pairs': _npz(image=image, caption=caption),
      'shard': _npz(**shard),
      'gaussian': _npz(mu=np.arange(3.0), sigma=cov),
      'arrays': _npz(**{'block/kernel': cov}),
      'statistics': json.dumps(files.seal(config)).encode(),
      'metrics': f'{line}\n{line}\n'.encode(),
    }
    self._read = {
      'pairs': lambda p: pairs.load(p, size=4, vocab_size=300, length=16)[0],
      'shard': functools.partial(workdirs.statistics.read_shard, num_vectors=3),
      'gaussian': metrics.load_gaussian,
      'arrays': files.read_npz,
      'statistics': self._read_config,
      'metrics': self._read_metrics,
    }
    self._sound = {
      kind: self.read(kind, content) for kind, content in self.contents.items()
    }

  def read(self, kind: str, content: bytes) -> Any:
    """What the reader of this kind makes of a file."""
    self._path.write_bytes(content)
    return self._read[kind](self._path)

  def check(self, kind: str, content: bytes, *, damaged: bool = True) -> str:
    """One line of the reader's own error; else what was written, if `damaged`."""
    try:
      found = self.read(kind, content)
    except (errors.InputError, errors.FileError, errors.DataError) as error:
      lines = str(error).splitlines()
      assert len(lines) == 1, f'{kind}: not one line: {lines}'
      assert str(self._path.parent) in lines[0], f'{kind}: no path: {lines}'
      return 'refused'
    if damaged and kind != 'metrics':
      assert _equal(found, self._sound[kind]), f'{kind}: read what was not written'
    return 'ran'

  def _read_config(self, path):
    directory = path.parent / 'statistics'
    directory.mkdir(exist_ok=True)
    path.replace(directory / 'config.json')
    stored = workdirs.configs.load_statistics_config(directory)
    assert isinstance(stored, dict)
    return stored

  def _read_metrics(self, path):
    path.replace(path.parent / 'metrics.jsonl')
    with reporting.Reporter(path.parent, 'denoiser', num_steps=9, start=5):
      return (path.parent / 'metrics.jsonl').read_bytes()


def _npz(**arrays: np.ndarray) -> bytes:
  buffer = io.BytesIO()
  np.savez(buffer, **arrays)
  return buffer.getvalue()


def _equal(a: Any, b: Any) -> bool:
  if isinstance(a, dict):
    return a.keys() == b.keys() and all(_equal(a[k], b[k]) for k in a)
  if isinstance(a, tuple):
    return len(a) == len(b) and all(map(_equal, a, b))
  if isinstance(a, np.ndarray):
    return a.dtype == b.dtype and np.array_equal(a, b)
  return a == b
