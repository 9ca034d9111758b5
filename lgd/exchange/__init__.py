"""Weights for programs that sample elsewhere: a neutral file, and what others read."""

from lgd.exchange.formats import FORMATS
from lgd.exchange.weight_schedule import WeightSchedule

__all__ = ['FORMATS', 'WeightSchedule']
