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
    self._omega = torch.as_tensor(omega, dtype=torch.float32)
    self._timesteps = torch.as_tensor(timesteps, dtype=torch.float64).cpu()
    if self._omega.ndim != 2 or self._timesteps.shape != self._omega.shape[1:]:
      raise ValueError(
        f'omega of {tuple(self._omega.shape)} and timesteps of'
        f' {tuple(self._timesteps.shape)}: must be [n, N] and [N].'
      )
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
    w = 1.0 + self._column(float(torch.as_tensor(timestep).flatten()[0]), len(cond))
    w = w.to(pred).view(-1, *(1,) * (pred.ndim - 1))
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

  def _column(self, timestep, num):
    i = int((self._timesteps - timestep).abs().argmin())
    if abs(float(self._timesteps[i]) - timestep) > 1e-3 * max(1.0, abs(timestep)):
      raise ValueError(
        f'timestep {timestep:g}: omega is for {self._timesteps.tolist()}; export it for'
        " the scheduler's own steps."
      )
    if len(self._omega) not in (1, num):
      raise ValueError(f'omega has {len(self._omega)} rows for {num} samples.')
    return self._omega[:, i].expand(num)
