"""Conventions against the formulas of their projects, in float64."""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized

from lgd import adapters
from lgd import schedules

FLOW = schedules.RectifiedFlow()
KARRAS = schedules.Karras()


def _data(shape=(5, 4, 4, 3)):
  rng = np.random.default_rng(0)
  return tuple(rng.normal(size=shape).astype(np.float32) for _ in range(2))


class DenoiserTest(parameterized.TestCase):
  def _clean(self, convention, make, t):
    """The clean prediction of a network that knows x0 and eps, and its input."""
    x0, eps = _data()
    schedule = convention.schedule
    alpha, sigma = (
      np.float64(f(jnp.asarray(t)))[:, None, None, None]
      for f in (schedule.alpha, schedule.sigma)
    )
    xt = (alpha * x0 + sigma * eps).astype(np.float32)
    seen = {}

    def apply(params, x, told, cond):
      seen.update(x=np.asarray(x), told=np.asarray(told), cond=cond)
      return make(x0, eps)

    denoise = adapters.denoiser(apply, convention)
    x0_hat = denoise(None, jnp.asarray(xt), jnp.asarray(t, jnp.float32), 'c')
    self.assertEqual(seen['cond'], 'c')
    return x0, np.asarray(x0_hat), xt, seen

  def test_velocity_towards_the_data(self):
    """SiT: x_u = u data + (1 - u) noise, and the network says data - noise at u."""
    t = np.asarray([0.1, 0.3, 0.5, 0.7, 1.0])
    convention = adapters.Convention(
      FLOW, 'velocity', is_negated=True, is_time_reversed=True
    )
    x0, x0_hat, xt, seen = self._clean(convention, lambda x0, eps: x0 - eps, t)
    np.testing.assert_allclose(x0_hat, x0, atol=1e-6)
    np.testing.assert_allclose(seen['told'], 1.0 - t, rtol=1e-6, atol=1e-7)
    np.testing.assert_array_equal(seen['x'], xt)

  def test_flow_with_scaled_noise(self):
    """JiT at 512: z = u x + (1 - u) 2 n; its v is (x - z) / (1 - u)."""
    t = np.asarray([0.1, 0.3, 0.5, 0.7, 1.0])
    convention = adapters.Convention(schedules.RectifiedFlow(2.0), 'velocity')
    x0, x0_hat, _, _ = self._clean(convention, lambda x0, eps: 2.0 * eps - x0, t)
    np.testing.assert_allclose(x0_hat, x0, atol=2e-6)

  def test_eps_of_ddpm(self):
    """Ho et al. 2020, Eq. (15): x_0 = (x_t - sqrt(1 - abar) eps) / sqrt(abar)."""
    index = np.asarray([0, 249, 499, 749, 999])
    convention = adapters.Convention(schedules.DiscreteBetas.linear(), 'eps')
    _, x0_hat, xt, seen = self._clean(
      convention, lambda x0, eps: 0.9 * eps, (index + 1) / 1000.0
    )
    np.testing.assert_array_equal(seen['told'], index)
    abar = np.cumprod(1.0 - np.linspace(1e-4, 0.02, 1000))[index][:, None, None, None]
    eps = 0.9 * np.float64(_data()[1])
    expected = (xt - np.sqrt(1.0 - abar) * eps) / np.sqrt(abar)
    np.testing.assert_allclose(x0_hat, expected, rtol=1e-4, atol=1e-4)

  @parameterized.parameters(0.5, math.inf)
  def test_edm(self, data_std):
    """net(x_0 + sigma eps, sigma) -> D, whatever form the path is written in."""
    t = np.asarray([0.005, 0.3, 0.5, 0.7, 1.0])
    karras = schedules.Karras(data_std=data_std)
    convention = adapters.Convention(karras, 'x0', is_input_rescaled=True)
    x0, x0_hat, _, seen = self._clean(convention, lambda x0, eps: x0 + 0.1, t)
    np.testing.assert_allclose(x0_hat, x0 + 0.1, rtol=1e-6)
    sigma = karras.to_model_time(t)
    np.testing.assert_allclose(seen['told'], sigma, rtol=1e-5)
    expected = x0 + sigma[:, None, None, None] * _data()[1]
    np.testing.assert_allclose(seen['x'], expected, rtol=1e-5, atol=1e-4)

  def test_raw_network_of_edm(self):
    """Eq. (7) of Karras et al. 2022, and their c_in, c_skip, c_out, c_noise."""
    t, std = np.asarray([0.1, 0.3, 0.5, 0.7, 1.0]), 0.5
    convention = adapters.Convention(KARRAS, 'edm', data_std=std)
    x0, x0_hat, _, seen = self._clean(convention, lambda x0, eps: 0.3 * eps, t)
    sigma = KARRAS.to_model_time(t)
    np.testing.assert_allclose(seen['told'], np.log(sigma) / 4.0, atol=1e-5)
    sigma = sigma[:, None, None, None]
    x, eps = np.float64(x0) + sigma * _data()[1], np.float64(_data()[1])
    total = sigma**2 + std**2
    np.testing.assert_allclose(seen['x'], x / np.sqrt(total), rtol=1e-4, atol=1e-5)
    expected = std**2 / total * x + sigma * std / np.sqrt(total) * 0.3 * eps
    np.testing.assert_allclose(x0_hat, expected, rtol=1e-4, atol=1e-5)

  @parameterized.parameters('sample', 'key', 1)
  def test_layouts_elements_and_channels(self, element):
    """A network that takes NCHW and says 6 channels of which 3 are the prediction."""
    x0, _eps = _data()
    schedule = schedules.Cosine()
    t = jnp.linspace(0.1, 0.9, 5)
    convention = adapters.Convention(
      schedule,
      'x0',
      element=element,
      num_channels=3,
      layout='NCHW',
      data_layout='NHWC',
      dtype='bfloat16',
    )

    def apply(params, x, told, cond):
      self.assertEqual(x.shape, (5, 3, 4, 4))
      self.assertEqual(x.dtype, jnp.bfloat16)
      out = jnp.concatenate([x.astype(jnp.float32), jnp.full_like(x, 9.0)], axis=1)
      kinds = {
        'sample': type('Output', (), {'sample': out}),
        'key': lambda: {'key': out},
        1: lambda: (None, out),
      }
      return kinds[element]()

    denoise = jax.jit(adapters.denoiser(apply, convention))
    np.testing.assert_allclose(denoise(None, x0, t, None), x0, rtol=1e-2)

  def test_clip(self):
    convention = adapters.Convention(FLOW, 'x0')
    denoise = adapters.denoiser(lambda *args: args[1], convention, clip=0.5)
    x = jnp.asarray([[-2.0], [0.3]])
    np.testing.assert_allclose(
      denoise(None, x, jnp.full(2, 0.5), None), [[-0.5], [0.3]]
    )
    with self.assertRaisesRegex(ValueError, 'clip=0'):
      adapters.denoiser(lambda *args: args[1], convention, clip=0.0)


