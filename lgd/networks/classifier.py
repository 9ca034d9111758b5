"""Small classifiers: the judge of samples, and the source of features."""

import jax
from flax import linen as nn

from lgd.networks.embedding import fourier


class Classifier(nn.Module):
  """`x [batch, *data] -> (logits [batch, num_classes], features [batch, width])`.

  Attributes:
    num_classes: number of labels.
    width: of both hidden layers; features are the second one's activations.
  """

  num_classes: int
  width: int

  @nn.compact
  def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
    h = x.reshape(x.shape[0], -1)
    h = nn.silu(nn.Dense(self.width, name='hidden')(h))
    features = nn.silu(nn.Dense(self.width, name='features')(h))
    return nn.Dense(self.num_classes, name='logits')(features), features


class NoisyClassifier(nn.Module):
  """A classifier of noisy data that knows the time.

  `(xt [batch, *data], t [batch]) -> (logits [batch, num_classes], features [batch,
  width])`.

  Attributes:
    num_classes: number of labels.
    width: of both hidden layers; features are the second one's activations.
    num_frequencies: of the Fourier features of t, octaves from pi up.
  """

  num_classes: int
  width: int
  num_frequencies: int = 4

  @nn.compact
  def __call__(self, xt: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
    h = nn.Dense(self.width, name='hidden')(xt.reshape(xt.shape[0], -1))
    time = fourier(t, self.num_frequencies)
    h = nn.silu(h + nn.Dense(self.width, name='time')(time))
    features = nn.silu(nn.Dense(self.width, name='features')(h))
    return nn.Dense(self.num_classes, name='logits')(features), features
