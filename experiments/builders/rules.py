"""The rules of `config.rule`: pairs of predictions, and what the sampler calls.

A rule says what a weight does. Most are linear: omega times a direction is added to the
conditional prediction. Some are not, and some raise a reward at the rate omega. `RULES`
holds all that is known of a rule; identity, validation, planning and sampling read it.
"""

import functools
from collections.abc import Callable
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple

from ml_collections import config_dict

from experiments.builders import models
from lgd import denoiser as denoiser_lib
from lgd import guidance
from lgd import rewards
from lgd import types
from lgd.data import splits


class Rule(NamedTuple):
  """One rule. At most one of `direction`, `act` and `improve` is given; none is CFG.

  Attributes:
    constants: keys of the section `rule` -> names of the arguments that they are of the
      function below. They identify what is learned and sampled with the rule, and the
      function sees no others.
    direction: from the constants to the direction of a linear rule.
    act: from the constants to a rule that is not linear.
    improve: `(denoise, reward, rate, schedule=, churn=, **constants) -> denoise`, of a
      rule that raises a reward.
    space: what the direction or the rule acts on, one of `noising.PREDICTIONS`.
    acts_at_zero: whether the null branch has an effect where omega is 0, now or later.
    has_weak_model: whether the other prediction is that of `rule.weak_workdir`.
    has_memory: whether `act` gives a `types.MemoryRule`.
    is_first_order: whether the sampler must be of first order.
    together: the constant that says how many consecutive samples depend on each other.
  """

  constants: Mapping[str, str] = {}
  direction: Callable[..., types.Direction] | None = None
  act: Callable[..., types.Rule | types.MemoryRule] | None = None
  improve: Callable[..., types.Denoise] | None = None
  space: str = 'x0'
  acts_at_zero: bool = False
  has_weak_model: bool = False
  has_memory: bool = False
  is_first_order: bool = False
  together: str | None = None

  @property
  def is_linear(self) -> bool:
    """Whether weights can be learned for it."""
    return self.act is None and self.improve is None

  def arguments(self, section: config_dict.ConfigDict) -> dict[str, Any]:
    """The constants of a section `rule`, by the names of the arguments."""
    return {argument: section[key] for key, argument in self.constants.items()}


def _stein(denoise, reward, rate, *, schedule, churn, num_particles):
  del schedule, churn
  return rewards.stein(denoise, reward, rate, num_particles)


RULES = {
  'linear': Rule(),
  'optimal_scale': Rule(direction=lambda: guidance.optimal_scale, space='velocity'),
  'apg': Rule(
    constants={'apg_eta': 'eta', 'apg_max_norm': 'max_norm'}, direction=guidance.apg
  ),
  'autoguidance': Rule(has_weak_model=True),
  'apg_momentum': Rule(
    constants={
      'apg_momentum': 'momentum',
      'apg_eta': 'eta',
      'apg_max_norm': 'max_norm',
    },
    act=guidance.ApgMomentum,
    acts_at_zero=True,
    has_memory=True,
  ),
  'angle_domain': Rule(act=lambda: guidance.angle_domain),
  'power_normalized': Rule(
    constants={'power': 'power'},
    act=guidance.power_normalized,
    space='eps',
    acts_at_zero=True,
  ),
  'mpgd': Rule(improve=rewards.mpgd, is_first_order=True),
  'stein': Rule(
    constants={'num_particles': 'num_particles'},
    improve=_stein,
    together='num_particles',
  ),
}


def names_of_pairs() -> tuple[str, ...]:
  """Rules of two predictions, which `rule.name` may name; the others raise a reward."""
  return tuple(name for name, rule in RULES.items() if rule.improve is None)


def learnable() -> tuple[str, ...]:
  """Rules that weights can be learned for."""
  return tuple(name for name, rule in RULES.items() if rule.is_linear)


def of(config: config_dict.ConfigDict) -> Rule:
  """The entry that `rule.name` names."""
  return RULES[config.rule.name]


def pair(
  config: config_dict.ConfigDict,
  spec: splits.Spec,
  *,
  network: types.Denoiser | None = None,
  stops_gradient: bool = True,
) -> denoiser_lib.Pair:
  """The base model's two predictions, along the direction of `rule` if it has one.

  Its parameters are the base model's; with a weak model, those of both. `network` takes
  the place of `models.denoiser`; `stops_gradient` is as in `denoiser.classifier_free`.
  """
  rule, network = of(config), network or models.denoiser(config, spec)
  if rule.has_weak_model:
    return denoiser_lib.autoguidance(network, network, stops_gradient=stops_gradient)
  plain = denoiser_lib.classifier_free(
    network, spec.conditions.null, stops_gradient=stops_gradient
  )
  if rule.direction is None:
    return plain
  direction = rule.direction(**rule.arguments(config.rule))
  return guidance.pair_along(
    plain, direction, space=rule.space, schedule=models.schedule(config)
  )


def guided(
  config: config_dict.ConfigDict,
  pair: denoiser_lib.Pair,
  params: types.Params,
  plan: guidance.Plan,
  shape: tuple[int, ...],
  reward: models.RewardFn,
) -> tuple[types.StepDenoise | types.MemoryDenoise, types.Memory]:
  """The function that the sampler calls, and the memory that it starts with.

  The sampler hands it the steps of the plan, one by one.

  Args:
    config: the config.
    pair: of the base model.
    params: its parameters; of a rule with a reward, those and the classifier's.
    plan: weights of a batch on the sampler's grid, and where they need the null branch.
    shape: of the batch.
    reward: of the rules that have one, whose weights are its rates.
  """
  rule = of(config)
  constants = rule.arguments(config.rule)
  if rule.improve is not None:
    params, classifier = params
    improve = functools.partial(
      rule.improve,
      guidance.unguided(pair.conditional, params),
      functools.partial(reward, classifier),
      schedule=models.schedule(config),
      churn=config.evaluation.churn,
      **constants,
    )
    return _at_steps(improve), None
  # The direction of a linear rule is in the pair.
  act = guidance.linear if rule.act is None else rule.act(**constants)
  settings = {'rule': act}
  if rule.act is not None:
    settings |= {'space': rule.space, 'schedule': models.schedule(config)}
  if rule.has_memory:
    make = functools.partial(guidance.guided_with_memory, pair, params, **settings)
    return _at_steps(make), act.init(shape)
  if rule.acts_at_zero:
    return _at_steps(functools.partial(guidance.guided, pair, params, **settings)), None
  return guidance.planned(pair, params, plan, **settings), None


def _at_steps(make):
  """What `make` makes of a weight, for the weight that the plan has for each step."""

  def denoise(xt, s, t, cond, step, *memory):
    return make(lambda *_: step.omega)(xt, s, t, cond, *memory)

  return denoise


def samples_together(section: config_dict.ConfigDict) -> int:
  """Samples that a section `rule` makes depend on each other: rows of a batch."""
  together = RULES[section.name].together
  return section[together] if together else 1
