r"""Compares every guidance weight on held-out prompts, on equal terms.

  python -m experiments.train_clip --config=configs/emoji.py --workdir=runs/emoji \
      --model=judge
  python -m experiments.evaluate_prompts --workdir=runs/emoji

One sample of each of `evaluation.num_prompts` held-out prompts, of the same noise for
all methods. The judge, a CLIP that has seen the held-out pairs, gives the alignment
with prompts, and features for a Frechet distance to the images that belong to them;
with `--squeezenet=FILE.h5` so does SqueezeNet: proxies both. Where there is a CLIP that
rewards, its score is measured, too. Grids are chosen by the judge's distance on
validation prompts, and reported on test prompts. Writes results.json, results.md and
plots/.
"""

import itertools
import time
from typing import Any
from typing import NamedTuple

import jax
import numpy as np
from absl import flags
from absl import logging
from ml_collections import config_dict

from experiments import arena as arena_lib
from experiments import builders
from experiments import clips
from experiments import datasets
from experiments import launch
from experiments import learned_weights
from experiments import prompt_results
from experiments import refusals
from experiments import restoring
from experiments import results as results_lib
from experiments import reward_frontiers
from experiments import sampler
from experiments import validation
from experiments import workdir as workdir_lib
from lgd import arrays
from lgd import checkpointing
from lgd import metrics
from lgd import reporting
from lgd.data import splits

SPLITS = ('validation', 'test')


def run(
  config: config_dict.ConfigDict | None, workdir: str, *, squeezenet: str = ''
) -> list[dict[str, Any]]:
  """Evaluates, writes results and figures, and returns the rows."""
  workdir = workdir_lib.Workdir(workdir)
  config = restoring.resolve_config(workdir, config)
  validation.require_prompts(config)
  builders.log_config(config)
  dataset = datasets.load(config)
  spec = dataset.spec
  refusals.require_encoded(workdir.denoiser, config)
  params, step = restoring.load_denoiser(workdir, spec, builders.mesh(config))
  held_out = {name: head(getattr(dataset, name), config) for name in SPLITS}
  networks = load_networks(config, workdir, squeezenet)
  measures = {name: Measure(networks, pairs) for name, pairs in held_out.items()}
  learned = arena_lib.load_learned(workdir, config, spec)
  grid = arena_lib.grid_methods(config, 1)  # A row of weights for all prompts.
  methods = grid + learned_methods(config, learned, held_out['test'].label)
  samplers = arena_lib.Samplers(config, spec, params)
  seeds = range(config.seed, config.seed + config.evaluation.num_seeds)
  logging.info('base model at step %d; %d methods', step, len(methods))

  rows, samples = [real_row(held_out['test'], measures['test'])], {}
  start = time.perf_counter()
  for i, method in enumerate(methods):
    of_rule = samplers.of(method.rule)
    for name, seed in itertools.product(SPLITS if i < len(grid) else ('test',), seeds):
      label = held_out[name].label
      x = draw(config, of_rule, method, label, seed)
      rows.append(
        {
          'method': method.name,
          'params': method.params,
          'split': name,
          'seed': seed,
          'num_samples': len(x),
          'num_steps': config.evaluation.num_steps,
          'nfe': count_nfe(config, of_rule, method, len(x)),
          'learning_evaluations': method.cost,
          'metrics': measures[name](x),
        }
      )
      if (name, seed) == ('test', seeds[0]):
        samples[results_lib.key(method.name, method.params)] = x
    elapsed = time.perf_counter() - start
    logging.info(
      'evaluate %d/%d  %s  %s  ETA %s',
      i + 1,
      len(methods),
      results_lib.key(method.name, method.params),
      '  '.join(f'{name} {value:.3f}' for name, value in rows[-1]['metrics'].items()),
      reporting.eta(elapsed, i + 1, len(methods)),
    )
  if jax.process_index() == 0:
    prompt_results.write(
      workdir.path,
      rows,
      prompts=datasets.tokenizer(config).decode(held_out['test'].label),
      samples={'real': held_out['test'].x, **samples},
      tables={m.name: m.table for m in methods if m.name in learned},
      gammas=reward_frontiers.gammas(learned),
      times=np.asarray(builders.time_grid(config))[:-1],
    )
  return rows


def head(split: splits.Split, config: config_dict.ConfigDict) -> splits.Split:
  """The first pairs of a split, `evaluation.num_prompts` of them at most."""
  num = config.evaluation.num_prompts
  return splits.Split(split.x[:num], split.label[:num])


