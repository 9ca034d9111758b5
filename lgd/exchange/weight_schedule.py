"""The neutral file of weights on a sampler's grid: `lgd.schedule`, JSON.

  (1)  x0_guided = x0_cond + omega (x0_cond - x0_null),  w = 1 + omega

All lists are of the N transitions of one sampler, noisiest first: omega depends on both
ends of a step, so a file belongs to its number of steps. t and s are what they go from
and to (1 noise, 0 data), `told` is what the model is told at t, and logsnr, log
alpha^2 / sigma^2, is the axis that survives a change of path or of shift; null where it
is infinite. docs/schedule.schema.json is its schema.
"""

import math
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple

import numpy as np

from lgd import errors

FORMAT, VERSION = 'lgd.schedule', 1
CONVENTION = 'x0_guided = x0_cond + omega (x0_cond - x0_null); w = 1 + omega'


class WeightSchedule(NamedTuple):
  """Weights of some conditions on one grid.

  Attributes:
    t: `[N]` decreasing times that steps go from.
    s: `[N]`, that they go to.
    told: `[N]`, what the model is told at t.
    logsnr_t: `[N]`.
    logsnr_s: `[N]`.
    omega: name of a condition -> `[N]`.
    base: what identifies the base model, such as the sha256 of its parameters; JSON.
    source: where the weights come from; JSON.
  """

  t: np.ndarray
  s: np.ndarray
  told: np.ndarray
  logsnr_t: np.ndarray
  logsnr_s: np.ndarray
  omega: Mapping[str, np.ndarray]
  base: Mapping[str, Any]
  source: Mapping[str, Any]

  def single(self) -> np.ndarray:
    """omega `[N]` of the only condition.

    Raises:
      errors.InputError: there are several.
    """
    if len(self.omega) != 1:
      raise errors.InputError(
        f'a list of one weight a step cannot hold {len(self.omega)} conditions; take'
        ' one by --label=K, or their mean by --label=mean.'
      )
    return next(iter(self.omega.values()))

  def to_json(self) -> dict[str, Any]:
    """The file, as a tree of JSON.

    Raises:
      ValueError: weights that are not finite.
    """
    lists = {name: _floats(getattr(self, name)) for name in self._fields[:5]}
    for name, values in self.omega.items():
      if not np.isfinite(values).all():
        raise ValueError(f'omega of {name} is not finite.')
    return {
      'format': FORMAT,
      'version': VERSION,
      'convention': CONVENTION,
      **lists,
      'omega': {name: _floats(values) for name, values in self.omega.items()},
      'base': dict(self.base),
      'source': dict(self.source),
    }

  @classmethod
  def from_json(cls, tree: Any, name: str) -> 'WeightSchedule':
    """The inverse of `to_json`.

    Args:
      tree: of JSON.
      name: of the file, for messages.

    Raises:
      errors.InputError: another format or version, lists that are missing or of another
        length, times that do not decrease, or weights that are no numbers.
    """
    tree = tree if isinstance(tree, dict) else {}
    form, version = tree.get('format'), tree.get('version')
    if (form, version) != (FORMAT, VERSION):
      raise errors.InputError(
        f'{name}: format {form!r} version {version!r}; must be {FORMAT!r} version'
        f' {VERSION}, as experiments.export writes it.'
      )
    try:
      lists = {key: _array(tree[key]) for key in cls._fields[:3]}
      # The noise end of a path has no signal, the data end no noise.
      lists['logsnr_t'] = _array(tree['logsnr_t'], null=-np.inf)
      lists['logsnr_s'] = _array(tree['logsnr_s'], null=np.inf)
      omega = {key: _array(values) for key, values in tree['omega'].items()}
      rest = {key: dict(tree[key]) for key in ('base', 'source')}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
      raise errors.InputError(
        f'{name}: {error!r}; must have lists of numbers {", ".join(cls._fields[:5])},'
        ' and one for each condition of omega; export it again.'
      ) from error
    num = len(lists['t'])
    for key, values in {**lists, **omega}.items():
      if values.shape != (num,):
        raise errors.InputError(
          f'{name}: {key} has {values.size} numbers and t {num}; export it again.'
        )
    for key, values in {**{k: lists[k] for k in cls._fields[:3]}, **omega}.items():
      bad = ~np.isfinite(values)
      if bad.any():
        raise errors.InputError(
          f'{name}: {key}[{np.argmax(bad)}] is no number; export it again.'
        )
    if num == 0 or not omega:
      raise errors.InputError(f'{name}: has no step, or no condition; export it again.')
    ends = np.append(lists['t'], lists['s'][-1:])
    falls = np.diff(ends) < 0.0
    if not falls.all():
      i = int(np.argmin(falls)) + 1
      raise errors.InputError(
        f'{name}: t[{i}] must be below t[{i - 1}]: noisiest first, no time twice.'
      )
    joins = np.abs(lists['s'][:-1] - lists['t'][1:]) < 1e-6
    if not joins.all() or ends[0] > 1.0 or ends[-1] < 0.0:
      raise errors.InputError(
        f'{name}: times must be in [0, 1], and each s the next t; export it again.'
      )
    return cls(**lists, omega=omega, **rest)


def _floats(values):
  """A list of JSON, which has no infinity: null."""
  return [float(v) if math.isfinite(v) else None for v in np.asarray(values)]


def _array(values, null=np.nan):
  if not isinstance(values, list):
    raise TypeError(f'{values!r} is no list')
  return np.asarray([null if v is None else float(v) for v in values])
