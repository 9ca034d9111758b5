"""Losses and loops that make weights."""

from experiments.learning import closed_form
from experiments.learning import endpoint
from experiments.learning import loop
from experiments.learning import losses
from experiments.learning import side_by_side

__all__ = (
  'closed_form',
  'endpoint',
  'loop',
  'losses',
  'side_by_side',
)
