"""GuidanceNet: the learned weight omega(c, s, t) >= 0.

  (1)  h     = MLP_s(logsnr(s)) + MLP_t(logsnr(t)) + embedding(c)
  (2)  omega = project(trunk(h))
  (3)  project(u) = max(u, 0);  its gradient passes where u > 0, or where a descent
       step would raise u (incoming gradient < 0), and is 0 elsewhere

(3) is the projected gradient of the constraint omega >= 0, example by example: at
omega = 0 the noise of a minibatch leaves a bias of the order of the learning rate.
A plain ReLU has no gradient once every pre-activation is negative, and then omega
stays 0 for good; with (3) a zero weight can always come back.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from lgd import arrays
from lgd import types


@jax.custom_vjp
def project(u: jax.Array) -> jax.Array:
  """`max(u, 0)` with the gradient of the constraint, (3)."""
  return jnp.maximum(u, 0.0)


def _project_fwd(u):
  return project(u), u


def _project_bwd(u, grad):
  # Asked this way round, NaN passes: a mask that drops it would leave omega 0 for ever.
  return (jnp.where((u <= 0.0) & (grad >= 0.0), 0.0, grad),)


project.defvjp(_project_fwd, _project_bwd)


class LabelEmbedding(nn.Module):
  """A table of class embeddings: `[batch]` integers -> `[batch, width]`.

  A label outside 0..num_classes-1 gives NaN.
  """

  num_classes: int
  width: int

  @nn.compact
  def __call__(self, cond: jax.Array) -> jax.Array:
    table = nn.Embed(self.num_classes, self.width, name='table')
    return table(arrays.index_or_nan(cond, self.num_classes))


class VectorEmbedding(nn.Module):
  """Projected attributes or text embeddings: `[batch, dim]` -> `[batch, width]`."""

  width: int

  @nn.compact
  def __call__(self, cond: jax.Array) -> jax.Array:
    h = nn.silu(nn.Dense(self.width, name='hidden')(cond))
    return nn.Dense(self.width, name='out')(h)


class TokenEmbedding(nn.Module):
  """Prompts as bags: `[batch, length]` tokens, 0 at padding -> `[batch, width]`.

  The mean of the tokens' embeddings, projected.
  """

  vocab_size: int
  width: int

  @nn.compact
  def __call__(self, cond: jax.Array) -> jax.Array:
    mask = (cond != 0)[..., None]
    rows = nn.Embed(self.vocab_size, self.width, name='table')(cond)
    mean = jnp.sum(rows * mask, axis=1) / jnp.maximum(mask.sum(axis=1), 1)
    return VectorEmbedding(self.width, name='projection')(mean)


class PooledEmbedding(nn.Module):
  """Prompts by `{encoder: {'pooled': [batch, dim], ...}}` -> `[batch, width]`.

  The pooled embeddings side by side, each scaled to a root mean square of 1, projected.
  Whatever else an encoder gives is not read, and need not be there.
  """

  width: int

  @nn.compact
  def __call__(self, cond: types.Cond) -> jax.Array:
    norm = nn.RMSNorm(use_scale=False)
    each = [norm(cond[name]['pooled'].astype(jnp.float32)) for name in sorted(cond)]
    pooled = jnp.concatenate(each, axis=-1)
    return VectorEmbedding(self.width, name='projection')(pooled)


class GuidanceNet(nn.Module):
  """The guidance weight network, (1)-(3).

  Attributes:
    schedule: noise schedule, for logsnr.
    embed: the condition embedding, to `[batch, width]`; a `LabelEmbedding`, a
      `VectorEmbedding`, a `TokenEmbedding`, a `PooledEmbedding`, or any module of that
      signature.
    width: of the embeddings and the trunk; the paper has 64 for toys, 512 for
      images.
    depth: layers of the trunk, the output layer included; the paper has 6.
    num_directions: K of omega `[batch, K]`; None is a single one, `[batch]`.
    max_logsnr: logsnr is clipped to +-max_logsnr, since it is infinite at t = 0
      and t = 1.
  """

  schedule: types.Schedule
  embed: nn.Module
  width: int
  depth: int = 6
  num_directions: int | None = None
  max_logsnr: float = 12.0

  @nn.compact
  def __call__(self, cond: types.Cond, s: jax.Array, t: jax.Array) -> jax.Array:
    """omega for cond `[batch, ...]` and times `[batch]`, s < t."""
    h = self._embed_time(s, 's') + self._embed_time(t, 't') + self.embed(cond)
    for i in range(self.depth - 1):
      h = nn.silu(nn.Dense(self.width, name=f'trunk_{i}')(h))
    num = self.num_directions
    u = nn.Dense(num or 1, name='out', kernel_init=nn.initializers.zeros)(h)
    return project(u[:, 0] if num is None else u)

  def _embed_time(self, time: jax.Array, name: str) -> jax.Array:
    """`[batch]` -> `[batch, width]`, from logsnr(time) scaled to [-4, 4]."""
    logsnr = self.schedule.logsnr(time)
    logsnr = jnp.clip(logsnr, -self.max_logsnr, self.max_logsnr)
    h = 4.0 * logsnr[:, None] / self.max_logsnr
    h = nn.silu(nn.Dense(self.width, name=f'logsnr_{name}_hidden')(h))
    return nn.Dense(self.width, name=f'logsnr_{name}_out')(h)
