"""A small classifier: the judge of samples, and the source of features."""

import jax
from flax import linen as nn


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
