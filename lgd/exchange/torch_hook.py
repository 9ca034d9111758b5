"""Guidance weights in a pipeline of others, by a hook on its network: torch alone.

  with GuidanceHook(pipe.unet, omega, timesteps, scale=7.5):
    pipe(prompts, guidance_scale=7.5, num_inference_steps=20)

A pipeline that guides calls its network once a step, with both conditions in one batch,
and then takes the first line; given c' for c it takes the second, with a weight of its
own for every sample and step:

  (1)  u + scale (c - u)
  (2)  u + w (c - u),  w = 1 + omega,   by   c' = u + w / scale (c - u)
"""

import torch


class StepWeights:
  """omega `[n, N]` by the timestep at which a scheduler calls the network.

  Args:
    omega: for n samples in the order of the batch, or `[1, N]` for all.
    timesteps: `[N]`.

  Raises:
    ValueError: arrays of other shapes.
  """

  def __init__(self, omega, timesteps):
    self.omega = torch.as_tensor(omega, dtype=torch.float32)
    self._timesteps = torch.as_tensor(timesteps, dtype=torch.float64).cpu()
    if self.omega.ndim != 2 or self._timesteps.shape != self.omega.shape[1:]:
      raise ValueError(
        f'omega of {tuple(self.omega.shape)} and timesteps of'
        f' {tuple(self._timesteps.shape)}: must be [n, N] and [N].'
      )

  def at(self, timestep):
    """`[n]` weights of a step.

    Raises:
      ValueError: a timestep that omega is not for.
    """
    timestep = float(torch.as_tensor(timestep).flatten()[0])
    i = int((self._timesteps - timestep).abs().argmin())
    if abs(float(self._timesteps[i]) - timestep) > 1e-3 * max(1.0, abs(timestep)):
      raise ValueError(
        f'timestep {timestep:g}: omega is for {self._timesteps.tolist()}; export it for'
        " the scheduler's own steps."
      )
    return self.omega[:, i]

  def like(self, pred, timestep):
    """The same, `[n or 1, 1, ...]`, to be multiplied with predictions `[n, *data]`.

    Raises:
      ValueError: as `at`, or a number of samples that omega is not for.
    """
    omega = self.at(timestep).to(pred)
    if len(omega) not in (1, len(pred)):
      raise ValueError(f'omega has {len(omega)} rows for {len(pred)} samples.')
    return omega.view(-1, *(1,) * (pred.ndim - 1))


class GuidanceHook:
  """A context in which the network's conditional predictions carry weights.

  Args:
    network: the module that the pipeline calls.
    omega: `[n, N]` for n samples in the order of the batch, or `[1, N]` for all.
    timesteps: `[N]`, at which the scheduler calls the network.
    scale: what the pipeline is given as its guidance_scale; at 1 it may not guide.
    cond_first: whether the conditional half of the batch comes first (DiT's pipeline);
      Stable Diffusion's has the null half first.
    num_guided: how many first channels are guided; the others stay conditional.

  Raises:
    ValueError: a scale that does not guide, or arrays of other shapes; in the pipeline
      a timestep or a number of samples that omega is not for.
  """

  def __init__(
    self, network, omega, timesteps, *, scale, cond_first=False, num_guided=None
  ):
    if not scale > 1.0:
      raise ValueError(
        f'scale={scale}: must be above 1, or the pipeline does not guide.'
      )
    self._weights = StepWeights(omega, timesteps)
    self._network, self._scale = network, scale
    self._cond_first, self._num_guided = cond_first, num_guided

  def __enter__(self):
    self._handle = self._network.register_forward_hook(self._hook, with_kwargs=True)
    return self

  def __exit__(self, *error):
    self._handle.remove()

  def _hook(self, module, args, kwargs, out):
    timestep = kwargs.get('timestep', args[1] if len(args) > 1 else None)
    is_array = torch.is_tensor(out)
    pred = out if is_array else out[0] if isinstance(out, tuple) else out.sample
    first, second = pred.chunk(2)
    cond, null = (first, second) if self._cond_first else (second, first)
    w = 1.0 + self._weights.like(cond, timestep)
    if self._num_guided is not None:
      guided = torch.arange(pred.shape[1], device=pred.device) < self._num_guided
      w = torch.where(
        guided.view(1, -1, *(1,) * (pred.ndim - 2)), w, torch.ones_like(w)
      )
    cond = null + w / self._scale * (cond - null)
    pred = torch.cat((cond, null) if self._cond_first else (null, cond))
    if is_array:
      return pred
    return (pred, *out[1:]) if isinstance(out, tuple) else type(out)(sample=pred)
