"""The few call signatures that the whole package agrees on."""

from collections.abc import Callable
from typing import Any
from typing import Protocol

import jax

Params = Any  # A pytree of arrays.
Cond = Any  # A pytree of `[batch, ...]` arrays; labels, attributes, embeddings.

# (params, xt [batch, *data], t [batch], cond [batch, ...]) -> x0_hat [batch, *data].
# Whatever the network predicts, a denoiser returns the clean prediction.
Denoiser = Callable[[Params, jax.Array, jax.Array, Cond], jax.Array]

# (xt [batch, *data], s [batch], t [batch], cond) -> x0_hat [batch, *data].
# What the sampler calls: guidance, if any, has already happened inside.
Denoise = Callable[[jax.Array, jax.Array, jax.Array, Cond], jax.Array]

# (cond, s [batch], t [batch]) -> omega [batch].
Weight = Callable[[Cond, jax.Array, jax.Array], jax.Array]

# (pred_cond [batch, *data], pred_null [batch, *data], omega [batch]) -> [batch, *data].
# Predictions of one kind, clean ones unless said otherwise. Never of particles: a rule
# may take norms over the data of an element, and whoever has particles maps over them.
Rule = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]

# (x0_hat [batch, *data], cond) -> [batch], to be raised; each row on its own.
Reward = Callable[[jax.Array, Cond], jax.Array]

# (pred_cond, pred_null) -> delta, all [batch, *data]: a rule linear in omega is
# pred_cond + omega delta.
Direction = Callable[[jax.Array, jax.Array], jax.Array]

Inputs = Any  # A pytree of arrays that the sampler hands to one step.

# (xt, s, t, cond, inputs) -> x0_hat: a `Denoise` that knows more of its step.
StepDenoise = Callable[[jax.Array, jax.Array, jax.Array, Cond, Inputs], jax.Array]

Memory = Any  # A pytree of arrays that the sampler carries from step to step.

# (xt, s, t, cond, memory) -> (x0_hat, memory): a `Denoise` that remembers; the step's
# inputs, if any, come before the memory.
MemoryDenoise = Callable[
  [jax.Array, jax.Array, jax.Array, Cond, Memory], tuple[jax.Array, Memory]
]


class MemoryRule(Protocol):
  """A `Rule` that remembers."""

  def init(self, shape: tuple[int, ...]) -> Memory: ...

  def apply(
    self,
    pred_cond: jax.Array,
    pred_null: jax.Array,
    omega: jax.Array,
    memory: Memory,
  ) -> tuple[jax.Array, Memory]: ...


class Schedule(Protocol):
  """Signal scale alpha and noise scale sigma of x_t = alpha x_0 + sigma eps."""

  def alpha(self, t: jax.Array) -> jax.Array: ...

  def sigma(self, t: jax.Array) -> jax.Array: ...

  def logsnr(self, t: jax.Array) -> jax.Array: ...
