"""Files for other programs, read back by parsers written for this test."""

import importlib.util
import io
import json
import pathlib
import re

import jax
import jax.numpy as jnp
import jsonschema
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized

from lgd import errors
from lgd import exchange
from lgd import guidance
from lgd import schedules
from lgd.exchange import numpy_net

ROOT = pathlib.Path(__file__).parents[3]
# Asymmetric: a reversed one is another.
OMEGA = np.asarray([0.0, 0.0, 1.5, 0.25, 0.25])
TIMES = np.asarray([1.0, 0.8, 0.6, 0.5, 0.2, 0.0])


def make(**omega):
  flow = schedules.RectifiedFlow(timestep_scale=1000.0)
  with np.errstate(divide='ignore'):
    logsnr = 2.0 * np.log((1.0 - TIMES) / TIMES)
  return exchange.WeightSchedule(
    TIMES[:-1],
    TIMES[1:],
    flow.to_model_time(TIMES[:-1]),
    logsnr[:-1],
    logsnr[1:],
    omega or {'3': OMEGA},
    {'sha256': 'ab'},
    {'method': 'l2'},
  )


def write(name, **omega):
  return exchange.FORMATS[name].make(make(**omega))


class ScheduleTest(parameterized.TestCase):
  def test_json(self):
    """By the published schema, and back; infinities are null."""
    tree = json.loads(write('json', a=OMEGA, b=2.0 * OMEGA))
    schema = json.loads((ROOT / 'docs' / 'schedule.schema.json').read_text())
    jsonschema.validate(tree, schema)
    self.assertEqual(tree['told'], [1000.0, 800.0, 600.0, 500.0, 200.0])
    self.assertIsNone(tree['logsnr_s'][-1])
    back = exchange.WeightSchedule.from_json(tree, 'FILE')
    for name in ('t', 's', 'told'):
      np.testing.assert_array_equal(getattr(back, name), getattr(make(), name))
    np.testing.assert_array_equal(back.omega['b'], 2.0 * OMEGA)
    self.assertEqual(back.base, {'sha256': 'ab'})
    np.testing.assert_allclose(back.logsnr_t, make().logsnr_t)
    np.testing.assert_allclose(back.logsnr_s, make().logsnr_s)
    self.assertEqual((back.logsnr_t[0], back.logsnr_s[-1]), (-np.inf, np.inf))
    with self.assertRaisesRegex(ValueError, 'omega of 3 is not finite'):
      write('json', **{'3': np.nan * OMEGA})

  @parameterized.parameters(
    ({'format': 'other'}, "format 'other' version 1; must be"),
    ({'version': 2}, 'version 2; must be'),
    ({'t': None}, 'must have lists of numbers t, s'),
    ({'omega': [1.0]}, 'one for each condition of omega'),
    ({'omega': {'3': [1.0]}}, '3 has 1 numbers and t 5'),
    ({'omega': {'3': [None] * 5}}, r'3\[0\] is no number'),
    ({'t': [0.9, 0.9, 0.6, 0.5, 0.2]}, r't\[1\] must be below t\[0\]'),
    ({'t': [0.2, 0.5, 0.6, 0.8, 1.0]}, r't\[1\] must be below t\[0\]'),
    ({'t': [5.0, 0.8, 0.6, 0.5, 0.2]}, r'must be in \[0, 1\]'),
    ({'s': [0.9, 0.6, 0.5, 0.2, 0.0]}, 'each s the next t'),
    ({'omega': {}}, 'has no step, or no condition'),
  )
  def test_damage(self, changes, message):
    tree = {**json.loads(write('json')), **changes}
    with self.assertRaisesRegex(errors.InputError, f'FILE: .*{message}'):
      exchange.WeightSchedule.from_json(tree, 'FILE')

  @parameterized.parameters('list', 'maxdiffusion', 'comfyui', 'stable_diffusion_cpp')
  def test_one_condition(self, name):
    with self.assertRaisesRegex(errors.InputError, '2 conditions; take one by --label'):
      write(name, a=OMEGA, b=OMEGA)


