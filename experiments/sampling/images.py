"""Images to compare: samples of a method, drawn by their numbers, or data.

Sample i has a key of its own, so that neither batches nor devices change it; what else
decides it is in `sampling_identity`.
"""

from typing import Any

import numpy as np
from ml_collections import config_dict

from experiments import builders
from experiments import judges
from experiments import workdirs
from experiments.sampling import resolve
from experiments.sampling import sampler
from lgd import guidance
from lgd import metrics
from lgd.data import splits
from lgd.training import checkpoints


def sampling_identity(
  session: workdirs.Session, method: str, seed: int
) -> dict[str, Any]:
  """The JSON that decides which images a method gives."""
  workdir, config, _ = session
  evaluation = config.evaluation
  identity = {
    'sampling_steps': evaluation.num_steps,  # The key num_steps is free elsewhere.
    't_max': evaluation.t_max,
    'churn': evaluation.churn,
    'solver': evaluation.solver,
    'tolerance': evaluation.tolerance,
    **workdirs.identity.clipping(config),
    'method': method,
    'seed': seed,
    'labels': config.fid.labels,
    'denoiser_step': checkpoints.latest_step(workdir.denoiser),
  }
  name = method.partition(':')[0]
  if name in builders.families.HAND_MADE:
    config = builders.families.with_rule(
      config, builders.families.rule_of(name, config)
    )
    identity['rule'] = workdirs.identity.rule_identity(config)
    identity['weak'] = workdirs.identity.weak_identity(config.rule)
  if method in workdir.guidance_names():
    path = workdir.guidance(method)
    stored = checkpoints.load_config(path)
    learned = ('seed', 'rule', 'guidance', 'statistics', 'trajectory', 'classifier')
    identity['guidance'] = {
      **workdirs.identity.reward_identity(
        workdirs.configs.config_from_json(stored['config'])
      ),
      **{key: stored['config'].get(key) for key in learned},
    }
    for model in ('weak', 'reward_model', 'prompt_model'):
      identity[f'guidance_{model}'] = stored.get(model)
    identity['guidance_step'] = checkpoints.latest_step(path)
    verdict = workdirs.verdicts.load(session, method)
    if verdict is not None:
      identity['kappa'] = verdict.kappa
  return identity


def sampled_images(
  session: workdirs.Session, dataset: splits.Dataset, method: str, seed: int
) -> judges.features.ImageFn:
  """Draws samples by their numbers, a batch at a time."""
  config, size = session.config, session.config.fid.batch_size
  labels = sample_labels(config, dataset, seed)
  omega, session = resolve.resolve_method(session, method, labels)
  of_rule = sampler.make_rule_sampler(
    session.config, session.spec, workdirs.base_model.load_pair(session)
  )
  shape = builders.captions.image_shape(config, session.spec.shape)

  def images(first, last):
    order = np.arange(first, last)
    if omega is not None:  # So that whole batches need no null branch.
      similar = guidance.similar_first(
        omega[order], tolerance=config.evaluation.tolerance
      )
      order = order[similar]
    x = np.empty((len(order), *shape), np.uint8)
    for i in range(0, len(order), size):
      index = order[i : i + size]
      drawn = of_rule.draw(
        None if omega is None else omega[index],
        labels[index],
        name=f'--method={method}',
        seed=seed,
        numbers=index,
        batch_size=size,
      )
      x[index - first] = metrics.to_uint8(drawn)
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
    return dataset.test.label  # By (1) of `data.prompts.captions`.
  return sample_labels(config, dataset, seed)


def real_images(x: Any) -> judges.features.ImageFn:
  """Images of a split, in its order."""
  return lambda first, last: metrics.to_uint8(x[np.arange(first, last)])
