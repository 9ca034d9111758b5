"""What CLIP sees of an image, against PIL."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
from absl.testing import absltest
from absl.testing import parameterized

from lgd import networks
from tests.lgd.networks import clip_states


class ClipImagesTest(parameterized.TestCase):
  @parameterized.parameters(
    (20, 33, False),  # Enlarged.
    (20, 33, True),  # Black and white: overshoots are clipped, in both passes.
    (143, 101, True),
  )
  def test_matches_pil(self, height, width, is_black_and_white):
    """Within half a level for each pass, the first times the second's weights."""
    config = dataclasses.replace(clip_states.CONFIG, size=48)
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    if is_black_and_white:
      image = np.where(image < 128, 0, 255).astype(np.uint8)
    short = min(height, width)
    new = (48 * height // short, 48 * width // short)
    resized = PIL.Image.fromarray(image).resize(new[::-1], PIL.Image.Resampling.BICUBIC)
    top, left = round((new[0] - 48) / 2), round((new[1] - 48) / 2)
    expected = np.asarray(resized.crop((left, top, left + 48, top + 48)))
    x = jnp.asarray(image[None] / 127.5 - 1.0, jnp.float32)
    actual = networks.clip.preprocess(x, config)[0]
    mean = np.asarray([0.48145466, 0.4578275, 0.40821073])
    std = np.asarray([0.26862954, 0.26130258, 0.27577711])
    levels = 255.0 * (np.asarray(actual) * std + mean)
    self.assertLess(np.max(np.abs(levels - expected)), 1.13)
    self.assertLess(np.mean(np.abs(levels - expected)), 0.35)

  @parameterized.parameters((33, 0), (35, 2))
  def test_crop_as_torchvision(self, width, left):
    """Halves of a pixel are rounded to even: 0.5 to 0, 1.5 to 2."""
    config = dataclasses.replace(clip_states.CONFIG, size=32)
    x = jnp.broadcast_to(jnp.arange(width) / 64.0, (1, 32, width))[..., None]
    x = jnp.repeat(x, 3, axis=-1)
    expected = (x[..., 0] / 2.0 + 0.5 - 0.48145466) / 0.26862954
    actual = networks.clip.preprocess(x, config)[..., 0]
    expected = expected[..., left : left + 32]
    atol = 1e-5 * np.max(np.abs(expected))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=atol)

  def test_gradient(self):
    """The map is affine inside [-1, 1], and constant outside."""
    config = dataclasses.replace(clip_states.CONFIG, size=8)
    rng = np.random.default_rng(3)
    x, tangent = rng.uniform(-0.3, 0.3, (2, 1, 12, 16, 3)).astype(np.float32)
    weight = rng.normal(size=(1, 8, 8, 3)).astype(np.float32)

    @jax.jit
    @jax.value_and_grad
    def value(x):
      return jnp.sum(weight * networks.clip.preprocess(x, config))

    before, gradient = value(x)
    after, _ = value(x + tangent)
    np.testing.assert_allclose(np.vdot(gradient, tangent), after - before, rtol=1e-4)
    np.testing.assert_array_equal(value(np.full_like(x, 3.0))[1], 0.0)

  def test_errors(self):
    for shape, dtype in (((2, 8, 8, 3), 'uint8'), ((8, 8, 3), 'float32')):
      with self.assertRaisesRegex(ValueError, f'{dtype} and shape .*must be floats'):
        networks.clip.preprocess(jnp.zeros(shape, dtype), clip_states.CONFIG)


if __name__ == '__main__':
  absltest.main()