class PairTest(parameterized.TestCase):
  @parameterized.parameters('NHWC', 'NCHW')
  def test_guided_channels(self, layout):
    """The last channel of both predictions is the conditional one."""
    x0, _ = _data((5, 4, 4, 4))
    convention = adapters.Convention(FLOW, 'x0', num_guided=3, layout=layout, null=9)

    def apply(params, x, told, cond):
      return params * x + cond[:, None, None, None]

    pair = adapters.pair(apply, convention)
    label, t = jnp.arange(5), jnp.full(5, 0.5)
    x0_cond, x0_null = pair(2.0, jnp.asarray(x0), t, label)
    alone = pair.null(2.0, jnp.asarray(x0), t, label, x0_cond)
    np.testing.assert_array_equal(alone, x0_null)
    np.testing.assert_allclose(pair.conditional(2.0, x0, t, label), x0_cond, rtol=1e-6)
    difference = np.asarray(x0_cond - x0_null)
    axis = 3 if layout == 'NHWC' else 1
    expected = np.moveaxis(np.broadcast_to(np.arange(5.0) - 9.0, (4, 4, 4, 5)), -1, 0)
    expected = np.where(np.indices((5, 4, 4, 4))[axis] < 3, expected, 0.0)
    np.testing.assert_allclose(difference, expected, atol=1e-5)

  def test_a_second_network(self):
    convention = adapters.Convention(FLOW, 'x0')
    pair = adapters.pair(
      lambda p, x, told, cond: p * x, convention, null_apply=lambda p, x, *_: -p * x
    )
    x, t = jnp.ones((2, 3)), jnp.full(2, 0.5)
    x0_cond, x0_null = pair((2.0, 3.0), x, t, None)
    np.testing.assert_allclose(x0_cond, 2.0 * x)
    np.testing.assert_allclose(x0_null, -3.0 * x)

  def test_no_null(self):
    with self.assertRaisesRegex(ValueError, 'null=None'):
      adapters.pair(lambda *args: args[1], adapters.Convention(FLOW, 'x0'))


