"""Chooses the strength at which every learned weight is used, by held-out data.

  python -m experiments.validate_weights --workdir=runs/digits
  ... --name=trajectory_pixels --name=self_consistency      # These alone.

Draws samples at every strength of `config.verdict.kappas` and without guidance, all
from the same noise, and compares them with validation data by the class-conditional
energy distance, in pixels or features. A weight is used at the strength of the smallest
distance, or not at all where its gain over no guidance is within its noise: a paired
difference, whose standard error is a jackknife over samples and data. Writes
verdicts/NAME.json, which evaluate, compare, fid and sample read. The same command again
resumes.
"""

import functools
from collections.abc import Callable
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from ml_collections import config_dict

from experiments import app
from experiments import builders
from experiments import judges
from experiments import sampling
from experiments import workdirs
from lgd import errors
from lgd import jackknife
from lgd import metrics
from lgd.data import splits

_FIRST = 1_000_000  # The number of the first sample: evaluate draws none of these.


def run(
  config: config_dict.ConfigDict | None, workdir: str, *, names: Sequence[str] = ()
) -> dict[str, workdirs.verdicts.Verdict]:
  """Validates weights, all if none is named; returns and stores their verdicts."""
  session = workdirs.open_trained(config, workdir)
  _, config, spec = session
  dataset = builders.data.load_classes(config, spec)
  params = workdirs.base_model.load_denoiser(session)
  learned = workdirs.weights.load_all(session, names or None)
  samplers = sampling.methods.Samplers(session, params)
  pieces = workdirs.open_pieces(session, 'validate_weights')
  progress = pieces.progress('validate', len(learned))
  embed = make_embedding(config, dataset)
  try:
    validation = metrics.class_sets(
      embed(dataset.validation.x),
      dataset.validation.label,
      num_blocks=config.verdict.num_blocks,
    )
  except ValueError as error:
    raise errors.InputError(f'validation data: {error}') from error
  verdicts = {}
  for i, (name, weight) in enumerate(learned.items()):
    classes = np.arange(dataset.num_classes)
    method = sampling.methods.learned_method(config, name, weight, classes, kappa=1.0)
    of_rule = samplers.of(weight.rule)
    unguided = method._replace(name='unguided', params={}, table=None, cost=0)
    strengths = [unguided] + [
      method._replace(params={'kappa': kappa}, table=kappa * method.table)
      for kappa in config.verdict.kappas
    ]
    measure = functools.partial(measure_strength, config, embed, validation, of_rule)
    found = [pieces.get(m.identity, functools.partial(measure, m)) for m in strengths]
    verdicts[name] = judge(config.verdict, found)
    workdirs.verdicts.save(session, name, verdicts[name])
    progress.log(i + 1, f'{name}  {verdicts[name]}')
  pieces.remove()
  return verdicts


def make_embedding(
  config: config_dict.ConfigDict, dataset: splits.Dataset
) -> Callable[[np.ndarray], np.ndarray]:
  """What `[n, *data]` are compared in: `verdict.distance`."""
  if config.verdict.distance == 'pixels':
    return lambda x: x
  features, params = judges.classifiers.train_noisy_features(config, dataset)
  compiled = jax.jit(features)
  return lambda x: np.asarray(compiled(params, x, jnp.zeros(len(x))))


def measure_strength(
  config: config_dict.ConfigDict,
  embed: Callable[[np.ndarray], np.ndarray],
  validation: metrics.ClassSets,
  of_rule: sampling.sampler.RuleSampler,
  method: sampling.methods.Method,
) -> app.Piece:
  """Energy distance to validation data at one strength, and those of the jackknife."""
  section = config.verdict
  label = sampling.sampler.balanced_labels(len(validation.x), section.samples_per_class)
  omega = None if method.table is None else method.table[label]
  batch_size = config.fid.batch_size
  x = of_rule.draw(
    omega,
    label,
    name=method.key,
    seed=config.seed,
    numbers=_FIRST + np.arange(len(label)),
    batch_size=batch_size,
  )
  samples = metrics.class_sets(embed(x), label, num_blocks=section.num_blocks)
  energy = metrics.jackknifed_energy(samples, validation)
  nfe = of_rule.count_nfe(omega, len(x), batch_size=batch_size)
  return {'energy': energy, 'num_evaluations': nfe * len(x)}


def judge(
  section: config_dict.ConfigDict, found: list[app.Piece]
) -> workdirs.verdicts.Verdict:
  """The strength that is chosen among 0 and `verdict.kappas`."""
  kappas = (0.0, *section.kappas)
  energies = [piece['energy'] for piece in found]
  differences = [energies[0] - energy for energy in energies]
  gain = tuple(float(each[0]) for each in differences)
  error = tuple(float(jackknife.variance(each) ** 0.5) for each in differences)
  best = int(np.argmax(gain))
  is_clear = jackknife.is_clear(differences[best], section.confidence)
  return workdirs.verdicts.Verdict(
    kappa=kappas[best] if is_clear else 0.0,
    kappas=kappas,
    energy=tuple(float(energy[0]) for energy in energies),
    gain=gain,
    error=error,
    num_evaluations=round(sum(piece['num_evaluations'] for piece in found)),
  )


if __name__ == '__main__':
  NAME = flags.DEFINE_multi_string('name', [], 'Of a learned weight; may be repeated.')
  app.main(lambda f: run(f.config, f.workdir, names=NAME.value), needs_config=False)
