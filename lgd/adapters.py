"""Networks that others trained, as denoisers: what they are given, told and mean.

  (1)  out = network(scale(t) x_t, told(t), c)
  (2)  x0_hat = a(t) x_t + b(t) out

Whatever a network predicts, of whichever sign, and at whichever scale it sees its
input, is three numbers at each t. What is told of t is the schedule's `to_model_time`,
or that of 1 - t where the network has its noise at 0. A `Convention` holds the choices;
most mistakes in them raise nothing and give bad samples: `lgd.probe` tells.

  from lgd import adapters
  convention = adapters.PRESETS['DiT']            # or Convention(schedule, 'eps', ...)
  pair = adapters.pair(apply, convention, null=1000)

`pair` is what `lgd.guidance`, `lgd.objectives` and the samplers take; where a network
guides some of its channels only, the others keep the conditional prediction.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lgd import arrays
from lgd import denoiser as denoiser_lib
from lgd import noising
from lgd import schedules
from lgd import types

PREDICTIONS = (*noising.PREDICTIONS, 'edm')
LAYOUTS = ('NHWC', 'NCHW')


@dataclasses.dataclass(frozen=True)
class Affine:
  """(1) and (2) at some times, each `[batch]`; on data of NumPy, JAX or torch."""

  scale: jax.Array
  told: jax.Array
  a: jax.Array
  b: jax.Array

  def given(self, xt: Any) -> Any:
    """`scale x_t`, of (1); `[batch, *data]`."""
    return _expand(self.scale, xt) * xt

  def clean(self, xt: Any, out: Any) -> Any:
    """`x0_hat`, (2); all `[batch, *data]`."""
    return _expand(self.a, xt) * xt + _expand(self.b, xt) * out


@dataclasses.dataclass(frozen=True, eq=False)
class Convention:
  """How a network is called, and what its output means.

  Attributes:
    schedule: the path that it was trained on.
    prediction: one of `PREDICTIONS`. 'v' is alpha eps - sigma x_0, 'velocity' dx_t/dt;
      'edm' is the raw network F of Karras et al. (2022), Eq. (7), whose wrapper
      `net(x, sigma)` predicts 'x0'.
    is_negated: whether the output is minus that, as a velocity towards the data is.
    is_time_reversed: whether the network is told 1 - t: its noise is at 0.
    is_input_rescaled: whether it is given x_t / alpha(t) = x_0 + noise eps, as EDM's.
    data_std: of 'edm'.
    element: which part of the output is the prediction: an index of a tuple, or the
      name of a key or an attribute; None: the output is an array.
    num_channels: how many first channels are the prediction; the rest, as a learned
      variance, is dropped. None: all.
    num_guided: how many first channels are guided; None: all.
    layout: of the network, 'NHWC' or 'NCHW'.
    data_layout: of the data; None is that of the network.
    dtype: of what the network is given, such as 'bfloat16'; None: that of the data.
    shift: latents are (data - shift) scale, `[channels]` or a number.
    scale: see `shift`.
    null: the condition of the null branch, without the batch axis: a label, zeros, an
      array, or a pytree of them; None where it is given elsewhere.

  Raises:
    ValueError: an unknown prediction or layout, or 'edm' on a path that is not EDM's or
      with an input that is changed otherwise.
  """

  schedule: types.Schedule
  prediction: str
  is_negated: bool = False
  is_time_reversed: bool = False
  is_input_rescaled: bool = False
  data_std: float = 0.5
  element: int | str | None = None
  num_channels: int | None = None
  num_guided: int | None = None
  layout: str = 'NHWC'
  data_layout: str | None = None
  dtype: str | None = None
  shift: Any = 0.0
  scale: Any = 1.0
  null: Any = None

  def __post_init__(self):
    if self.prediction not in PREDICTIONS:
      raise ValueError(f'prediction={self.prediction!r}: must be one of {PREDICTIONS}.')
    for name in ('layout', 'data_layout'):
      value = getattr(self, name) or self.layout
      if value not in LAYOUTS:
        raise ValueError(f'{name}={value!r}: must be one of {LAYOUTS}.')
    if self.prediction == 'edm' and (
      not isinstance(self.schedule, schedules.Karras)
      or self.is_time_reversed
      or self.is_input_rescaled
    ):
      raise ValueError(
        "prediction='edm': is of schedules.Karras, and says itself what the network is"
        ' given and told; leave is_time_reversed and is_input_rescaled.'
      )

  def affine(self, t: jax.Array) -> Affine:
    """(1) and (2) at `t [batch]`; may be traced."""
    t = jnp.asarray(t, jnp.promote_types(jnp.result_type(t), jnp.float32))
    alpha, sigma = self.schedule.alpha(t), self.schedule.sigma(t)
    told = self.schedule.to_model_time(1.0 - t if self.is_time_reversed else t)
    scale = 1.0 / alpha if self.is_input_rescaled else jnp.ones_like(t)
    if self.prediction == 'edm':  # D = c_skip x + c_out F(c_in x, log(noise) / 4).
      noise, std = sigma / alpha, self.data_std
      total = noise**2 + std**2
      scale, told = 1.0 / (alpha * jnp.sqrt(total)), 0.25 * jnp.log(noise)
      a, b = std**2 / (alpha * total), noise * std / jnp.sqrt(total)
    else:  # `to_x0` is linear in both: its values at 0 and 1 are its coefficients.
      one, zero = jnp.ones_like(t), jnp.zeros_like(t)
      a = noising.to_x0(self.schedule, zero, one, t, self.prediction)
      b = noising.to_x0(self.schedule, one, zero, t, self.prediction)
    return Affine(scale, told, a, -b if self.is_negated else b)

  def prediction_of(self, out: Any, shape: tuple[int, ...] | None = None) -> Any:
    """The array that is the prediction, of what the network returned, in the layout of
    the data; of any framework.

    Raises:
      ValueError: it has another shape than `shape`, if that is given.
    """
    if self.element is not None:
      is_key = isinstance(self.element, int) or isinstance(out, dict)
      out = out[self.element] if is_key else getattr(out, self.element)
    if self.num_channels is not None:
      out = (
        out[:, : self.num_channels] if self._first else out[..., : self.num_channels]
      )
    out = self._transposed(out, self.layout, self.data_layout or self.layout)
    if shape is not None and tuple(out.shape) != tuple(shape):
      raise ValueError(
        f'a prediction has shape {tuple(out.shape)}, the data {tuple(shape)}; look at'
        ' element, num_channels and layout.'
      )
    return out

  def given(self, x: Any) -> Any:
    """`x`, of NumPy or JAX, in the layout and the type of the network."""
    x = self._transposed(x, self.data_layout or self.layout, self.layout)
    return x if self.dtype is None else x.astype(jnp.dtype(self.dtype))

  def encode(self, data: Any) -> Any:
    """Data as the network knows them, `(data - shift) scale`; of any framework."""
    return (data - self._per_channel(self.shift, data)) * self._per_channel(
      self.scale, data
    )

  def decode(self, x: Any) -> Any:
    """`encode` inverted."""
    return x / self._per_channel(self.scale, x) + self._per_channel(self.shift, x)

  def guided_mask(self, shape: tuple[int, ...]) -> np.ndarray:
    """1 where channels of data of `shape` are guided, else 0; broadcasts on them."""
    axis = 1 if (self.data_layout or self.layout) == 'NCHW' else len(shape) - 1
    num = shape[axis] if self.num_guided is None else self.num_guided
    mask = (np.arange(shape[axis]) < num).astype(np.float32)
    return mask.reshape([-1 if i == axis else 1 for i in range(len(shape))])

  @property
  def _first(self):
    return self.layout == 'NCHW'

  def _per_channel(self, value, data):
    if np.ndim(value) == 0:
      return value
    value = np.asarray(value, np.float32)
    if (self.data_layout or self.layout) == 'NCHW':
      value = value.reshape(-1, *(1,) * (data.ndim - 2))
    return _own(value, data)

  @staticmethod
  def _transposed(x, source, target):
    if source == target or x.ndim < 3:
      return x
    last = x.ndim - 1
    axes = (0, last, *range(1, last)) if target == 'NCHW' else (0, *range(2, x.ndim), 1)
    return x.permute(*axes) if hasattr(x, 'permute') else x.transpose(axes)


def denoiser(
  apply: Callable[..., Any], convention: Convention, *, clip: float | None = None
) -> types.Denoiser:
  """A denoiser from a network of others, (1)-(2).

  Args:
    apply: `(params, x, told, cond) -> out`; x in the layout of the network, told
      `[batch]`.
    convention: how to call it.
    clip: clean predictions are clipped to [-clip, clip], as `denoiser.from_network`
      says; None leaves them.

  Raises:
    ValueError: a clip that is not positive.
  """

  def clean(params, xt, t, cond):
    xt, affine = jnp.asarray(xt), convention.affine(t)
    x = convention.given(affine.given(xt))
    out = convention.prediction_of(apply(params, x, affine.told, cond))
    return affine.clean(xt, out.astype(xt.dtype))

  return denoiser_lib.from_network(clean, convention.schedule, 'x0', clip=clip)


def pair(
  apply: Callable[..., Any],
  convention: Convention,
  *,
  null: types.Cond = None,
  clip: float | None = None,
  null_apply: Callable[..., Any] | None = None,
) -> denoiser_lib.Pair:
  """The two predictions of a network of others.

  Args:
    apply: see `denoiser`.
    convention: how to call it.
    null: the null condition, without the batch axis; None is that of the convention.
    clip: see `denoiser`.
    null_apply: a second network to be guided away from, with the same convention and
      the condition as it is; then parameters are a pair, and `null` is not looked at.

  Raises:
    ValueError: neither a null condition nor a second network.
  """
  strong = denoiser(apply, convention, clip=clip)
  if null_apply is not None:
    weak = denoiser(null_apply, convention, clip=clip)
    both = denoiser_lib.autoguidance(strong, weak)
  else:
    null = convention.null if null is None else null
    if null is None:
      raise ValueError('null=None: give the null condition, or null_apply.')
    both = denoiser_lib.classifier_free(strong, null)
  if convention.num_guided is None:
    return both

  def unguided_kept(x0_cond, x0_null):
    return jnp.where(convention.guided_mask(x0_cond.shape) > 0.0, x0_null, x0_cond)

  def null_of(params, xt, t, cond, x0_cond):
    return unguided_kept(x0_cond, both.null(params, xt, t, cond, x0_cond))

  def predictions(params, xt, t, cond):
    x0_cond, x0_null = both(params, xt, t, cond)
    return x0_cond, unguided_kept(x0_cond, x0_null)

  return denoiser_lib.Pair(both.conditional, null_of, predictions)


def _expand(scale, x):
  """`scale [batch]` so that it broadcasts on `x`, in its framework."""
  if isinstance(x, jax.Array):
    return arrays.expand_right(scale, x)
  scale = np.asarray(scale, np.float32)
  return _own(scale.reshape(scale.shape + (1,) * (x.ndim - scale.ndim)), x)


def _own(array, x):
  """A NumPy array where `x` lies: a tensor, on its device, if that is of torch."""
  return x.new_tensor(array) if hasattr(x, 'new_tensor') else array


def _jit(size):
  """JiT's noise is size / 256 times as large (its noise_scale)."""
  return Convention(
    schedules.RectifiedFlow(noise_scale=size / 256),
    'x0',
    is_time_reversed=True,
    layout='NCHW',
    null=1000,
  )


