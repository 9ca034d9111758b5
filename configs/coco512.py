r"""MS-COCO at 512x512 from its captions: the paper's text-to-image setting.

  python -m experiments.prepare_data --name=coco_captions/2014 --data_dir=DATA   # Once.
  F="--config=configs/coco512.py --config.data.dir=DATA --config.data.encoded_dir=DIR"
  python -m experiments.encode_text $F --encoder=clip_l14 --weights=clip.npz \
      --tokenizer=tokenizer.json --truncate
  python -m experiments.encode_text $F --encoder=t5_xxl --weights=T5_DIRECTORY \
      --truncate
  python -m experiments.encode_latents $F    # By `load` of your my_autoencoder.py.
  W="--workdir=runs/coco512"
  python -m experiments.train_denoiser $F $W           # Add --distributed on a cluster.
  python -m experiments.collect_statistics $F $W
  python -m experiments.train_guidance $F $W
  python -m experiments.fid $F $W --method=self_consistency --inception=inception.npz
  R="--config.reward.name=clip --config.reward.weights=clip.npz"   # With a reward:
  python -m experiments.collect_statistics $F $W $R
  python -m experiments.frontier $F $W $R
  python -m experiments.fid $F $W --method=self_consistency_reward1 \
      --inception=inception.npz --clip=clip.npz

Of the paper: 1.05B parameters, rectified flow, a weight of CLIP's and T5's pooled
embeddings, m 4, beta 1.75, 50,000 updates, 128 Euler steps (churn 0), FID of 10,000
samples. It says neither which data its base was trained on nor how, nor which encoders
and autoencoder; these, the optimiser, the number of steps and the split of devices are
our choice. Data are the images of COCO's training split with each of their some five
captions; samples are of captions of `val`, with whose images (5,000) they are compared.
Rows have the 77 tokens that CLIP takes, and --truncate cuts the few captions that have
more.

FID of the paper: unguided 24.74, constant 7.5 31.20, limited interval 24.95, learned by
self-consistency 18.01. Ours: not run.

Variants (`--config=configs/coco512.py:VARIANT`):
  full   1.05B parameters, CLIP and T5; eight accelerators with 80 GB.
  small  0.25B parameters, CLIP alone; one accelerator.
  smoke  everything, shrunk, pixels at 32x32 and a CLIP of random weights; its numbers
         mean nothing. It needs --config.data.dir and --config.data.encoded_dir too.

Operations, and expected hours if an accelerator sustains 150 TFLOP/s (assumed: the time
was not measured), full on eight of them / small on one:
  train_denoiser          2.5e20  58     / 1.8e19  33
  collect_statistics      1.0e18  0.2    / 2.4e17  0.5
  train_guidance          from statistics: minutes on anything
    guidance.source=direct  9.9e19  23   / 9.6e18  18
  fid, 10,000 samples     2.5e18  0.6    / 6.0e17  1.1
Counted by
  python -m experiments.benchmark_unet --count_only --config=configs/coco512.py

On disk, by sizes (not measured): 440,000 captions of 14 tokens have 54 GB of T5's
embeddings and 10 GB of CLIP's; 88,000 latents 3 GB.
"""

from configs import common


def get_config(variant: str = 'full'):
  """The config of one variant."""
  config = common.get_default()
  config.mesh.fsdp = 8
  config.data.name = 'coco_captions/2014'
  config.data.in_memory = False
  config.data.size = 512
  config.data.caption_length = 77
  config.data.encoders = ('clip_l14', 't5_xxl')
  config.data.autoencoder = 'my_autoencoder:load'
  config.data.latent_shape = (64, 64, 4)
  config.denoiser.update(
    {
      'network': 'mmdit',
      'width': 1152,
      'depth': 22,
      'head_dim': 64,
      'patch_size': 2,
      'text_width': 1152,
      'dtype': 'bfloat16',
      'remat': True,
      'batch_size': 256,
      'num_steps': 250_000,
      'learning_rate': 1e-4,
      'warmup_steps': 10_000,
      'adam_b2': 0.99,
      'ema_decay': 0.9999,
    }
  )
  config.statistics.num_data = 131_072
  config.statistics.batch_size = 128
  config.guidance.width = 512
  config.guidance.num_steps = 50_000
  config.evaluation.num_steps = 128
  config.fid.labels = 'test'
  config.fid.split = 'test'
  config.fid.num_samples = 10_000
  config.fid.num_reference = 10_000
  config.fid.batch_size = 64
  config.log_every = 100
  config.checkpoint_every = 5000
  small = {
    'mesh': {'fsdp': 1},
    'data': {'encoders': ('clip_l14',)},
    'denoiser': {
      'width': 768,
      'depth': 12,
      'text_width': 768,
      'remat': False,
      'num_steps': 100_000,
    },
    'guidance': {'num_steps': 20_000},
  }
  config = common.apply_variant(config, variant, {'full': {}, 'small': small})
  if variant == 'smoke':
    config.update(
      {
        'mesh': {'fsdp': 1},
        'data': {
          'size': 32,
          'caption_length': 24,
          'encoders': ('clip_tiny',),
          'autoencoder': '',
          'num_threads': 1,
        },
        'denoiser': {'patch_size': 8, 'text_width': 16},
      }
    )
  return config
