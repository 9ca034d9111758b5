"""Learns guidance weights for a trained base model by Algorithm 1.

  python -m experiments.train_guidance --config=configs/digits.py --workdir=runs/digits
  ... --config.guidance.objective=l2        # or score_matching

Writes guidance/OBJECTIVE/. The same command again resumes.
"""

import functools

from ml_collections import config_dict

from experiments import builders
from experiments import launch
from experiments import train_loop
from experiments import validation
from experiments import workdir as workdir_lib
from lgd import checkpointing
from lgd import objectives
from lgd import training


def make_loss_fn(config: config_dict.ConfigDict, num_classes: int) -> training.LossFn:
  """Algorithm 1 as `(guidance_params, denoiser_params, batch, key) -> loss`."""
  section = config.guidance
  net = builders.guidance_net(config, num_classes)
  denoiser = builders.denoiser(config, num_classes)
  objective = builders.guidance_objective(config)

  def loss_fn(params, denoiser_params, batch, key):
    losses, omega = objectives.guidance_loss(
      key,
      functools.partial(net.apply, params),
      objective,
      denoiser,
      denoiser_params,
      builders.schedule(config),
      batch.x,
      batch.label,
      num_classes,
      num_particles=section.num_particles,
      s_min=section.s_min,
      zeta=section.zeta,
      gap=section.gap,
    )
    return losses.mean(), {'omega_mean': omega.mean(), 'omega_max': omega.max()}

  return loss_fn


def run(config: config_dict.ConfigDict, workdir: str) -> training.TrainState:
  """Learns or resumes, and returns the final state."""
  validation.validate(config)
  workdir = workdir_lib.Workdir(workdir)
  base = workdir_lib.require_base_of(workdir, config)
  section = config.guidance
  directory = workdir.guidance(section.objective)
  denoiser_step = checkpointing.latest_step(workdir.denoiser)
  if denoiser_step < base.denoiser.num_steps:
    raise launch.UserError(
      f'{workdir.denoiser}: is at step {denoiser_step} of {base.denoiser.num_steps};'
      ' run train_denoiser again to finish it first.'
    )
  if checkpointing.latest_step(directory) is not None:
    stored = checkpointing.load_config(directory)
    workdir_lib.require_base(workdir, stored, directory)
    identity = workdir_lib.config_to_json(config, 'seed', 'guidance')
    workdir_lib.require_same(stored['config'], identity, directory)
  builders.log_config(config)

  dataset = builders.dataset(config)
  denoiser_params, _ = workdir_lib.load_denoiser(
    workdir, dataset.num_classes, dataset.shape
  )
  net = builders.guidance_net(config, dataset.num_classes)
  return train_loop.train(
    config=config,
    section=section,
    workdir=workdir.path,
    directory=directory,
    stage=f'guidance/{section.objective}',
    stored_config={
      'config': checkpointing.to_json(config.to_dict()),
      'base': workdir_lib.base_identity(base),
      'denoiser_step': denoiser_step,
    },
    init=lambda key: builders.init_guidance_net(net, key),
    tx=builders.optimizer(section),
    loss_fn=make_loss_fn(config, dataset.num_classes),
    frozen=denoiser_params,
    batches=builders.batches(config, 'guidance', dataset.train),
  )


if __name__ == '__main__':
  launch.main(lambda flags: run(flags.config, flags.workdir), needs_config=True)
