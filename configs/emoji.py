r"""Emoji at 32x32 from their names: a text-to-image model that two cores can train.

  F="--config=configs/emoji.py --workdir=runs/emoji --config.data.file=FILE.npz"
  python -m experiments.train_denoiser $F
  python -m experiments.train_clip $F --model=reward    # Sees the training pairs.
  python -m experiments.train_clip $F --model=judge     # Sees all pairs.
  python -m experiments.collect_statistics $F
  python -m experiments.frontier $F                     # A weight for every gamma.
  python -m experiments.evaluate_prompts --workdir=runs/emoji
  python -m experiments.sample --workdir=runs/emoji \
      --method=self_consistency_reward100_validation --prompt='red car'

FILE.npz holds `image [n, height, width, 3]` uint8 and `caption [n]` strings; any set of
some thousand pairs will do. Of the 3,260 here, 2,608 train, 326 validate and 326 test;
images of one caption are of one split.

The base, an MMDiT of 8.8M parameters, sees each training pair 49 times and then knows
it by heart. Statistics are of the validation pairs, which it has not seen; weights from
training pairs (`--config.statistics.split=train`) are larger.

On two cores: train_denoiser 31 min, train_clip 3 min each, collect_statistics 7 min,
frontier and train_guidance a minute each, most of it loading, evaluate_prompts half a
minute a method and seed. `docs/text_to_image.md` has the results.

Variants (`--config=configs/emoji.py:VARIANT`): base, and smoke, everything shrunk.
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
  config.statistics.split = 'validation'
  config.statistics.num_data = 8192
  config.statistics.batch_size = 128
  config.statistics.shard_size = 1024
  # The text embedding of the reward's CLIP, and few steps: 326 prompts are soon known
  # one by one, too.
  config.guidance.prompts = 'clip'
  config.guidance.num_steps = 300
  config.frontier.gammas = (0.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
  config.evaluation.num_seeds = 1
  config.evaluation.num_prompts = 200
  config.evaluation.samples_per_class = 8  # Of each --prompt of `sample`.
  config.evaluation.num_steps = 24
  config.evaluation.constants = (0.5, 1.0, 2.0, 3.0, 5.0)
  config.evaluation.interval_omegas = (2.0, 5.0)
  config.evaluation.interval_bounds = (0.2, 0.6, 0.9)
  config.fid.labels = 'data'
  config.fid.batch_size = 100
  config.log_every = 50
  config.checkpoint_every = 500
  return common.apply_variant(config, variant, {'base': {}})