class Project(NamedTuple):
  """What a project's own code says, at t = 1 for noise.

  forward: x0, eps, t -> x_t at our scale, what the network is given, told, and says.
  calling: layout, and number of guided channels.
  null: of the null branch.
  latent_of_1: of a raw value of 1 of the first channel.
  """

  forward: Callable[..., tuple[np.ndarray, ...]]
  calling: tuple[str, int | None]
  null: object
  latent_of_1: float


def _sit(x0, eps, t):
  """SiT: x_u = u x_1 + (1 - u) x_0 of data x_1; v = x_1 - x_0 at u."""
  u = 1.0 - t
  xt = u * x0 + (1.0 - u) * eps
  return xt, xt, u, x0 - eps


def _jit(noise_scale):
  """JiT: z = u x + (1 - u) noise_scale n; the network says x at u."""

  def forward(x0, eps, t):
    u = 1.0 - t
    z = u * x0 + (1.0 - u) * noise_scale * eps
    return z, z, u, x0

  return forward


def _ddpm(betas):
  """q_sample; the network says the noise at index k."""
  abar = np.cumprod(1.0 - betas)

  def forward(x0, eps, t):
    k = np.rint(1000.0 * t).astype(int) - 1
    xt = np.sqrt(abar[k]) * x0 + np.sqrt(1.0 - abar[k]) * eps
    return xt, xt, k.astype(float), eps

  return forward


def _edm(x0, eps, t):
  """net(x + sigma n, sigma) -> x, on the sampler's own levels, i = (1 - t) / .99."""
  high, low = 80.0 ** (1 / 7), 0.002 ** (1 / 7)
  sigma = (high + (1.0 - t) / 0.99 * (low - high)) ** 7
  x = x0 + sigma * eps
  return x / np.sqrt(1.0 + (sigma / 0.5) ** 2), x, sigma, x0


def _flow(times):
  """iMF, SD3: x_t = (1 - t) x + t n; the velocity n - x at `times` t."""

  def forward(x0, eps, t):
    xt = (1.0 - t) * x0 + t * eps
    return xt, xt, times * t, eps - x0

  return forward


_SCALED = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
_NO_CLASS = [0.0] * 1000
PROJECTS = (
  ('DiT', Project(_ddpm(np.linspace(1e-4, 0.02, 1000)), ('NCHW', 3), 1000, 0.18215)),
  ('SiT', Project(_sit, ('NCHW', 3), 1000, 0.18215)),
  ('LightningDiT', Project(_sit, ('NCHW', 3), 1000, 1.0)),
  ('JiT-256', Project(_jit(1.0), ('NCHW', None), 1000, 1.0)),
  ('JiT-512', Project(_jit(2.0), ('NCHW', None), 1000, 1.0)),
  ('EDM', Project(_edm, ('NCHW', None), _NO_CLASS, 1.0)),
  ('EDM2', Project(_edm, ('NCHW', None), _NO_CLASS, (1.0 - 5.81) * 0.5 / 4.17)),
  (
    'iMF',
    Project(_flow(1.0), ('NHWC', None), 1000, (1.0 - 0.86488) / 4.85503674),
  ),
  ('SD1.5', Project(_ddpm(_SCALED), ('NCHW', None), None, 0.18215)),
  ('SDXL', Project(_ddpm(_SCALED), ('NCHW', None), None, 0.13025)),
  ('SD3', Project(_flow(1000.0), ('NCHW', None), None, (1.0 - 0.0609) * 1.5305)),
)