def learned_methods(
  config: config_dict.ConfigDict,
  learned: dict[str, learned_weights.LearnedWeight],
  label: np.ndarray,
) -> list[arena_lib.Method]:
  """Every learned weight, for these prompts."""
  methods = []
  for name, weight in learned.items():
    table = np.asarray(sampler.tabulate_learned(config, weight, label))
    methods.append(
      arena_lib.Method(name, {}, weight.rule, table, weight.num_evaluations)
    )
  return methods


def draw(
  config: config_dict.ConfigDict,
  of_rule: arena_lib.Sampler,
  method: arena_lib.Method,
  label: np.ndarray,
  seed: int,
) -> np.ndarray:
  """A sample of every prompt, `[n, *data]`."""
  omega = omega_of(method, len(label))
  keys = sampler.sample_keys(seed, np.arange(len(label)))
  parts = [
    of_rule.sample(
      of_rule.params, None if omega is None else omega[rows], keys[rows], label[rows]
    )
    for rows in arrays.whole_batches(len(label), config.fid.batch_size)
  ]
  x = np.concatenate(parts)[: len(label)]
  arena_lib.require_finite(x, method, seed)
  return x


def count_nfe(
  config: config_dict.ConfigDict,
  of_rule: arena_lib.Sampler,
  method: arena_lib.Method,
  num: int,
) -> float:
  """Network evaluations of a sample, in the batches of `draw`."""
  omega = omega_of(method, num)
  counts = [
    of_rule.count_nfe(None if omega is None else omega[rows], len(rows))
    for rows in arrays.whole_batches(num, config.fid.batch_size)
  ]
  return float(np.mean(counts))


def omega_of(method: arena_lib.Method, num: int) -> np.ndarray | None:
  """The weights of `num` prompts, `[num, num_steps]`, if there are any."""
  if method.table is None:
    return None
  return np.broadcast_to(method.table, (num, method.table.shape[1]))


class Networks(NamedTuple):
  """What samples are measured by; all but the judge where there is one."""

  judge: clips.Embedder
  reward: clips.Embedder | None
  squeezenet: metrics.Extractor | None


def load_networks(
  config: config_dict.ConfigDict, workdir: workdir_lib.Workdir, squeezenet: str
) -> Networks:
  """Those of a work directory, and SqueezeNet if the path of its weights is given."""
  judge = clips.Embedder(clips.load(workdir, config, 'judge'))
  reward = extractor = None
  if checkpointing.latest_step(workdir.clip('reward')) is not None:
    reward = clips.Embedder(clips.load(workdir, config, 'reward'))
  if squeezenet:
    extractor = metrics.squeezenet(metrics.squeezenet_weights.load(squeezenet))
  return Networks(judge, reward, extractor)


class Measure:
  """Metrics of samples of the prompts of some real pairs, in their order."""

  def __init__(self, networks: Networks, pairs: splits.Split):
    self._networks = networks
    self._texts = networks.judge.texts(pairs.label)
    if networks.reward is not None:
      self._reward_texts = networks.reward.texts(pairs.label)
    self._real = self._gaussians(pairs.x)

  def __call__(self, x: np.ndarray) -> dict[str, float]:
    """Metrics of `x [n, height, width, 3]`, a sample of every prompt."""
    x = np.clip(x, -1.0, 1.0)
    measured = {
      name: metrics.frechet_distance(gaussian, self._real[name])
      for name, gaussian in self._gaussians(x).items()
    }
    judge, reward, _ = self._networks
    measured |= metrics.alignment(judge.images(x), self._texts)
    if reward is not None:
      of_reward = metrics.alignment(reward.images(x), self._reward_texts)
      measured['reward'] = of_reward['clip_score']
    return {name: float(value) for name, value in measured.items()}

  def _gaussians(self, x: np.ndarray) -> dict[str, metrics.Gaussian]:
    fits = {'frechet_judge': metrics.fit_gaussian(self._networks.judge.images(x))}
    extractor = self._networks.squeezenet
    if extractor is not None:
      features = metrics.extract(extractor, metrics.to_uint8(x)).features
      fits[extractor.distance_name] = metrics.fit_gaussian(features)
    return fits


def real_row(pairs: splits.Split, measure: Measure) -> dict[str, Any]:
  """The ceiling: what real images of the prompts have."""
  return {
    'method': 'real',
    'params': {},
    'split': 'test',
    'seed': 0,
    'num_samples': len(pairs.x),
    'num_steps': 0,
    'nfe': 0.0,
    'learning_evaluations': 0,
    'metrics': measure(pairs.x),
  }


if __name__ == '__main__':
  SQUEEZENET = flags.DEFINE_string('squeezenet', '', 'Weights, of Keras.')
  launch.main(
    lambda f: run(f.config, f.workdir, squeezenet=SQUEEZENET.value),
    needs_config=False,
  )
