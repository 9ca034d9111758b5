"""What a config must satisfy before anything is computed."""

from experiments.validation.sections import require_learnable
from experiments.validation.sections import require_prompts
from experiments.validation.sections import validate

__all__ = ('require_learnable', 'require_prompts', 'validate')
