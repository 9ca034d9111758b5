"""Networks (Flax linen): denoisers, classifiers, and published feature extractors."""

from lgd.networks.classifier import Classifier
from lgd.networks.classifier import NoisyClassifier
from lgd.networks.inception import InceptionV3
from lgd.networks.mlp import ResidualMLP
from lgd.networks.mmdit import MMDiT
from lgd.networks.squeezenet import SqueezeNet
from lgd.networks.text import EncodedText
from lgd.networks.text import TokenEncoder
from lgd.networks.unet import UNet

__all__ = (
  'Classifier',
  'EncodedText',
  'InceptionV3',
  'MMDiT',
  'NoisyClassifier',
  'ResidualMLP',
  'SqueezeNet',
  'TokenEncoder',
  'UNet',
)
