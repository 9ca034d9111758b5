r"""Trains a small CLIP on a data set of images and captions, to reward or to judge.

  python -m experiments.train_clip --config=configs/emoji.py --workdir=runs/emoji \
      --model=reward
  ... --model=judge

The reward learns from the training split. The judge learns from all three: it has seen
the held-out pairs, knows them better than any model that it judges, and shares neither
weights nor order of data with the reward. Logs retrieval on held-out pairs. The same
command again resumes.
"""

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from absl import logging
from ml_collections import config_dict

from experiments import app
from experiments import builders
from experiments import learning
from experiments import validation
from experiments import workdirs
from lgd import metrics
from lgd import networks
from lgd import training
from lgd.data import splits
from lgd.training import checkpoints

MODELS = ('reward', 'judge')


def run(
  config: config_dict.ConfigDict, workdir: str, *, model: str
) -> dict[str, float]:
  """Trains or resumes, and returns the alignment of held-out pairs."""
  workdir, _, spec = workdirs.open_new(config, workdir)
  validation.require_prompts(config)
  directory = workdir.clip(model)
  if checkpoints.latest_step(directory) is not None:
    workdirs.refuse.require_same(
      checkpoints.load_config(directory)['config'],
      workdirs.configs.config_to_json(config, 'seed', 'data', 'clip'),
      directory,
    )
    workdirs.refuse.require_encoded(directory, config)
  dataset = builders.data.load(config)
  seen = config.copy_and_resolve_references()
  seen.seed += MODELS.index(model)  # Another start and order for each.
  net = networks.CLIP(workdirs.clip.clip_config(config))
  state = learning.loop.train(
    config=seen,
    section=config.clip,
    workdir=workdir.path,
    directory=directory,
    stage=f'clip/{model}',
    stored_config={
      'config': workdirs.configs.to_json(config),
      'encoded': builders.data.encoded_identity(config),
    },
    init=workdirs.clip.make_init(spec, net),
    tx=builders.models.optimizer(config.clip),
    loss_fn=make_loss_fn(config, net),
    frozen=None,
    batches=builders.data.batches(seen, 'clip', data_of(dataset, model)),
  )
  embed = workdirs.clip.Embedder(workdirs.clip.Clip(net, state.ema_params))
  held_out = dataset.validation
  measured = metrics.alignment(embed.images(held_out.x), embed.texts(held_out.label))
  logging.info(
    'clip/%s on %d held-out pairs: %s',
    model,
    len(held_out.label),
    '  '.join(f'{name} {value:.3f}' for name, value in measured.items()),
  )
  return measured


def data_of(dataset: splits.Dataset, model: str) -> splits.Split:
  """The data that a model learns from."""
  if model == 'reward':
    return dataset.train
  parts = dataset.train, dataset.validation, dataset.test
  return splits.Split(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def make_loss_fn(config: config_dict.ConfigDict, net: networks.CLIP) -> training.LossFn:
  """`(params, None, batch, key) -> loss` of noisy, shifted images and their texts.

  What the reward sees while weights are learned are clean predictions, blurred ones and
  slightly off ones among them.
  """
  section = config.clip

  def loss_fn(params, frozen, batch, key):
    del frozen
    images = augment(key, batch.x, noise=section.noise, shift=section.shift)
    images = networks.clip.preprocess(images, net.config)
    return networks.contrastive_loss(*net.apply(params, images, batch.cond)), {}

  return loss_fn


def augment(key: jax.Array, x: jax.Array, *, noise: float, shift: int) -> jax.Array:
  """Images moved by up to `shift` pixels, with noise of a random size up to `noise`.

  What moves in is the nearest edge. `[batch, size, size, 3]`.
  """
  key_shift, key_std, key_noise = jax.random.split(key, 3)
  batch, size = x.shape[:2]
  padded = jnp.pad(x, ((0, 0), (shift, shift), (shift, shift), (0, 0)), mode='edge')
  offset = jax.random.randint(key_shift, (batch, 2), 0, 2 * shift + 1)
  crop = jax.vmap(lambda x, o: jax.lax.dynamic_slice(x, (*o, 0), (size, size, 3)))
  std = noise * jax.random.uniform(key_std, (batch, 1, 1, 1))
  return crop(padded, offset) + std * jax.random.normal(key_noise, x.shape)


if __name__ == '__main__':
  MODEL = flags.DEFINE_enum('model', 'reward', MODELS, 'What it is for.')
  app.main(lambda f: run(f.config, f.workdir, model=MODEL.value), needs_config=True)
