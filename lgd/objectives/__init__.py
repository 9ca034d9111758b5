"""Objectives: what a guidance weight, and the base model before it, is trained on."""

from lgd.objectives.consistency import l2
from lgd.objectives.consistency import marginal
from lgd.objectives.consistency import self_consistency
from lgd.objectives.denoising import denoising
from lgd.objectives.guidance_loss import consistency_objective
from lgd.objectives.guidance_loss import guidance_loss
from lgd.objectives.guidance_loss import Objective
from lgd.objectives.guidance_loss import score_matching_objective
from lgd.objectives.particles import draw_particles
from lgd.objectives.particles import guided_particles
from lgd.objectives.particles import Particles
from lgd.objectives.particles import sample_s
from lgd.objectives.particles import sample_times
from lgd.objectives.particles import time_density
from lgd.objectives.score_matching import score_matching

__all__ = (
  'Objective',
  'Particles',
  'consistency_objective',
  'denoising',
  'draw_particles',
  'guidance_loss',
  'guided_particles',
  'l2',
  'marginal',
  'sample_s',
  'sample_times',
  'score_matching',
  'score_matching_objective',
  'self_consistency',
  'time_density',
)
