"""One base model, one number of steps and the same noise for all methods."""

import functools
import itertools
import json
import time
from collections.abc import Callable
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


class Sampler(NamedTuple):
  """The sampler of one rule."""

  sample: sampler.SampleFn
  count_nfe: Callable[[np.ndarray | None, int], float]
  params: types.Params


class Samplers:
  """The samplers of `config.evaluation`, one for every rule, made when asked for."""

  def __init__(
    self,
    config: config_dict.ConfigDict,
    spec: splits.Spec,
    params: types.Params,
    classifier: types.Params | None = None,
  ):
    """`params` are the base model's, `classifier` those of the rules with a reward."""
    self._config, self._spec = config, spec
    self._params, self._classifier = params, classifier
    self._made = {}

  def of(self, rule: config_dict.ConfigDict) -> Sampler:
    """The sampler of a section `rule`."""
    config = builders.methods.with_rule(self._config, rule)
    key = json.dumps([workdirs.identity.rule_identity(config), rule.weak_workdir])
    if key not in self._made:
      self._made[key] = Sampler(
        sampler.make_sample_fn(config, self._spec),
        sampler.make_count_nfe(config, self._spec),
        self._params_of(config),
      )
    return self._made[key]

  def _params_of(self, config):
    if builders.rules.of(config).improve:
      return self._params, self._classifier
    return workdirs.base_model.with_weak(self._params, config, self._spec)


class Arena:
  """Samples of every class, drawn by the sampler of `config.evaluation`."""

  def __init__(
    self,
    config: config_dict.ConfigDict,
    dataset: splits.Dataset,
    params: types.Params,
    classifier: types.Params | None = None,
  ):
    """`params` and `classifier` as of `Samplers`."""
    self.config, self.dataset, self.params = config, dataset, params
    self.classifier = classifier
    self.label = sampler.balanced_labels(
      dataset.num_classes, config.evaluation.samples_per_class
    )
    self._samplers = Samplers(config, dataset.spec, params, classifier)

  def sample(self, method: Method, seed: int) -> tuple[np.ndarray, float]:
    """Samples in the order of `label`, and the seconds that they took."""
    of_rule = self._samplers.of(method.rule)
    numbers = np.arange(len(self.label))
    keys = sampler.sample_keys(seed, numbers)
    start = time.perf_counter()
    x = of_rule.sample(of_rule.params, self._omega(method), keys, self.label)
    seconds = time.perf_counter() - start
    sampler.require_finite(x, method.key, seed, numbers)
    return x, seconds

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
    count_nfe = self._samplers.of(method.rule).count_nfe
    return count_nfe(self._omega(method), len(self.label))

  def _omega(self, method):
    return None if method.table is None else np.asarray(method.table)[self.label]


def load_learned(
  workdir: workdirs.Workdir, config: config_dict.ConfigDict, spec: splits.Spec
) -> dict[str, workdirs.weights.LearnedWeight]:
  """The learned weights of a work directory, by name."""
  return workdirs.weights.load_all(workdir, config, workdir.guidance_names(), spec)


def learned_method(
  config: config_dict.ConfigDict,
  spec: splits.Spec,
  name: str,
  weight: workdirs.weights.LearnedWeight,
) -> Method:
  """A learned weight at the sampler's steps."""
  classes = np.arange(spec.conditions.num_classes)
  table = np.asarray(sampler.tabulate_learned(config, weight, classes))
  return Method(name, {}, weight.rule, table, weight.num_evaluations)
