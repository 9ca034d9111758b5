"""Whether a model of others is called as it was trained, by its errors on one batch.

With x_t = alpha x_0 + sigma eps of real data, at times spread over |logsnr| <= 5:

  (1)  error   = E ||x0_hat(x_t, t, c) - x_0||^2
  (2)  trivial = min(sigma^2 / alpha^2 E ||eps||^2, E ||x_0 - mean||^2), by which
                 x_t / alpha and the mean of the data are off
  (3)  score   = mean over quarters of the times of error / (error + trivial)

A network that learned something, and is called rightly, has errors below (2); after a
hundred steps, or of eps near the noise, they may be above. A mistake in sign, direction
of time, kind of prediction or scale raises them, and the convention that was meant
gives them back: so the probe tries others, and names the one whose score is clearly
lower. Another reading of the same output costs nothing; one that changes the input is
tried only where something looks wrong, and costs a batch.

What cannot be told: the null branch has no right answer. It is only asked whether it
differs from the conditional one, and whether it is that of a class.
"""

import dataclasses
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any
from typing import NamedTuple

import jax
import numpy as np

from lgd import adapters
from lgd import denoiser
from lgd import noising
from lgd import schedules
from lgd import types

# (x [n, *data] in the layout of the network, told [n], cond [n, ...]) -> its output.
Predict = Callable[[np.ndarray, np.ndarray, types.Cond], Any]

_MAX_LOGSNR = 5.0
# What is named instead has at most this share of the score of what was given, and is
# good: of a network of a hundred steps some other reading looks better, and is bad.
_CLEARLY = 0.85
_IS_GOOD = 0.45
_IS_NOISE = 0.8  # The score that no training gives; that of trivial errors is .5.
_LOOKS_RIGHT = 0.35  # The score up to which nothing else is tried.
_USUAL_STD = 0.25, 2.0  # Of data as networks know them.


class Quarter(NamedTuple):
  """Means over a quarter of the times, per element of the data."""

  t: tuple[float, float]
  error: float  # (1), of the conditional prediction.
  null_error: float
  trivial: float  # (2)
  delta: float  # Of (x0_cond - x0_null)^2.


@dataclasses.dataclass(frozen=True)
class Report:
  """What a probe found.

  Attributes:
    quarters: errors, from data to noise.
    findings: what is wrong, with the setting that would be right where one is; empty
      where nothing is.
    num_evaluations: of the network.
  """

  quarters: tuple[Quarter, ...]
  findings: tuple[str, ...]
  num_evaluations: int

  def __str__(self) -> str:
    """A table for the reader, and the findings."""
    lines = ['t            error  null  (of the trivial error)  delta^2 / error']
    for q in self.quarters:
      error, null, delta = (
        np.divide(*pair) if pair[1] else np.inf
        for pair in (
          (q.error, q.trivial),
          (q.null_error, q.trivial),
          (q.delta, q.error),
        )
      )
      lines.append(
        f'{q.t[0]:.2f} to {q.t[1]:.2f} {error:6.2f} {null:6.2f} {delta:30.3f}'
      )
    return '\n'.join([*lines, *self.findings])

  def require(self) -> None:
    """Refuses a convention that is wrong.

    Raises:
      ValueError: the first finding.
    """
    if self.findings:
      raise ValueError(self.findings[0])


class _Call(NamedTuple):
  """One way to call the network, and what that would be called."""

  convention: adapters.Convention
  change: str = ''
  shift: float = 0.0  # The data are taken as (data - shift) scale.
  scale: float = 1.0
  parameters: str = ''  # Whose; '' are those given.


class _Errors(NamedTuple):
  """Of some predictions, each `[n]`, in order of t."""

  error: np.ndarray  # (1) of each datum
  trivial: np.ndarray  # (2)
  x0_hat: np.ndarray  # [n, *data]

  @property
  def ratios(self) -> np.ndarray:
    """(1) over (2), of each quarter."""
    error, trivial = (v.reshape(4, -1).mean(axis=1) for v in self[:2])
    return error / trivial

  @property
  def score(self) -> float:
    """(3)."""
    return float(np.mean(self.ratios / (1.0 + self.ratios)))


