"""Emoji at 32x32 from their names: a text-to-image model that two cores can train.

F="--config=configs/emoji.py --workdir=runs/emoji --config.data.file=FILE.npz"
python -m experiments.train_denoiser $F
"""

from configs import common


def get_config(variant: str = 'base'):
  """The config of one variant."""
  config = common.get_default()
  config.data.name = 'pairs'
  config.denoiser.network = 'mmdit'
  config.denoiser.width = 192
  config.denoiser.depth = 6
  config.denoiser.batch_size = 64
  config.denoiser.num_steps = 2000
  config.denoiser.learning_rate = 1e-3
  config.denoiser.warmup_steps = 200
  config.denoiser.adam_b2 = 0.99
  config.denoiser.ema_decay = 0.995
  config.reward.name = 'clip'
  # Of pairs that the base has not seen, since it knows its own by heart.
  config.statistics.split = 'validation'
  config.statistics.num_data = 8192
  config.statistics.batch_size = 128
  config.statistics.shard_size = 1024
  # The text embedding of the reward's CLIP, and few steps: 326 prompts are soon known
  # one by one, and then weights of other prompts are worse than none.
  config.guidance.prompts = 'clip'
  config.guidance.num_steps = 300
  config.frontier.gammas = (0.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
  config.evaluation.num_seeds = 1
  config.evaluation.num_prompts = 200
  config.evaluation.num_steps = 24
  config.evaluation.constants = (0.5, 1.0, 2.0, 3.0, 5.0)
  config.evaluation.interval_omegas = (2.0, 5.0)
  config.evaluation.interval_bounds = (0.2, 0.6, 0.9)
  config.fid.labels = 'data'
  config.fid.batch_size = 100
  config.log_every = 50
  config.checkpoint_every = 500
  return common.apply_variant(config, variant, {'base': {}})
