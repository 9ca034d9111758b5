"""Draws samples from a trained work directory, guided as asked.

  python -m experiments.sample --workdir=runs/digits --method=self_consistency
  ... --method=unguided | constant:0.25 | interval:0.5,0.25,0.75 | cfg_zero:0.5 | ...
  ... --prompt='red cat' --prompt='blue dog'     # Of a model of images with captions.

Writes samples/METHOD_seedN.npz (x, label) and .png; seed N is that of a row of
results.json. With `--config=...` its `evaluation` section (steps, churn, number of
samples) is used in place of the one that the checkpoint brings, as are the other
sections that docs/commands.md lists.
"""

from collections.abc import Sequence

import jax
import numpy as np
from absl import flags
from absl import logging
from ml_collections import config_dict

from experiments import app
from experiments import builders
from experiments import report
from experiments import sampling
from experiments import workdirs
from lgd.storage import files


def run(
  config: config_dict.ConfigDict | None,
  workdir: str,
  *,
  method: str,
  seed: int,
  prompts: Sequence[str] = (),
) -> np.ndarray:
  """Samples, writes and returns them: `samples_per_class` of each condition."""
  workdir, config, spec = workdirs.open_trained(config, workdir)
  each = sampling.resolve.labels(config, spec, prompts)
  label = np.repeat(each, config.evaluation.samples_per_class, axis=0)
  omega, config = sampling.resolve.resolve_method(config, workdir, spec, method, label)
  params = workdirs.base_model.load_pair(workdir, config, spec)
  sample_fn, look_up = (
    sampling.sampler.make_sample_fn(config, spec),
    builders.captions.lookup(config),
  )
  numbers = np.arange(len(label))
  keys, cond = sampling.sampler.sample_keys(seed, numbers), look_up(label)
  x = builders.captions.decode(config)(sample_fn(params, omega, keys, cond))
  sampling.sampler.require_finite(x, f'--method={method}', seed, numbers)

  if jax.process_index() == 0:
    path = workdir.path / 'samples' / f'{sampling.resolve.file_stem(method, seed)}.npz'
    files.write_npz(path, {'x': x, 'label': label})
    columns = x.reshape(len(each), -1, *x.shape[1:])
    report.figures.sample_grid(path.with_suffix('.png'), {method: columns}, num_rows=10)
    logging.info('%d samples in %s', len(x), path)
  return x


if __name__ == '__main__':
  METHOD = flags.DEFINE_string(
    'method', 'unguided', 'unguided, constant:W, ..., or a learned weight.'
  )
  SEED = flags.DEFINE_integer('seed', 0, 'Of the samples.', 0, 2**31 - 1)
  PROMPT = flags.DEFINE_multi_string('prompt', [], 'What to draw; may be repeated.')
  app.main(
    lambda f: run(
      f.config,
      f.workdir,
      method=METHOD.value,
      seed=SEED.value,
      prompts=PROMPT.value,
    ),
    needs_config=False,
  )
