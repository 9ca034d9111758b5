"""How a command starts, stops, fails and goes on; knows no key of a config."""

from experiments.app import command_line
from experiments.app import launch
from experiments.app import locking
from experiments.app import pieces
from experiments.app import preemption
from experiments.app import shard_loop
from experiments.app.launch import main
from experiments.app.pieces import Piece
from experiments.app.pieces import Pieces

__all__ = (
  'Piece',
  'Pieces',
  'command_line',
  'launch',
  'locking',
  'main',
  'pieces',
  'preemption',
  'shard_loop',
)
