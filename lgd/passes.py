"""One pass over data with the model elsewhere: noisy data out, predictions back.

  (1)  t_i = frac((i + 1) / golden ratio) t_max    of item i: evenly spread after any
                                                   number of items
  (2)  x_t = alpha x_0 + sigma eps                 m particles of each datum
  (3)  out, out_null                               of the network, for each particle
  (4)  Gram matrix of eps, x0_cond - x0 and x0_cond - x0_null

Only (4) is kept, by which weights are learned without data or model
(`lgd.objectives.stored`). The network may be of any framework: it is given arrays of
NumPy, or torch tensors that share their memory; what a torch network returns is taken
where it lies, and only (4) leaves its device.

  pass_ = passes.Pass(convention, x0, labels, num_data=32_768, seed=0)
  for batch in pass_.batches(256):
    x, told, cond, null = batch.tensors('cuda')
    with torch.no_grad():
      pass_.add(batch, model(x, told, cond), model(x, told, null))
  store = pass_.store()
"""

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lgd import adapters
from lgd import arrays
from lgd import denoiser
from lgd import errors
from lgd import noising
from lgd import objectives
from lgd import schedules
from lgd import statistics
from lgd import types
from lgd.data import splits

_GOLDEN_RATIO = 0.6180339887498949


def times(items: np.ndarray, t_max: float) -> np.ndarray:
  """`[n]` times of items of a pass, (1)."""
  return (np.modf((items + 1.0) * _GOLDEN_RATIO)[0] * t_max).astype(np.float32)


@dataclasses.dataclass(frozen=True, eq=False)
class Batch:
  """What the network is to be asked: n data, each with m particles in a row.

  Attributes:
    items: `[n]`, their numbers in the pass.
    x: `[n m, *data]`, in the layout, scale and type of the network.
    told: `[n m]`, what it is told of t.
    cond: pytree of `[n m, ...]`.
    null: the same, of the null branch.
  """

  items: np.ndarray
  x: np.ndarray
  told: np.ndarray
  cond: types.Cond
  null: types.Cond
  _x0: np.ndarray
  _eps: np.ndarray
  _xt: np.ndarray
  _t: np.ndarray

  def tensors(self, device: Any = None) -> tuple[Any, Any, Any, Any]:
    """`x, told, cond, null` as torch tensors; on the CPU without a copy."""
    import torch  # noqa: PLC0415 An optional requirement.

    def tensor(a):
      a = np.ascontiguousarray(a)
      if a.dtype == jnp.bfloat16:  # Which torch reads of its bits alone.
        return torch.from_numpy(a.view(np.int16)).view(torch.bfloat16).to(device)
      return torch.from_numpy(a).to(device)

    return tuple(
      jax.tree.map(tensor, part) for part in (self.x, self.told, self.cond, self.null)
    )


