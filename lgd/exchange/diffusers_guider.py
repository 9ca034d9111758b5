"""A guider of diffusers' modular pipelines with weights of each sample and step.

  guider = LearnedGuidance(omega, timesteps)
  pipe.update_components(guider=guider)

  (1)  pred = pred_cond + omega (pred_cond - pred_uncond)

holds in every space that a model predicts in. Steps at which all weights are 0 evaluate
no null branch. `save_pretrained` and `from_pretrained` keep the weights: they are JSON.
"""

from typing import ClassVar

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.guiders import BaseGuidance
from diffusers.guiders.guider_utils import GuiderOutput


class LearnedGuidance(BaseGuidance):
  """Guidance by (1).

  Args:
    omega: `[n, N]` nested lists for n samples in the order of the batch, or `[1, N]`.
    timesteps: list of N, at which the scheduler calls the model.
    enabled: whether it guides at all.
  """

  _input_predictions: ClassVar[list[str]] = ['pred_cond', 'pred_uncond']

  @register_to_config
  def __init__(self, omega=((0.0,),), timesteps=(0.0,), enabled: bool = True):
    super().__init__(enabled=enabled)
    self._omega = torch.tensor(omega, dtype=torch.float32)
    self._times = torch.tensor(timesteps, dtype=torch.float64)
    if self._omega.ndim != 2 or self._times.shape != self._omega.shape[1:]:
      raise ValueError(
        f'omega of {tuple(self._omega.shape)} and timesteps of'
        f' {tuple(self._times.shape)}: must be [n, N] and [N].'
      )

  @property
  def is_conditional(self) -> bool:
    return self._count_prepared == 1

  @property
  def num_conditions(self) -> int:
    """2 where a weight is not 0; before the first step, where any is."""
    omega = self._omega if self._timestep is None else self._column()
    return 2 if self._enabled and bool(omega.any()) else 1

  def prepare_inputs(self, data):
    names = self._input_predictions[: self.num_conditions]
    return [self._prepare_batch(data, i, name) for i, name in enumerate(names)]

  def prepare_inputs_from_block_state(self, data, input_fields):
    names = self._input_predictions[: self.num_conditions]
    return [
      self._prepare_batch_from_block_state(input_fields, data, i, name)
      for i, name in enumerate(names)
    ]

  def forward(self, pred_cond, pred_uncond=None):
    pred = pred_cond
    if pred_uncond is not None:
      omega = self._column().to(pred_cond)
      if len(omega) not in (1, len(pred_cond)):
        raise ValueError(f'omega has {len(omega)} rows for {len(pred_cond)} samples.')
      omega = omega.view(-1, *(1,) * (pred_cond.ndim - 1))
      pred = pred_cond + omega * (pred_cond - pred_uncond)
    return GuiderOutput(pred=pred, pred_cond=pred_cond, pred_uncond=pred_uncond)

  def _column(self):
    timestep = float(torch.as_tensor(self._timestep).flatten()[0])
    i = int((self._times - timestep).abs().argmin())
    if abs(float(self._times[i]) - timestep) > 1e-3 * max(1.0, abs(timestep)):
      raise ValueError(
        f'timestep {timestep:g}: omega is for {self._times.tolist()}; export it for the'
        " scheduler's own steps."
      )
    return self._omega[:, i]
