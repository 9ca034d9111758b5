"""By what samples of prompts are measured: a judge, a reward, SqueezeNet."""

from typing import Any
from typing import NamedTuple

import numpy as np
from ml_collections import config_dict

from experiments import clips
from experiments import identities
from experiments import workdir as workdir_lib
from lgd import checkpointing
from lgd import files
from lgd import metrics
from lgd.data import splits


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


def networks_identity(
  workdir: workdir_lib.Workdir, networks: Networks, squeezenet: str
) -> dict[str, Any]:
  """What decides the networks of `load_networks`."""
  identity = {'judge': identities.clip_identity(workdir, 'judge')}
  if networks.reward is not None:
    identity['reward'] = identities.clip_identity(workdir, 'reward')
  if squeezenet:
    identity['squeezenet'] = files.sha256(squeezenet)
  return identity


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
