"""Our InceptionV3 against torch-fidelity's, with the same random weights.

  python -m venv .parity && .parity/bin/pip install -r requirements-parity.txt
  .parity/bin/python -m experiments.inception_parity

The weights go the way of the published ones: a .pth, `convert_inception`, an .npz,
`load`. Random 8-bit images go through both networks, resize included; printed is the
largest difference of every output over the largest magnitude in it. As every array is
drawn at random, one that is permuted, misnamed or not used shows. Exits with 1 where a
difference is above 1e-4. Networks agree to 1e-6; torch-fidelity rounds the positions of
its resize to float32, which costs it 3e-6 at a size of 64 and 5e-5 at 300.

torch-fidelity imports torchvision, which it needs to read image files only; a stub
takes its place, since a build of torchvision fits a single build of torch.
"""

import contextlib
import pathlib
import sys
import tempfile
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl import app
from absl import flags
from etils import epy

from lgd import metrics
from lgd import networks
from lgd import types
from lgd.networks import published
from lgd.storage import files

with epy.lazy_imports(error_callback='pip install -r requirements-parity.txt'):
  import torch
  import torch_fidelity.feature_extractor_inceptionv3 as reference

_TOLERANCE = 1e-4
_STUBS = ('', '.datasets', '.transforms', '.transforms.functional')


def run(*, seed: int, batch: int, size: int) -> float:
  """Prints the largest relative error of the resize and of both outputs.

  Args:
    seed: of weights and images.
    batch: number of images.
    size: of their sides.

  Returns:
    The largest of the errors.
  """
  rng = np.random.default_rng(seed)
  images = rng.integers(0, 256, (batch, size, size, 3), dtype=np.uint8)
  net = random_reference(rng)
  pixels = torch.tensor(images).permute(0, 3, 1, 2)
  side = networks.inception.SIZE
  with torch.no_grad():
    resized = reference.interpolate_bilinear_2d_like_tensorflow1x(
      pixels.float(), size=(side, side), align_corners=False
    )
    features, logits = net(pixels)

  x = metrics.resize(jnp.asarray(images), side)
  ours = jax.jit(networks.InceptionV3().apply)(converted(net), (x - 128.0) / 128.0)
  worst = 0.0
  for name, actual, expected in (
    ('resize', x, resized.permute(0, 2, 3, 1)),
    ('features', ours[0], features),
    ('logits without bias', ours[1], logits),
  ):
    largest = np.max(np.abs(expected.numpy()))
    error = float(np.max(np.abs(actual - expected.numpy())) / largest)
    shape = tuple(expected.shape)
    print(f'{name} {shape}: largest {largest:.3g}, relative error {error:.2e}')
    worst = max(worst, error)
  print(f'largest relative error {worst:.2e}, allowed {_TOLERANCE:.0e}')
  return worst


def random_reference(rng: np.random.Generator):
  """torch-fidelity's network, every array of it random, activations of order 1."""
  stubs = {f'torchvision{name}': mock.MagicMock() for name in _STUBS}
  with contextlib.ExitStack() as stack:
    stack.enter_context(mock.patch.dict(sys.modules, stubs))
    extractor = reference.FeatureExtractorInceptionV3
    # Its constructor would fetch the published weights from the network.
    stack.enter_context(mock.patch.object(reference, 'load_state_dict_from_url'))
    stack.enter_context(mock.patch.object(extractor, 'load_state_dict'))
    net = extractor('parity', ['2048', 'logits_unbiased'])
  net.load_state_dict(
    {k: torch.tensor(_draw(rng, k, v.shape)) for k, v in net.state_dict().items()}
  )
  return net


def converted(net) -> types.Params:
  """Its weights, after the whole way through files."""
  with tempfile.TemporaryDirectory() as directory:
    source = pathlib.Path(directory) / 'random.pth'
    output = pathlib.Path(directory) / 'random.npz'
    torch.save(net.state_dict(), source)
    published.inception.convert(source, output, sha256=files.sha256(source)[:8])
    return published.inception.load(output, sha256=files.sha256(output))


def _draw(rng, name, shape):
  if name.endswith('num_batches_tracked'):
    return np.asarray(1)
  if len(shape) > 1:  # A kernel [out, in, ...] or a matrix [out, in].
    fan_in = np.prod(shape[1:])
    return np.float32(rng.normal(size=shape) * np.sqrt(2.0 / fan_in))
  if name.endswith(('bn.weight', 'running_var')):
    return np.float32(rng.uniform(0.5, 1.5, shape))
  return np.float32(rng.normal(size=shape) * 0.2)


def main(_):
  worst = run(seed=SEED.value, batch=BATCH.value, size=SIZE.value)
  sys.exit(0 if worst < _TOLERANCE else 1)


if __name__ == '__main__':
  SEED = flags.DEFINE_integer('seed', 0, 'Of weights and images.', lower_bound=0)
  BATCH = flags.DEFINE_integer('batch', 4, 'Number of images.', lower_bound=1)
  SIZE = flags.DEFINE_integer('size', 64, 'Of their sides.', lower_bound=1)
  app.run(main)
