"""A section of a config in, an object out: where the values of keys get a meaning."""

from experiments.builders import captions
from experiments.builders import data
from experiments.builders import families
from experiments.builders import models
from experiments.builders import objectives
from experiments.builders import rules
from experiments.builders import statistics
from experiments.builders import user_functions

__all__ = (
  'captions',
  'data',
  'families',
  'models',
  'objectives',
  'rules',
  'statistics',
  'user_functions',
)
