"""Noise schedules: the paths from data to noise, and what models are told of the time.

  (1)  x_t = alpha(t) x_0 + sigma(t) eps,  eps ~ N(0, I),  t in [0, 1]
  (2)  logsnr(t) = log alpha(t)^2 / sigma(t)^2, decreasing in t
  (3)  alpha(0) = 1, sigma(0) = 0

alpha is the scale of the signal (not the alpha-bar of DDPM, which is its square). Two
paths with the same range of (2) are one process, seen at another scale and pace:
x_t / alpha(t) = x_0 + noise(t) eps with noise = sigma / alpha. A schedule is hashable,
so it can be a static argument of `jit`.

A model that others trained is told something else than t: `to_model_time` says what,
`from_model_time` inverts it, and `grid` are the times of the sampler that such models
come with. `to_model_time` may be traced; of NumPy's arrays all three are in float64.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lgd import checks


def _floats(t):
  """JAX's arrays as they are, all else in float64."""
  return t if isinstance(t, jax.Array) else np.asarray(t, np.float64)


@dataclasses.dataclass(frozen=True)
class RectifiedFlow:
  """alpha = 1 - t, sigma = noise_scale t (Liu et al. 2022; Lipman et al. 2022).

  Attributes:
    noise_scale: standard deviation of x_1; above 1 for large images in pixels (JiT).
    timestep_scale: the model is told timestep_scale t; 1000 for SD3 and its kin.
  """

  noise_scale: float = 1.0
  timestep_scale: float = 1.0

  def __post_init__(self):
    checks.require(
      'above 0',
      lambda v: v > 0.0,
      noise_scale=self.noise_scale,
      timestep_scale=self.timestep_scale,
    )

  def alpha(self, t: jax.Array) -> jax.Array:
    return 1.0 - jnp.asarray(t)

  def sigma(self, t: jax.Array) -> jax.Array:
    return self.noise_scale * jnp.asarray(t)

  def logsnr(self, t: jax.Array) -> jax.Array:
    """`log alpha^2 / sigma^2`: +inf at t = 0, -inf at t = 1."""
    return 2.0 * (jnp.log1p(-t) - jnp.log(t) - math.log(self.noise_scale))

  def to_model_time(self, t: jax.typing.ArrayLike) -> jax.typing.ArrayLike:
    """`timestep_scale t`."""
    return self.timestep_scale * _floats(t)

  def from_model_time(self, timestep: np.ndarray) -> np.ndarray:
    """t, of what the model is told."""
    return np.asarray(timestep, np.float64) / self.timestep_scale

  def grid(self, num_steps: int, *, shift: float = 1.0) -> np.ndarray:
    """`[num_steps + 1]` times shift u / (1 + (shift - 1) u), u equidistant.

    Above 1 `shift` moves them towards the noise (Esser et al. 2024, Eq. 23).
    """
    u = np.linspace(1.0, 0.0, num_steps + 1)
    return shift * u / (1.0 + (shift - 1.0) * u)


def resolution_shift(
  num_tokens: int,
  *,
  tokens: tuple[int, int] = (256, 4096),
  log_shifts: tuple[float, float] = (0.5, 1.15),
) -> float:
  """The shift of a grid that depends on the size of an image, as for Flux.

  Args:
    num_tokens: of the image, as the transformer reads it.
    tokens: two numbers of tokens.
    log_shifts: the logarithm of the shift at each; linear in between and beyond.
  """
  slope = (log_shifts[1] - log_shifts[0]) / (tokens[1] - tokens[0])
  return math.exp(log_shifts[0] + slope * (num_tokens - tokens[0]))


