"""From the method and the prompts of a command line to weights and conditions."""

from collections.abc import Callable
from collections.abc import Sequence

import numpy as np
from ml_collections import config_dict

from experiments import builders
from experiments import validation
from experiments import workdirs
from experiments.sampling import sampler
from lgd import errors
from lgd import guidance
from lgd import types
from lgd.data import splits

NUM_VECTORS = 10


# With parameters of their own; any of `methods.FAMILIES` takes omega alone, too.
GIVEN: dict[str, tuple[int, Callable[..., types.Weight]]] = {
  'interval': (3, guidance.interval),
  'clamp_linear': (2, guidance.clamp_linear),
}


def resolve_method(
  config: config_dict.ConfigDict,
  workdir: workdirs.Workdir,
  spec: splits.Spec,
  method: str,
  label: np.ndarray,
) -> tuple[np.ndarray | None, config_dict.ConfigDict]:
  """A method's weights for labels, and the config with the rule they are for.

  Returns:
    omega, `[n, num_steps]`, None for 'unguided'; and the config.

  Raises:
    errors.InputError: neither a learned weight here nor a well-formed given one.
  """
  name = method.partition(':')[0]
  if method == 'unguided':
    return None, config
  if name in builders.methods.FAMILIES:
    weight = given_weight(config, method)
    omega = guidance.tabulate(weight, label, builders.models.time_grid(config))
    return np.asarray(omega), builders.methods.with_rule(
      config, builders.methods.rule_of(name, config)
    )
  if method in workdir.guidance_names():
    learned = workdirs.weights.load_guidance(workdir, config, method, spec)
    omega = sampler.tabulate_learned(config, learned, label)
    return np.asarray(omega), builders.methods.with_rule(config, learned.rule)
  raise errors.InputError(
    f'--method={method}: must be unguided, one of the learned weights here,'
    f' {workdir.guidance_names()}, or with :OMEGA one of'
    f' {", ".join(builders.methods.FAMILIES)}.'
  )


def given_weight(config: config_dict.ConfigDict, method: str) -> types.Weight:
  """The weight of NAME:OMEGA, or with the parameters of `GIVEN`.

  Raises:
    errors.InputError: other numbers than those, or out of their range.
  """
  name, _, args = method.partition(':')
  builders.methods.require_usable(name, config)
  if name in builders.methods.REWARDED:
    raise errors.InputError(
      f'--method={method}: needs a classifier, which experiments.compare alone trains.'
    )
  try:
    values = [float(v) for v in args.split(',')]
  except ValueError:
    values = []
  num_args, make_weight = GIVEN.get(name, (1, None))
  if len(values) not in (1, num_args) or not np.all(np.isfinite(values)):
    raise errors.InputError(
      f'--method={method}: {name} takes omega or {num_args} finite numbers, as in'
      f' --method={name}:{",".join(["0.25", "0.25", "0.75"][:num_args])}.'
    )
  try:
    if len(values) == 1:
      return builders.methods.FAMILIES[name].weight(values[0], config)
    return make_weight(*values)
  except ValueError as error:
    raise errors.InputError(f'--method={method}: {error}') from error


def labels(
  config: config_dict.ConfigDict, spec: splits.Spec, prompts: Sequence[str] = ()
) -> np.ndarray:
  """Labels of prompts, if any; of every class; or of the first test data.

  Raises:
    errors.InputError: prompts of a model that reads none, or that are empty or too
      long.
  """
  if prompts:
    validation.require_prompts(config)
    try:
      return builders.data.tokenizer(config)(prompts)
    except errors.CaptionError as error:
      raise errors.InputError(f'--prompt: {error}') from error
  if spec.conditions.num_classes is not None:
    return np.arange(spec.conditions.num_classes, dtype=np.int32)
  return builders.data.load(config).test.label[:NUM_VECTORS]


def file_stem(method: str, seed: int) -> str:
  """The stem of files that hold samples of a method, or their features."""
  return method.replace(':', '_').replace(',', '_') + f'_seed{seed}'
