"""The family default: every key, its type and its value. Data configs override.

Floats are written as floats and integers as integers, since an override on the
command line must be of the same type: `--config.guidance.beta=1.5`.
"""

from ml_collections import config_dict


def get_default() -> config_dict.ConfigDict:
  """All keys of an experiment."""
  config = config_dict.ConfigDict()
  config.seed = 0
  config.schedule = 'rectified_flow'  # or 'cosine'

  # Devices: batches are split over all of them.
  config.mesh = config_dict.ConfigDict()
  config.mesh.fsdp = 1  # Devices that share one copy of the base model.

  config.data = config_dict.ConfigDict()
  config.data.name = ''  # 'digits', 'mixture', 'random_mixture', 'pairs', or of TFDS:
  # mnist, cifar10, imagenet_resized/64x64, imagenet2012, celeb_a, coco_captions/2014.
  # Of these:
  config.data.dir = ''  # The TFDS directory; empty is TFDS's default.
  config.data.in_memory = True  # Or images are read from disk whenever needed,
  config.data.num_threads = 8  # so many batches at a time
  config.data.num_workers = 0  # in each of so many processes, if any.
  # 'pairs', images with captions, and partly coco_captions/2014:
  config.data.file = ''  # The npz with them.
  config.data.size = 32  # Of the images, averaged by area if they are larger.
  config.data.caption_length = 24  # Tokens, start and end among them.
  config.data.vocab_size = 1024  # Of the tokens.
  # coco_captions/2014, whose captions are embedded once:
  config.data.encoders = ()  # By these of `data.embeddings`: clip_l14, t5_xxl, ...
  config.data.autoencoder = ''  # 'module:function'; '' trains pixels.
  config.data.latent_shape = (64, 64, 4)  # That it gives.
  config.data.encoded_dir = ''  # With what encode_text and encode_latents write.
  config.data.attributes = ()  # Of celeb_a: k of them make 2^k classes, () is a vector.
  config.data.flip = False  # Whether training images are mirrored at random.
  # Of 'mixture', one Gaussian per class on a circle in the plane, and of
  # 'random_mixture', several per class on a sphere in more dimensions.
  config.data.num_classes = 8
  config.data.radius = 4.0
  config.data.std = 0.5
  config.data.num_per_class = 500  # In each of the three splits.
  config.data.dim = 16  # Only of 'random_mixture', as is the next.
  config.data.components = 2  # Gaussians of each class.

  # The base model that guidance is learned for, and then frozen.
  config.denoiser = config_dict.ConfigDict()
  # or 'x0', 'eps', or 'v', which others call v-prediction and is not the velocity.
  config.denoiser.prediction = 'velocity'
  # Clean predictions are clipped to [-clip, clip] in all that follows the training, 0.0
  # leaves them. Of 'eps' those near t = 1 are far from all data: take 1.0 for images.
  config.denoiser.clip = 0.0
  config.denoiser.network = 'mlp'  # or 'unet', for images; 'mmdit', for prompts too
  config.denoiser.width = 256  # Of 'mlp' and 'mmdit', as is the next.
  config.denoiser.depth = 3
  config.denoiser.patch_size = 4  # Of 'mmdit', as are the next two:
  config.denoiser.text_width = 192  # of the encoder of prompts trained with it, or of
  # projected embeddings.
  config.denoiser.text_depth = 2
  config.denoiser.channels = 32  # Of 'unet', as are the next three.
  config.denoiser.multipliers = (1, 2)  # Of the channels, one for every resolution.
  config.denoiser.num_blocks = 1
  config.denoiser.attention_sizes = ()
  config.denoiser.head_dim = 32  # Of 'unet' and 'mmdit', as are the next, to remat.
  config.denoiser.dtype = 'float32'  # or 'bfloat16'
  config.denoiser.remat = False
  config.denoiser.label_dropout = 0.1
  config.denoiser.weighting = 'uniform'  # or 'sigmoid', in log SNR
  config.denoiser.sigmoid_bias = 2.0
  config.denoiser.batch_size = 128
  config.denoiser.num_microbatches = 1  # Cuts of a batch, one after the other.
  config.denoiser.num_steps = 1000
  config.denoiser.learning_rate = 1e-4
  config.denoiser.warmup_steps = 0  # Of the learning rate, linear.
  config.denoiser.adam_b2 = 0.999
  config.denoiser.grad_clip = 1.0
  config.denoiser.skip_nonfinite = False  # Updates, and count them; or the run stops.
  config.denoiser.ema_decay = 0.99

  # A small CLIP trained on the data, as a reward or a judge of prompts.
  config.clip = config_dict.ConfigDict()
  config.clip.dim = 64  # Of the embeddings.
  config.clip.patch_size = 8
  config.clip.width = 128  # Of both towers.
  config.clip.image_depth = 3
  config.clip.text_depth = 2
  config.clip.head_dim = 32
  config.clip.noise = 0.3  # Largest standard deviation of what images are trained with.
  config.clip.shift = 3  # Pixels that they are moved by, at most.
  config.clip.batch_size = 128
  config.clip.num_microbatches = 1
  config.clip.num_steps = 1000
  config.clip.learning_rate = 1e-3
  config.clip.warmup_steps = 100
  config.clip.adam_b2 = 0.98
  config.clip.grad_clip = 1.0
  config.clip.skip_nonfinite = False
  config.clip.ema_decay = 0.99

  # What a weight does to the two predictions. The first four can be learned for.
  config.rule = config_dict.ConfigDict()
  config.rule.name = 'linear'  # or 'optimal_scale' (CFG-Zero*), 'apg' (no momentum),
  # 'autoguidance', 'apg_momentum', 'angle_domain', 'power_normalized' (beta-CFG)
  config.rule.weak_workdir = ''  # Of 'autoguidance': with a less trained base model.
  config.rule.apg_eta = 0.0  # Share of what is parallel to the conditional prediction.
  config.rule.apg_max_norm = 2.5  # Of the difference, in units of the data.
  config.rule.apg_momentum = -0.75
  config.rule.power = 1.0  # Of the norm that 'power_normalized' divides by.
  config.rule.num_particles = 10  # Of 'stein', in `compare`: samples driven apart.

  # What samples are good for: raised by weights that are learned with `guidance.gamma`
  # or the objective 'reward', and by the rules 'mpgd' and 'stein'.
  config.reward = config_dict.ConfigDict()
  # 'classifier', log p(c | x) of one trained on the data; 'clip', the CLIP score, by
  # train_clip's on 'pairs' and by published weights on coco_captions/2014; or
  # 'module:function', of (x0_hat [batch, *data], cond) -> [batch] rewards. '' is none;
  # of the two rules, the classifier.
  config.reward.name = ''
  config.reward.weights = ''  # Those, an npz of convert_clip, as given to encode_text.
  # Weights at which statistics keep the reward; beyond the last it counts as constant.
  config.reward.nodes = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0)

  # The one pass over data that guidance is learned from.
  config.statistics = config_dict.ConfigDict()
  config.statistics.kind = 'particles'  # or 'class_groups', 'pooled_groups'
  # Whose data guidance is learned from, directly as well; or 'validation', which the
  # base has not seen.
  config.statistics.split = 'train'
  config.statistics.num_data = 32768  # Data are drawn again, at other times, if fewer.
  config.statistics.num_particles = 4  # Of each datum, in 'particles'.
  config.statistics.antithetic = True  # Half of them take the others' negative noise.
  config.statistics.group_size = 64  # Data that share t (and class), in groups.
  config.statistics.t_max = 0.99  # t is uniform in [0, t_max].
  config.statistics.batch_size = 512  # Data in a call of the denoiser.
  config.statistics.shard_size = 8192  # Data in a file.

  # The paper's setting: num_particles 4, beta 1.75, interaction 1, churn 1, batch 256.
  # It takes gap and s_min from a grid whose values it does not all give; the rest is
  # our choice.
  config.guidance = config_dict.ConfigDict()
  config.guidance.source = 'statistics'  # or 'direct', Algorithm 1 as printed
  config.guidance.weight = 'network'  # or 'table', the closed form per class and bin
  # or 'l2', 'score_matching', 'class_marginal', 'marginal', 'reward' (that alone)
  config.guidance.objective = 'self_consistency'
  # How weights read prompts of tokens: as a bag of them, 'tokens', or by the text
  # embedding of train_clip's reward, 'clip'.
  config.guidance.prompts = 'tokens'
  config.guidance.num_particles = 4
  config.guidance.group_size = 64  # Of the marginal objectives.
  config.guidance.num_bins = 20  # Of t, for 'table'.
  config.guidance.beta = 1.75
  config.guidance.interaction = 1.0  # lambda
  config.guidance.gamma = 0.0  # Of the reward, in units of loss per unit of reward.
  config.guidance.churn = 1.0
  config.guidance.gap = 0.1
  config.guidance.s_min = 0.01
  config.guidance.zeta = 0.01
  config.guidance.width = 64
  config.guidance.depth = 6
  config.guidance.batch_size = 256
  config.guidance.num_microbatches = 1
  config.guidance.num_steps = 1000
  config.guidance.learning_rate = 1e-3
  config.guidance.warmup_steps = 0
  config.guidance.adam_b2 = 0.999
  config.guidance.grad_clip = 1.0
  config.guidance.skip_nonfinite = False
  config.guidance.ema_decay = 0.99

  # Weights chosen step by step along guided trajectories of the evaluation's sampler.
  config.trajectory = config_dict.ConfigDict()
  config.trajectory.distance = 'pixels'  # or 'features', of a noise-aware classifier
  config.trajectory.reference = 'validation'  # or 'train', which the base has seen
  config.trajectory.num_references = 512  # Of each class, at most.
  config.trajectory.num_particles = 128  # Of each class.
  config.trajectory.num_repeats = 2  # Searches, each from new noise, to average.
  config.trajectory.num_candidates = 33
  config.trajectory.omega_max = 4.0
  config.trajectory.lookahead = 0.3  # How far beyond s particles meet the data.
  config.trajectory.lookahead_churn = 1.0
  config.trajectory.memory = 0.5  # Of past steps' curves, in [0, 1).
  config.trajectory.beta = 1.0
  config.trajectory.classifier_width = 128
  config.trajectory.classifier_steps = 2000
  config.trajectory.fit_steps = 3000  # Of the network, to the table.

  # Values of keys of `guidance`: all combinations are trained side by side, from one
  # set of statistics.
  config.sweep = config_dict.ConfigDict()
  config.sweep.beta = (0.1, 0.5, 1.0, 1.5, 1.75)
  config.sweep.interaction = (1.0,)
  config.sweep.gap = (0.01, 0.1, 0.2, 0.3)
  config.sweep.s_min = (0.001, 0.01, 0.1, 0.2)
  config.sweep.churn = (1.0,)
  config.sweep.num_particles = (2, 4)  # At most statistics.num_particles.
  config.sweep.learning_rate = (1e-3,)
  config.sweep.num_seeds = 3
  config.sweep.num_steps = 500
  config.sweep.batch_size = 128
  config.sweep.samples_per_class = 30

  # Values of guidance.gamma, each a learned weight of its own, trained side by side.
  config.frontier = config_dict.ConfigDict()
  config.frontier.gammas = (
      0.0, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.2, 0.3, 0.5,
      0.7, 1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 20.0, 30.0, 50.0,
  )  # fmt: skip

  # Every method is sampled with the same seeds, so that differences are paired.
  config.evaluation = config_dict.ConfigDict()
  config.evaluation.num_seeds = 3
  config.evaluation.samples_per_class = 100
  config.evaluation.num_prompts = 256  # Of 'pairs': held-out ones, a sample each.
  config.evaluation.num_steps = 50
  config.evaluation.t_max = 1.0  # Where sampling starts; below 1 for 'eps'.
  config.evaluation.churn = 0.0
  config.evaluation.order = 1  # or 2, DPM-Solver++ (2M), at churn 0
  # The null branch is evaluated for the samples that need it, their number rounded up
  # to one of so many parts of a batch;
  config.evaluation.plan_levels = 4
  config.evaluation.tolerance = 0.0  # not for weights of at most this size.
  config.evaluation.constants = (
      0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0,
  )  # fmt: skip
  config.evaluation.interval_omegas = (0.25,)
  config.evaluation.interval_bounds = (0.0, 0.25, 0.5, 0.75)  # All pairs lo < hi.
  config.evaluation.clamp_linear_omegas = (0.1, 0.2)
  config.evaluation.clamp_linear_floors = (0.0,)
  # Strengths of learned weights, beside 1. Of the grids, constants alone may not be ().
  config.evaluation.kappas = (0.5, 1.5)
  config.evaluation.classifier_width = 64
  config.evaluation.classifier_steps = 1000

  # Of `experiments.compare`.
  config.compare = config_dict.ConfigDict()
  config.compare.methods = ()  # Of `experiments.methods`; () are all that can be used.
  config.compare.omegas = (0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0)
  config.compare.rates = (0.1, 0.3, 1.0, 3.0, 10.0)  # Of 'mpgd' and 'stein'.
  config.compare.num_steps = (10, 25, 50, 100)
  config.compare.match = ''  # or 'mean', 'nfe'
  config.compare.reference = 'self_consistency'  # Whose mean is matched.

  # Of `experiments.fid`, for images.
  config.fid = config_dict.ConfigDict()
  config.fid.num_samples = 50_000
  # or 'data', as often as in the training split, or 'test', those of test data, once
  config.fid.labels = 'balanced'
  config.fid.split = 'train'  # That samples are compared with.
  config.fid.num_reference = 50_000  # The first of it.
  config.fid.batch_size = 256  # Samples in a call.
  config.fid.shard_size = 2048  # Samples in a file of features.
  config.fid.kid_subset_size = 1000
  config.fid.num_neighbors_samples = 10_000  # Of precision and recall.

  config.log_every = 250
  config.checkpoint_every = 1000
  return config


