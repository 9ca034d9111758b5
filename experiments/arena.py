"""Where methods meet: one base model, one number of steps, the same noise for all."""

import functools
import json
import time
from typing import NamedTuple

import numpy as np
from ml_collections import config_dict

from experiments import builders
from experiments import methods as methods_lib
from experiments import results as results_lib
from experiments import sampler
from experiments import workdir as workdir_lib
from lgd import metrics
from lgd import reporting
from lgd import types
from lgd.data import splits


class Method(NamedTuple):
  """What to sample with, at one number of steps."""

  name: str
  params: dict[str, float]
  rule: config_dict.ConfigDict  # What the weights do: a section `rule`.
  table: np.ndarray | None  # [num_classes, num_steps]; None leaves the null branch out.
  cost: int = 0  # Denoiser evaluations spent on learning it, or on its search.


class Arena:
  """Samples of every class, drawn by the sampler of `config.evaluation`."""

  def __init__(
    self,
    config: config_dict.ConfigDict,
    dataset: splits.Dataset,
    params: types.Params,
    classifier: types.Params | None = None,
  ):
    """`params` are the base model's, `classifier` those of the rules with a reward."""
    self.config, self.dataset, self.params = config, dataset, params
    self.classifier = classifier
    self.label = sampler.balanced_labels(
      dataset.num_classes, config.evaluation.samples_per_class
    )
    self._compiled = {}

  def sample(self, method: Method, seed: int) -> tuple[np.ndarray, float]:
    """Samples in the order of `label`, and the seconds that they took."""
    sample_fn, _, params = self._of_rule(method.rule)
    keys = sampler.sample_keys(seed, np.arange(len(self.label)))
    start = time.perf_counter()
    x = sample_fn(params, self._omega(method), keys, self.label)
    seconds = time.perf_counter() - start
    if not np.all(np.isfinite(x)):
      raise reporting.NonFiniteError(
        f'{results_lib.key(method.name, method.params)}: samples of seed {seed} are not'
        ' finite; leave large weights out of the grids, or look at the base model if'
        ' these are unguided.'
      )
    return x, seconds

  @functools.cached_property
  def validation(self) -> metrics.ClassSets:
    """The data that strengths are searched on."""
    return metrics.class_sets(*self.dataset.validation)

  def class_sets(self, method: Method, x: np.ndarray) -> metrics.ClassSets:
    """A method's samples by class, for distances."""
    together = builders.samples_together(method.rule)
    return metrics.class_sets(x, self.label, group_size=together)

  def count_nfe(self, method: Method) -> float:
    """Network evaluations of a sample."""
    _, count, _ = self._of_rule(method.rule)
    return count(self._omega(method), len(self.label))

  def _omega(self, method):
    return None if method.table is None else np.asarray(method.table)[self.label]

  def _of_rule(self, rule):
    config = methods_lib.with_rule(self.config, rule)
    key = json.dumps([builders.rule_identity(config), rule.weak_workdir])
    if key not in self._compiled:
      self._compiled[key] = (
        sampler.make_sample_fn(config, self.dataset.spec),
        sampler.make_count_nfe(config, self.dataset.spec),
        self._params_of(config),
      )
    return self._compiled[key]

  def _params_of(self, config):
    if config.rule.name in builders.REWARD_RULES:
      return self.params, self.classifier
    return workdir_lib.with_weak(self.params, config, self.dataset.spec)


def load_learned(
  workdir: workdir_lib.Workdir, config: config_dict.ConfigDict, spec: splits.Spec
) -> dict[str, workdir_lib.LearnedWeight]:
  """The learned weights of a work directory, by name."""
  return {
    name: workdir_lib.load_guidance(workdir, config, name, spec)
    for name in workdir.guidance_names()
  }


def learned_method(
  config: config_dict.ConfigDict,
  spec: splits.Spec,
  name: str,
  weight: workdir_lib.LearnedWeight,
) -> Method:
  """A learned weight at the sampler's steps."""
  classes = np.arange(spec.conditions.num_classes)
  table = np.asarray(sampler.tabulate_learned(config, weight, classes))
  return Method(name, {}, weight.rule, table, weight.num_evaluations)