def run(
  predict: Predict,
  convention: adapters.Convention,
  x0: np.ndarray,
  cond: types.Cond,
  *,
  null: types.Cond = None,
  others: Mapping[str, Predict] | None = None,
  seed: int = 0,
) -> Report:
  """Probes a network.

  Args:
    predict: calls the network; NumPy in, its output out, of any framework.
    convention: how it is believed to be called.
    x0: `[n, *data]` real data as the network knows them (`convention.encode`), of many
      classes; n of 128 and more tell mistakes well apart. A rest of n / 4 is left out.
    cond: pytree of `[n, ...]`, their conditions.
    null: the null condition, without the batch axis; None is the convention's.
    others: the same network with other parameters by their names, such as an average
      that may have been meant.
    seed: of the noise.

  Raises:
    ValueError: fewer than 8 data, no null condition, or predictions that are not
      finite; names the datum.
  """
  x0 = np.asarray(x0, np.float32)
  if len(x0) < 8:
    raise ValueError(f'x0.shape={x0.shape}: a probe needs at least 8 data.')
  null = convention.null if null is None else null
  if null is None:
    raise ValueError('null=None: give the condition of the null branch.')
  num = len(x0) - len(x0) % 4
  x0, cond = x0[:num], jax.tree.map(lambda c: np.asarray(c)[:num], cond)
  nulls = denoiser.null_like(cond, null)
  batch = _Batch({'': predict, **(others or {})}, x0, seed)

  given = _Call(convention)
  out = batch.call(given, cond, 'conditional')
  of_cond = batch.read(given, out)
  of_null = batch.read(given, batch.call(given, nulls, 'null'))
  delta = _mean_square(of_cond.x0_hat - of_null.x0_hat)
  findings = _findings_of_call(batch, given, cond, out)
  findings += _findings_of_null(cond, of_cond, of_null, delta)
  if not findings and of_cond.score > _IS_NOISE:
    findings.append(
      f'predictions are off by {of_cond.score:.2f} of what is possible, far more than'
      ' x_t / alpha or the mean of the data, and no other convention mends it; look at'
      ' the parameters (all loaded? the averaged ones?), the path and the data.'
    )
  values = batch.times(convention), of_cond.error, of_null.error, of_cond.trivial, delta
  quarters = tuple(
    Quarter((float(t[0]), float(t[-1])), *(float(v.mean()) for v in rest))
    for t, *rest in zip(*(v.reshape(4, -1) for v in values), strict=True)
  )
  return Report(quarters, tuple(findings), batch.num_evaluations)


