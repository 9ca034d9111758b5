"""What the programs of others read of a `WeightSchedule`, each an entry of one table.

w = 1 + omega is 1 for the conditional model. Order and axis are the consumer's: most
count from the noise, stable-diffusion.cpp from the data.
"""

import io
import itertools
import json
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from lgd import errors
from lgd.exchange.weight_schedule import WeightSchedule


class Format(NamedTuple):
  """A file that some program reads.

  Attributes:
    suffix: of its name.
    make: from the schedule to what it holds.
  """

  suffix: str
  make: Callable[[WeightSchedule], bytes]


def _text(make):
  return lambda schedule: (make(schedule) + '\n').encode()


def as_list(schedule: WeightSchedule) -> str:
  """A JSON list of w, one a step, noisiest first.

  For diffusers' `guidance_schedule` and ComfyUI-KJNodes' ScheduledCFGGuidance.
  """
  return json.dumps((1.0 + schedule.single()).tolist())


def maxdiffusion(schedule: WeightSchedule) -> str:
  """`guidance_timesteps` and `guidance_scale` of maxdiffusion's configs of LTX.

  It takes the first entry whose timestep (1 = noise) is at most the sampler's, else the
  last: timesteps are put between those of the sampler, so that no rounding moves one.
  """
  middle = 0.5 * (schedule.t + schedule.s)
  return '\n'.join(
    [
      f'guidance_timesteps: {json.dumps(middle.tolist())}',
      f'guidance_scale: {json.dumps((1.0 + schedule.single()).tolist())}',
    ]
  )


def comfyui_curve(schedule: WeightSchedule) -> str:
  """A CURVE of ComfyUI: `[[x, y], ...]`, and the scale that y is a share of.

  x = i / (N - 1) of step i, noisiest first; y = w / scale in [0, 1].

  Raises:
    errors.InputError: a w below 0, or none above it.
  """
  w = 1.0 + schedule.single()
  if w.min() < 0.0 or w.max() == 0.0:
    raise errors.InputError(
      f'--format=comfyui: w goes from {w.min():.3g} to {w.max():.3g}; a curve is of w'
      ' that are at least 0.'
    )
  scale, last = float(w.max()), max(len(w) - 1, 1)
  points = [[i / last, float(v) / scale] for i, v in enumerate(w)]
  return json.dumps({'scale': scale, 'curve': points})


def stable_diffusion_cpp(schedule: WeightSchedule) -> str:
  """'3.0x3+7.0x45': runs of equal w, cleanest first, to four digits."""
  w = [f'{v:.4g}' for v in 1.0 + schedule.single()[::-1]]
  runs = [(value, len(list(group))) for value, group in itertools.groupby(w)]
  return '+'.join(f'{float(value)}x{num}' for value, num in runs)


def numpy_table(schedule: WeightSchedule) -> bytes:
  """An npz of omega `[conditions, N]`, their names, and the lists of the grid."""
  buffer = io.BytesIO()
  np.savez(
    buffer,
    omega=np.stack(list(schedule.omega.values())),
    conditions=np.asarray(list(schedule.omega)),
    **{name: getattr(schedule, name) for name in schedule._fields[:5]},
  )
  return buffer.getvalue()


FORMATS = {
  'json': Format('.json', _text(lambda s: json.dumps(s.to_json(), indent=1))),
  'list': Format('.list.json', _text(as_list)),
  'maxdiffusion': Format('.yml', _text(maxdiffusion)),
  'comfyui': Format('.curve.json', _text(comfyui_curve)),
  'stable_diffusion_cpp': Format('.txt', _text(stable_diffusion_cpp)),
  'numpy': Format('.npz', numpy_table),
}
