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
  session = workdirs.open_trained(config, workdir)
  each = sampling.resolve.labels(session, prompts)
  label = np.repeat(each, session.config.evaluation.samples_per_class, axis=0)
  omega, session = sampling.resolve.resolve_method(session, method, label)
  workdir, config, spec = session
  of_rule = sampling.sampler.make_rule_sampler(
    config, spec, workdirs.base_model.load_pair(session)
  )
  x = of_rule.draw(omega, label, name=f'--method={method}', seed=seed)
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