class FormatsTest(parameterized.TestCase):
  """Each read as its consumer does, at every step of the sampler."""

  def test_list(self):
    np.testing.assert_allclose(json.loads(write('list')), 1.0 + OMEGA)

  def test_maxdiffusion(self):
    """The first entry whose value is at most t, else the last."""
    text = write('maxdiffusion').decode()
    pattern = r'guidance_timesteps: (.*)\nguidance_scale: (.*)\n'
    timesteps, scale = map(json.loads, re.fullmatch(pattern, text).groups())
    self.assertEqual(timesteps, sorted(timesteps, reverse=True))
    for t, omega in zip(TIMES[:-1], OMEGA, strict=True):
      for rounded in (t, np.nextafter(np.float32(t), -1.0), np.float32(t) * 1.0001):
        found = [w for at, w in zip(timesteps, scale, strict=True) if at <= rounded]
        self.assertAlmostEqual((found or scale[-1:])[0], 1.0 + omega)

  def test_comfyui(self):
    tree = json.loads(write('comfyui'))
    x, y = np.asarray(tree['curve']).T
    np.testing.assert_array_equal(x, np.sort(x))
    self.assertTrue(np.all((x >= 0.0) & (x <= 1.0) & (y >= 0.0) & (y <= 1.0)))
    w = tree['scale'] * np.interp(np.linspace(0.0, 1.0, 5), x, y)
    np.testing.assert_allclose(w, 1.0 + OMEGA)
    with self.assertRaisesRegex(errors.InputError, 'w goes from -1 to 1.5'):
      write('comfyui', **{'3': OMEGA - np.asarray([2.0, 1.0, 1.0, 0.0, 0.0])})

  def test_stable_diffusion_cpp(self):
    """Values times counts, joined by plus, from the cleanest step on."""
    text = write('stable_diffusion_cpp').decode().strip()
    self.assertEqual(text, '1.25x2+2.5x1+1.0x2')
    w = [
      float(v)
      for run in text.split('+')
      for v in [run.split('x')[0]] * int(run.split('x')[1])
    ]
    np.testing.assert_allclose(w[::-1], 1.0 + OMEGA)

  def test_numpy(self):
    with np.load(io.BytesIO(write('numpy', a=OMEGA, b=-OMEGA))) as file:
      np.testing.assert_array_equal(file['omega'], [OMEGA, -OMEGA])
      self.assertEqual(file['conditions'].tolist(), ['a', 'b'])
      np.testing.assert_array_equal(file['t'], TIMES[:-1])


def networks():
  """A network of each kind, its parameters moved from their start, and inputs."""
  flow, rng = schedules.RectifiedFlow(), np.random.default_rng(0)
  pooled = {
    f'e{i}': {'pooled': rng.normal(size=(6, 5 + i)).astype('f4')} for i in (0, 1)
  }
  kinds = {
    'labels': (guidance.LabelEmbedding(4, 16), np.arange(6) % 4),
    'vectors': (guidance.VectorEmbedding(16), rng.normal(size=(6, 5)).astype('f4')),
    'pooled': (guidance.PooledEmbedding(16), pooled),
  }
  half = jnp.full(1, 0.5)
  for name, (embed, cond) in kinds.items():
    net = guidance.GuidanceNet(flow, embed, width=16, depth=3)
    one = jax.tree.map(lambda c: jnp.asarray(c[:1]), cond)
    params = net.init(jax.random.key(0), one, half, half)
    params = jax.tree.map(lambda p: p + 0.3 * rng.normal(size=p.shape), params)
    params['params']['out']['bias'] += 2.0  # Most weights are above 0, some not.
    yield name, net, params, cond


def write_network(path, name, net, params):
  """As `experiments.export` writes it."""
  leaves = jax.tree_util.tree_leaves_with_path(params['params'])
  named = {jax.tree_util.keystr(p, simple=True, separator='/'): v for p, v in leaves}
  meta = {'embed': name, 'depth': net.depth, 'max_logsnr': net.max_logsnr, 'kappa': 0.5}
  np.savez(path, meta=json.dumps(meta), **{k: np.asarray(v) for k, v in named.items()})


class ReadersTest(parameterized.TestCase):
  def _check(self, make_reader):
    s, t = np.linspace(0.0, 0.5, 6), np.linspace(0.3, 1.0, 6)
    for name, net, params, cond in networks():
      path = pathlib.Path(self.create_tempdir().full_path) / 'network.npz'
      write_network(path, name, net, params)
      given = jax.tree.map(jnp.asarray, cond)
      expected = net.apply(params, given, jnp.asarray(s), jnp.asarray(t))
      self.assertGreater(np.max(expected), 0.1)
      read = cond
      if name == 'pooled':  # Side by side, each at a root mean square of 1.
        each = [c['pooled'] for c in cond.values()]
        rms = [np.sqrt(np.mean(x**2, -1, keepdims=True)) for x in each]
        read = np.concatenate([x / r for x, r in zip(each, rms, strict=True)], -1)
      logsnr = [np.asarray(net.schedule.logsnr(jnp.asarray(u))) for u in (s, t)]
      omega = make_reader(path, read, *logsnr)
      np.testing.assert_allclose(omega, 0.5 * expected, rtol=1e-4, atol=2e-6)

  def test_numpy(self):
    self._check(lambda path, *args: numpy_net.NumpyNet(path)(*args))

  def test_torch(self):
    import torch  # noqa: PLC0415 Where it is installed.

    from lgd.exchange import torch_net  # noqa: PLC0415

    def read(path, *args):
      return torch_net.TorchNet(path)(*map(torch.from_numpy, args)).numpy()

    self._check(read)

  @parameterized.parameters('numpy_net', 'torch_net')
  def test_stand_alone(self, name):
    """They are copied elsewhere: 60 lines of code at most, and nothing of ours."""
    path = pathlib.Path(importlib.util.find_spec(f'lgd.exchange.{name}').origin)
    lines = [line for line in path.read_text().splitlines() if line.strip()]
    self.assertLessEqual(len(lines), 60)
    self.assertFalse([line for line in lines if re.match(r'(from|import) lgd', line)])


if __name__ == '__main__':
  absltest.main()
