"""Every kind of path beside its formula in float64, for whoever must hold on all."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from lgd import schedules
from lgd import types


class Path(NamedTuple):
  """A schedule, and `t -> (alpha, sigma)` in float64."""

  schedule: types.Schedule
  scales: Callable[[float], tuple[float, float]]


def _cosine(t):
  return math.sin(0.5 * math.pi * (1.0 - t)), math.sin(0.5 * math.pi * t)


def _discrete(abar):
  """The angle arccos(sqrt(abar)) is linear between the levels (k + 1) / N."""
  levels = np.concatenate([[1.0], abar])
  knots = np.arange(len(levels)) / len(abar)

  def scales(t):
    angle = np.interp(t, knots, np.arctan2(np.sqrt(1.0 - levels), np.sqrt(levels)))
    to_go = np.interp(t, knots, np.arctan2(np.sqrt(levels), np.sqrt(1.0 - levels)))
    return math.sin(to_go), math.sin(angle)

  return scales


def _karras(data_std):
  """EDM's numbers: sigma .002 to 80, rho 7."""

  def scales(t):
    low, high = 0.002 ** (1 / 7), 80.0 ** (1 / 7)
    noise = (low + max(t - 0.01, 0.0) / 0.99 * (high - low)) ** 7
    if t < 0.01:
      noise = 0.002 * t / 0.01
    alpha = 1.0 / math.sqrt(1.0 + (noise / data_std) ** 2)
    return alpha, alpha * noise

  return scales


def abar_linear() -> np.ndarray:
  """Of DDPM, by its recursion."""
  abar, level = [], 1.0
  for k in range(1000):
    level *= 1.0 - (1e-4 + (0.02 - 1e-4) * k / 999)
    abar.append(level)
  return np.asarray(abar)


def abar_zero_snr(abar: np.ndarray) -> np.ndarray:
  """sqrt(abar) less its last, times what keeps its first (Lin et al. 2024)."""
  first, last = math.sqrt(abar[0]), math.sqrt(abar[-1])
  return np.asarray(
    [((math.sqrt(a) - last) * first / (first - last)) ** 2 for a in abar]
  )


PATHS = {
  'rectified_flow': Path(schedules.RectifiedFlow(), lambda t: (1.0 - t, t)),
  'noise_scale_2': Path(schedules.RectifiedFlow(2.0), lambda t: (1.0 - t, 2.0 * t)),
  'cosine': Path(schedules.Cosine(), _cosine),
  'ddpm': Path(schedules.DiscreteBetas.linear(), _discrete(abar_linear())),
  'zero_snr': Path(
    schedules.DiscreteBetas.linear().with_zero_terminal_snr(),
    _discrete(abar_zero_snr(abar_linear())),
  ),
  'karras': Path(schedules.Karras(), _karras(0.5)),
  'variance_exploding': Path(schedules.Karras(data_std=math.inf), _karras(math.inf)),
}
CASES = tuple((name, *path) for name, path in PATHS.items())
SCHEDULES = tuple(path.schedule for path in PATHS.values())
