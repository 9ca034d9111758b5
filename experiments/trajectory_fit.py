"""A network that follows a table of weights: smooth in time, and for any sampler."""

import functools
import itertools

import numpy as np
import optax
from ml_collections import config_dict

from experiments import builders
from experiments import identities
from experiments import learned_weights
from experiments import naming
from experiments import train_loop
from experiments import workdir as workdir_lib
from lgd import sharding
from lgd import trajectory
from lgd.data import splits


def fit(
  config: config_dict.ConfigDict,
  workdir: workdir_lib.Workdir,
  dataset: splits.Dataset,
  table: learned_weights.LearnedWeight,
) -> None:
  """Trains the network to follow the table; no denoiser."""
  section = config.guidance
  model = builders.weight_model(config, dataset.spec)

  def loss_fn(params, table_params, label, key):
    losses = trajectory.fit_loss(
      key,
      functools.partial(model.apply, params),
      functools.partial(table.model.apply, table_params),
      label,
      table_params['times'],
    )
    return losses.mean(), {}

  label = np.arange(section.batch_size, dtype=np.int32) % dataset.num_classes
  name = naming.guidance_name(config)
  train_loop.train(
    config=config,
    section=section,
    workdir=workdir.path,
    directory=workdir.guidance(name),
    stage=f'guidance/{name}',
    stored_config=identities.guidance_identity(
      workdir,
      config,
      num_steps=section.num_steps,
      num_evaluations=table.num_evaluations,
    ),
    init=model.init,
    tx=optax.adam(optax.cosine_decay_schedule(2e-3, section.num_steps)),
    loss_fn=loss_fn,
    frozen=table.params,
    batches=lambda _: itertools.repeat(sharding.process_share(label)),
  )