def get_smoke_overrides() -> dict:
  """The real config, shrunk until all binaries run in a minute."""
  return {
    'denoiser': {
      'width': 16,
      'depth': 1,
      'channels': 8,
      'multipliers': (1, 2),
      'num_blocks': 1,
      'attention_sizes': (),
      'head_dim': 8,
      'text_width': 16,
      'text_depth': 1,
      'dtype': 'float32',
      'remat': False,
      'batch_size': 16,
      'num_steps': 20,
      'learning_rate': 1e-2,
      'warmup_steps': 0,
      'ema_decay': 0.5,  # Of 20 steps .99 would leave the start.
    },
    'statistics': {
      'num_data': 64,
      'num_particles': 3,
      'group_size': 8,
      'batch_size': 64,
      'shard_size': 32,
    },
    'guidance': {
      'num_particles': 2,
      'group_size': 4,
      'width': 16,
      'depth': 2,
      'batch_size': 8,
      'num_steps': 20,
      'ema_decay': 0.5,
    },
    'trajectory': {
      'num_references': 16,
      'num_particles': 4,
      'num_repeats': 1,
      'num_candidates': 3,
      'classifier_width': 16,
      'classifier_steps': 20,
      'fit_steps': 20,
    },
    'sweep': {
      'beta': (1.0, 1.75),
      'gap': (0.1,),
      's_min': (0.01, 0.1),
      'num_particles': (2, 3),
      'num_seeds': 2,
      'num_steps': 20,
      'batch_size': 8,
      'samples_per_class': 4,
    },
    'evaluation': {
      'num_seeds': 2,
      'samples_per_class': 4,
      'num_prompts': 12,
      'num_steps': 3,
      'constants': (0.25, 1.0),
      'interval_omegas': (0.5,),
      'interval_bounds': (0.25, 0.75),
      'clamp_linear_omegas': (0.5,),
      'clamp_linear_floors': (0.0,),
      'kappas': (0.5,),
      'classifier_width': 16,
      'classifier_steps': 20,
    },
    'clip': {
      'dim': 8,
      'width': 16,
      'image_depth': 1,
      'text_depth': 1,
      'head_dim': 8,
      'batch_size': 16,
      'num_steps': 20,
      'warmup_steps': 0,
      'ema_decay': 0.5,
    },
    'frontier': {'gammas': (0.0, 0.1, 1.0)},
    'rule': {'num_particles': 2},
    'fid': {
      'num_samples': 12,
      'num_reference': 16,
      'batch_size': 8,
      'shard_size': 8,
    },
    'log_every': 5,
    'checkpoint_every': 20,
  }