@dataclasses.dataclass(frozen=True)
class Cosine:
  """alpha = cos(pi t / 2), sigma = sin(pi t / 2): variance preserving.

  The unshifted cosine schedule of Salimans and Ho (2022). The model is told t.
  """

  def alpha(self, t: jax.Array) -> jax.Array:
    # sin(pi (1 - t) / 2) is cos(pi t / 2), and exactly 0 at t = 1 in float32.
    return jnp.sin(0.5 * jnp.pi * (1.0 - t))

  def sigma(self, t: jax.Array) -> jax.Array:
    return jnp.sin(0.5 * jnp.pi * t)

  def logsnr(self, t: jax.Array) -> jax.Array:
    """`log alpha^2 / sigma^2`: +inf at t = 0, -inf at t = 1."""
    return 2.0 * (jnp.log(self.alpha(t)) - jnp.log(self.sigma(t)))

  def to_model_time(self, t: jax.typing.ArrayLike) -> jax.typing.ArrayLike:
    """t itself."""
    return _floats(t)

  from_model_time = to_model_time

  def grid(self, num_steps: int) -> np.ndarray:
    """`[num_steps + 1]` equidistant times."""
    return np.linspace(1.0, 0.0, num_steps + 1)


@dataclasses.dataclass(frozen=True)
class DiscreteBetas:
  """The N noise levels of DDPM, DiT and Stable Diffusion (Ho et al. 2020).

    (4)  abar_k = prod_{j <= k} (1 - beta_j),  alpha^2 = abar_k, sigma^2 = 1 - abar_k
         at t = (k + 1) / N,  k = 0..N-1

  In between the angle whose tangent is sigma / alpha is linear in t: (4) is exact, and
  so are both ends, pure noise (abar_{N-1} = 0, zero terminal SNR) among them. The model
  is told the index k.

  Attributes:
    alphas_cumprod: abar, of k = 0..N-1.

  Raises:
    ValueError: abar that do not fall, or are outside [0, 1).
  """

  alphas_cumprod: tuple[float, ...]

  def __post_init__(self):
    levels = np.asarray([1.0, *self.alphas_cumprod], np.float64)
    if len(levels) < 2 or not (np.all(np.diff(levels) < 0.0) and levels[-1] >= 0.0):
      raise ValueError('alphas_cumprod: must fall, from below 1 to 0 at least.')

  @classmethod
  def of(cls, alphas_cumprod: Sequence[float]) -> 'DiscreteBetas':
    """From an array of a library, such as `scheduler.alphas_cumprod`."""
    return cls(tuple(np.asarray(alphas_cumprod, np.float64).tolist()))

  @classmethod
  def linear(
    cls, num: int = 1000, first: float = 1e-4, last: float = 0.02
  ) -> 'DiscreteBetas':
    """beta is linear in k: DDPM and DiT."""
    return cls.of(np.cumprod(1.0 - np.linspace(first, last, num)))

  @classmethod
  def scaled_linear(
    cls, num: int = 1000, first: float = 0.00085, last: float = 0.012
  ) -> 'DiscreteBetas':
    """sqrt(beta) is linear in k: Stable Diffusion up to SDXL."""
    return cls.of(np.cumprod(1.0 - np.linspace(first**0.5, last**0.5, num) ** 2))

  @classmethod
  def cosine(cls, num: int = 1000, largest: float = 0.999) -> 'DiscreteBetas':
    """abar_k = f(k + 1) / f(0), f(k) = cos^2 ((k / N + .008) / 1.008 pi / 2).

    No beta is above `largest` (Nichol and Dhariwal 2021; squaredcos_cap_v2).
    """
    f = np.cos((np.arange(num + 1) / num + 0.008) / 1.008 * np.pi / 2.0) ** 2
    return cls.of(np.cumprod(np.maximum(f[1:] / f[:-1], 1.0 - largest)))

  def with_zero_terminal_snr(self) -> 'DiscreteBetas':
    """sqrt(abar) moved and scaled until its last is 0 (Lin et al. 2024, Alg. 1)."""
    root = np.sqrt(self.alphas_cumprod)
    return self.of(((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2)

  @property
  def num(self) -> int:
    """N."""
    return len(self.alphas_cumprod)

  def alpha(self, t: jax.Array) -> jax.Array:
    return jnp.sin(self._angle(t, to_noise=True))

  def sigma(self, t: jax.Array) -> jax.Array:
    return jnp.sin(self._angle(t, to_noise=False))

  def logsnr(self, t: jax.Array) -> jax.Array:
    """`log alpha^2 / sigma^2`: +inf at t = 0; -inf at t = 1 where abar_{N-1} = 0."""
    return 2.0 * (jnp.log(self.alpha(t)) - jnp.log(self.sigma(t)))

  def _angle(self, t, *, to_noise):
    """The angle that x_t has turned from the data; or has yet to turn to the noise."""
    abar = np.asarray([1.0, *self.alphas_cumprod], np.float64)
    signal, noise = np.sqrt(abar), np.sqrt(1.0 - abar)
    # Two tables, as the sine of a small angle keeps digits that a cosine loses.
    angle = np.arctan2(signal, noise) if to_noise else np.arctan2(noise, signal)
    t = jnp.asarray(t, jnp.promote_types(jnp.result_type(t), jnp.float32))
    position = self.num * t
    level = jnp.clip(jnp.floor(position), 0, self.num - 1).astype(jnp.int32)
    first, step = (jnp.asarray(a, t.dtype)[level] for a in (angle[:-1], np.diff(angle)))
    return first + (position - level) * step

  def to_model_time(self, t: jax.typing.ArrayLike) -> jax.typing.ArrayLike:
    """N t - 1, a whole number where t is one of the N levels, whatever its rounding.

    Below the first level that of the first, 0.
    """
    np_ = jnp if isinstance(t, jax.Array) else np
    index = np_.maximum(self.num * _floats(t) - 1.0, 0.0)
    whole = np_.rint(index)
    return np_.where(np_.abs(index - whole) < 1e-3, whole, index)

  def from_model_time(self, timestep: np.ndarray) -> np.ndarray:
    """t, of an index, which need not be whole."""
    return (np.asarray(timestep, np.float64) + 1.0) / self.num

  def grid(
    self, num_steps: int, *, spacing: str = 'trailing', offset: int = 0, last: float = 0
  ) -> np.ndarray:
    """`[num_steps + 1]` times.

    Args:
      num_steps: number of transitions.
      spacing: 'trailing', 'leading' or 'linspace', as in Lin et al. (2024), Table 2,
        and DDIM in diffusers.
      offset: is added to the indices of 'leading' (`steps_offset`).
      last: the last time. 0 is data; 1 / N, that of abar_0, is where Stable Diffusion
        ends (`set_alpha_to_one=False`).

    Raises:
      ValueError: an unknown spacing, or more steps than levels.
    """
    if not 1 <= num_steps <= self.num:
      raise ValueError(
        f'num_steps={num_steps}: must be in 1 to {self.num}, the levels.'
      )
    match spacing:
      case 'trailing':
        index = np.rint(np.arange(self.num, 0, -self.num / num_steps))[:num_steps] - 1
      case 'leading':
        index = np.arange(num_steps)[::-1] * (self.num // num_steps) + offset
      case 'linspace':
        index = np.rint(np.linspace(self.num - 1, 0, num_steps))
      case _:
        raise ValueError(f'spacing={spacing!r}: must be trailing, leading or linspace.')
    times = np.append(self.from_model_time(index), last)
    if times[0] > 1.0 or not np.all(np.diff(times) < 0.0):
      raise ValueError(
        f'offset={offset}, last={last}: times must fall from at most 1, not as'
        f' {times[0]:g} ... {times[-2]:g}, {times[-1]:g}.'
      )
    return times


@dataclasses.dataclass(frozen=True)
class Karras:
  """noise(t) = sigma / alpha from `sigma_min` to `sigma_max`: EDM, EDM2 (Karras 2022).

    (5)  noise(t)^(1 / rho) is linear in t, from sigma_min at t_low to sigma_max at 1;
         below t_low noise(t) = sigma_min t / t_low
    (6)  alpha = 1 / sqrt(1 + noise^2 / data_std^2),  sigma = alpha noise

  EDM's own x_0 + noise eps is x_t / alpha(t). It is what (6) gives with data_std = inf;
  then the losses of objectives at time s are (1 / alpha(s))^beta times as large, a
  thousandfold near the noise, and drown all others. The model is told noise(t).

  Attributes:
    sigma_min: the smallest noise that the model knows.
    sigma_max: the largest.
    rho: curvature of the grid.
    data_std: of the data, so that x_t has one scale at all times; inf for none.
    t_low: the time of sigma_min: the last step of the native grid goes from there to 0.
  """

  sigma_min: float = 0.002
  sigma_max: float = 80.0
  rho: float = 7.0
  data_std: float = 0.5
  t_low: float = 0.01

  def __post_init__(self):
    if not 0.0 < self.sigma_min < self.sigma_max < math.inf:
      raise ValueError(
        f'sigma_min={self.sigma_min}, sigma_max={self.sigma_max}: must be 0 < sigma_min'
        ' < sigma_max.'
      )
    checks.require('above 0', lambda v: v > 0.0, rho=self.rho, data_std=self.data_std)
    checks.require('in (0, 1)', lambda v: 0.0 < v < 1.0, t_low=self.t_low)

  def noise(self, t: jax.Array) -> jax.Array:
    """`sigma / alpha`, (5)."""
    return self.to_model_time(jnp.asarray(t))

  def alpha(self, t: jax.Array) -> jax.Array:
    return 1.0 / jnp.sqrt(1.0 + (self.noise(t) / self.data_std) ** 2)

  def sigma(self, t: jax.Array) -> jax.Array:
    return self.alpha(t) * self.noise(t)

  def logsnr(self, t: jax.Array) -> jax.Array:
    """`-2 log noise(t)`: +inf at t = 0, finite at t = 1."""
    return -2.0 * jnp.log(self.noise(t))

  def to_model_time(self, t: jax.typing.ArrayLike) -> jax.typing.ArrayLike:
    """noise(t)."""
    np_, t = jnp if isinstance(t, jax.Array) else np, _floats(t)
    low, high = self.sigma_min ** (1.0 / self.rho), self.sigma_max ** (1.0 / self.rho)
    u = np_.maximum(t - self.t_low, 0.0) / (1.0 - self.t_low)
    curve = (low + u * (high - low)) ** self.rho
    return np_.where(t < self.t_low, self.sigma_min / self.t_low * t, curve)

  def from_model_time(self, timestep: np.ndarray) -> np.ndarray:
    """t, of a noise level from 0 to sigma_max."""
    noise = np.asarray(timestep, np.float64)
    low, high = self.sigma_min ** (1.0 / self.rho), self.sigma_max ** (1.0 / self.rho)
    u = (noise ** (1.0 / self.rho) - low) / (high - low)
    # A rounded sigma_min is sigma_min.
    is_low = noise < self.sigma_min * (1.0 - 1e-6)
    return np.where(
      is_low,
      self.t_low * noise / self.sigma_min,
      self.t_low + (1.0 - self.t_low) * np.maximum(u, 0.0),
    )

  def grid(self, num_steps: int) -> np.ndarray:
    """`[num_steps + 1]` times of their Eq. (5): down to sigma_min, and then 0."""
    return np.append(np.linspace(1.0, self.t_low, num_steps), 0.0)


def snap(schedule: Any, t: np.ndarray, t_max: float = 1.0) -> np.ndarray:
  """The times that a model of the schedule knows, each next to t and at most `t_max`.

  Of discrete levels that at or above t, or below where that is above `t_max`; of EDM's
  noise none below the smallest. Other schedules have all times.
  """
  t = np.asarray(t, np.float64)
  if isinstance(schedule, DiscreteBetas):
    last = np.floor(t_max * schedule.num + 1e-3)
    level = np.minimum(np.ceil(t * schedule.num - 1e-3), last)
    t = np.maximum(level, 1.0) / schedule.num
  elif isinstance(schedule, Karras):
    t = np.maximum(t, schedule.t_low)
  return t.astype(np.float32)
