"""Networks (Flax linen) that predict x0, eps or velocity, and a classifier."""

from lgd.networks.classifier import Classifier
from lgd.networks.classifier import NoisyClassifier
from lgd.networks.mlp import ResidualMLP
from lgd.networks.unet import UNet

__all__ = ('Classifier', 'NoisyClassifier', 'ResidualMLP', 'UNet')