class _Batch:
  """One batch of data and noise, and the networks that are asked about it."""

  def __init__(self, predict: Mapping[str, Predict], x0: np.ndarray, seed: int):
    self.predict, self.x0, self.num_evaluations = predict, x0, 0
    self._eps = np.random.default_rng(seed).standard_normal(x0.shape, np.float32)
    self._levels: dict[Any, tuple[np.ndarray, ...]] = {}

  def times(self, convention: adapters.Convention) -> np.ndarray:
    """`[n]` increasing ones with |logsnr| <= 5, that the network knows."""
    return self._of(convention.schedule)[0]

  def _of(self, schedule):
    """Times, alpha and sigma, each `[n]`."""
    if schedule not in self._levels:
      t = self._make_times(schedule)
      alpha, sigma = np.asarray(schedule.alpha(t)), np.asarray(schedule.sigma(t))
      self._levels[schedule] = t, alpha, sigma
    return self._levels[schedule]

  def _make_times(self, schedule):
    n = len(self.x0)
    t = np.unique(schedules.snap(schedule, np.linspace(0.0, 1.0, 4097)[1:]))
    t = t[np.abs(schedule.logsnr(np.float32(t))) <= _MAX_LOGSNR]
    if not len(t):
      raise ValueError(
        f'schedule: no time has |logsnr| <= {_MAX_LOGSNR:g}, at which a network can be'
        ' told from what knows nothing.'
      )
    return t[np.arange(n) * len(t) // n].astype(np.float32)

  def call(self, call: _Call, cond: types.Cond, branch: str) -> np.ndarray:
    """`[n, *data]` output of the network.

    Raises:
      ValueError: it is not finite; names the first datum.
    """
    convention, xt = call.convention, self._noisy(call)
    affine = convention.affine(self.times(convention))
    x = convention.given(affine.given(xt))
    out = self.predict[call.parameters](x, np.asarray(affine.told), cond)
    self.num_evaluations += len(xt)
    out = _numpy(convention.prediction_of(out, xt.shape))
    bad = ~np.isfinite(out).reshape(len(out), -1).all(axis=1)
    if bad.any():
      raise ValueError(
        f'the {branch} prediction of datum {np.argmax(bad)} is not finite; a condition'
        ' may be out of range, such as the null label.'
      )
    return out

  def read(self, call: _Call, out: np.ndarray) -> _Errors:
    """What an output means, if it is of this call's convention."""
    x0, xt = self._data(call), self._noisy(call)
    t, alpha, sigma = self._of(call.convention.schedule)
    x0_hat = call.convention.affine(t).clean(xt, out)
    noise = np.square(np.float64(sigma) / np.float64(alpha))
    variance = float(np.mean(np.var(x0, axis=0)))
    return _Errors(_mean_square(x0_hat - x0), np.minimum(noise, variance), x0_hat)

  def _data(self, call):
    return (self.x0 - call.shift) * call.scale

  def _noisy(self, call):
    t = self.times(call.convention)
    xt = noising.add_noise(call.convention.schedule, self._data(call), self._eps, t)
    return np.asarray(xt)


def _findings_of_call(batch, given, cond, out):
  """The convention that was meant, if it is another."""
  errors = batch.read(given, out)
  score, looks_right = errors.score, errors.score < _LOOKS_RIGHT
  looks_right &= bool(np.all(errors.ratios < 1.0))
  found = [(batch.read(r, out).score, r) for r in _readings(given)]
  std = float(np.std(batch.x0))
  low, high = _USUAL_STD
  is_usual = low <= std <= high and batch.x0.min() < 0.0
  if not (looks_right and is_usual) or any(s < _CLEARLY * score for s, _ in found):
    for call in _other_calls(given, batch):
      try:
        other_out = batch.call(call, cond, 'conditional')
      except Exception:  # A network may refuse what it does not know, in its own way.
        continue
      found += [(batch.read(r, other_out).score, r) for r in (call, *_readings(call))]
  # Where alpha is 0 eps means nothing, and its score is NaN.
  found = [(s, r) for s, r in found if np.isfinite(s)]
  bound = min(_CLEARLY * score, _IS_GOOD)
  best = min((s for s, _ in found), default=np.inf)
  close = [(s, r) for s, r in found if s < min(1.1 * best, bound)]
  if not close:
    return []
  # Of those that are as good the one with the fewest changes.
  best, call = min(close, key=lambda c: (c[1].change.count('='), c[0]))
  return [
    f'{call.change} is what errors speak for: they are {best:.2f} of what is possible'
    f' to be off by, and {score:.2f} as it is called now.'
  ]


def _readings(call: _Call) -> Iterator[_Call]:
  """Other meanings of the same output."""
  convention = call.convention
  for prediction in noising.PREDICTIONS:
    for is_negated in (False, True):
      changes = {'prediction': prediction, 'is_negated': is_negated}
      changes = {k: v for k, v in changes.items() if getattr(convention, k) != v}
      if changes and convention.prediction != 'edm':
        yield _changed(call, **changes)


def _other_calls(given: _Call, batch: _Batch) -> Iterator[_Call]:
  """Other inputs for the network, one change at a time."""
  convention = given.convention
  names = ('is_time_reversed', 'is_input_rescaled')
  for name in names if convention.prediction != 'edm' else ():
    yield _changed(given, **{name: not getattr(convention, name)})
  if isinstance(convention.schedule, schedules.RectifiedFlow):
    other = 1.0 if convention.schedule.timestep_scale != 1.0 else 1000.0
    schedule = dataclasses.replace(convention.schedule, timestep_scale=other)
    changed = dataclasses.replace(convention, schedule=schedule)
    yield given._replace(convention=changed, change=f'timestep_scale={other:g}')
  for name, schedule in _PATHS.items():
    if schedule != convention.schedule and convention.prediction != 'edm':
      changed = dataclasses.replace(convention, schedule=schedule)
      yield given._replace(convention=changed, change=f'schedule={name}')
  mean, std = float(np.mean(batch.x0)), float(np.std(batch.x0))
  wanted = getattr(convention.schedule, 'data_std', 1.0)  # As EDM's papers have it.
  wanted = wanted if np.isfinite(wanted) else 0.5
  scalings = [(mean, wanted / std), (0.0, wanted / std)] if std else []
  if np.min(batch.x0) >= 0.0:  # Pixels, from 0 to 1 or to 255.
    largest = 1.0 if np.max(batch.x0) <= 1.0 else 255.0
    scalings.append((largest / 2.0, 2.0 / largest))
  for shift, scale in scalings:
    change = (
      f'shift={shift:.3g}, scale={scale:.3g} of the data (deviation {std:.2g} now)'
    )
    yield given._replace(change=change, shift=shift, scale=scale)
  for name in batch.predict:
    if name:
      yield given._replace(change=f'parameters={name}', parameters=name)


_PATHS = {
  'RectifiedFlow()': schedules.RectifiedFlow(),
  'Cosine()': schedules.Cosine(),
  'DiscreteBetas.linear()': schedules.DiscreteBetas.linear(),
  'DiscreteBetas.scaled_linear()': schedules.DiscreteBetas.scaled_linear(),
  'DiscreteBetas.cosine()': schedules.DiscreteBetas.cosine(),
  'Karras()': schedules.Karras(),
}


def _changed(call, **changes):
  words = [call.change] if call.change else []
  words += [f'{name}={value!r}' for name, value in changes.items()]
  convention = dataclasses.replace(call.convention, **changes)
  return call._replace(convention=convention, change=', '.join(words))


def _findings_of_null(cond, of_cond, of_null, delta):
  """What is wrong with the null branch, as far as it can be told."""
  if not (delta > 0.0).any():
    return [
      'null: both predictions are the same for every datum; the condition does not'
      ' reach the network, or the null is the condition itself.'
    ]
  leaves = [np.reshape(c, (len(delta), -1)) for c in jax.tree.leaves(cond)]
  rows = np.concatenate(leaves, axis=1)
  _, which = np.unique(rows, axis=0, return_inverse=True)
  same = [i for i in range(which.max() + 1) if not delta[which == i].any()]
  if same and which.max() > 0:
    first = int(np.argmax(which == same[0]))
    return [
      f'null: is the condition of datum {first}, for which both predictions are the'
      ' same; the usual null is the label after the last class, or zeros.'
    ]
  if of_null.score < min(_CLEARLY * of_cond.score, _IS_GOOD):
    return [
      'cond: predictions are worse with the condition than without; the conditions may'
      ' be of other data, or numbered otherwise.'
    ]
  if of_null.score > 0.5 and of_cond.score < 0.8 * _IS_GOOD:
    return [
      f'null: its predictions are off by {of_null.score:.2f} of what is possible, those'
      f' with the condition by {of_cond.score:.2f}; it may be the number of a class, or'
      ' untrained.'
    ]
  return []


def _mean_square(x):
  return np.mean(np.square(np.float64(x)).reshape(len(x), -1), axis=1)


def _numpy(out):
  """An array of NumPy, JAX or torch, in float32."""
  if hasattr(out, 'detach'):
    out = out.detach().float().cpu().numpy()
  return np.asarray(out, np.float32)
