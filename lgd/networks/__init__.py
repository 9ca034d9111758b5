"""Networks (Flax linen): denoisers, classifiers, and published feature extractors."""

from lgd.networks import clip
from lgd.networks.classifier import Classifier
from lgd.networks.classifier import NoisyClassifier
from lgd.networks.clip import CLIP
from lgd.networks.clip import CLIP_B16
from lgd.networks.clip import CLIP_B32
from lgd.networks.clip import CLIP_L14
from lgd.networks.clip import clip_score
from lgd.networks.clip import ClipConfig
from lgd.networks.clip import contrastive_loss
from lgd.networks.inception import InceptionV3
from lgd.networks.mlp import ResidualMLP
from lgd.networks.mmdit import MMDiT
from lgd.networks.squeezenet import SqueezeNet
from lgd.networks.text import EmbeddingEncoder
from lgd.networks.text import EncodedText
from lgd.networks.text import TokenEncoder
from lgd.networks.unet import UNet

__all__ = (
  'CLIP',
  'CLIP_B16',
  'CLIP_B32',
  'CLIP_L14',
  'Classifier',
  'ClipConfig',
  'EmbeddingEncoder',
  'EncodedText',
  'InceptionV3',
  'MMDiT',
  'NoisyClassifier',
  'ResidualMLP',
  'SqueezeNet',
  'TokenEncoder',
  'UNet',
  'clip',
  'clip_score',
  'contrastive_loss',
)