_SIT = Convention(
  schedules.RectifiedFlow(),
  'velocity',
  is_negated=True,
  is_time_reversed=True,
  num_guided=3,
  layout='NCHW',
  scale=0.18215,
  null=1000,
)
_SD = Convention(
  schedules.DiscreteBetas.scaled_linear(),
  'eps',
  element='sample',
  layout='NCHW',
  scale=0.18215,
)
# What each project's own sampling code says; latents' scales are their autoencoders'.
PRESETS = {
  # facebookresearch/DiT: diffusion/__init__.py (linear betas, 1000), models.py
  # (learn_sigma, forward_with_cfg: three channels), sample.py (.18215, label 1000).
  'DiT': Convention(
    schedules.DiscreteBetas.linear(),
    'eps',
    num_channels=4,
    num_guided=3,
    layout='NCHW',
    scale=0.18215,
    null=1000,
  ),
  # willisma/SiT: transport/path.py (x_t = t x_1 + (1 - t) x_0, x_1 the data), models.py
  # (three guided channels; the learned variance is cut off inside), sample.py.
  'SiT': _SIT,
  # hustvl/LightningDiT: as SiT; latents of VA-VAE less their mean over their deviation,
  # by channel: give shift and scale (dataclasses.replace). Its own shift, .3, is of
  # 1 - t: its grid is `grid(num_steps, shift=1 / 0.3)`.
  'LightningDiT': dataclasses.replace(_SIT, scale=1.0),
  # LTH14/JiT: denoiser.py (z = t x + (1 - t) noise_scale n, the network predicts x).
  'JiT-256': _jit(256),
  'JiT-512': _jit(512),
  # NVlabs/edm: training/networks.py, EDMPrecond (net(x, sigma, one_hot) -> D); a zero
  # one-hot of its 1000 classes is no class.
  'EDM': Convention(
    schedules.Karras(),
    'x0',
    is_input_rescaled=True,
    layout='NCHW',
    null=np.zeros(1000, np.float32),
  ),
  # NVlabs/edm2: training/encoders.py (means and deviations of raw latents, final
  # deviation .5). Its own guidance is a second network: `pair(null_apply=)`.
  'EDM2': Convention(
    schedules.Karras(),
    'x0',
    is_input_rescaled=True,
    layout='NCHW',
    shift=np.float32([5.81, 3.25, 0.12, -2.15]),
    scale=np.float32([0.5 / 4.17, 0.5 / 4.62, 0.5 / 3.71, 0.5 / 3.28]),
    null=np.zeros(1000, np.float32),
  ),
  # Lyy-iiis/imeanflow: imf.py, net(x, t, h, omega, t_min, t_max, y) -> (u, v): the
  # velocity v at h = 0 and omega = 1, with label 1000 for no class; of a module made
  # with eval=False, which alone has v. utils/vae_util.py: latents by channel.
  'iMF': Convention(
    schedules.RectifiedFlow(),
    'velocity',
    element=1,
    shift=np.float32([0.86488, -0.27787343, 0.21616915, 0.3738409]),
    scale=1.0 / np.float32([4.85503674, 5.31922414, 3.93725398, 3.9870003]),
    null=1000,
  ),
  # runwayml/stable-diffusion-v1-5: scheduler_config.json (scaled_linear, .00085 to
  # .012, epsilon), vae/config.json (.18215). The null is the embedding of ''.
  'SD1.5': _SD,
  # stabilityai/stable-diffusion-xl-base-1.0: the same files.
  'SDXL': dataclasses.replace(_SD, scale=0.13025),
  # stabilityai/stable-diffusion-3-medium: scheduler (flow matching, shift 3: of the
  # grid), vae (scaling_factor 1.5305, shift_factor .0609); told 1000 t.
  'SD3': Convention(
    schedules.RectifiedFlow(timestep_scale=1000.0),
    'velocity',
    element='sample',
    layout='NCHW',
    shift=0.0609,
    scale=1.5305,
  ),
}
