"""Networks that score samples: trained here in seconds, or published."""

from experiments.judges import classifiers
from experiments.judges import features
from experiments.judges import prompts
from experiments.judges import published_clip
from experiments.judges import rewards
from experiments.judges import text_encoders

__all__ = (
  'classifiers',
  'features',
  'prompts',
  'published_clip',
  'rewards',
  'text_encoders',
)
