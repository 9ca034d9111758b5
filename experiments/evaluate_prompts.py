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
plots/. What is measured is kept until then: the same command resumes.
"""

import functools
import itertools
from typing import Any

import jax
import numpy as np
from absl import flags
from ml_collections import config_dict

from experiments import app
from experiments import builders
from experiments import judges
from experiments import report
from experiments import sampling
from experiments import validation
from experiments import workdirs
from lgd.data import splits

SPLITS = ('validation', 'test')


def run(
  config: config_dict.ConfigDict | None, workdir: str, *, squeezenet: str = ''
) -> list[dict[str, Any]]:
  """Evaluates, writes results and figures, and returns the rows."""
  session = workdirs.open_trained(config, workdir)
  workdir, config, _ = session
  validation.require_prompts(config)
  dataset = builders.data.load(config)
  params = workdirs.base_model.load_denoiser(session)
  held_out = {name: head(getattr(dataset, name), config) for name in SPLITS}
  networks = judges.prompts.load_networks(session, squeezenet)
  measures = {
    name: judges.prompts.Measure(networks, pairs) for name, pairs in held_out.items()
  }
  learned = workdirs.weights.load_all(session)
  grid = sampling.methods.grid_methods(config, 1)  # A row of weights for all prompts.
  methods = grid + [
    sampling.methods.learned_method(config, name, weight, held_out['test'].label)
    for name, weight in learned.items()
  ]
  samplers = sampling.methods.Samplers(session, params)
  seeds = range(config.seed, config.seed + config.evaluation.num_seeds)
  batch_size = config.fid.batch_size

  def measure(method, name, seed):
    of_rule, label = samplers.of(method.rule), held_out[name].label
    omega = omega_of(method, len(label))
    x = of_rule.draw(omega, label, name=method.key, seed=seed, batch_size=batch_size)
    row = {
      'method': method.name,
      'params': method.params,
      'split': name,
      'seed': seed,
      'num_samples': len(x),
      'num_steps': config.evaluation.num_steps,
      'nfe': of_rule.count_nfe(omega, len(x), batch_size=batch_size),
      'learning_evaluations': method.cost,
      'metrics': measures[name](x),
    }
    return {'row': row, 'x': x} if (name, seed) == ('test', seeds[0]) else {'row': row}

  pieces = workdirs.open_pieces(
    session,
    'evaluate_prompts',
    **judges.prompts.networks_identity(workdir, networks, squeezenet),
  )
  rows, samples = [real_row(held_out['test'], measures['test'])], {}
  progress = pieces.progress('evaluate', len(methods))
  for i, method in enumerate(methods):
    for name, seed in itertools.product(SPLITS if i < len(grid) else ('test',), seeds):
      make = functools.partial(measure, method, name, seed)
      piece = pieces.get([method.identity, name, seed], make)
      rows.append(piece['row'])
      if 'x' in piece:
        samples[method.key] = piece['x']
    measured = (f'{name} {value:.3f}' for name, value in rows[-1]['metrics'].items())
    progress.log(i + 1, '  '.join((method.key, *measured)))
  if jax.process_index() == 0:
    report.prompts.write(
      workdir.path,
      rows,
      prompts=builders.data.tokenizer(config).decode(held_out['test'].label),
      samples={'real': held_out['test'].x, **samples},
      tables={m.name: m.table for m in methods if m.name in learned},
      gammas=report.rows.gammas(learned),
      times=np.asarray(builders.models.time_grid(config))[:-1],
    )
  pieces.remove()
  return rows


def head(split: splits.Split, config: config_dict.ConfigDict) -> splits.Split:
  """The first pairs of a split, `evaluation.num_prompts` of them at most."""
  num = config.evaluation.num_prompts
  return splits.Split(split.x[:num], split.label[:num])


def omega_of(method: sampling.methods.Method, num: int) -> np.ndarray | None:
  """The weights of `num` prompts, `[num, num_steps]`, if there are any."""
  if method.table is None:
    return None
  return np.broadcast_to(method.table, (num, method.table.shape[1]))


def real_row(pairs: splits.Split, measure: judges.prompts.Measure) -> dict[str, Any]:
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
  app.main(
    lambda f: run(f.config, f.workdir, squeezenet=SQUEEZENET.value),
    needs_config=False,
  )
