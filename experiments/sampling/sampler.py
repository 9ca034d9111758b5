"""One compiled sampler for every method: weights are tabulated, hence an argument.

Samples are drawn by their numbers. Number i of a seed has a key of its own, so that
neither batches nor devices change it.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import config_dict

from experiments import builders
from experiments import workdirs
from lgd import arrays
from lgd import denoiser as denoiser_lib
from lgd import errors
from lgd import guidance
from lgd import sampling
from lgd import types
from lgd.data import splits
from lgd.training import sharding

# (denoiser_params, omega [n, num_steps] or None, keys [n], cond [n, ...])
# -> samples [n, *data], on the host.
SampleFn = Callable[
  [types.Params, jax.typing.ArrayLike | None, jax.Array, types.Cond], np.ndarray
]

_CHUNK = 256  # Conditions tabulated in a call.


def make_sample_fn(
  config: config_dict.ConfigDict,
  spec: splits.Spec,
  *,
  network: types.Denoiser | None = None,
  reward: builders.models.RewardFn | None = None,
) -> SampleFn:
  """The sampler of `config.evaluation`, compiled and split over all devices.

  omega holds every sample's weights at the sampler's transitions: where they are 0 the
  null branch is not evaluated, if `rule` allows. `network` is as in
  `builders.rules.pair`; `reward` takes the place of
  `builders.models.classifier_reward`.
  """
  pair = builders.rules.pair(config, spec, network=network)
  reward = reward or builders.models.classifier_reward(config, spec)
  times, mesh = builders.models.time_grid(config), builders.models.mesh(config)
  section = config.evaluation

  def sample(params, plan, key_data, cond):
    shape = (len(key_data), *spec.shape)
    if plan is None:
      denoise, memory = guidance.unguided(pair.conditional, params), None
    else:
      denoise, memory = builders.rules.guided(config, pair, params, plan, shape, reward)
    return sampling.sample(
      arrays.wrap_key_data(key_data),
      denoise,
      builders.models.schedule(config),
      cond,
      shape,
      num_steps=section.num_steps,
      churn=section.churn,
      times=times,
      solver=section.solver,
      inputs=None if plan is None else plan.steps,
      memory=memory,
    )

  compiled = jax.jit(sample, out_shardings=sharding.split(mesh))

  def sample_padded(params, omega, keys, cond):
    n, together = len(keys), builders.rules.samples_together(config.rule)
    # A multiple of the device count, dealt in turn: neighbours, which need the null
    # branch at similar times, lie on different devices, but for those drawn together.
    index = np.arange(n + -n % (together * mesh.size))
    dealt = index.reshape(-1, mesh.size, together).swapaxes(0, 1).ravel()
    index = dealt % n
    batch = {'keys': np.asarray(jax.random.key_data(keys))[index]}
    batch['cond'] = jax.tree.map(lambda c: np.asarray(c)[index], cond)
    plan = None
    if omega is not None:
      plan = make_plan(config, np.asarray(omega)[index])
      batch |= {'omega': plan.omega, 'rows': plan.rows}
    batch = sharding.global_batch(sharding.process_share(batch), mesh)
    if plan is not None:
      level = jax.device_put(plan.level, sharding.replicated(mesh))
      plan = dataclasses.replace(
        plan, omega=batch['omega'], rows=batch['rows'], level=level
      )
    x = sharding.to_host(compiled(params, plan, batch['keys'], batch['cond']))
    return x[np.argsort(dealt)[:n]]

  return sample_padded


def make_plan(config: config_dict.ConfigDict, omega: np.ndarray) -> guidance.Plan:
  """Where a batch needs the null branch, for the sampler of `config.evaluation`."""
  section = config.evaluation
  return guidance.make_plan(
    omega,
    num_levels=section.plan_levels,
    num_shards=builders.models.mesh(config).size,
    tolerance=tolerance(config),
  )


def tolerance(config: config_dict.ConfigDict) -> float:
  """The size of weights up to which the null branch is not evaluated."""
  rule = builders.rules.of(config)
  return 0.0 if rule.acts_at_zero or rule.improve else config.evaluation.tolerance


def sample_keys(seed: int, index: np.ndarray) -> jax.Array:
  """Keys of samples by their numbers: each is the same whatever batch it is in."""
  root = arrays.stream(seed, 'samples')
  return jax.vmap(lambda i: jax.random.fold_in(root, i))(jnp.asarray(index))


class RuleSampler(NamedTuple):
  """The sampler of one rule, with all that it needs to draw samples of labels."""

  sample: SampleFn
  count: Callable[[np.ndarray | None, int], float]  # Of `make_count_nfe`.
  params: types.Params
  look_up: Callable[[np.ndarray], types.Cond]  # From labels to conditions.
  decode: Callable[[np.ndarray], np.ndarray]  # From data to images.

  def draw(
    self,
    omega: np.ndarray | None,
    label: np.ndarray,
    *,
    name: str,
    seed: int,
    numbers: np.ndarray | None = None,
    batch_size: int | None = None,
  ) -> np.ndarray:
    """Samples of labels, `[n, *image]`; all are finite.

    Args:
      omega: `[n, num_steps]`, None for unguided samples.
      label: `[n, ...]`.
      name: of the method, for the message.
      seed: of the samples.
      numbers: `[n]` of the samples; 0..n-1 if None.
      batch_size: samples in a call; None is n.

    Raises:
      errors.NonFiniteError: names the first sample that is not finite.
    """
    n = len(label)
    numbers = np.arange(n) if numbers is None else numbers
    parts = [
      self.decode(
        self.sample(
          self.params,
          None if omega is None else omega[rows],
          sample_keys(seed, numbers[rows]),
          self.look_up(label[rows]),
        )[: n - rows[0]]  # The rest fills the batch.
      )
      for rows in arrays.whole_batches(n, batch_size or n)
    ]
    x = np.concatenate(parts)
    bad = ~np.isfinite(x).reshape(n, -1).all(axis=1)
    if bad.any():
      raise errors.NonFiniteError(
        f'{name}: sample {numbers[bad].min()} of seed {seed} is not finite; take'
        ' smaller weights, or look at the base model if it is unguided.'
      )
    return x

  def count_nfe(
    self, omega: np.ndarray | None, num: int, *, batch_size: int | None = None
  ) -> float:
    """Network evaluations of each of `num` samples, in the batches of `draw`."""
    counts = [
      self.count(None if omega is None else omega[rows], len(rows))
      for rows in arrays.whole_batches(num, batch_size or num)
    ]
    return float(np.mean(counts))


def make_rule_sampler(
  config: config_dict.ConfigDict, spec: splits.Spec, params: types.Params
) -> RuleSampler:
  """The sampler of `config.rule`; `params` are those of `builders.rules.pair`."""
  return RuleSampler(
    make_sample_fn(config, spec),
    make_count_nfe(config, spec),
    params,
    builders.captions.lookup(config),
    builders.captions.decode(config),
  )


def make_count_nfe(
  config: config_dict.ConfigDict, spec: splits.Spec
) -> Callable[[np.ndarray | None, int], float]:
  """`(omega or None, n) -> network evaluations per sample` of a batch of n samples.

  Counted while the sampler runs, with a denoiser of numbers that costs nothing; once
  for all weights that need the null branch in the same places: they run the same plan.
  """
  counted: dict[Any, float] = {}
  counter = denoiser_lib.EvaluationCounter()
  free = counter.wrap(lambda params, xt, t, cond: xt)
  spec = splits.Spec((1,), spec.conditions)
  sample_fn = make_sample_fn(
    config, spec, network=free, reward=lambda params, x0_hat, cond: x0_hat[:, 0]
  )

  def count_nfe(omega, n):
    needed = None if omega is None else np.abs(omega) > tolerance(config)
    key = n, needed if needed is None else needed.tobytes()
    if key not in counted:
      before = counter.count
      sample_fn(
        (None, None), omega, sample_keys(0, np.arange(n)), spec.conditions.zeros(n)
      )
      total = sharding.of_first_process(counter.count - before)
      counted[key] = float(total) / n
    return counted[key]

  return count_nfe


def balanced_labels(num_classes: int, per_class: int) -> np.ndarray:
  """`[num_classes * per_class]`, sorted."""
  return np.repeat(np.arange(num_classes, dtype=np.int32), per_class)


def make_tabulate(
  config: config_dict.ConfigDict,
  model: builders.models.WeightModel,
  read: Callable[[np.ndarray], types.Cond] = lambda label: label,
) -> Callable[[types.Params, np.ndarray], jax.Array]:
  """`(params, label [n, ...]) -> omega [n, num_steps]` at the sampler's transitions.

  Every distinct label is looked at once; weights read it as `read` makes it.
  """
  times = builders.models.time_grid(config)

  @jax.jit
  def compiled(params, cond):
    return guidance.tabulate(functools.partial(model.apply, params), cond, times)

  def tabulate(params, label):
    distinct, index = np.unique(label, axis=0, return_inverse=True)
    n = len(distinct)
    chunks = [
      compiled(params, read(distinct[rows]))
      for rows in arrays.whole_batches(n, min(n, _CHUNK))
    ]
    return jnp.concatenate(chunks)[index.reshape(-1)]

  return tabulate


def tabulate_learned(
  config: config_dict.ConfigDict,
  weight: workdirs.weights.LearnedWeight,
  label: np.ndarray,
  *,
  kappa: float | None = None,
) -> jax.Array:
  """`[n, num_steps]` weights of a learned one for labels, on the sampler's grid.

  They are taken times `kappa`; None is the strength of its verdict.

  Raises:
    errors.InputError: a table that does not cover the grid.
  """
  if weight.is_table:
    try:
      guidance.require_cover(weight.params['times'], builders.models.time_grid(config))
    except ValueError as error:
      raise errors.InputError(
        f'evaluation.t_max={config.evaluation.t_max}: {error}'
      ) from error
  omega = make_tabulate(config, weight.model, weight.read)(weight.params, label)
  return (weight.kappa if kappa is None else kappa) * omega
