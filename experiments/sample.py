"""Draws samples from a trained work directory, guided as asked.

  python -m experiments.sample --workdir=runs/digits --method=self_consistency
  ... --method=unguided | constant:0.25 | interval:0.5,0.25,0.75 | cfg_zero:0.5 | ...
  ... --prompt='red cat' --prompt='blue dog'     # Of a model of images with captions.

Writes samples/METHOD_seedN.npz (x, label) and .png; seed N is that of a row of
results.json. `--config=...` replaces the `evaluation` section that the checkpoint
brings: steps, churn, number of samples.
"""

from collections.abc import Callable
from collections.abc import Sequence

import jax
import numpy as np
from absl import flags
from absl import logging
from ml_collections import config_dict

from experiments import builders
from experiments import datasets
from experiments import encoded
from experiments import launch
from experiments import learned_weights
from experiments import methods
from experiments import restoring
from experiments import sampler
from experiments import validation
from experiments import workdir as workdir_lib
from lgd import files
from lgd import guidance
from lgd import plots
from lgd import types
from lgd.data import splits
from lgd.data import text

NUM_VECTORS = 10

# With parameters of their own; any of `methods.FAMILIES` takes omega alone, too.
GIVEN: dict[str, tuple[int, Callable[..., types.Weight]]] = {
  'interval': (3, guidance.interval),
  'clamp_linear': (2, guidance.clamp_linear),
}


def resolve_method(
  config: config_dict.ConfigDict,
  workdir: workdir_lib.Workdir,
  spec: splits.Spec,
  method: str,
  label: np.ndarray,
) -> tuple[np.ndarray | None, config_dict.ConfigDict]:
  """A method's weights for labels, and the config with the rule they are for.

  Returns:
    omega, `[n, num_steps]`, None for 'unguided'; and the config.

  Raises:
    launch.UserError: neither a learned weight here nor a well-formed given one.
  """
  name = method.partition(':')[0]
  if method == 'unguided':
    return None, config
  if name in methods.FAMILIES:
    weight = given_weight(config, method)
    omega = guidance.tabulate(weight, label, builders.time_grid(config))
    return np.asarray(omega), methods.with_rule(config, methods.rule_of(name, config))
  if method in workdir.guidance_names():
    learned = learned_weights.load_guidance(workdir, config, method, spec)
    omega = sampler.tabulate_learned(config, learned, label)
    return np.asarray(omega), methods.with_rule(config, learned.rule)
  raise launch.UserError(
    f'--method={method}: must be unguided, one of the learned weights here,'
    f' {workdir.guidance_names()}, or with :OMEGA one of {", ".join(methods.FAMILIES)}.'
  )


def given_weight(config: config_dict.ConfigDict, method: str) -> types.Weight:
  """The weight of NAME:OMEGA, or with the parameters of `GIVEN`.

  Raises:
    launch.UserError: other numbers than those, or out of their range.
  """
  name, _, args = method.partition(':')
  methods.require_usable(name, config)
  if name in methods.REWARDED:
    raise launch.UserError(
      f'--method={method}: needs a classifier, which experiments.compare alone trains.'
    )
  try:
    values = [float(v) for v in args.split(',')]
  except ValueError:
    values = []
  num_args, make_weight = GIVEN.get(name, (1, None))
  if len(values) not in (1, num_args) or not np.all(np.isfinite(values)):
    raise launch.UserError(
      f'--method={method}: {name} takes omega or {num_args} finite numbers, as in'
      f' --method={name}:{",".join(["0.25", "0.25", "0.75"][:num_args])}.'
    )
  try:
    if len(values) == 1:
      return methods.FAMILIES[name].weight(values[0], config)
    return make_weight(*values)
  except ValueError as error:
    raise launch.UserError(f'--method={method}: {error}') from error


def file_stem(method: str, seed: int) -> str:
  """Of the files that hold samples of a method, or their features."""
  return method.replace(':', '_').replace(',', '_') + f'_seed{seed}'


def labels(
  config: config_dict.ConfigDict, spec: splits.Spec, prompts: Sequence[str] = ()
) -> np.ndarray:
  """Of prompts if there are any; every class; else those of the first test data.

  Raises:
    launch.UserError: prompts of a model that reads none, or that are empty or too long.
  """
  if prompts:
    validation.require_prompts(config)
    try:
      return datasets.tokenizer(config)(prompts)
    except text.CaptionError as error:
      raise launch.UserError(f'--prompt: {error}') from error
  if spec.conditions.num_classes is not None:
    return np.arange(spec.conditions.num_classes, dtype=np.int32)
  return datasets.load(config).test.label[:NUM_VECTORS]


def run(
  config: config_dict.ConfigDict | None,
  workdir: str,
  *,
  method: str,
  seed: int,
  prompts: Sequence[str] = (),
) -> np.ndarray:
  """Samples, writes and returns them: `samples_per_class` of each condition."""
  workdir = workdir_lib.Workdir(workdir)
  config = restoring.resolve_config(workdir, config)
  spec = datasets.spec(config)
  each = labels(config, spec, prompts)
  label = np.repeat(each, config.evaluation.samples_per_class, axis=0)
  omega, config = resolve_method(config, workdir, spec, method, label)
  params = restoring.load_pair(workdir, config, spec)
  sample_fn, look_up = sampler.make_sample_fn(config, spec), encoded.lookup(config)
  numbers = np.arange(len(label))
  keys, cond = sampler.sample_keys(seed, numbers), look_up(label)
  x = encoded.decode(config)(sample_fn(params, omega, keys, cond))
  sampler.require_finite(x, f'--method={method}', seed, numbers)

  if jax.process_index() == 0:
    path = workdir.path / 'samples' / f'{file_stem(method, seed)}.npz'
    files.write_npz(path, {'x': x, 'label': label})
    columns = x.reshape(len(each), -1, *x.shape[1:])
    plots.sample_grid(path.with_suffix('.png'), {method: columns}, num_rows=10)
    logging.info('%d samples in %s', len(x), path)
  return x


if __name__ == '__main__':
  METHOD = flags.DEFINE_string(
    'method', 'unguided', 'unguided, constant:W, ..., or a learned weight.'
  )
  SEED = flags.DEFINE_integer('seed', 0, 'Of the samples.', 0, 2**31 - 1)
  PROMPT = flags.DEFINE_multi_string('prompt', [], 'What to draw; may be repeated.')
  launch.main(
    lambda f: run(
      f.config,
      f.workdir,
      method=METHOD.value,
      seed=SEED.value,
      prompts=PROMPT.value,
    ),
    needs_config=False,
  )
