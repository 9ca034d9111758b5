"""CLIP against its towers in NumPy float64, under transformers' names.

`experiments/clip_parity.py` runs transformers' own code.
"""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized

from lgd import metrics
from lgd import networks
from lgd.networks import published
from tests.lgd.networks import clip_states


@functools.cache
def _params():
  return published.clip.from_transformers(clip_states.state(), clip_states.CONFIG)


class _Reference:
  """transformers' CLIPModel: one example, one head and one position at a time."""

  def __init__(self, state):
    self._state = {name: np.float64(array) for name, array in state.items()}

  def image(self, image):
    """`[size, size, 3] -> [dim]`."""
    kernel = self._state['vision_model.embeddings.patch_embedding.weight']
    side = kernel.shape[-1]
    rows = [self._state['vision_model.embeddings.class_embedding']]
    for y in range(0, image.shape[0], side):
      for x in range(0, image.shape[1], side):
        patch = image[y : y + side, x : x + side]
        rows.append(np.einsum('oihw,hwi->o', kernel, patch))
    h = np.stack(rows)
    h = h + self._state['vision_model.embeddings.position_embedding.weight']
    h = self._norm('vision_model.pre_layrnorm', h)
    h = self._layers('vision_model', clip_states.CONFIG.image_layers, h, causal=False)
    pooled = self._norm('vision_model.post_layernorm', h[0])
    return self._state['visual_projection.weight'] @ pooled

  def text(self, tokens):
    """`[length] -> [dim], [length, width]`."""
    embeddings = 'text_model.embeddings'
    h = self._state[f'{embeddings}.token_embedding.weight'][tokens]
    h = h + self._state[f'{embeddings}.position_embedding.weight'][: len(tokens)]
    h = self._layers('text_model', clip_states.CONFIG.text_layers, h, causal=True)
    hidden = self._norm('text_model.final_layer_norm', h)
    end = list(tokens).index(clip_states.CONFIG.eot)
    return self._state['text_projection.weight'] @ hidden[end], hidden

  def _layers(self, tower, layers, h, causal):
    for i in range(layers):
      layer = f'{tower}.encoder.layers.{i}'
      x = self._norm(f'{layer}.layer_norm1', h)
      h = h + self._attention(f'{layer}.self_attn', x, causal)
      x = self._linear(f'{layer}.mlp.fc1', self._norm(f'{layer}.layer_norm2', h))
      h = h + self._linear(f'{layer}.mlp.fc2', x / (1.0 + np.exp(-1.702 * x)))
    return h

  def _attention(self, name, x, causal):
    q, k, v = (self._linear(f'{name}.{letter}_proj', x) for letter in 'qkv')
    out = np.zeros_like(x)
    for start in range(0, x.shape[1], clip_states.CONFIG.head_dim):
      head = slice(start, start + clip_states.CONFIG.head_dim)
      for i in range(len(x)):
        seen = i + 1 if causal else len(x)
        weight = np.exp(k[:seen, head] @ q[i, head] / clip_states.CONFIG.head_dim**0.5)
        out[i, head] = weight @ v[:seen, head] / weight.sum()
    return self._linear(f'{name}.out_proj', out)

  def _linear(self, name, x):
    return x @ self._state[f'{name}.weight'].T + self._state[f'{name}.bias']

  def _norm(self, name, x):
    x = x - x.mean(axis=-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-5)
    return x * self._state[f'{name}.weight'] + self._state[f'{name}.bias']


_apply = jax.jit(networks.CLIP(clip_states.CONFIG).apply, static_argnames='method')


def _encode(method, x):
  return _apply(_params(), x, method=method)


def _assert_close(actual, expected):
  scale = np.max(np.abs(expected))
  np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5 * scale)