def apply_variant(
  config: config_dict.ConfigDict, variant: str, variants: dict[str, dict]
) -> config_dict.ConfigDict:
  """Turns a data config into one of its variants.

  Args:
    config: is changed.
    variant: one of `variants`, or 'smoke', which all have.
    variants: name -> overrides.

  Raises:
    ValueError: another variant.
  """
  variants = {**variants, 'smoke': get_smoke_overrides()}
  if variant not in variants:
    raise ValueError(
      f'config variant {variant!r}: must be {", ".join(list(variants)[:-1])} or smoke,'
      ' as in --config=configs/digits.py:smoke.'
    )
  config.update(variants[variant])
  return config


def get_image_default() -> config_dict.ConfigDict:
  """The default, with the U-Net of `get_image_recipe` and mirrored images."""
  config = get_default()
  config.data.flip = True
  config.denoiser.update(get_image_recipe())
  config.log_every = 100
  config.checkpoint_every = 5000
  return config


def get_image_recipe() -> dict:
  """Overrides of `denoiser`: a U-Net of 261M parameters for 64x64 images.

  Network, loss and optimiser are those of the nearest public recipe of the paper's
  group (hackable_diffusion); it does not say for how many steps.
  """
  return {
    'network': 'unet',
    'channels': 192,
    'multipliers': (1, 2, 3, 4),
    'num_blocks': 3,
    'attention_sizes': (16, 8),
    'head_dim': 64,
    'dtype': 'bfloat16',
    'remat': True,
    'weighting': 'sigmoid',
    'sigmoid_bias': 2.0,
    'batch_size': 512,
    'num_steps': 500_000,
    'learning_rate': 3e-5,
    'warmup_steps': 10_000,
    'adam_b2': 0.99,
    'ema_decay': 0.9999,
  }


def get_small_image_recipe() -> dict:
  """Changes to `get_image_recipe` that leave 49M parameters, a fifth of the cost."""
  return {
    'channels': 96,
    'num_blocks': 2,
    'head_dim': 32,
    'remat': False,
    'batch_size': 256,
    'num_steps': 100_000,
    'learning_rate': 2e-4,
    'warmup_steps': 1000,
  }
