"""FID, KID, Inception Score, precision and recall of one method's samples; CLIP score.

  python -m experiments.fid --workdir=runs/imagenet64 --method=self_consistency \
      --inception=inception.npz
  ... --method=real                # Of test data: the floor.
  ... --squeezenet=FILE.h5         # Proxies in its features; no published number.
  ... --clip=clip.npz              # CLIP score, and proxies in its embeddings.
  ... --reference=fid_stats.npz    # mu and sigma of others, in place of our data's.

Draws `config.fid.num_samples` images, rounds them to 8 bits, and keeps their features
in shards under fid/METHOD_seedN_NETWORK/: the same command again resumes. Reference
features, of the first `config.fid.num_reference` data of a split, are kept in the same
way. Adds a row to fid/results.json.

`clip_score` is the mean cosine of a sample with the caption that it was drawn for, of a
test image with its first caption, in [-1, 1]: published scores are 100 or 2.5 times it.
The embeddings of captions are those of `data.encoded_dir`, by the same weights.
"""

import json
import time
from typing import Any

import jax
import numpy as np
from absl import flags
from etils import epath
from ml_collections import config_dict

from experiments import app
from experiments import builders
from experiments import judges
from experiments import sampling
from experiments import workdirs
from lgd import errors
from lgd import metrics
from lgd import networks
from lgd.storage import files


def run(
  config: config_dict.ConfigDict | None,
  workdir: str,
  *,
  method: str,
  seed: int,
  network: judges.features.Network,
  reference: str = '',
) -> dict[str, Any]:
  """Samples, compares, writes and returns the row of a method."""
  session = workdirs.open_trained(config, workdir)
  workdir, config, _ = session
  encoder = None
  if network.name in judges.text_encoders.CLIP:
    encoder = judges.published_clip.encoder_of(config, network.path)
  dataset = builders.data.load(config)
  section, root = config.fid, workdir.path / 'fid'
  reference_x = builders.captions.pixels(config, dataset, section.split)
  num_reference = min(section.num_reference, len(reference_x))
  identity = {
    'base': workdirs.identity.base_identity(config),
    'network': network.name,
    'weights': network.sha256,
  }
  start = time.perf_counter()
  # A method or a reference that cannot be used is refused before anything is kept.
  if method == 'real':
    test = builders.captions.pixels(config, dataset, 'test')
    of_method = {'split': 'test'}
    num_samples = min(section.num_samples, len(test))
    images = sampling.images.real_images(test)
  else:
    num_samples = section.num_samples
    of_method = sampling.images.sampling_identity(session, method, seed)
    images = sampling.images.sampled_images(session, dataset, method, seed)
  if reference:
    real, gaussian = None, metrics.load_gaussian(reference)
    require_features_of(gaussian, network, reference)
  else:
    require_neighbors(
      {'samples': num_samples, f'data of fid.split={section.split!r}': num_reference}
    )
    real = judges.features.collect(
      root / f'reference_{section.split}_{network.name}',
      {**identity, 'num_samples': num_reference},
      network,
      sampling.images.real_images(reference_x),
      shard_size=section.shard_size,
    )
    gaussian = metrics.fit_gaussian(real.features)
  ours = judges.features.collect(
    root / f'{sampling.resolve.file_stem(method, seed)}_{network.name}',
    {**identity, **of_method, 'num_samples': num_samples},
    network,
    images,
    shard_size=section.shard_size,
  )
  measured = compare(ours, real, gaussian, network, section)
  if encoder:
    label = sampling.images.captions_of(config, dataset, method, seed)[:num_samples]
    text = builders.captions.lookup(config).pooled(label)[encoder]['pooled']
    score = networks.clip_score(ours.features, text.astype(np.float32))
    measured['clip_score'] = float(score.mean())
  row = {
    'method': method,
    'seed': seed,
    'num_samples': num_samples,
    'num_steps': config.evaluation.num_steps,
    'labels': section.labels,
    'reference': reference or f'{num_reference} of {section.split}',
    'seconds': round(time.perf_counter() - start),
    'metrics': measured,
  }
  if jax.process_index() == 0:
    add_row(root / 'results.json', row)
    print(json.dumps(row, indent=1))
  return row


