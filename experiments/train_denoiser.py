"""Trains the base model that guidance is learned for.

  python -m experiments.train_denoiser --config=configs/digits.py --workdir=runs/digits

The same command again resumes from the last checkpoint.
"""

from ml_collections import config_dict

from experiments import batching
from experiments import builders
from experiments import datasets
from experiments import launch
from experiments import refusals
from experiments import stored_configs
from experiments import train_loop
from experiments import validation
from experiments import workdir as workdir_lib
from lgd import checkpointing
from lgd import objectives
from lgd import training
from lgd.data import splits


def run(config: config_dict.ConfigDict, workdir: str) -> training.TrainState:
  """Trains or resumes, and returns the final state."""
  validation.validate(config)
  workdir = workdir_lib.Workdir(workdir)
  workdir.refuse_foreign()
  if checkpointing.latest_step(workdir.denoiser) is not None:
    refusals.require_base_of(workdir, config)
    refusals.require_encoded(workdir.denoiser, config)

  dataset = datasets.load(config)
  net = builders.network(config, dataset.spec)
  return train_loop.train(
    config=config,
    section=config.denoiser,
    workdir=workdir.path,
    directory=workdir.denoiser,
    stage='denoiser',
    stored_config={
      'config': stored_configs.to_json(config),
      'encoded': datasets.encoded_identity(config),
    },
    init=lambda key: builders.init_network(net, key, dataset.spec),
    tx=builders.optimizer(config.denoiser),
    loss_fn=make_loss_fn(config, dataset.spec),
    frozen=None,
    batches=batching.batches(config, 'denoiser', dataset.train),
  )


def make_loss_fn(config: config_dict.ConfigDict, spec: splits.Spec) -> training.LossFn:
  """`(params, None, batch, key) -> loss` of the base model."""
  section = config.denoiser
  net = builders.network(config, spec)

  def loss_fn(params, frozen, batch, key):
    del frozen
    losses = objectives.denoising(
      key,
      net.apply,
      params,
      builders.schedule(config),
      batch.x,
      batch.label,
      spec.conditions.null,
      dropout=section.label_dropout,
      prediction=section.prediction,
      sigmoid_bias=section.sigmoid_bias if section.weighting == 'sigmoid' else None,
    )
    return losses.mean(), {}

  return loss_fn


if __name__ == '__main__':
  launch.main(lambda flags: run(flags.config, flags.workdir), needs_config=True)
