"""Writes a weight as a file that programs which sample elsewhere read.

  python -m experiments.export --workdir=runs/digits --method=trajectory_pixels \
      --format=json                       # omega of every class: the neutral file
  ... --format=list --label=3             # w of one class, one a step; or --label=mean
  ... --format=network                    # the network itself: NumPy arrays

Formats are json, list, maxdiffusion, comfyui, stable_diffusion_cpp, numpy and network;
docs/models.md says who reads which. A learned weight has the strength of its verdict.
"""

import hashlib
import json
from typing import Any

import jax
import numpy as np
from absl import flags
from absl import logging
from etils import epath
from ml_collections import config_dict

from experiments import app
from experiments import builders
from experiments import sampling
from experiments import workdirs
from lgd import conditions
from lgd import errors
from lgd import exchange
from lgd import guidance
from lgd.storage import files

NETWORK = 'network'
FORMAT_NAMES = (*exchange.FORMATS, NETWORK)
MEAN = 'mean'


def run(
  config: config_dict.ConfigDict | None,
  workdir: str,
  *,
  method: str,
  format_name: str,
  label: str | None = None,
  output: str | None = None,
) -> epath.Path:
  """Writes the file, and returns its path.

  Args:
    config: as in `sample`.
    workdir: of the weight.
    method: its name, or a given one such as 'interval:0.5,0.25,0.75'.
    format_name: one of `FORMAT_NAMES`.
    label: a class, or 'mean' for the mean over classes; None is all of them.
    output: the file; None is export/METHOD with the suffix of the format.

  Raises:
    errors.InputError: a weight, a label or a rule that the format cannot hold.
    errors.FileError: the file cannot be written.
  """
  session = workdirs.open_trained(config, workdir)
  stem = sampling.resolve.method_stem(method) + (f'_{label}' if label else '')
  if format_name == NETWORK:
    if label is not None:
      raise errors.InputError(
        f'--label={label}: a network is of all conditions; leave it, or take another'
        ' format.'
      )
    suffix, data = '.network.npz', None
    arrays = network_arrays(session, method)
  else:
    made_by = exchange.FORMATS[format_name]
    suffix, data = made_by.suffix, made_by.make(make_schedule(session, method, label))
  path = files.user_path(output or session.workdir.path / 'export' / f'{stem}{suffix}')
  files.require_writable(path.parent)
  if data is None:
    files.write_npz(path, arrays)
  else:
    files.write_whole(path, lambda f: f.write(data))
  logging.info('%s in %s', method, path)
  return path


def make_schedule(
  session: workdirs.Session, method: str, label: str | None
) -> exchange.WeightSchedule:
  """A weight of classes on the sampler's grid."""
  of = session.spec.conditions
  if not isinstance(of, conditions.Labels):
    raise errors.InputError(
      f'--format: conditions of {session.config.data.name} are no classes, so that no'
      f' list holds them all; use --format={NETWORK}.'
    )
  classes = np.arange(of.num_classes)
  omega, session = sampling.resolve.resolve_method(session, method, classes)
  _require_linear(method, session.config.rule)
  schedule = builders.models.schedule(session.config)
  times = np.float64(builders.models.time_grid(session.config))
  omega = np.zeros((len(classes), len(times) - 1)) if omega is None else omega
  logsnr = np.float64(schedule.logsnr(np.float32(times)))
  return exchange.WeightSchedule(
    times[:-1],
    times[1:],
    times[:-1],  # Networks that are trained here are told t.
    logsnr[:-1],
    logsnr[1:],
    _of_label(dict(zip(map(str, classes), np.float64(omega), strict=True)), label),
    {'sha256': sha256_of(workdirs.base_model.load_denoiser(session))},
    {'project': 'lgd', 'method': method, 'data': session.config.data.name},
  )


def _require_linear(method, rule):
  if rule.name != 'linear':
    raise errors.InputError(
      f'--method={method}: is of the rule {rule.name!r}, and samplers elsewhere guide'
      ' by x0_cond + omega (x0_cond - x0_null); give another.'
    )


def _of_label(omega, label):
  if label is None:
    return omega
  if label == MEAN:
    return {MEAN: np.mean(list(omega.values()), axis=0)}
  if label not in omega:
    raise errors.InputError(
      f'--label={label}: must be {MEAN} or a class, 0 to {len(omega) - 1}.'
    )
  return {label: omega[label]}


def network_arrays(session: workdirs.Session, name: str) -> dict[str, np.ndarray]:
  """The arrays of a learned network, and `meta`: all that its readers need."""
  learned = workdirs.weights.load(session, name)
  if learned.verdict is not None:
    logging.info('%s: %s', name, learned.verdict)
  _require_linear(name, learned.rule)
  net = learned.model.network
  kinds = {
    guidance.LabelEmbedding: 'labels',
    guidance.VectorEmbedding: 'vectors',
    guidance.PooledEmbedding: 'pooled',
  }
  embed = None if net is None else kinds.get(type(net.embed))
  if embed is None:
    raise errors.InputError(
      f'--method={name}: is a table, or reads tokens of this project; the format'
      f' {NETWORK} holds networks of labels, vectors and pooled embeddings.'
    )
  meta = {
    'format': 'lgd.network',
    'version': 1,
    'convention': exchange.weight_schedule.CONVENTION,
    'embed': embed,
    'depth': net.depth,
    'max_logsnr': net.max_logsnr,
    'kappa': learned.kappa,
    'conditions': _describe(learned.model.reads),
  }
  arrays = named_arrays(learned.params['params'])
  return {**arrays, 'meta': np.asarray(json.dumps(meta))}


def named_arrays(params: Any) -> dict[str, np.ndarray]:
  """'trunk_0/kernel' -> array, of all parameters in the order of the tree."""
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): np.asarray(leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params)
  }


def _describe(of: conditions.Conditions) -> Any:
  """What the network reads, for whoever calls it; encoders by their names."""
  if isinstance(of, conditions.Labels):
    return {'num_classes': of.num_classes}
  if isinstance(of, conditions.Embeddings):
    return {'pooled': [[name, dim] for name, dim, _ in sorted(of.encoders)]}
  return {}


def sha256_of(params: Any) -> str:
  """Of names, shapes and bytes of all parameters, in the order of their names."""
  digest = hashlib.sha256()
  for name, array in named_arrays(params).items():
    digest.update(f'{name} {array.dtype} {array.shape}'.encode())
    digest.update(np.ascontiguousarray(array).tobytes())
  return digest.hexdigest()


if __name__ == '__main__':
  METHOD = flags.DEFINE_string('method', None, 'A learned weight, or constant:W, ....')
  FORMAT = flags.DEFINE_enum('format', 'json', FORMAT_NAMES, 'Who is to read it.')
  LABEL = flags.DEFINE_string('label', None, 'A class, or mean; all if not given.')
  OUTPUT = flags.DEFINE_string(
    'output', None, 'The file; else export/METHOD in workdir.'
  )
  flags.mark_flag_as_required('method')
  app.main(
    lambda f: run(
      f.config,
      f.workdir,
      method=METHOD.value,
      format_name=FORMAT.value,
      label=LABEL.value,
      output=OUTPUT.value,
    ),
    needs_config=False,
  )
