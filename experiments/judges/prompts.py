"""Metrics for samples drawn from prompts: a judge, a reward, SqueezeNet."""

from typing import Any
from typing import NamedTuple

import numpy as np

from experiments import workdirs
from lgd import metrics
from lgd.data import splits
from lgd.networks import published
from lgd.storage import files
from lgd.training import checkpoints


class Networks(NamedTuple):
  """Networks that measure samples; all but the judge may be missing."""

  judge: workdirs.clip.Embedder
  reward: workdirs.clip.Embedder | None
  squeezenet: metrics.Extractor | None


def load_networks(session: workdirs.Session, squeezenet: str) -> Networks:
  """The networks of a work directory, and SqueezeNet if its weights are given."""
  judge = workdirs.clip.Embedder(workdirs.clip.load(session, 'judge'))
  reward = extractor = None
  if checkpoints.latest_step(session.workdir.clip('reward')) is not None:
    reward = workdirs.clip.Embedder(workdirs.clip.load(session, 'reward'))
  if squeezenet:
    extractor = metrics.squeezenet(published.squeezenet.load(squeezenet))
  return Networks(judge, reward, extractor)


def networks_identity(
  workdir: workdirs.Workdir, networks: Networks, squeezenet: str
) -> dict[str, Any]:
  """The JSON that decides the networks of `load_networks`."""
  identity = {'judge': workdirs.identity.clip_identity(workdir, 'judge')}
  if networks.reward is not None:
    identity['reward'] = workdirs.identity.clip_identity(workdir, 'reward')
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
