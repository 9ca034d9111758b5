"""Guidance: a weight omega(cond, s, t), and the rule that says what it does."""

from lgd.guidance.guided import guided
from lgd.guidance.guided import guided_with_memory
from lgd.guidance.guided import pair_along
from lgd.guidance.guided import unguided
from lgd.guidance.network import GuidanceNet
from lgd.guidance.network import LabelEmbedding
from lgd.guidance.network import PooledEmbedding
from lgd.guidance.network import TokenEmbedding
from lgd.guidance.network import VectorEmbedding
from lgd.guidance.planned import make_plan
from lgd.guidance.planned import Plan
from lgd.guidance.planned import planned
from lgd.guidance.planned import similar_first
from lgd.guidance.rules import along
from lgd.guidance.rules import angle_domain
from lgd.guidance.rules import apg
from lgd.guidance.rules import ApgMomentum
from lgd.guidance.rules import linear
from lgd.guidance.rules import optimal_scale
from lgd.guidance.rules import power_normalized
from lgd.guidance.tables import matched_mean
from lgd.guidance.tables import mean_in_time
from lgd.guidance.tables import per_sample
from lgd.guidance.tables import require_cover
from lgd.guidance.tables import table
from lgd.guidance.tables import tabulate
from lgd.guidance.weights import beta_cfg
from lgd.guidance.weights import cfg_plus_plus
from lgd.guidance.weights import clamp_cosine
from lgd.guidance.weights import clamp_linear
from lgd.guidance.weights import constant
from lgd.guidance.weights import interval
from lgd.guidance.weights import power_cosine
from lgd.guidance.weights import triangle

__all__ = (
  'ApgMomentum',
  'GuidanceNet',
  'LabelEmbedding',
  'Plan',
  'PooledEmbedding',
  'TokenEmbedding',
  'VectorEmbedding',
  'along',
  'angle_domain',
  'apg',
  'beta_cfg',
  'cfg_plus_plus',
  'clamp_cosine',
  'clamp_linear',
  'constant',
  'guided',
  'guided_with_memory',
  'interval',
  'linear',
  'make_plan',
  'matched_mean',
  'mean_in_time',
  'optimal_scale',
  'pair_along',
  'per_sample',
  'planned',
  'power_cosine',
  'power_normalized',
  'require_cover',
  'similar_first',
  'table',
  'tabulate',
  'triangle',
  'unguided',
)
