"""FID, KID, Inception Score, precision and recall of one method's samples; CLIP score.

  python -m experiments.fid --workdir=runs/imagenet64 --method=self_consistency \
      --inception=inception.npz
  ... --method=real                # Of test data: the floor.
  ... --squeezenet=FILE.h5         # Proxies in its features; no published number.
  ... --clip=clip.npz              # CLIP score, and proxies in its embeddings.
  ... --reference=fid_stats.npz    # mu and sigma of others, in place of our data's.

Draws `config.fid.num_samples` images, rounds them to 8 bits, and keeps their features
in shards under fid/METHOD_seedN_NETWORK/: the same command again resumes. Sample i has
a key of its own, so that neither batches nor devices change it. Reference features, of
the first `config.fid.num_reference` data of a split, are kept in the same way. Adds a
row to fid/results.json.

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

from experiments import datasets
from experiments import encoded
from experiments import feature_files
from experiments import identities
from experiments import launch
from experiments import methods
from experiments import published_clip
from experiments import refusals
from experiments import restoring
from experiments import sample
from experiments import sampler
from experiments import stored_configs
from experiments import text_encoders
from experiments import workdir as workdir_lib
from lgd import arrays
from lgd import checkpointing
from lgd import files
from lgd import guidance
from lgd import metrics
from lgd import networks
from lgd import reporting
from lgd.data import splits


def run(
  config: config_dict.ConfigDict | None,
  workdir: str,
  *,
  method: str,
  seed: int,
  network: feature_files.Network,
  reference: str = '',
) -> dict[str, Any]:
  """Samples, compares, writes and returns the row of a method."""
  workdir = workdir_lib.Workdir(workdir)
  config = restoring.resolve_config(workdir, config)
  refusals.require_encoded(workdir.denoiser, config)  # Before features are kept.
  encoder = None
  if network.name in text_encoders.CLIP:
    encoder = published_clip.encoder_of(config, network.path)
  dataset = datasets.load(config)
  section, root = config.fid, workdir.path / 'fid'
  reference_x = encoded.pixels(config, dataset, section.split)
  num_reference = min(section.num_reference, len(reference_x))
  identity = {
    'base': identities.base_identity(config),
    'network': network.name,
    'weights': network.sha256,
  }
  start = time.perf_counter()
  real = None
  if not reference:
    real = feature_files.collect(
      root / f'reference_{section.split}_{network.name}',
      {**identity, 'num_samples': num_reference},
      network,
      real_images(reference_x),
      shard_size=section.shard_size,
    )
  if method == 'real':
    test, identity['split'] = encoded.pixels(config, dataset, 'test'), 'test'
    num_samples, images = min(section.num_samples, len(test)), real_images(test)
  else:
    num_samples = section.num_samples
    identity |= sampling_identity(config, workdir, method, seed)
    images = sampled_images(config, workdir, dataset, method, seed)
  ours = feature_files.collect(
    root / f'{sample.file_stem(method, seed)}_{network.name}',
    {**identity, 'num_samples': num_samples},
    network,
    images,
    shard_size=section.shard_size,
  )
  measured = compare(ours, real, reference, network, section)
  if encoder:
    label = captions_of(config, dataset, method, seed)[:num_samples]
    text = encoded.lookup(config).pooled(label)[encoder]['pooled']
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


def sampling_identity(
  config: config_dict.ConfigDict, workdir: workdir_lib.Workdir, method: str, seed: int
) -> dict[str, Any]:
  """What decides which images a method gives."""
  evaluation = config.evaluation
  identity = {
    'sampling_steps': evaluation.num_steps,  # The key num_steps is free elsewhere.
    't_max': evaluation.t_max,
    'churn': evaluation.churn,
    'order': evaluation.order,
    'tolerance': evaluation.tolerance,
    'method': method,
    'seed': seed,
    'labels': config.fid.labels,
    'denoiser_step': checkpointing.latest_step(workdir.denoiser),
  }
  name = method.partition(':')[0]
  if name in methods.FAMILIES:
    config = methods.with_rule(config, methods.rule_of(name, config))
    identity['rule'] = identities.rule_identity(config)
    identity['weak'] = identities.weak_identity(config.rule)
  if method in workdir.guidance_names():
    path = workdir.guidance(method)
    stored = checkpointing.load_config(path)
    learned = ('seed', 'rule', 'guidance', 'statistics', 'trajectory')
    identity['guidance'] = {
      **{key: stored['config'].get(key) for key in learned},
      **identities.reward_identity(stored_configs.config_from_json(stored['config'])),
    }
    for model in ('weak', 'reward_model', 'prompt_model'):
      identity[f'guidance_{model}'] = stored.get(model)
    identity['guidance_step'] = checkpointing.latest_step(path)
  return identity


def sampled_images(
  config: config_dict.ConfigDict,
  workdir: workdir_lib.Workdir,
  dataset: splits.Dataset,
  method: str,
  seed: int,
) -> feature_files.ImageFn:
  """Draws samples by their numbers, a batch at a time."""
  spec, size = dataset.spec, config.fid.batch_size
  labels = sample_labels(config, dataset, seed)
  omega, config = sample.resolve_method(config, workdir, spec, method, labels)
  params = restoring.load_pair(workdir, config, spec)
  sample_fn, look_up = sampler.make_sample_fn(config, spec), encoded.lookup(config)
  decode = encoded.decode(config)

  def images(first, last):
    order = np.arange(first, last)
    if omega is not None:  # So that whole batches need no null branch.
      similar = guidance.similar_first(
        omega[order], tolerance=config.evaluation.tolerance
      )
      order = order[similar]
    x = np.empty((len(order), *encoded.image_shape(config, spec.shape)), np.uint8)
    for batch in arrays.whole_batches(len(order), size):
      index = order[batch]
      rows = None if omega is None else omega[index]
      keys, cond = sampler.sample_keys(seed, index), look_up(labels[index])
      part = index[: len(order) - batch[0]]  # The rest fills the batch.
      samples = decode(sample_fn(params, rows, keys, cond)[: len(part)])
      if not np.all(np.isfinite(samples)):
        raise reporting.NonFiniteError(
          f'--method={method}: samples {first} to {last} are not all finite; take a'
          ' smaller weight.'
        )
      x[part - first] = metrics.to_uint8(samples)
    return x

  return images


def sample_labels(
  config: config_dict.ConfigDict, dataset: splits.Dataset, seed: int
) -> np.ndarray:
  """Labels of all samples: every class in turn, as often as in the data, or held out.

  Those of test data are drawn without replacement, and all again where there are fewer.
  """
  num_samples, num_classes = config.fid.num_samples, dataset.num_classes
  if config.fid.labels == 'balanced':
    return np.arange(num_samples, dtype=np.int32) % num_classes
  rng = np.random.default_rng((seed, num_samples))
  if config.fid.labels == 'test':
    label = dataset.test.label
    return label[np.resize(rng.permutation(len(label)), num_samples)]
  return rng.choice(dataset.train.label, num_samples)


def captions_of(
  config: config_dict.ConfigDict, dataset: splits.Dataset, method: str, seed: int
) -> np.ndarray:
  """Numbers of the captions of all samples, or of test images: the first of each."""
  if method == 'real':
    return dataset.test.label  # By (1) of `data.captions`.
  return sample_labels(config, dataset, seed)


def real_images(x: Any) -> feature_files.ImageFn:
  """Images of a split, in its order."""
  return lambda first, last: metrics.to_uint8(x[np.arange(first, last)])


def compare(
  ours: metrics.Features,
  real: metrics.Features | None,
  reference: str,
  network: feature_files.Network,
  section: config_dict.ConfigDict,
) -> dict[str, float]:
  """All metrics; those that need features of data only where there are some."""
  suffix = '' if network.name == 'inception' else f'_{network.name}_proxy'
  gaussian = (
    metrics.load_gaussian(reference)
    if real is None
    else metrics.fit_gaussian(real.features)
  )
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

  rows = json.loads(path.read_text()) if path.exists() else []
  rows = [old for old in rows if key(old) != key(row)] + [row]
  files.write_json(path, rows)


if __name__ == '__main__':
  METHOD = flags.DEFINE_string(
    'method', 'unguided', 'real, or as of experiments.sample.'
  )
  SEED = flags.DEFINE_integer('seed', 0, 'Of the samples.', lower_bound=0)
  INCEPTION = flags.DEFINE_string('inception', '', 'Weights, of convert_inception.')
  SQUEEZENET = flags.DEFINE_string('squeezenet', '', 'Weights, of Keras.')
  CLIP = flags.DEFINE_string('clip', '', 'Weights, of convert_clip.')
  SHA256 = flags.DEFINE_string('sha256', None, 'Of the weights, at least 8 digits.')
  REFERENCE = flags.DEFINE_string('reference', '', 'npz with mu and sigma.')
  launch.main(
    lambda f: run(
      f.config,
      f.workdir,
      method=METHOD.value,
      seed=SEED.value,
      network=feature_files.load_network(
        INCEPTION.value, SQUEEZENET.value, CLIP.value, SHA256.value
      ),
      reference=REFERENCE.value,
    ),
    needs_config=False,
  )