class ConventionTest(parameterized.TestCase):
  @parameterized.parameters('NHWC', 'NCHW')
  def test_latents(self, layout):
    """EDM2's own formula: x scale + bias, bias = - mean scale, by channel."""
    mean, std = (
      np.float32([5.81, 3.25, 0.12, -2.15]),
      np.float32([4.17, 4.62, 3.71, 3.28]),
    )
    edm2 = dataclasses.replace(adapters.PRESETS['EDM2'], layout=layout)
    raw = _data((5, 2, 2, 4))[0]
    raw = raw if layout == 'NHWC' else raw.transpose(0, 3, 1, 2)
    scale = (0.5 / std).reshape((4,) if layout == 'NHWC' else (4, 1, 1))
    bias = -mean.reshape(scale.shape) * scale
    np.testing.assert_allclose(
      edm2.encode(raw), raw * scale + bias, rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(edm2.decode(edm2.encode(raw)), raw, rtol=1e-4, atol=1e-5)

  @parameterized.parameters(*PROJECTS)
  def test_presets(self, name, project):
    """What each project gives its network, tells it, and reads in its output."""
    convention = adapters.PRESETS[name]
    t = np.float32([0.1, 0.5, 0.9])
    affine = convention.affine(t)
    x0, eps = (v.astype(np.float64) for v in _data((3, 7)))
    xt, given, told, out = project.forward(x0, eps, np.float64(t)[:, None])
    alpha = np.float64(convention.schedule.alpha(t))[:, None]
    sigma = np.float64(convention.schedule.sigma(t))[:, None]
    np.testing.assert_allclose(alpha * x0 + sigma * eps, xt, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(affine.told, told[:, 0], rtol=1e-5)
    scale, a, b = (np.float64(v)[:, None] for v in (affine.scale, affine.a, affine.b))
    np.testing.assert_allclose(scale * xt, given, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(a * xt + b * out, x0, atol=2e-4)
    self.assertEqual((convention.layout, convention.num_guided), project.calling)
    null = None if convention.null is None else np.asarray(convention.null).tolist()
    self.assertEqual(null, project.null)
    raw = (
      np.ones((1, 2, 2, 4)) if project.calling[0] == 'NHWC' else np.ones((1, 4, 2, 2))
    )
    channel = np.s_[0, 0, 0, 0]
    np.testing.assert_allclose(
      convention.encode(raw)[channel], project.latent_of_1, rtol=1e-5
    )

  def test_every_preset_is_tested(self):
    self.assertEqual({name for name, _ in PROJECTS}, {*adapters.PRESETS})

  @parameterized.parameters(True, False)
  def test_latents_by_a_list(self, is_first):
    """As LightningDiT's users give them."""
    layout = 'NCHW' if is_first else 'NHWC'
    convention = adapters.Convention(
      FLOW, 'x0', layout=layout, shift=[1.0, 2.0], scale=(2.0, 4.0)
    )
    raw = np.full((1, 2, 3, 3) if is_first else (1, 3, 3, 2), 3.0)
    encoded = np.moveaxis(convention.encode(raw), 1 if is_first else 3, -1)
    np.testing.assert_allclose(encoded, np.broadcast_to([4.0, 4.0], (1, 3, 3, 2)))

  @parameterized.parameters(
    ({'prediction': 'score'}, "prediction='score': must be one of"),
    ({'layout': 'CHWN'}, "layout='CHWN': must be one of"),
    ({'data_layout': 'HWC'}, "data_layout='HWC': must be one of"),
    ({'prediction': 'edm'}, "prediction='edm': is of schedules.Karras"),
  )
  def test_errors(self, changes, message):
    with self.assertRaisesRegex(ValueError, message):
      adapters.Convention(**{'schedule': FLOW, 'prediction': 'x0', **changes})


if __name__ == '__main__':
  absltest.main()
