"""What a command works on: a work directory, a config and the spec of its data.

A command opens its session once, by `workdirs.opening`, which checks that the three
belong together, and hands it on.
"""

from typing import NamedTuple

from ml_collections import config_dict

from experiments import builders
from experiments.workdirs import layout
from lgd.data import splits


class Session(NamedTuple):
  """Work directory, config and spec of a command that runs."""

  workdir: layout.Workdir
  config: config_dict.ConfigDict
  spec: splits.Spec

  def with_config(self, config: config_dict.ConfigDict) -> 'Session':
    """The session with another config of the same data."""
    return self._replace(config=config)

  def with_rule(self, rule: config_dict.ConfigDict) -> 'Session':
    """The session with another section `rule`."""
    return self.with_config(builders.families.with_rule(self.config, rule))
