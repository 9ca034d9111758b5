"""Methods to sample with, and samplers that draw all of them from the same noise."""

import functools
import itertools
import json
import time
from typing import Any
from typing import NamedTuple

import numpy as np
from ml_collections import config_dict

from experiments import builders
from experiments import report
from experiments import workdirs
from experiments.sampling import sampler
from lgd import guidance
from lgd import metrics
from lgd import types
from lgd.data import splits


class Method(NamedTuple):
  """A method to sample with, at one number of steps."""

  name: str
  params: dict[str, float]
  rule: config_dict.ConfigDict  # What the weights do: a section `rule`.
  # A row of num_steps for every class, or prompt; None leaves the null branch out.
  table: np.ndarray | None
  cost: int = 0  # Denoiser evaluations spent on learning it, or on its search.
  kappa: float | None = None  # The strength of a learned weight in `table`.

  @property
  def key(self) -> str:
    """The name of its rows."""
    return report.rows.key(self.name, self.params)

  @property
  def identity(self) -> list[Any]:
    """The key of its rows on one base model, for `app.Pieces`."""
    rule = workdirs.configs.to_json(self.rule)
    return [*self._replace(rule=rule), workdirs.identity.weak_identity(self.rule)]


def given_method(
  config: config_dict.ConfigDict,
  num_rows: int,
  name: str,
  weight: types.Weight,
  **params: float,
) -> Method:
  """A weight that is the same for every class or prompt, as `num_rows` rows."""
  times = builders.models.time_grid(config)
  table = np.asarray(guidance.tabulate(weight, np.arange(num_rows), times))
  return Method(name, params, config.rule, table)


def grid_methods(config: config_dict.ConfigDict, num_rows: int) -> list[Method]:
  """Unguided, and the constants and intervals of `evaluation`, as `given_method`."""
  section = config.evaluation
  given = functools.partial(given_method, config, num_rows)
  methods = [Method('unguided', {}, config.rule, None)]
  for omega in section.constants:
    methods.append(given('constant', guidance.constant(omega), omega=omega))
  bounds = list(itertools.combinations(section.interval_bounds, 2))
  for omega, (lo, hi) in itertools.product(section.interval_omegas, bounds):
    weight = guidance.interval(omega, lo, hi)
    methods.append(given('interval', weight, omega=omega, lo=lo, hi=hi))
  return methods


class Samplers:
  """The samplers of `config.evaluation`, one for every rule, made when asked for.

  Args:
    session: the session.
    params: of the base model.
    classifier: of the rules with a reward.
  """

  def __init__(
    self,
    session: workdirs.Session,
    params: types.Params,
    classifier: types.Params | None = None,
  ):
    self._session, self._params, self._classifier = session, params, classifier
    self._made = {}

  def of(self, rule: config_dict.ConfigDict) -> sampler.RuleSampler:
    """The sampler of a section `rule`."""
    session = self._session.with_rule(rule)
    identity = workdirs.identity.rule_identity(session.config)
    key = json.dumps([identity, rule.weak_workdir])
    if key not in self._made:
      if builders.rules.of(session.config).improve:
        params = self._params, self._classifier
      else:
        params = workdirs.base_model.with_weak(session, self._params)
      self._made[key] = sampler.make_rule_sampler(session.config, session.spec, params)
    return self._made[key]


class ClassSampler:
  """Samples of every class, drawn by the sampler of `config.evaluation`.

  Args:
    session: the session.
    dataset: the data, with classes.
    params: as in `Samplers`.
    classifier: as in `Samplers`.
  """

  def __init__(
    self,
    session: workdirs.Session,
    dataset: splits.Dataset,
    params: types.Params,
    classifier: types.Params | None = None,
  ):
    self.config, self.dataset = session.config, dataset
    self.params, self.classifier = params, classifier
    self.label = sampler.balanced_labels(
      dataset.num_classes, self.config.evaluation.samples_per_class
    )
    self._samplers = Samplers(session, params, classifier)

  def sample(self, method: Method, seed: int) -> tuple[np.ndarray, float]:
    """Samples in the order of `label`, and the seconds that they took."""
    of_rule, omega = self._samplers.of(method.rule), self._omega(method)
    start = time.perf_counter()
    x = of_rule.draw(omega, self.label, name=method.key, seed=seed)
    return x, time.perf_counter() - start

  @functools.cached_property
  def validation(self) -> metrics.ClassSets:
    """The data that strengths are searched on."""
    return metrics.class_sets(*self.dataset.validation)

  def class_sets(self, method: Method, x: np.ndarray) -> metrics.ClassSets:
    """A method's samples by class, for distances."""
    together = builders.rules.samples_together(method.rule)
    return metrics.class_sets(x, self.label, group_size=together)

  def count_nfe(self, method: Method) -> float:
    """Network evaluations of a sample."""
    of_rule = self._samplers.of(method.rule)
    return of_rule.count_nfe(self._omega(method), len(self.label))

  def _omega(self, method):
    return None if method.table is None else np.asarray(method.table)[self.label]


def learned_method(
  config: config_dict.ConfigDict,
  name: str,
  weight: workdirs.weights.LearnedWeight,
  label: np.ndarray,
  *,
  kappa: float | None = None,
) -> Method:
  """A learned weight at the sampler's steps, with a row for every label.

  At the strength of its verdict, whose cost then counts; or times `kappa`.
  """
  table = sampler.tabulate_learned(config, weight, label, kappa=kappa)
  params, cost = {}, weight.num_evaluations
  if kappa is not None:
    params = {'kappa': kappa}
  elif weight.verdict is not None:
    cost += weight.verdict.num_evaluations
  used = weight.kappa if kappa is None else kappa
  return Method(name, params, weight.rule, np.asarray(table), cost, used)
