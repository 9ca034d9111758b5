"""All properties of inputs by name: what is drawn, and what must hold of it."""

import functools
import json
import pathlib
from collections.abc import Callable
from typing import Any
from typing import NamedTuple

from hypothesis import strategies as st

from tests.endurance import config_inputs
from tests.endurance import flag_inputs
from tests.endurance import input_strategies
from tests.endurance import library_inputs


class Property(NamedTuple):
  """`check` takes what `cases` draws and raises if it does not hold of it.

  It returns 'refused', 'ran' or 'accepted', or None for 'ran'.
  """

  cases: st.SearchStrategy
  check: Callable[[Any], str | None]


def make(root: pathlib.Path) -> dict[str, Property]:
  """All, with work directories and files under `root`."""
  bench = config_inputs.Bench(root)
  readers = library_inputs.Readers(root)
  kinds = sorted(readers.contents)
  trees = input_strategies.json_trees.map(lambda tree: json.dumps(tree).encode())
  return {
    'configs': Property(
      _configs(), lambda case: config_inputs.check_config(bench, *case)
    ),
    'command_lines': Property(_configs(), _of_tuple(config_inputs.check_command_line)),
    'arguments': Property(
      input_strategies.arguments(),
      lambda args: flag_inputs.check_arguments(args, root / 'scratch'),
    ),
    'workdirs': Property(
      input_strategies.texts,
      lambda name: flag_inputs.check_workdir(bench, root / 'places', name),
    ),
    'methods': Property(
      input_strategies.methods,
      lambda method: flag_inputs.check_method(bench, method),
    ),
    'calls': Property(library_inputs.calls(), library_inputs.check_call),
    'transitions': Property(
      st.tuples(
        st.sampled_from(library_inputs.SCHEDULES),
        input_strategies.time_pairs(),
        st.floats(0.0, 1.0),
        st.lists(st.floats(-100.0, 100.0, width=32), min_size=2, max_size=2),
      ),
      _of_tuple(library_inputs.check_transition),
    ),
    'grids': Property(
      st.tuples(
        st.integers(-2, 8),
        st.tuples(st.floats(-0.5, 1.5), st.floats(-0.5, 1.5)),
        st.lists(st.floats(-10.0, 10.0), min_size=8, max_size=8),
      ),
      _of_tuple(library_inputs.check_grid),
    ),
    'moments': Property(
      st.tuples(
        st.integers(0, 99),
        st.integers(1, 4),
        st.integers(1, 4),
        st.integers(1, 3),
        st.one_of(st.floats(-1.0, 3.0), st.floats(0.1, 1.9)),
      ),
      _of_tuple(library_inputs.check_mmd),
    ),
    'files': Property(
      st.one_of(
        st.builds(
          lambda kind, damage: (kind, damage.apply(readers.contents[kind])),
          st.sampled_from(kinds),
          input_strategies.damages,
        ),
        st.tuples(st.sampled_from(kinds), st.binary(max_size=40)),
      ),
      _of_tuple(readers.check),
    ),
    'files_of_others': Property(
      st.one_of(
        *(
          st.tuples(st.just(kind), input_strategies.npz_of_others(names))
          for kind, names in library_inputs.ARRAYS.items()
        ),
        st.tuples(st.sampled_from(('statistics', 'metrics')), trees),
      ),
      _of_tuple(functools.partial(readers.check, damaged=False)),
    ),
  }


def _configs():
  return st.one_of(
    *(
      st.tuples(
        st.just(name), input_strategies.config_changes(config_inputs.tiny(name))
      )
      for name in config_inputs.CONFIGS
    )
  )


def _of_tuple(check):
  return lambda case: check(*case)
