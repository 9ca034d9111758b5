"""From the method and the prompts of a command line to weights and conditions."""

from collections.abc import Sequence

import numpy as np
from absl import logging
from ml_collections import config_dict

from experiments import builders
from experiments import validation
from experiments import workdirs
from experiments.sampling import sampler
from lgd import errors
from lgd import guidance
from lgd import types

NUM_VECTORS = 10  # Sampled where there are no classes.
_EXAMPLE = ('0.25', '0.25', '0.75')


def resolve_method(
  session: workdirs.Session, method: str, label: np.ndarray
) -> tuple[np.ndarray | None, workdirs.Session]:
  """A method's weights for labels, and the session with the rule they are for.

  Returns:
    omega, `[n, num_steps]`, None for 'unguided'; and the session.

  Raises:
    errors.InputError: neither a learned weight here nor a well-formed given one.
  """
  config, names = session.config, session.workdir.guidance_names()
  name = method.partition(':')[0]
  if method == 'unguided':
    return None, session
  if name in builders.families.HAND_MADE:
    weight = given_weight(config, method)
    omega = guidance.tabulate(weight, label, builders.models.time_grid(config))
    rule = builders.families.rule_of(name, config)
  elif method in names:
    learned = workdirs.weights.load(session, method)
    if learned.verdict is not None:
      logging.info('%s: %s', method, learned.verdict)
    omega, rule = sampler.tabulate_learned(config, learned, label), learned.rule
  else:
    raise errors.InputError(
      f'--method={method}: must be unguided, one of the learned weights here, {names},'
      f' clamp_linear:OMEGA,FLOOR or with :OMEGA one of'
      f' {", ".join(builders.families.FAMILIES)}.'
    )
  return np.asarray(omega), session.with_rule(rule)


def given_weight(config: config_dict.ConfigDict, method: str) -> types.Weight:
  """The weight of NAME:OMEGA, or of NAME with all the arguments of `families.GIVEN`.

  Raises:
    errors.InputError: other numbers than those, or out of their range.
  """
  name, _, args = method.partition(':')
  builders.families.require_usable(name, config)
  if name in builders.families.REWARDED:
    raise errors.InputError(
      f'--method={method}: needs a classifier, which experiments.compare alone trains.'
    )
  try:
    values = [float(v) for v in args.split(',')]
  except ValueError:
    values = []
  arguments, make_weight = builders.families.GIVEN.get(name, (('omega',), None))
  forms = {len(arguments): ','.join(arguments)}
  if name in builders.families.FAMILIES:
    forms[1] = 'omega'
  if len(values) not in forms or not np.all(np.isfinite(values)):
    raise errors.InputError(
      f'--method={method}: {name} takes {" or ".join(sorted(forms.values()))}, all'
      f' finite, as in --method={name}:{",".join(_EXAMPLE[: len(arguments)])}.'
    )
  try:
    if name in builders.families.FAMILIES and len(values) == 1:
      return builders.families.FAMILIES[name].weight(values[0], config)
    return make_weight(*values)
  except ValueError as error:
    raise errors.InputError(f'--method={method}: {error}') from error


def labels(session: workdirs.Session, prompts: Sequence[str] = ()) -> np.ndarray:
  """Labels of prompts, if any; of every class; or of the first test data.

  Raises:
    errors.InputError: prompts of a model that reads none, or that are empty or too
      long.
  """
  if prompts:
    validation.require_prompts(session.config)
    try:
      return builders.data.tokenizer(session.config)(prompts)
    except errors.CaptionError as error:
      raise errors.InputError(f'--prompt: {error}') from error
  num_classes = session.spec.conditions.num_classes
  if num_classes is not None:
    return np.arange(num_classes, dtype=np.int32)
  return builders.data.load(session.config).test.label[:NUM_VECTORS]


def method_stem(method: str) -> str:
  """A method as a part of file names."""
  return method.replace(':', '_').replace(',', '_')


def file_stem(method: str, seed: int) -> str:
  """The stem of files that hold samples of a method, or their features."""
  return f'{method_stem(method)}_seed{seed}'
