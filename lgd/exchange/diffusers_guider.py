"""A guider of diffusers' modular pipelines with weights of each sample and step.

  guider = LearnedGuidance(omega, timesteps)
  pipe.update_components(guider=guider)

  (1)  pred = pred_cond + omega (pred_cond - pred_uncond)

holds in every space that a model predicts in. Steps at which all weights are 0 evaluate
no null branch. `save_pretrained` and `from_pretrained` keep the weights: they are JSON.
"""

from typing import ClassVar

from diffusers.configuration_utils import register_to_config
from diffusers.guiders import BaseGuidance
from diffusers.guiders.guider_utils import GuiderOutput

from lgd.exchange.torch_hook import StepWeights


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
    self._weights = StepWeights(omega, timesteps)

  @property
  def is_conditional(self) -> bool:
    return self._count_prepared == 1

  @property
  def num_conditions(self) -> int:
    """2 where a weight is not 0; before the first step, where any is."""
    weights, timestep = self._weights, self._timestep
    omega = weights.omega if timestep is None else weights.at(timestep)
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
      omega = self._weights.like(pred_cond, self._timestep)
      pred = pred_cond + omega * (pred_cond - pred_uncond)
    return GuiderOutput(pred=pred, pred_cond=pred_cond, pred_uncond=pred_uncond)
