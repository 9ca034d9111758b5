"""Mixtures of Gaussians with exact denoisers: an oracle, and a base model.

Class c is a mixture of K isotropic Gaussians, classes are equally likely:

  (1)  p(x_0 | c) = sum_k w_ck N(m_ck, v_ck I),  p(x_0) = 1/C sum_c p(x_0 | c)
  (2)  p(x_t | c) = sum_k w_ck N(alpha m_ck, (alpha^2 v_ck + sigma^2) I)
  (3)  E[x_0 | x_t, c] = sum_k r_k [m_k + g_k (x_t - alpha m_k)],
       g_k = alpha v_k / (alpha^2 v_k + sigma^2)

with r_k the responsibility of component k for x_t. The null condition pools all
components. The score of (2) follows from (3): (alpha E[x_0 | x_t, c] - x_t) / sigma^2.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from lgd import conditions
from lgd import types
from lgd.data import splits


class Mixture(NamedTuple):
  """A class-conditional mixture; a pytree, so it can be a denoiser's params."""

  means: jax.Array  # [num_classes, components, dim]
  variances: jax.Array  # [num_classes, components]
  log_weights: jax.Array  # [num_classes, components], normalised per class

  @property
  def num_classes(self) -> int:
    return self.means.shape[0]

  @property
  def dim(self) -> int:
    return self.means.shape[-1]


def ring(num_classes: int = 8, *, radius: float = 1.0, std: float = 0.15) -> Mixture:
  """One Gaussian per class, equally spaced on a circle in the plane."""
  angle = 2.0 * jnp.pi * jnp.arange(num_classes) / num_classes
  means = radius * jnp.stack([jnp.cos(angle), jnp.sin(angle)], axis=-1)
  return Mixture(
    means=means[:, None],
    variances=jnp.full((num_classes, 1), std**2),
    log_weights=jnp.zeros((num_classes, 1)),
  )


def random(
  key: jax.Array,
  num_classes: int,
  *,
  dim: int,
  components: int,
  radius: float = 1.0,
  std: float = 0.15,
) -> Mixture:
  """Equally likely Gaussians, their means independent and uniform on a sphere.

  Args:
    key: of the means.
    num_classes: number of classes.
    dim: of the data; the sphere is the one in this many dimensions.
    components: Gaussians of each class.
    radius: of the sphere, around 0.
    std: of every Gaussian, in every direction.
  """
  direction = jax.random.normal(key, (num_classes, components, dim))
  norm = jnp.linalg.norm(direction, axis=-1, keepdims=True)
  return Mixture(
    means=radius * direction / norm,
    variances=jnp.full((num_classes, components), std**2),
    log_weights=jnp.full((num_classes, components), -math.log(components)),
  )


def sample(key: jax.Array, mixture: Mixture, label: jax.Array) -> jax.Array:
  """Draws x_0 ~ p(. | label), (1): `[batch]` integers -> `[batch, dim]`.

  Labels are 0..num_classes-1; the null label is not one of them.
  """
  key_component, key_noise = jax.random.split(key)
  component = jax.random.categorical(key_component, mixture.log_weights[label])
  noise = jax.random.normal(key_noise, (*label.shape, mixture.dim))
  std = jnp.sqrt(mixture.variances[label, component])
  return mixture.means[label, component] + std[:, None] * noise


def dataset(key: jax.Array, mixture: Mixture, *, num_per_class: int) -> splits.Dataset:
  """Three independent draws of `num_per_class` points of every class."""
  label = np.repeat(np.arange(mixture.num_classes, dtype=np.int32), num_per_class)
  train, validation, test = (
    splits.Split(np.asarray(sample(k, mixture, label)), label)
    for k in jax.random.split(key, 3)
  )
  return splits.Dataset(train, validation, test, conditions.Labels(mixture.num_classes))


def denoiser(schedule: types.Schedule) -> types.Denoiser:
  """The exact denoiser (3): `(mixture, xt, t, label) -> E[x_0 | x_t, label]`.

  Label `num_classes` is the null condition. xt is `[batch, dim]`, t is `[batch]`;
  at t = 0 the variances must be positive.
  """

  def denoise(mixture, xt, t, label):
    log_prob, posterior_mean = _components(mixture, schedule, xt, t)
    responsibility = jax.nn.softmax(_select(mixture, log_prob, label), axis=-1)
    return jnp.einsum('bk,bkd->bd', responsibility, posterior_mean)

  return denoise


class ExactNetwork(nn.Module):
  """(3) as a base network that predicts x0: `(xt [batch, dim], t [batch], label)`.

  The mixture is its parameters; they have no gradients, so that training leaves them.

  Attributes:
    schedule: noise schedule.
    make_mixture: makes the mixture.
  """

  schedule: types.Schedule
  make_mixture: Callable[[], Mixture]

  @nn.compact
  def __call__(self, xt: jax.Array, t: jax.Array, label: jax.Array) -> jax.Array:
    params = [
      self.param(name, lambda _, name=name: getattr(self.make_mixture(), name))
      for name in Mixture._fields
    ]
    return denoiser(self.schedule)(
      Mixture(*jax.lax.stop_gradient(params)), xt, t, label
    )


def log_density(
  mixture: Mixture,
  schedule: types.Schedule,
  xt: jax.Array,
  t: jax.Array,
  label: jax.Array,
) -> jax.Array:
  """`log p(x_t | label)`, (2): `[batch]`. Label `num_classes` pools the classes."""
  log_prob, _ = _components(mixture, schedule, xt, t)
  return jax.nn.logsumexp(_select(mixture, log_prob, label), axis=-1)


def _components(mixture, schedule, xt, t):
  """Per component, classes flattened: log w N(x_t) and the posterior mean of x_0."""
  means = mixture.means.reshape(-1, mixture.dim)  # [k, dim]
  variances = mixture.variances.reshape(-1)  # [k]
  alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]  # [batch, 1]
  marginal_var = alpha**2 * variances + sigma**2  # [batch, k]
  diff = xt[:, None] - alpha[..., None] * means  # [batch, k, dim]
  log_prob = mixture.log_weights.reshape(-1) - 0.5 * (
    jnp.sum(diff**2, axis=-1) / marginal_var
    + mixture.dim * jnp.log(2.0 * jnp.pi * marginal_var)
  )
  gain = alpha * variances / marginal_var
  return log_prob, means + gain[..., None] * diff


def _select(mixture, log_prob, label):
  """Keeps the components of each row's class; all of them, evenly, for null."""
  owner = jnp.repeat(jnp.arange(mixture.num_classes), mixture.means.shape[1])
  is_null = label[:, None] == mixture.num_classes
  own = owner[None] == label[:, None]
  log_prior = jnp.where(is_null, -jnp.log(mixture.num_classes), 0.0)
  return jnp.where(own | is_null, log_prob + log_prior, -jnp.inf)
