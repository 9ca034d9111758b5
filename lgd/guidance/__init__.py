"""Guidance: a weight omega(cond, s, t), and the rule that says what it does."""

from lgd.guidance.guided import guided
from lgd.guidance.guided import unguided
from lgd.guidance.network import GuidanceNet
from lgd.guidance.network import LabelEmbedding
from lgd.guidance.network import VectorEmbedding
from lgd.guidance.planned import make_plan
from lgd.guidance.planned import Plan
from lgd.guidance.planned import planned
from lgd.guidance.planned import similar_first
from lgd.guidance.rules import linear
from lgd.guidance.tables import per_sample
from lgd.guidance.tables import table
from lgd.guidance.tables import tabulate
from lgd.guidance.weights import clamp_linear
from lgd.guidance.weights import constant
from lgd.guidance.weights import interval

__all__ = (
  'GuidanceNet',
  'LabelEmbedding',
  'Plan',
  'VectorEmbedding',
  'clamp_linear',
  'constant',
  'guided',
  'interval',
  'linear',
  'make_plan',
  'per_sample',
  'planned',
  'similar_first',
  'table',
  'tabulate',
  'unguided',
)
