"""What any JAX project trains with: steps, devices, checkpoints, logs."""

from lgd.training.step import compile_step
from lgd.training.step import init_state
from lgd.training.step import LossFn
from lgd.training.step import make_train_step
from lgd.training.step import TrainState
from lgd.training.step import TrainStep

__all__ = (
  'LossFn',
  'TrainState',
  'TrainStep',
  'compile_step',
  'init_state',
  'make_train_step',
)
