"""The transformer of two streams, and the encoder of prompts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl.testing import absltest
from absl.testing import parameterized
from flax import traverse_util

from lgd import networks
from lgd.networks import mmdit

LENGTH, VOCAB = 6, 20
TOKENS = np.array([[1, 5, 7, 2, 0, 0], [1, 9, 2, 0, 0, 0]], np.int32)


def _network(**settings):
  encode = networks.TokenEncoder(VOCAB, 8, 1, 4)
  sizes = {'patch_size': 2, 'width': 16, 'depth': 2, 'head_dim': 8, **settings}
  return networks.MMDiT(encode=encode, **sizes)


def _perturbed(params, seed=0):
  """No zeros are left, which hide what is behind them."""
  flat = traverse_util.flatten_dict(params, sep='/')
  rng = np.random.default_rng(seed)
  flat = {
    k: v + 0.2 * rng.normal(size=v.shape).astype(v.dtype) for k, v in flat.items()
  }
  return traverse_util.unflatten_dict(flat, sep='/')


def _inputs():
  rng = np.random.default_rng(1)
  xt = jnp.asarray(rng.normal(size=(2, 4, 4, 3)), jnp.float32)
  return xt, jnp.array([0.3, 0.8]), jnp.asarray(TOKENS)


def _params(net):
  return _perturbed(jax.jit(net.init)(jax.random.key(0), *_inputs()))


class MMDiTTest(parameterized.TestCase):
  def test_starts_as_zero(self):
    net = _network()
    params = net.init(jax.random.key(0), *_inputs())
    np.testing.assert_array_equal(net.apply(params, *_inputs()), 0.0)

  def test_patches_are_squares_row_after_row(self):
    x = np.arange(2 * 4 * 6 * 3).reshape(2, 4, 6, 3)
    rows = mmdit.patches(jnp.asarray(x), 2)
    expected = [
      x[:, i : i + 2, j : j + 2].reshape(2, -1) for i in (0, 2) for j in (0, 2, 4)
    ]
    np.testing.assert_array_equal(rows, np.stack(expected, axis=1))
    np.testing.assert_array_equal(mmdit.unpatches(rows, x.shape, 2), x)

  def test_positions_differ(self):
    rows = np.asarray(mmdit.positions(5, 7, 16))
    distance = np.linalg.norm(rows[:, None] - rows[None], axis=-1)
    self.assertGreater(np.min(distance + 9.0 * np.eye(35)), 0.1)

  def test_patches_know_their_places(self):
    """Without positions, patches that change places would be all that changes."""
    net = _network()
    xt, t, tokens = _inputs()
    params, apply = _params(net), jax.jit(net.apply)
    out = apply(params, xt, t, tokens)
    for axis in (1, 2):
      moved = apply(params, jnp.roll(xt, 2, axis), t, tokens)
      self.assertGreater(np.abs(jnp.roll(moved, -2, axis) - out).max(), 1e-2)

  @parameterized.parameters(False, True)
  def test_a_block_is_what_the_equations_say(self, ends_text):
    rng = np.random.default_rng(2)
    x, y, e = (rng.normal(size=s) for s in ((1, 4, 16), (1, 3, 16), (1, 16)))
    mask = np.array([[True, True, False]])
    block = mmdit.JointBlock(8, jnp.float32, ends_text)
    args = [jnp.asarray(a, jnp.float32) for a in (x, y, e)]
    params = _perturbed(jax.jit(block.init)(jax.random.key(0), *args, mask))
    actual = jax.jit(block.apply)(params, *args, mask)
    expected = _block_in_loops(params['params'], x[0], y[0], e[0], ends_text)
    np.testing.assert_allclose(actual[0][0], expected[0], rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(actual[1][0, :2], expected[1][:2], rtol=2e-4, atol=2e-4)

  def test_padding_is_not_seen(self):
    net = _network()
    xt, t, tokens = _inputs()
    params = _params(net)
    long = net.apply(params, xt, t, tokens)
    encoder = params['params']['encode']
    encoder['position'] = encoder['position'][:4]
    np.testing.assert_allclose(net.apply(params, xt, t, tokens[:, :4]), long, atol=1e-5)

  def test_prompts_and_times_of_others_do_not_matter(self):
    net = _network()
    xt, t, tokens = _inputs()
    params = _params(net)
    both = net.apply(params, xt, t, tokens)
    alone = net.apply(params, xt[1:], t[1:], tokens[1:])
    np.testing.assert_allclose(both[1:], alone, atol=1e-5)
    other = net.apply(params, xt, t, tokens[::-1])
    self.assertGreater(np.abs(other - both).max(), 1e-2)

  def test_a_null_prompt_is_finite(self):
    net = _network()
    xt, t, tokens = _inputs()
    out = jax.jit(net.apply)(_params(net), xt, t, jnp.zeros_like(tokens))
    self.assertTrue(np.isfinite(out).all())

  @pytest.mark.slow
  def test_remat_changes_nothing(self):
    nets = _network(), _network(remat=True)
    params = _params(nets[0])

    def loss(params, net):
      return jnp.mean(jnp.square(net.apply(params, *_inputs())))

    gradient = jax.jit(jax.grad(loss), static_argnums=1)
    plain, again = (gradient(params, net) for net in nets)
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), plain, again
    )

  @pytest.mark.slow
  def test_half_precision_is_close_and_parameters_stay_whole(self):
    half = _network(dtype=jnp.bfloat16)
    params = _params(half)
    self.assertEqual({p.dtype for p in jax.tree.leaves(params)}, {np.dtype('float32')})
    expected = _network().apply(params, *_inputs())
    actual = half.apply(params, *_inputs())
    self.assertEqual(actual.dtype, jnp.float32)
    scale = np.abs(expected).max()
    np.testing.assert_allclose(actual, expected, atol=0.05 * scale)
    self.assertGreater(np.abs(actual - expected).max(), 1e-5 * scale)

  def test_every_parameter_is_learned(self):
    net = _network()
    loss = jax.jit(jax.grad(lambda p: jnp.sum(jnp.sin(net.apply(p, *_inputs())))))
    grad = loss(_params(net))
    for name, g in traverse_util.flatten_dict(grad['params'], sep='/').items():
      if name.endswith('key/bias'):
        continue  # The same for all keys of a query: softmax does not see it.
      self.assertGreater(np.abs(g).max(), 0.0, name)


class TokenEncoderTest(absltest.TestCase):
  def test_more_padding_changes_nothing(self):
    encoder = networks.TokenEncoder(VOCAB, 8, 2, 4)
    tokens = jnp.asarray(TOKENS)
    params = _perturbed(encoder.init(jax.random.key(0), tokens))
    long = encoder.apply(params, tokens)
    params['params']['position'] = params['params']['position'][:4]
    short = encoder.apply(params, tokens[:, :4])
    np.testing.assert_allclose(long.pooled, short.pooled, atol=1e-5)
    seen = np.asarray(short.mask)
    np.testing.assert_allclose(long.tokens[:, :4][seen], short.tokens[seen], atol=1e-5)

  def test_pooled_is_the_mean_of_what_is_no_padding(self):
    encoder = networks.TokenEncoder(VOCAB, 8, 1, 4)
    text, _ = encoder.init_with_output(jax.random.key(0), jnp.asarray(TOKENS))
    for i, length in enumerate((4, 3)):
      mean = np.mean(np.asarray(text.tokens[i, :length], np.float64), axis=0)
      np.testing.assert_allclose(text.pooled[i], mean, atol=1e-6)
    null, _ = encoder.init_with_output(jax.random.key(0), jnp.zeros((1, LENGTH), int))
    np.testing.assert_array_equal(null.pooled, 0.0)

  def test_order_matters(self):
    encoder = networks.TokenEncoder(VOCAB, 8, 1, 4)
    params = encoder.init(jax.random.key(0), jnp.asarray(TOKENS))
    a, b = (
      encoder.apply(params, jnp.array([[*row, 0, 0]])).pooled
      for row in ([1, 5, 7, 2], [1, 7, 5, 2])
    )
    self.assertGreater(np.abs(a - b).max(), 1e-4)


def _block_in_loops(params, x, y, e, ends_text):
  """Equations (2)-(4) of `mmdit` for one element, a head and a query at a time."""

  def dense(h, name):
    kernel = np.asarray(params[name]['kernel'], np.float64)
    bias = np.asarray(params[name]['bias'], np.float64)
    if kernel.ndim == 3 and kernel.shape[0] == h.shape[-1]:  # To heads.
      return np.einsum('nw,whd->nhd', h, kernel) + bias
    if kernel.ndim == 3:  # From heads.
      return np.einsum('nhd,hdw->nw', h, kernel) + bias
    return h @ kernel + bias

  def modulated(h, shift, scale):
    mean, var = h.mean(axis=-1, keepdims=True), h.var(axis=-1, keepdims=True)
    return (h - mean) / np.sqrt(var + 1e-6) * (1.0 + scale) + shift

  def rms(h, name):
    scale = np.asarray(params[name]['scale'], np.float64)
    return h / np.sqrt(np.mean(h**2, axis=-1, keepdims=True) + 1e-6) * scale

  streams = {'image': x, 'text': y}
  chunks, q, k, v = {}, {}, {}, {}
  for name, h in streams.items():
    num = 2 if ends_text and name == 'text' else 6
    chunks[name] = np.split(dense(e, f'{name}_modulation'), num)
    z = modulated(h, *chunks[name][:2])
    if f'{name}_q' in params:
      q[name] = rms(dense(z, f'{name}_q'), f'{name}_q_norm')
    k[name] = rms(dense(z, f'{name}_k'), f'{name}_k_norm')
    v[name] = dense(z, f'{name}_v')
  keys = np.concatenate([k['image'], k['text'][:2]])  # The third token is padding.
  values = np.concatenate([v['image'], v['text'][:2]])
  updated = {}
  for name, h in streams.items():
    if name == 'text' and ends_text:
      updated[name] = h
      continue
    a = np.zeros_like(q[name])
    for i, j in np.ndindex(a.shape[:2]):
      logits = keys[:, j] @ q[name][i, j] / np.sqrt(a.shape[-1])
      weights = np.exp(logits - logits.max())
      a[i, j] = weights @ values[:, j] / weights.sum()
    gate, shift, scale, mlp_gate = chunks[name][2:]
    z = h + gate * dense(a, f'{name}_attention_out')
    hidden = dense(modulated(z, shift, scale), f'{name}_hidden')
    inner = np.sqrt(2.0 / np.pi) * (hidden + 0.044715 * hidden**3)
    hidden = 0.5 * hidden * (1.0 + np.tanh(inner))
    updated[name] = z + mlp_gate * dense(hidden, f'{name}_out')
  return updated['image'], updated['text']


if __name__ == '__main__':
  absltest.main()
