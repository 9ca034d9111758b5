"""Strategies that draw wrong and odd inputs, for `input_properties`.

Values of a config are drawn by the type of the one they replace, half of them from the
edges of that type. Text may be any Unicode, and what Python makes of bytes that are
none (`\udcff`), but no NUL, which no command line can hold.
"""

import io
from typing import Any
from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st
from ml_collections import config_dict

from experiments import builders
from experiments.validation import sections

_INTS = (0, -1, 1, 2, 3, 4, 8, 16, 10**9, 2**31 - 1, 2**31, -(2**31), 2**63, 10**30)
_FLOATS = (
    0.0, -0.0, -1.0, 1.0, 2.0, 0.5, 0.99, 1e-38, 1e-45, 1e-300, 1e38, 1e39, 1e300,
    float('inf'), -float('inf'), float('nan'),
)  # fmt: skip
_TEXTS = (
    '', ' ', 'unknown', '.', '~', '..', '../../x', '/etc/passwd', '/etc/passwd/x',
    'a\nb', '\x1b[31m', 'a:b', 'os:getcwd', '...:a', 'gs://bucket/x', 'x' * 5000,
    '\udcff', 'None', 'nan',
)  # fmt: skip
_TUPLES = (
    (), (0,), (-1,), (0.0,), (1e-38,), (1e39,), (float('nan'),), (float('inf'),),
    (10**30,), ('a',), ('a', 'a'), ('a', 1), (None,), (True,), ([],), ({},), ((1,),),
    (b'a',), (1, 1), (2, 1), (1, 2), (0.25, 0.5), (0.5, 0.25), (0.0, 1.0), (8, 8, 4),
)  # fmt: skip
# Of keys that take one of a few names: some that are among them.
_NAMES = {**sections.names(), 'reward.name': builders.models.REWARDS}

texts = st.one_of(
  st.sampled_from(_TEXTS), st.text(st.characters(exclude_characters='\0'))
)


def leaves(config: config_dict.ConfigDict, prefix: str = '') -> dict[str, Any]:
  """Every value by its key, as in 'guidance.beta'."""
  found = {}
  for name, value in config.items():
    if isinstance(value, config_dict.ConfigDict):
      found |= leaves(value, f'{prefix}{name}.')
    else:
      found[f'{prefix}{name}'] = value
  return found


def values(key: str, default: Any) -> st.SearchStrategy:
  """Values, most of them of the type of `default`."""
  match default:
    case bool():
      return st.booleans()
    case int():
      return st.one_of(st.sampled_from(_INTS), st.integers(-2, 12))
    case float():
      return st.one_of(
        st.sampled_from(_FLOATS), st.floats(0.0, 1.0), st.floats(), st.floats(0.0, 4.0)
      )
    case str():
      names = _NAMES.get(key)
      return st.one_of(st.sampled_from(tuple(names)), texts) if names else texts
  numbers = st.one_of(st.integers(-1, 4), st.floats(0.0, 2.0))
  return st.one_of(st.sampled_from(_TUPLES), st.lists(numbers, max_size=4).map(tuple))


@st.composite
def config_changes(draw, base: config_dict.ConfigDict) -> dict[str, Any]:
  """One to three keys with other values."""
  defaults = leaves(base)
  keys = draw(
    st.lists(st.sampled_from(sorted(defaults)), min_size=1, max_size=3, unique=True)
  )
  return {key: draw(values(key, defaults[key])) for key in keys}


def on_command_line(value: Any) -> str:
  """As a user writes it after `--config.key=`."""
  return value if isinstance(value, str) else repr(value)


@st.composite
def arguments(draw) -> list[str]:
  """Flags of a command line that are mistaken in some way, beside a good config."""
  flag = st.one_of(
    st.builds('--config.{}={}'.format, texts, texts),
    st.builds('--{}={}'.format, texts, texts),
    st.builds('--workdir={}'.format, texts),
    st.builds('--{}'.format, texts),
    st.builds('--flagfile={}'.format, texts),
    st.builds('--config={}'.format, texts),
    st.builds('--config=configs/digits.py:{}'.format, texts),
    st.builds('--num_processes={}'.format, texts),
    st.builds('--config.seed={}'.format, texts),
    st.builds('--config.sweep.beta={}'.format, texts),
    texts,
  )
  return draw(st.lists(flag, min_size=1, max_size=3))


# A --method.
methods = st.builds(
  '{}{}'.format,
  st.sampled_from(
    ('', '../', 'unguided', 'constant:', 'interval:0.5,', 'stein:', 'beta_cfg:1', ':')
  ),
  st.one_of(st.just(''), texts, st.floats().map(repr), st.floats(0.0, 1.0).map(repr)),
)


class Damage(NamedTuple):
  """What happens to the bytes of a file: `apply` is a function of them alone."""

  kind: str  # 'cut', 'flip', 'replace', 'insert' or 'random'
  where: float  # In [0, 1) of its length.
  data: bytes

  def apply(self, content: bytes) -> bytes:
    at = int(self.where * len(content))
    match self.kind:
      case 'cut':
        return content[:at]
      case 'flip':
        bit = 1 << (self.data or b'\0')[0] % 8
        return content[:at] + bytes([content[at] ^ bit]) + content[at + 1 :]
      case 'replace':
        return content[:at] + self.data + content[at + len(self.data) :]
      case 'insert':
        return content[:at] + self.data + content[at:]
    return self.data


damages = st.builds(
  Damage,
  st.sampled_from(('cut', 'flip', 'replace', 'insert', 'random')),
  st.floats(0.0, 1.0, exclude_max=True),
  st.binary(max_size=64),
)

_NUMBERS = ('float16', 'float32', 'float64', 'int32', 'uint8', 'bool', 'complex64')
_array_shapes = st.lists(st.integers(0, 5), max_size=4).map(tuple)


@st.composite
def arrays(draw, dtypes: tuple[str, ...] = _NUMBERS) -> np.ndarray:
  """Small arrays of several dtypes, with values that are not finite."""
  shape, dtype = draw(_array_shapes), draw(st.sampled_from(dtypes))
  rng = np.random.default_rng(draw(st.integers(0, 99)))
  x = rng.normal(size=shape)
  if x.size and draw(st.booleans()):
    x.flat[0] = draw(st.sampled_from((float('nan'), float('inf'), 0.0)))
  with np.errstate(invalid='ignore'):
    return x.astype(dtype)


@st.composite
def npz_of_others(draw, names: tuple[str, ...]) -> bytes:
  """A sound npz whose arrays have these names, or not, and are of any kind."""
  others = st.sampled_from((*names, 'x', 'mean/y'))
  of_any = arrays(dtypes=(*_NUMBERS, 'U3', 'S2', 'datetime64[s]'))
  chosen = draw(st.dictionaries(others, of_any, max_size=len(names) + 1))
  buffer = io.BytesIO()
  np.savez(buffer, **chosen)
  return buffer.getvalue()


json_trees = st.recursive(
  st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
  lambda node: (
    st.lists(node, max_size=3)
    | st.dictionaries(
      st.sampled_from(('base', 'denoiser_step', 'statistics', 'stage', 'step')),
      node,
      max_size=4,
    )
  ),
  max_leaves=8,
)

# 0 <= s < t <= 1 as float32 has them, of both ends and close together.
_time = st.floats(0.0, 1.0, width=32)


@st.composite
def time_pairs(draw) -> tuple[float, float]:
  """`(s, t)`, s < t."""
  s, t = sorted((draw(_time), draw(_time)))
  if s == t:
    s, t = 0.0, t or 1.0
  return s, t
