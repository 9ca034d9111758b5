"""Networks (Flax linen): denoisers, classifiers, and published feature extractors."""

from lgd.networks.classifier import Classifier
from lgd.networks.classifier import NoisyClassifier
from lgd.networks.inception import InceptionV3
from lgd.networks.mlp import ResidualMLP
from lgd.networks.squeezenet import SqueezeNet
from lgd.networks.unet import UNet

__all__ = (
  'Classifier',
  'InceptionV3',
  'NoisyClassifier',
  'ResidualMLP',
  'SqueezeNet',
  'UNet',
)
