"""Objectives: what a guidance weight, and the base model before it, is trained on."""

from lgd.objectives.consistency import group_marginal
from lgd.objectives.consistency import l2
from lgd.objectives.consistency import marginal
from lgd.objectives.consistency import score_matching
from lgd.objectives.consistency import self_consistency
from lgd.objectives.denoising import denoising
from lgd.objectives.denoising import sigmoid_weight
from lgd.objectives.direct import consistency_objective
from lgd.objectives.direct import guidance_loss
from lgd.objectives.direct import Objective
from lgd.objectives.direct import score_matching_objective
from lgd.objectives.particles import draw_noise
from lgd.objectives.particles import draw_particles
from lgd.objectives.particles import guided_particles
from lgd.objectives.particles import Particles
from lgd.objectives.particles import predict
from lgd.objectives.particles import Predictions
from lgd.objectives.particles import sample_s
from lgd.objectives.particles import sample_times
from lgd.objectives.reward import reward_objective
from lgd.objectives.reward import rewarded
from lgd.objectives.stored import in_reach
from lgd.objectives.stored import make_store
from lgd.objectives.stored import statistics_loss
from lgd.objectives.stored import StatisticsObjective
from lgd.objectives.stored import Store
from lgd.objectives.stored import stored_consistency
from lgd.objectives.stored import stored_l2
from lgd.objectives.stored import stored_score_matching

__all__ = (
  'Objective',
  'Particles',
  'Predictions',
  'StatisticsObjective',
  'Store',
  'consistency_objective',
  'denoising',
  'draw_noise',
  'draw_particles',
  'group_marginal',
  'guidance_loss',
  'guided_particles',
  'in_reach',
  'l2',
  'make_store',
  'marginal',
  'predict',
  'reward_objective',
  'rewarded',
  'sample_s',
  'sample_times',
  'score_matching',
  'score_matching_objective',
  'self_consistency',
  'sigmoid_weight',
  'statistics_loss',
  'stored_consistency',
  'stored_l2',
  'stored_score_matching',
)
