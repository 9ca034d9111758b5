"""Loops over diffusers' own schedulers, guided by the hook, against our sampler.

The network is a formula, the same in torch and in JAX, called as each model is.
"""

import types

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized

from lgd import adapters
from lgd import guidance
from lgd import sampling
from lgd import schedules

NUM = 10
RNG = np.random.default_rng(0)
NOISE = RNG.normal(size=(3, 4, 4, 4)).astype(np.float32)
OMEGA = RNG.uniform(0.0, 2.0, size=(3, NUM)).astype(np.float32)  # Of each sample.
OMEGA[:, 6] = 0.0
LABEL = np.asarray([0, 1, 2])
SD = {
  'beta_start': 0.00085,
  'beta_end': 0.012,
  'beta_schedule': 'scaled_linear',
  'num_train_timesteps': 1000,
}
STABLE = schedules.DiscreteBetas.scaled_linear()
FLOW = schedules.RectifiedFlow(timestep_scale=1000.0)


def network(x, told, label, *, tanh):
  """Its prediction of any kind: smooth, of all that it is given; labels 0..3."""
  level = 0.4 + 0.0003 * told + 0.15 * label
  return 0.7 * x + tanh(level[:, None, None, None] * x)


# Scheduler and its settings, convention, grid, solver.
LOOPS = {
  'ddim_trailing': (
    'DDIMScheduler',
    {**SD, 'timestep_spacing': 'trailing', 'clip_sample': False},
    adapters.Convention(STABLE, 'eps', null=3, layout='NCHW'),
    STABLE.grid(NUM),
    'first_order',
  ),
  'ddim_of_stable_diffusion': (
    'DDIMScheduler',
    {**SD, 'steps_offset': 1, 'set_alpha_to_one': False, 'clip_sample': False},
    adapters.Convention(STABLE, 'eps', null=3, layout='NCHW'),
    STABLE.grid(NUM, spacing='leading', offset=1, last=1 / 1000),
    'first_order',
  ),
  'ddim_zero_snr': (
    'DDIMScheduler',
    {
      **SD,
      'timestep_spacing': 'trailing',
      'clip_sample': False,
      'rescale_betas_zero_snr': True,
      'prediction_type': 'v_prediction',
    },
    adapters.Convention(STABLE.with_zero_terminal_snr(), 'v', null=3, layout='NCHW'),
    STABLE.grid(NUM),
    'first_order',
  ),
  'dpm_solver_2m': (
    'DPMSolverMultistepScheduler',
    {**SD, 'timestep_spacing': 'trailing', 'final_sigmas_type': 'zero'},
    adapters.Convention(STABLE, 'eps', null=3, layout='NCHW'),
    STABLE.grid(NUM),
    '2m',
  ),
  'euler': (  # In EDM's form: x_t / alpha.
    'EulerDiscreteScheduler',
    {**SD, 'timestep_spacing': 'trailing'},
    adapters.Convention(STABLE, 'eps', null=3, layout='NCHW'),
    STABLE.grid(NUM),
    'first_order',
  ),
  'euler_flow': (
    'FlowMatchEulerDiscreteScheduler',
    {'shift': 3.0},
    adapters.Convention(FLOW, 'velocity', null=3, layout='NCHW'),
    None,  # The scheduler's own sigmas.
    'first_order',
  ),
}


