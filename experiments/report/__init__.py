"""Rows in; results.json, results.md and figures out. Draws no samples."""

from experiments.report import class_metrics
from experiments.report import classes
from experiments.report import comparison
from experiments.report import figures
from experiments.report import prompts
from experiments.report import rows
from experiments.report import sweep
from experiments.report import timing
from experiments.report import verdicts

__all__ = (
  'class_metrics',
  'classes',
  'comparison',
  'figures',
  'prompts',
  'rows',
  'sweep',
  'timing',
  'verdicts',
)