def require_features_of(
  gaussian: metrics.Gaussian, network: judges.features.Network, reference: str
) -> None:
  """Refuses reference statistics of other features than the network's.

  Raises:
    errors.InputError: of another dimension.
  """
  image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.uint8)
  extractor = network.extractor
  features, _ = jax.eval_shape(extractor.apply, extractor.params, image)
  dim = features.shape[-1]
  if len(gaussian.mean) != dim:
    raise errors.InputError(
      f'--reference={reference}: is of {len(gaussian.mean)} features, and'
      f' {network.name} has {dim}; give statistics of its features.'
    )


def require_neighbors(sizes: dict[str, int]) -> None:
  """Refuses sets, by name, that are too small for precision and recall.

  Raises:
    errors.InputError: one has less than 4.
  """
  for name, num in sizes.items():
    if num < 4:
      raise errors.InputError(
        f'fid: there are {num} {name}, and the third neighbour needs at least 4; choose'
        ' another split, or more.'
      )


def compare(
  ours: metrics.Features,
  real: metrics.Features | None,
  gaussian: metrics.Gaussian,
  network: judges.features.Network,
  section: config_dict.ConfigDict,
) -> dict[str, float]:
  """All metrics; those that need features of data only where there are some."""
  suffix = '' if network.name == 'inception' else f'_{network.name}_proxy'
  results = {
    network.extractor.distance_name: metrics.frechet_distance(
      metrics.fit_gaussian(ours.features), gaussian
    )
  }
  if ours.log_prob is not None:
    num_splits = min(10, len(ours.log_prob))
    score = metrics.inception_score(ours.log_prob, num_splits)
    results |= {'inception_score': score.mean, 'inception_score_std': score.std}
  if real is not None:
    sizes = len(ours.features), len(real.features)
    kid = metrics.kernel_distance(
      ours.features, real.features, subset_size=min(section.kid_subset_size, *sizes)
    )
    n = min(section.num_neighbors_samples, *sizes)
    manifold = metrics.precision_recall(ours.features[:n], real.features[:n])
    results |= {
      f'kid{suffix}': kid.mean,
      f'kid_std{suffix}': kid.std,
      f'precision{suffix}': manifold.precision,
      f'recall{suffix}': manifold.recall,
    }
  return {name: float(value) for name, value in results.items()}


def add_row(path: epath.Path, row: dict[str, Any]) -> None:
  """Adds a row to a JSON list, in place of one of the same method, seed and network."""

  def key(row):
    return row['method'], row['seed'], sorted(row['metrics'])

  rows = read_rows(path) if path.exists() else []
  rows = [old for old in rows if key(old) != key(row)] + [row]
  files.write_json(path, [files.seal(row) for row in rows])


def read_rows(path: epath.Path) -> list[dict[str, Any]]:
  """The rows of a file, each sealed.

  Raises:
    errors.FileError: a damaged file, or one of something else.
  """
  try:
    rows = files.read_json(path)
    if not isinstance(rows, list):
      raise errors.FileError(f'{path}: is of something else.')
    return [files.unseal(row, f'{path}: row {i}') for i, row in enumerate(rows)]
  except errors.FileError as error:
    raise errors.FileError(
      f'{error} Remove it: features are kept, and the same command again makes a row.'
    ) from error


if __name__ == '__main__':
  METHOD = flags.DEFINE_string(
    'method', 'unguided', 'real, or as in experiments.sample.'
  )
  SEED = flags.DEFINE_integer('seed', 0, 'Of the samples.', 0, 2**31 - 1)
  INCEPTION = flags.DEFINE_string('inception', '', 'Weights, of convert_inception.')
  SQUEEZENET = flags.DEFINE_string('squeezenet', '', 'Weights, of Keras.')
  CLIP = flags.DEFINE_string('clip', '', 'Weights, of convert_clip.')
  SHA256 = flags.DEFINE_string('sha256', None, 'Of the weights, at least 8 digits.')
  REFERENCE = flags.DEFINE_string('reference', '', 'npz with mu and sigma.')
  app.main(
    lambda f: run(
      f.config,
      f.workdir,
      method=METHOD.value,
      seed=SEED.value,
      network=judges.features.load_network(
        INCEPTION.value, SQUEEZENET.value, CLIP.value, SHA256.value
      ),
      reference=REFERENCE.value,
    ),
    needs_config=False,
  )