class LoopTest(parameterized.TestCase):
  @parameterized.product(name=tuple(LOOPS), by=('hook', 'guider'))
  def test_is_our_sampler(self, name, by):
    """From the same noise, with a weight for every sample and step; to 1e-4."""
    import diffusers  # noqa: PLC0415 Where it is installed.
    import torch  # noqa: PLC0415

    from lgd.exchange import diffusers_guider  # noqa: PLC0415
    from lgd.exchange import torch_hook  # noqa: PLC0415

    calls = []

    class Net(torch.nn.Module):
      def forward(self, sample, timestep, encoder_hidden_states):
        calls.append(len(sample))
        told = torch.as_tensor(timestep, dtype=torch.float32).expand(len(sample))
        out = network(sample, told, encoder_hidden_states, tanh=torch.tanh)
        return types.SimpleNamespace(sample=out)

    class_name, settings, convention, times, solver = LOOPS[name]
    scheduler = getattr(diffusers, class_name)(**settings)
    scheduler.set_timesteps(NUM)
    if times is None:
      times = scheduler.sigmas.double().numpy()
    told = convention.schedule.to_model_time(times[:-1])
    np.testing.assert_allclose(told, scheduler.timesteps.numpy(), rtol=1e-5)

    net, scale = Net(), 5.0
    x = torch.from_numpy(NOISE) * getattr(scheduler, 'init_noise_sigma', 1.0)
    scaled = getattr(scheduler, 'scale_model_input', lambda x, timestep: x)
    labels = torch.as_tensor([0.0, 1.0, 2.0]), torch.full((3,), 3.0)
    if by == 'hook':
      both = torch.cat(labels[::-1])  # Nulls first.
      with torch_hook.GuidanceHook(net, OMEGA, scheduler.timesteps, scale=scale):
        for timestep in scheduler.timesteps:  # As a pipeline does.
          given = scaled(torch.cat([x, x]), timestep)
          null, cond = net(given, timestep, both).sample.chunk(2)
          prediction = null + scale * (cond - null)
          x = scheduler.step(prediction, timestep, x).prev_sample
    else:
      folder = self.create_tempdir().full_path
      timesteps = scheduler.timesteps.tolist()
      made = diffusers_guider.LearnedGuidance(OMEGA.tolist(), timesteps)
      made.save_pretrained(folder)
      guider = diffusers_guider.LearnedGuidance.from_pretrained(folder)
      self.assertEqual(guider.num_conditions, 2)  # So that nulls are encoded.
      for i, timestep in enumerate(scheduler.timesteps):  # As a modular pipeline does.
        guider.set_state(step=i, num_inference_steps=NUM, timestep=timestep)
        state = guider.prepare_inputs({'labels': labels})
        for each in state:
          guider.prepare_models(net)
          each.noise_pred = net(scaled(x, timestep), timestep, each.labels).sample
        x = scheduler.step(guider(state)[0], timestep, x).prev_sample
      self.assertLen(calls, 2 * NUM - 1)

    pair = adapters.pair(
      lambda params, x, told, label: network(x, told, label, tanh=jnp.tanh), convention
    )
    first = np.float32(times[0])
    start = float(convention.schedule.sigma(first))
    if name == 'euler':
      start /= scheduler.init_noise_sigma * float(convention.schedule.alpha(first))
    ours = sampling.sample(
      jax.random.key(0),
      guidance.guided(pair, None, guidance.per_sample(OMEGA, times)),
      convention.schedule,
      jnp.asarray(LABEL),
      NOISE.shape,
      num_steps=NUM,
      churn=0.0,
      solver=solver,
      times=jnp.asarray(times, jnp.float32),
      noise=jnp.asarray(NOISE / start),  # diffusers starts from the noise itself.
    )
    x = x.numpy()
    self.assertGreater(np.abs(x - NOISE).max(), 0.1)
    error = np.abs(ours - x).max() / np.abs(x).max()
    print(name, by, 'largest difference over largest value', error)
    self.assertLess(error, 1e-4)


class HookTest(parameterized.TestCase):
  def test_channels_and_order(self):
    """The conditional half first, and a last channel that is not guided."""
    import torch  # noqa: PLC0415

    from lgd.exchange import torch_hook  # noqa: PLC0415

    cond, null = (torch.from_numpy(RNG.normal(size=(3, 4, 2, 2))) for _ in range(2))

    class Net(torch.nn.Module):
      def forward(self, x, timestep):
        return (torch.cat([cond, null]), 'rest')

    net = Net()
    with torch_hook.GuidanceHook(
      net, OMEGA, np.arange(NUM)[::-1].copy(), scale=3.0, cond_first=True, num_guided=3
    ):
      pred, rest = net(None, 7.0)
    self.assertEqual(rest, 'rest')
    given, unchanged = pred.chunk(2)
    np.testing.assert_array_equal(unchanged, null)
    guided = null + 3.0 * (given - null)
    w = 1.0 + np.float64(OMEGA[:, 2])[:, None, None, None]
    c, u = cond.numpy(), null.numpy()
    expected = np.where(np.arange(4)[:, None, None] < 3, u + w * (c - u), c)
    np.testing.assert_allclose(guided, expected, rtol=1e-6)
    np.testing.assert_array_equal(net(None, 7.0)[0].chunk(2)[0], cond)  # Removed.

  def test_errors(self):
    import torch  # noqa: PLC0415

    from lgd.exchange import diffusers_guider  # noqa: PLC0415
    from lgd.exchange import torch_hook  # noqa: PLC0415

    net = torch.nn.Identity()
    with self.assertRaisesRegex(ValueError, 'scale=1.0: must be above 1'):
      torch_hook.GuidanceHook(net, OMEGA, np.arange(NUM), scale=1.0)
    with self.assertRaisesRegex(ValueError, r'must be \[n, N\] and \[N\]'):
      diffusers_guider.LearnedGuidance([[0.0, 1.0]], [3.0])
    guider = diffusers_guider.LearnedGuidance([[0.0, 1.0]] * 2, [3.0, 2.0])
    guider.set_state(step=0, num_inference_steps=2, timestep=55)
    with self.assertRaisesRegex(ValueError, 'timestep 55: omega is for'):
      guider.prepare_inputs({})
    guider.set_state(step=0, num_inference_steps=2, timestep=2)
    with self.assertRaisesRegex(ValueError, '2 rows for 3 samples'):
      guider.forward(torch.zeros(3, 1), torch.zeros(3, 1))
    with self.assertRaisesRegex(ValueError, r'must be \[n, N\] and \[N\]'):
      torch_hook.GuidanceHook(net, OMEGA, np.arange(3), scale=2.0)

    class Net(torch.nn.Module):
      def forward(self, x, timestep):
        return (x,)

    net = Net()
    with torch_hook.GuidanceHook(net, OMEGA, np.arange(NUM), scale=2.0):
      with self.assertRaisesRegex(ValueError, 'timestep 55: omega is for'):
        net(torch.zeros(6, 1), 55)
      with self.assertRaisesRegex(ValueError, '3 rows for 4 samples'):
        net(torch.zeros(8, 1), 5)


if __name__ == '__main__':
  absltest.main()