class ClipTest(parameterized.TestCase):
  # The second has tokens above the end of text, after its first end and before.
  tokens = np.asarray([[1, 5, 7, 20, 20, 20, 20], [1, 48, 20, 49, 20, 3, 9]], np.int32)

  def test_images_match_the_reference(self):
    images = np.random.default_rng(1).normal(size=(2, 16, 16, 3))
    reference = _Reference(clip_states.state())
    actual = _encode('encode_image', jnp.asarray(images, jnp.float32))
    _assert_close(actual, [reference.image(image) for image in images])

  def test_texts_match_the_reference(self):
    reference = _Reference(clip_states.state())
    pooled, hidden = _encode('encode_text', self.tokens)
    for i, tokens in enumerate(self.tokens):
      expected_pooled, expected_hidden = reference.text(tokens)
      _assert_close(pooled[i], expected_pooled)
      _assert_close(hidden[i], expected_hidden)

  def test_both_at_once(self):
    """What `init` runs; logit_scale comes along."""
    images = jnp.ones((2, 16, 16, 3))
    image, text, logit_scale = _apply(_params(), images, self.tokens)
    _assert_close(image, _encode('encode_image', images))
    _assert_close(text, _encode('encode_text', self.tokens)[0])
    self.assertEqual(logit_scale, clip_states.state()['logit_scale'])

  @parameterized.parameters(1, 2, 5)
  def test_text_is_causal(self, position):
    """A token changes what is at and after it alone; the embedding, up to the end."""
    tokens = np.asarray([[1, 2, 3, 20, 4, 5, 6]] * 2)
    tokens[1, position] = 40
    pooled, hidden = _encode('encode_text', tokens)
    difference = np.max(np.abs(hidden[0] - hidden[1]), axis=-1)
    np.testing.assert_array_equal(difference[:position], 0.0)
    self.assertTrue(np.all(difference[position:] > 1e-3))
    self.assertEqual(bool(np.all(pooled[0] == pooled[1])), position > 3)

  def test_padding_can_be_left_out(self):
    pooled, hidden = _encode('encode_text', self.tokens)
    short_pooled, short_hidden = _encode('encode_text', self.tokens[:, :4])
    _assert_close(short_pooled, pooled)
    _assert_close(short_hidden, hidden[:, :4])

  def test_a_text_without_end_is_not_an_empty_one(self):
    tokens = self.tokens.copy()
    tokens[0, 3:] = 8
    pooled, hidden = _encode('encode_text', tokens)
    self.assertTrue(np.all(np.isnan(pooled[0])))
    self.assertTrue(np.all(np.isfinite(pooled[1])))
    self.assertTrue(np.all(np.isfinite(hidden)))

  def test_names_a_wrong_shape(self):
    with self.assertRaisesRegex(ValueError, r'shape \(2, 32, 32, 3\): .* 16, 16, 3'):
      _encode('encode_image', jnp.zeros((2, 32, 32, 3)))
    with self.assertRaisesRegex(ValueError, r'shape \(2, 8\): .* length at most 7'):
      _encode('encode_text', jnp.zeros((2, 8), jnp.int32))

  def test_config_names_what_is_wrong(self):
    for changes, message in (
      ({'patch': 5}, 'size=16: must be a multiple of patch=5'),
      ({'text_width': 12}, 'text_width=12: must be a multiple of head_dim=8'),
      ({'eot': 50}, 'eot=50: must be below vocab_size=50'),
    ):
      with self.assertRaisesRegex(ValueError, message):
        dataclasses.replace(clip_states.CONFIG, **changes)

  def test_every_product_is_of_the_highest_precision(self):
    """Each layer has 4 projections, 2 of the MLP, and 2 products of the attention."""
    images = jnp.zeros((2, 16, 16, 3))
    program = jax.make_jaxpr(networks.CLIP(clip_states.CONFIG).apply)(
      _params(), images, self.tokens
    )
    products = re.findall(r'= (?:dot_general|conv_general_dilated)\[', str(program))
    self.assertLen(products, 4 * 8 + 3)  # And the patches, and one for each tower.
    self.assertEqual(str(program).count('Precision.HIGHEST'), 2 * len(products))

  @parameterized.parameters(*clip_states.PUBLISHED)
  def test_has_the_published_number_of_parameters(self, config, num_published):
    images = jnp.zeros((1, config.size, config.size, 3))
    tokens = jnp.zeros((1, config.length), jnp.int32)
    init = networks.CLIP(config).init
    params = jax.eval_shape(init, jax.random.key(0), images, tokens)
    self.assertEqual(sum(leaf.size for leaf in jax.tree.leaves(params)), num_published)

  def test_the_loss_reaches_every_parameter(self):
    """But the keys' biases, which add the same to all logits of a softmax."""
    config = dataclasses.replace(clip_states.CONFIG, image_layers=1, text_layers=1)
    rng = np.random.default_rng(2)
    images = rng.normal(size=(4, config.size, config.size, 3))
    tokens = rng.integers(0, config.vocab_size, (4, config.length))
    tokens[:, -1] = config.eot
    net = networks.CLIP(config)
    params = jax.tree.map(
      lambda leaf: rng.normal(size=leaf.shape) / 3.0,
      jax.eval_shape(net.init, jax.random.key(0), images, tokens),
    )

    def loss(params):
      return networks.contrastive_loss(*net.apply(params, images, tokens))

    gradients = jax.jit(jax.grad(loss))(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
      name = jax.tree_util.keystr(path, simple=True, separator='/')
      largest = float(np.max(np.abs(leaf)))
      if name.endswith('key/bias'):
        self.assertLess(largest, 1e-8, name)
      else:
        self.assertGreater(largest, 1e-6, name)


class ClipLossTest(parameterized.TestCase):
  def test_score_is_the_cosine(self):
    rng = np.random.default_rng(0)
    image, text = rng.normal(size=(2, 5, 3))
    angle = np.arccos(networks.clip_score(image, text))
    for i in range(5):  # Law of cosines, of unit vectors.
      a, b = image[i] / np.linalg.norm(image[i]), text[i] / np.linalg.norm(text[i])
      self.assertAlmostEqual(2.0 * np.sin(angle[i] / 2.0), np.linalg.norm(a - b), 5)
    _assert_close(networks.clip_score(image, 3.0 * image), np.ones(5))
    _assert_close(networks.clip_score(image, -image), -np.ones(5))

  def test_loss_matches_a_loop(self):
    n, logit_scale = 6, 1.3
    image, text = np.random.default_rng(1).normal(size=(2, n, 4))
    odds = np.zeros((n, n))
    for i in range(n):
      for j in range(n):
        lengths = np.sqrt(image[i] @ image[i]) * np.sqrt(text[j] @ text[j])
        odds[i, j] = np.exp(np.exp(logit_scale) * (image[i] @ text[j]) / lengths)
    expected = 0.0
    for i in range(n):
      of_texts, of_images = odds[i, i] / sum(odds[i]), odds[i, i] / sum(odds[:, i])
      expected -= (np.log(of_texts) + np.log(of_images)) / (2 * n)
    actual = networks.contrastive_loss(image, text, logit_scale)
    self.assertAlmostEqual(float(actual), expected, places=5)

  def test_limits_of_the_loss(self):
    """0, log n, and of pairs that are all wrong, the logit by which they are."""
    eye, ones = jnp.eye(8), jnp.ones((8, 3))
    loss = networks.contrastive_loss
    self.assertAlmostEqual(float(loss(eye, 5.0 * eye, jnp.log(100.0))), 0.0, places=6)
    self.assertAlmostEqual(float(loss(ones, ones, 2.0)), np.log(8.0), places=5)
    wrong = float(loss(eye, jnp.roll(eye, 1, axis=0), jnp.log(50.0)))
    self.assertAlmostEqual(wrong, 50.0, places=4)

  def test_scale_stops_at_a_hundred(self):
    image, text = np.random.default_rng(2).normal(size=(2, 4, 3))
    loss = functools.partial(networks.contrastive_loss, image, text)
    np.testing.assert_allclose(loss(9.0), loss(np.log(100.0)), rtol=1e-5)
    self.assertNotAlmostEqual(float(loss(4.0)), float(loss(np.log(100.0))), places=2)


class ClipFeaturesTest(absltest.TestCase):
  def test_are_embeddings_of_8_bit_images(self):
    """In batches; of CLIP's own size, which is not resized."""
    images = np.random.default_rng(4).integers(0, 256, (3, 16, 16, 3), np.uint8)
    arrays = published.clip.arrays_from_transformers(
      clip_states.state(), clip_states.CONFIG
    )
    params = published.clip.image_tower(arrays, clip_states.CONFIG, 'arrays')
    self.assertEqual(set(params['params']), {'image', 'logit_scale'})
    extractor = metrics.clip(params, clip_states.CONFIG, 'clip_small')
    self.assertEqual(extractor.distance_name, 'frechet_clip_small_proxy')
    features, log_prob = metrics.extract(extractor, images, batch_size=2)
    self.assertIsNone(log_prob)
    mean = np.asarray([0.48145466, 0.4578275, 0.40821073])
    std = np.asarray([0.26862954, 0.26130258, 0.27577711])
    reference = _Reference(clip_states.state())
    _assert_close(features, [reference.image((x / 255.0 - mean) / std) for x in images])


if __name__ == '__main__':
  absltest.main()
