"""From a config's `rule` to a pair of predictions, and to what the sampler calls.

A rule says what a weight does: omega times a direction is added to the conditional
prediction, or a reward is raised at the rate omega.
"""

import functools

from ml_collections import config_dict

from experiments import builders
from lgd import denoiser as denoiser_lib
from lgd import guidance
from lgd import rewards
from lgd import types
from lgd.data import splits

DIRECTIONS = ('optimal_scale', 'apg')  # Rules that are linear along one.
LEARNABLE_RULES = ('linear', *DIRECTIONS, 'autoguidance')
PAIR_RULES = (*LEARNABLE_RULES, 'apg_momentum', 'angle_domain', 'power_normalized')
REWARD_RULES = ('mpgd', 'stein')  # No pair; they raise a reward.
RULES = (*PAIR_RULES, *REWARD_RULES)
# The null branch has an effect where omega is 0, now or later.
RULES_THAT_NEED_BOTH = ('apg_momentum', 'power_normalized')


def pair(
  config: config_dict.ConfigDict,
  spec: splits.Spec,
  *,
  network: types.Denoiser | None = None,
) -> denoiser_lib.Pair:
  """The base model's two predictions, along the direction of `rule` if it has one.

  Its parameters are the base model's; for autoguidance, those and the weak model's.
  `network` takes the place of `builders.denoiser`.
  """
  network = network or builders.denoiser(config, spec)
  if config.rule.name == 'autoguidance':
    return denoiser_lib.autoguidance(network, network)
  plain = denoiser_lib.classifier_free(network, spec.conditions.null)
  if config.rule.name not in DIRECTIONS:
    return plain
  direction, space = guidance.optimal_scale, 'velocity'
  if config.rule.name == 'apg':
    apg = {'eta': config.rule.apg_eta, 'max_norm': config.rule.apg_max_norm}
    direction, space = guidance.apg(**apg), 'x0'
  return guidance.pair_along(
    plain, direction, space=space, schedule=builders.schedule(config)
  )


def guided(
  config: config_dict.ConfigDict,
  pair: denoiser_lib.Pair,
  params: types.Params,
  plan: guidance.Plan,
  shape: tuple[int, ...],
  reward: builders.RewardFn,
) -> tuple[types.Denoise | types.MemoryDenoise, types.Memory]:
  """What the sampler calls, by `rule`, and the memory that it starts with, if any.

  Args:
    config: the config.
    pair: of the base model.
    params: its parameters; of a rule with a reward, those and the classifier's.
    plan: weights of a batch on the sampler's grid, and where they need the null branch.
    shape: of the batch.
    reward: of the rules that have one, whose weights are its rates.
  """
  section, times = config.rule, builders.time_grid(config)
  weight = guidance.per_sample(plan.omega, times)
  if section.name in REWARD_RULES:
    params, classifier = params
    improve = functools.partial(
      rewards.mpgd, schedule=builders.schedule(config), churn=config.evaluation.churn
    )
    if section.name == 'stein':
      improve = functools.partial(rewards.stein, num_particles=section.num_particles)
    unguided = guidance.unguided(pair.cond, params)
    return improve(unguided, functools.partial(reward, classifier), weight), None
  if section.name not in RULES_THAT_NEED_BOTH:
    # The directions of other rules are in the pair.
    is_angle = section.name == 'angle_domain'
    rule = guidance.angle_domain if is_angle else guidance.linear
    return guidance.planned(pair, params, plan, times, rule=rule), None
  if section.name == 'apg_momentum':
    rule = guidance.ApgMomentum(
      section.apg_momentum, section.apg_eta, section.apg_max_norm
    )
    denoise = guidance.guided_with_memory(pair, params, weight, rule=rule)
    return denoise, rule.init(shape)
  rule = guidance.power_normalized(section.power)
  settings = {'rule': rule, 'space': 'eps', 'schedule': builders.schedule(config)}
  return guidance.guided(pair, params, weight, **settings), None


def samples_together(rule: config_dict.ConfigDict) -> int:
  """Samples that a rule makes depend on each other: consecutive rows of a batch."""
  return rule.num_particles if rule.name == 'stein' else 1
