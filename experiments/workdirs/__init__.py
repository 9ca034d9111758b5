"""What lies in a work directory, whose it is, and how to get it out or refuse it."""

from experiments.workdirs import base_model
from experiments.workdirs import clip
from experiments.workdirs import configs
from experiments.workdirs import identity
from experiments.workdirs import layout
from experiments.workdirs import opening
from experiments.workdirs import refuse
from experiments.workdirs import session
from experiments.workdirs import statistics
from experiments.workdirs import verdicts
from experiments.workdirs import weights
from experiments.workdirs.layout import Workdir
from experiments.workdirs.opening import open_new
from experiments.workdirs.opening import open_pieces
from experiments.workdirs.opening import open_to_learn
from experiments.workdirs.opening import open_trained
from experiments.workdirs.session import Session

__all__ = (
  'Session',
  'Workdir',
  'base_model',
  'clip',
  'configs',
  'identity',
  'layout',
  'open_new',
  'open_pieces',
  'open_to_learn',
  'open_trained',
  'opening',
  'refuse',
  'session',
  'statistics',
  'verdicts',
  'weights',
)