class Pass:
  """A pass whose predictions are made by a caller.

  Args:
    convention: how the network is called.
    x0: `[n, *data]` real data as the network knows them (`convention.encode`).
    cond: pytree of `[n, ...]`, their conditions.
    num_data: how many items; data are gone through again, shuffled anew, as needed.
    null: the null condition, without the batch axis; None is the convention's.
    num_particles: m.
    t_max: the largest t; below 1 where alpha(1) = 0 and eps is predicted.
    antithetic: whether half of the particles mirror the noise of the others.
    seed: of everything; an item is the same in any batch.

  Raises:
    ValueError: no null condition or one that the conditions' dtype cannot hold, no data
      or other numbers of conditions, or numbers out of range.
  """

  def __init__(
    self,
    convention: adapters.Convention,
    x0: np.ndarray,
    cond: types.Cond,
    *,
    num_data: int,
    null: types.Cond = None,
    num_particles: int = 4,
    t_max: float = 1.0,
    antithetic: bool = True,
    seed: int = 0,
  ):
    if num_data < 1 or num_particles < 1 or not 0.0 < t_max <= 1.0:
      raise ValueError(
        f'num_data={num_data}, num_particles={num_particles}, t_max={t_max}: must be'
        ' at least 1, at least 1, and in (0, 1].'
      )
    self._null = convention.null if null is None else null
    if self._null is None:
      raise ValueError('null=None: give the condition of the null branch.')
    self._convention, self._x0 = convention, np.asarray(x0, np.float32)
    self._cond = jax.tree.map(np.asarray, cond)
    numbers = {len(self._x0), *(len(c) for c in jax.tree.leaves(self._cond))}
    if len(numbers) > 1 or 0 in numbers:
      raise ValueError(
        f'x0 and cond have lengths {sorted(numbers)}; must be of the same data, and of'
        ' one at least.'
      )
    denoiser.null_like(jax.tree.map(lambda c: c[:1], self._cond), self._null)
    self._num_data, self._m, self._t_max = num_data, num_particles, t_max
    self._antithetic, self._seed = antithetic, seed
    self._rows: dict[int, np.ndarray] = {}
    self._gram: dict[int, np.ndarray] = {}

  def batches(self, batch_size: int = 256) -> Iterator[Batch]:
    """Batches of the items whose predictions have not been added, in their order."""
    missing = np.setdiff1d(np.arange(self._num_data), list(self._gram))
    for i in range(0, len(missing), batch_size):
      yield self._batch(missing[i : i + batch_size])

  def add(self, batch: Batch, out: Any, out_null: Any) -> None:
    """Keeps the Gram matrices of what the network returned for a batch.

    Args:
      batch: of `batches`.
      out: the network's output with the condition, of NumPy, JAX or torch.
      out_null: that of the null branch.

    Raises:
      errors.NonFiniteError: a prediction that is not finite; names the datum.
      ValueError: one that has another shape than the data.
    """
    affine = self._convention.affine(batch._t)
    shape = batch._xt.shape
    outs = [self._convention.prediction_of(o, shape) for o in (out, out_null)]
    if hasattr(outs[0], 'detach'):
      outs = [o.detach().float() for o in outs]
    else:
      outs = [np.asarray(o, np.float32) for o in outs]
    own = _like(outs[0])
    xt = own(batch._xt)
    x0_cond, x0_null = (affine.clean(xt, o) for o in outs)
    delta = own(self._convention.guided_mask(xt.shape)) * (x0_cond - x0_null)
    x0 = own(np.repeat(batch._x0, self._m, axis=0))
    gram = _gram(own(batch._eps), x0_cond - x0, delta, self._m)
    bad = ~np.isfinite(gram).all(axis=1)
    if bad.any():
      raise errors.NonFiniteError(
        f'predictions of datum {self._row(batch.items[np.argmax(bad)])} are not finite;'
        ' a condition may be out of range, such as the null label.'
      )
    self._gram.update(zip(batch.items.tolist(), gram, strict=True))

  def store(self) -> objectives.Store:
    """The statistics, for `objectives.statistics_loss`.

    Raises:
      ValueError: predictions that have not been added.
    """
    if len(self._gram) < self._num_data:
      raise ValueError(
        f'{self._num_data - len(self._gram)} of {self._num_data} items have no'
        ' predictions; go on with batches().'
      )
    items = np.arange(self._num_data)
    rows = np.asarray([self._row(i) for i in items])
    return objectives.make_store(
      jnp.asarray(np.stack([self._gram[i] for i in items])),
      jnp.asarray(self._times(items)),
      jax.tree.map(lambda c: jnp.asarray(c[rows]), self._cond),
      schedule=self._convention.schedule,
      dim=int(np.prod(self._x0.shape[1:])),
      num_particles=self._m,
      antithetic=self._antithetic,
    )

  def _row(self, item):
    epoch, place = divmod(int(item), len(self._x0))
    if epoch not in self._rows:
      numbers = np.arange(len(self._x0))
      self._rows[epoch] = splits.group_rows(
        numbers, 1, by_class=False, seed=self._seed, epoch=epoch
      )[:, 0]
    return self._rows[epoch][place]

  def _times(self, items):
    t = times(items, self._t_max)
    return schedules.snap(self._convention.schedule, t, self._t_max)

  def _batch(self, items):
    convention, m = self._convention, self._m
    rows = np.asarray([self._row(i) for i in items])
    x0 = self._x0[rows]
    root = arrays.stream(self._seed, 'statistics/particles')
    keys = jax.vmap(lambda i: jax.random.fold_in(root, i))(jnp.asarray(items))
    eps = objectives.draw_noise(
      keys, x0.shape, num_particles=m, antithetic=self._antithetic
    )
    t = self._times(items)
    xt = noising.add_noise(convention.schedule, x0[:, None], eps, t)
    flat = (len(items) * m, *x0.shape[1:])
    eps, xt, t = (
      np.asarray(eps).reshape(flat),
      np.asarray(xt).reshape(flat),
      t.repeat(m),
    )
    affine = convention.affine(t)
    cond = jax.tree.map(lambda c: np.repeat(c[rows], m, axis=0), self._cond)
    null = denoiser.null_like(cond, self._null)
    x = np.ascontiguousarray(convention.given(affine.given(xt)))
    return Batch(items, x, np.array(affine.told), cond, null, x0, eps, xt, t)


def _like(array):
  """From NumPy to the framework and the device of `array`."""
  if isinstance(array, np.ndarray):
    return lambda a: a
  import torch  # noqa: PLC0415 The array is of it.

  return lambda a: torch.from_numpy(np.ascontiguousarray(a)).to(array.device)


def _gram(eps, r, delta, m):
  """(4), packed: `[n, p (p + 1) / 2]` of NumPy, from arrays `[n m, *data]`."""
  parts = [v.reshape(len(v) // m, m, -1) for v in (eps, r, delta)]
  if isinstance(eps, np.ndarray):
    v = np.concatenate(parts, axis=1)
    gram = v @ v.swapaxes(1, 2)
  else:
    import torch  # noqa: PLC0415

    # In float64, which neither autocast nor TF32 make less of.
    v = torch.cat(parts, dim=1).double()
    gram = (v @ v.swapaxes(1, 2)).cpu().numpy()
  return np.asarray(statistics.pack(gram), np.float32)
