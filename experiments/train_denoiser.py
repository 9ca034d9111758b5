"""Trains the base model that guidance is learned for.

  python -m experiments.train_denoiser --config=configs/digits.py --workdir=runs/digits

The same command again resumes from the last checkpoint.
"""

from ml_collections import config_dict

from experiments import app
from experiments import builders
from experiments import learning
from experiments import workdirs
from lgd import training
from lgd.training import checkpoints


def run(config: config_dict.ConfigDict, workdir: str) -> training.TrainState:
  """Trains or resumes, and returns the final state."""
  session = workdirs.open_new(config, workdir)
  workdir, _, spec = session
  if checkpoints.latest_step(workdir.denoiser) is not None:
    workdirs.refuse.require_base_of(session)
    workdirs.refuse.require_encoded(workdir.denoiser, config)

  dataset = builders.data.load(config)
  net = builders.models.network(config, spec)
  return learning.loop.train(
    config=config,
    section=config.denoiser,
    workdir=workdir.path,
    directory=workdir.denoiser,
    stage='denoiser',
    stored_config={
      'config': workdirs.configs.to_json(config),
      'encoded': builders.data.encoded_identity(config),
    },
    init=lambda key: builders.models.init_network(net, key, spec),
    tx=builders.models.optimizer(config.denoiser),
    loss_fn=learning.losses.make_denoiser_loss_fn(config, spec),
    frozen=None,
    batches=builders.data.batches(config, 'denoiser', dataset.train),
  )


if __name__ == '__main__':
  app.main(lambda flags: run(flags.config, flags.workdir), needs_config=True)
