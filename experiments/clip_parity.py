"""Our CLIP against transformers', with the same random weights.

  python -m venv .parity && .parity/bin/pip install -r requirements-clip-parity.txt
  .parity/bin/python -m experiments.clip_parity

The weights go the way of the published ones: a .safetensors, `convert_clip`, an .npz,
`load`. Random images and tokens go through both networks, once of the sizes of ViT-B/32
and once of a small model with patches of 14 and towers of different widths, as ViT-L/14
has; texts end by either of transformers' conventions. Printed is the largest difference
of every output over the largest magnitude in it. As every array is drawn at random, one
that is permuted, misnamed or not used shows. Exits with 1 where a difference is above
1e-4.
"""

import pathlib
import sys
import tempfile

import jax
import numpy as np
from absl import app
from absl import flags
from etils import epy

from lgd import networks
from lgd import types
from lgd.networks import published
from lgd.storage import files

with epy.lazy_imports(error_callback='pip install -r requirements-clip-parity.txt'):
  import safetensors.torch
  import torch
  import transformers

_TOLERANCE = 1e-4
_SMALL = networks.ClipConfig(192, 70, 14, 256, 3, 192, 2)
_LEGACY_EOS = 2  # By which transformers takes the largest token for the end.


def run(*, seed: int, batch: int) -> float:
  """Prints the relative errors of embeddings and hidden states of all models.

  Args:
    seed: of weights, images and tokens.
    batch: number of pairs.

  Returns:
    The largest of the errors.
  """
  worst = 0.0
  for name, config, eos in (
    ('ViT-B/32', networks.CLIP_B32, networks.CLIP_B32.eot),
    ('small, legacy end of text', _SMALL, _LEGACY_EOS),
  ):
    rng = np.random.default_rng(seed)
    theirs = random_reference(rng, config, eos)
    images = rng.normal(size=(batch, config.size, config.size, 3)).astype(np.float32)
    tokens = _random_tokens(rng, config, batch)
    expected = _reference_outputs(theirs, images, tokens)
    apply = jax.jit(networks.CLIP(config).apply, static_argnames='method')
    params = converted(theirs, config)
    actual = (
      apply(params, images, method='encode_image'),
      *apply(params, tokens, method='encode_text'),
    )
    for output, ours, reference in zip(
      ('image embedding', 'text embedding', 'hidden states'),
      actual,
      expected,
      strict=True,
    ):
      largest = np.max(np.abs(reference))
      error = float(np.max(np.abs(ours - reference)) / largest)
      print(
        f'{name}: {output} {reference.shape}: largest {largest:.3g}, relative error'
        f' {error:.2e}'
      )
      worst = max(worst, error)
  print(f'largest relative error {worst:.2e}, allowed {_TOLERANCE:.0e}')
  return worst


def random_reference(rng: np.random.Generator, config: networks.ClipConfig, eos: int):
  """transformers' network, every array of it random, activations of order 1.

  Args:
    rng: of the weights.
    config: sizes.
    eos: what its config calls the end of text.
  """

  def tower(width, layers, **kwargs):
    return {
      'hidden_size': width,
      'intermediate_size': 4 * width,
      'num_hidden_layers': layers,
      'num_attention_heads': width // config.head_dim,
      **kwargs,
    }

  net = transformers.CLIPModel(
    transformers.CLIPConfig(
      text_config=tower(
        config.text_width,
        config.text_layers,
        vocab_size=config.vocab_size,
        max_position_embeddings=config.length,
        eos_token_id=eos,
      ),
      vision_config=tower(
        config.image_width,
        config.image_layers,
        image_size=config.size,
        patch_size=config.patch,
      ),
      projection_dim=config.dim,
    )
  ).eval()
  net.load_state_dict(
    {k: torch.tensor(_draw(rng, k, v.shape)) for k, v in net.state_dict().items()}
  )
  return net


def converted(net, config: networks.ClipConfig) -> types.Params:
  """Its weights, after the whole way through files."""
  with tempfile.TemporaryDirectory() as directory:
    source = pathlib.Path(directory) / 'model.safetensors'
    output = pathlib.Path(directory) / 'clip.npz'
    safetensors.torch.save_file(net.state_dict(), source)
    published.clip.convert(source, output, sha256=files.sha256(source)[:8])
    return published.clip.load(output, config, sha256=files.sha256(output))


def _reference_outputs(net, images, tokens):
  pixels = torch.tensor(images).permute(0, 3, 1, 2)
  with torch.no_grad():
    image = net.visual_projection(net.vision_model(pixel_values=pixels).pooler_output)
    out = net.text_model(input_ids=torch.tensor(tokens).long())
    text = net.text_projection(out.pooler_output)
  return image.numpy(), text.numpy(), out.last_hidden_state.numpy()


def _random_tokens(rng, config, batch):
  """Texts of all lengths, padded with the token that ends them."""
  tokens = rng.integers(0, config.eot, (batch, config.length), dtype=np.int32)
  ends = rng.integers(1, config.length, (batch, 1))
  return np.where(np.arange(config.length) < ends, tokens, np.int32(config.eot))


def _draw(rng, name, shape):
  if (len(shape) > 1 and 'embedding.weight' not in name) or 'patch' in name:
    fan_in = np.prod(shape[1:])  # A kernel [out, in, ...] or a matrix [out, in].
    return np.float32(rng.normal(size=shape) * np.sqrt(1.0 / fan_in))
  if 'norm.weight' in name or 'norm1.weight' in name or 'norm2.weight' in name:
    return np.float32(rng.uniform(0.5, 1.5, shape))
  return np.float32(rng.normal(size=shape) * 0.5)


def main(_):
  worst = run(seed=SEED.value, batch=BATCH.value)
  sys.exit(0 if worst < _TOLERANCE else 1)


if __name__ == '__main__':
  SEED = flags.DEFINE_integer('seed', 0, 'Of weights and data.', lower_bound=0)
  BATCH = flags.DEFINE_integer('batch', 4, 'Number of pairs.', lower_bound=1)
  app.run(main)
