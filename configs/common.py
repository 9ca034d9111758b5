"""The default of every key; configs of data sets override some.

Floats are written as floats and integers as integers, since an override on the
command line must be of the same type: `--config.guidance.beta=1.5`.
"""

from ml_collections import config_dict


def get_default() -> config_dict.ConfigDict:
  """All keys of an experiment."""
  config = config_dict.ConfigDict()
  config.seed = 0  # Of everything that is drawn.
  # The noise schedule; or 'cosine', 'ddpm' (linear betas), 'ddpm_cosine',
  # 'stable_diffusion' (scaled-linear betas), 'karras' (EDM's noise levels).
  config.schedule = 'rectified_flow'

  # Devices: batches are split over all of them.
  config.mesh = config_dict.ConfigDict()
  config.mesh.fsdp = 1  # Devices that share one copy of the base model.

  config.data = config_dict.ConfigDict()
  # 'digits', 'mixture', 'random_mixture', 'pairs', or a data set of TFDS: mnist,
  # cifar10, imagenet_resized/64x64, imagenet2012, celeb_a, coco_captions/2014.
  config.data.name = ''
  config.data.flip = False  # Images: True mirrors those of training at random.
  # Data sets of TFDS:
  config.data.dir = ''  # The directory of TFDS; '' is its default.
  config.data.in_memory = True  # False: read images from disk on demand.
  config.data.num_threads = 8  # Batches that are read at a time.
  config.data.num_workers = 0  # Processes that read; 0 reads in threads of this one.
  config.data.attributes = ()  # celeb_a: k names make 2^k classes, () one vector of 40.
  # 'pairs', images with captions from one file; size and caption_length also of coco:
  config.data.file = ''  # The npz that holds image and caption.
  config.data.size = 32  # Side of the images; larger ones are averaged by area.
  config.data.caption_length = 24  # Tokens of a caption, start and end included.
  config.data.vocab_size = 1024  # Number of different tokens.
  # coco_captions/2014, whose captions and images are encoded once:
  config.data.encoders = ()  # Names of text encoders: clip_l14, t5_xxl, ...
  config.data.autoencoder = ''  # 'module:function' of yours; '' trains on pixels.
  config.data.latent_shape = (64, 64, 4)  # Shape of the autoencoder's latents.
  config.data.encoded_dir = ''  # Where encode_text and encode_latents write.
  # 'mixture', one Gaussian per class on a circle in the plane, and 'random_mixture',
  # several Gaussians per class on a sphere:
  config.data.num_classes = 8
  config.data.radius = 4.0  # Of the circle or sphere of the means.
  config.data.std = 0.5  # Of each Gaussian, in every direction.
  config.data.num_per_class = 500  # Data of a class in each of the three splits.
  config.data.dim = 16  # Dimensions; random_mixture only.
  config.data.components = 2  # Gaussians of each class; random_mixture only.

  # The base model that guidance is learned for, and then frozen.
  config.denoiser = config_dict.ConfigDict()
  # What the network predicts: 'velocity', 'x0', 'eps', or 'v' (v-prediction, which is
  # not the velocity).
  config.denoiser.prediction = 'velocity'
  # Clips clean predictions to [-clip, clip] after training; 0.0 clips nothing. A base
  # that predicts eps needs it (1.0 for images): near t = 1 its clean predictions are
  # far from all data.
  config.denoiser.clip = 0.0
  # 'mlp', 'unet' for images, 'mmdit' for prompts; 'exact', the denoiser of a mixture.
  config.denoiser.network = 'mlp'
  config.denoiser.width = 256  # mlp, mmdit: of the residual stream.
  config.denoiser.depth = 3  # mlp, mmdit: number of blocks.
  config.denoiser.patch_size = 4  # mmdit: side of a patch.
  config.denoiser.text_width = 192  # mmdit: of the encoder of prompts.
  config.denoiser.text_depth = 2  # mmdit: layers of the encoder of prompts.
  config.denoiser.channels = 32  # unet: at the first resolution.
  config.denoiser.multipliers = (1, 2)  # unet: of the channels, one per resolution.
  config.denoiser.num_blocks = 1  # unet: blocks per resolution.
  config.denoiser.attention_sizes = ()  # unet: resolutions that have attention.
  config.denoiser.head_dim = 32  # unet, mmdit: width of an attention head.
  config.denoiser.dtype = 'float32'  # unet, mmdit: of the computation, or 'bfloat16'.
  config.denoiser.remat = False  # unet, mmdit: True recomputes blocks to save memory.
  config.denoiser.label_dropout = 0.1  # Share of conditions that become the null one.
  config.denoiser.weighting = 'uniform'  # Of the loss over t, or 'sigmoid' in log SNR.
  config.denoiser.sigmoid_bias = 2.0  # Of the weighting 'sigmoid'.
  config.denoiser.batch_size = 128
  config.denoiser.num_microbatches = 1  # Parts of a batch, computed one after another.
  config.denoiser.num_steps = 1000
  config.denoiser.learning_rate = 1e-4
  config.denoiser.warmup_steps = 0  # Steps in which the learning rate rises from 0.
  config.denoiser.adam_b2 = 0.999
  config.denoiser.grad_clip = 1.0  # Largest global norm of a gradient.
  # What happens to an update that is not finite. True: it is skipped; False: the run
  # stops.
  config.denoiser.skip_nonfinite = False
  # Of the averaged parameters, which every command uses.
  config.denoiser.ema_decay = 0.99

  # A small CLIP that train_clip trains on 'pairs', as a reward or as a judge. Keys
  # that `denoiser` has, too, mean the same.
  config.clip = config_dict.ConfigDict()
  config.clip.dim = 64  # Of the embeddings.
  config.clip.patch_size = 8
  config.clip.width = 128  # Of both towers.
  config.clip.image_depth = 3  # Layers of the image tower.
  config.clip.text_depth = 2  # Layers of the text tower.
  config.clip.head_dim = 32
  config.clip.noise = 0.3  # Largest standard deviation of noise on training images.
  config.clip.shift = 3  # Largest shift of training images, in pixels.
  config.clip.batch_size = 128
  config.clip.num_microbatches = 1
  config.clip.num_steps = 1000
  config.clip.learning_rate = 1e-3
  config.clip.warmup_steps = 100
  config.clip.adam_b2 = 0.98
  config.clip.grad_clip = 1.0
  config.clip.skip_nonfinite = False
  config.clip.ema_decay = 0.99

  # What a weight does to the conditional and the null prediction.
  config.rule = config_dict.ConfigDict()
  # 'linear' (CFG), 'optimal_scale' (CFG-Zero*), 'apg' (no momentum) and 'autoguidance':
  # weights can be learned for these. For sampling only: 'apg_momentum', 'angle_domain',
  # 'power_normalized' (beta-CFG).
  config.rule.name = 'linear'
  config.rule.weak_workdir = ''  # autoguidance: work directory of a less trained base.
  config.rule.apg_eta = 0.0  # apg*: share kept of what is parallel to c.
  config.rule.apg_max_norm = 2.5  # apg, apg_momentum: largest norm of the difference.
  config.rule.apg_momentum = -0.75  # apg_momentum: of the difference, in (-1, 1).
  config.rule.power = 1.0  # power_normalized: power of the norm that it divides by.
  config.rule.num_particles = 10  # stein, in `compare`: samples that are driven apart.

  # A reward for samples, for weights that are learned with `guidance.gamma` or by the
  # objective 'reward'. (The methods 'mpgd' and 'stein' of `compare` always raise a
  # classifier's log p(c | x).)
  config.reward = config_dict.ConfigDict()
  # '': none. 'classifier': log p(c | x) of a classifier that is trained on the data.
  # 'clip': the CLIP score, by the model of train_clip for 'pairs' and by published
  # weights for coco_captions/2014. 'module:function' of yours:
  # (x0_hat [batch, *data], cond) -> [batch].
  config.reward.name = ''
  config.reward.weights = ''  # clip, published: the npz of convert_clip.
  # Values of omega at which statistics keep the reward; beyond the last it is constant.
  config.reward.nodes = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0)

  # The one pass over data that guidance is learned from.
  config.statistics = config_dict.ConfigDict()
  # 'particles': several particles of each datum. 'class_groups', 'pooled_groups':
  # groups of data at one t, of one class or of all.
  config.statistics.kind = 'particles'
  # The split that guidance is learned from: 'train', or 'validation', which the base
  # model has not seen. Also for guidance.source='direct'.
  config.statistics.split = 'train'
  config.statistics.num_data = 32768  # Data are drawn again, at other times, if fewer.
  config.statistics.num_particles = 4  # particles: of each datum.
  config.statistics.antithetic = True  # particles: half take negative noise of others.
  config.statistics.group_size = 64  # groups: data that share t.
  config.statistics.t_max = 0.99  # t is uniform in [0, t_max].
  config.statistics.batch_size = 512  # Data in one call of the denoiser.
  config.statistics.shard_size = 8192  # Data in one file.

  # The weight omega(c, s, t). The paper has num_particles 4, beta 1.75, interaction 1,
  # churn 1 and batch_size 256; gap and s_min come from a grid that it does not give in
  # full; the rest is our choice. Keys that `denoiser` has, too, mean the same.
  config.guidance = config_dict.ConfigDict()
  config.guidance.source = 'statistics'  # or 'direct': Algorithm 1 as printed.
  config.guidance.weight = 'network'  # or 'table': the closed form per class and bin.
  # 'self_consistency', 'l2', 'score_matching', 'class_marginal', 'marginal', or
  # 'reward': the reward alone.
  config.guidance.objective = 'self_consistency'
  # How the network reads prompts: as a bag of 'tokens', or by the text embedding of the
  # small 'clip' that rewards.
  config.guidance.prompts = 'tokens'
  config.guidance.num_particles = 4  # m; at most statistics.num_particles.
  config.guidance.group_size = 64  # Marginal objectives: data of a group.
  config.guidance.num_bins = 20  # table: bins of t.
  # table: a weight is 0 unless its gain over 0 is more than so many standard errors.
  config.guidance.confidence = 1.0
  config.guidance.beta = 1.75  # Exponent of the energy kernel, in (0, 2).
  config.guidance.interaction = 1.0  # lambda: weight of the particles' own distances.
  config.guidance.gamma = 0.0  # Loss per unit of reward; 0.0 leaves the reward out.
  config.guidance.churn = 1.0  # Of the transition: 0 is DDIM, 1 is DDPM.
  config.guidance.gap = 0.1  # Smallest t - s.
  config.guidance.s_min = 0.01  # Smallest s.
  config.guidance.zeta = 0.01  # Distance that t keeps from 1.
  config.guidance.width = 64  # Of the network.
  config.guidance.depth = 6  # Layers of the network.
  config.guidance.batch_size = 256
  config.guidance.num_microbatches = 1
  config.guidance.num_steps = 1000
  config.guidance.learning_rate = 1e-3
  config.guidance.warmup_steps = 0
  config.guidance.adam_b2 = 0.999
  config.guidance.grad_clip = 1.0
  config.guidance.skip_nonfinite = False
  config.guidance.ema_decay = 0.99

  # search_trajectory: weights chosen step by step along guided trajectories, with the
  # sampler of `evaluation`.
  config.trajectory = config_dict.ConfigDict()
  # 'search': step by step. 'endpoint': the result of the search, refined by gradients
  # of the final distance through the whole sampler; for small models.
  config.trajectory.method = 'search'
  # 'pixels', 'features' of a noise-aware classifier, or the 'sum' of both, each in
  # units of its own size.
  config.trajectory.distance = 'pixels'
  config.trajectory.features_share = 0.5  # sum: of the features.
  config.trajectory.seed = 0  # Added to `seed`: other searches on the same base.
  config.trajectory.reference = 'validation'  # or 'train', which the base has seen.
  config.trajectory.num_references = 512  # Data of each class to compare with, at most.
  config.trajectory.num_particles = 128  # Particles of each class.
  # Searches, each from new noise, at most; they are averaged. They end as soon as the
  # standard errors of the mean are below `tolerance` times the weights.
  config.trajectory.num_repeats = 2
  config.trajectory.tolerance = 0.0
  # Values of omega in [0, omega_max]: number i is omega_max (i / (n - 1))^power.
  config.trajectory.num_candidates = 33
  config.trajectory.candidate_power = 1.5  # Above 1: closer together near 0.
  config.trajectory.omega_max = 4.0
  # The same values below 0, down to this one: noise at 0 has two sides, as it must to
  # be 0 in the mean. A weight below 0 is returned as 0.
  config.trajectory.omega_min = -0.5
  # A weight is 0 unless its gain over 0 is more than so many standard errors.
  config.trajectory.confidence = 1.0
  # Blocks of the jackknife that gives standard errors. 0: none; the smallest curve
  # decides alone, and classes share nothing.
  config.trajectory.num_blocks = 8
  config.trajectory.lookahead = 0.3  # How far beyond s particles meet the data.
  config.trajectory.lookahead_churn = 1.0  # Churn of that step.
  config.trajectory.memory = 0.5  # Weight of the curves of past steps, in [0, 1).
  config.trajectory.beta = 1.0  # Exponent of the energy kernel, in (0, 2).
  config.trajectory.classifier_width = 128  # features: of the classifier.
  config.trajectory.classifier_steps = 2000  # features: of its training.
  config.trajectory.fit_steps = 3000  # Of the network's fit to the table.
  config.trajectory.learning_rate = 2e-3  # Of the fit; it falls as a cosine.

  # search_trajectory with trajectory.method='endpoint': the refinement.
  config.endpoint = config_dict.ConfigDict()
  config.endpoint.num_updates = 100
  # What is added to the searched weights: linear in t between so many values, which all
  # classes share. More freedom overfits small validation sets.
  config.endpoint.num_knots = 6
  config.endpoint.by_class = False  # True: each class has values of its own.
  config.endpoint.learning_rate = 0.02  # Of Adam on the weights; it falls as a cosine.
  config.endpoint.num_particles = 32  # Of each class, in an update.
  config.endpoint.num_references = 64  # Data of each class, in an update, at most.
  config.endpoint.held_out = 0.25  # Share of the data that chooses when to stop.

  # The training of small classifiers: of the one that judges samples, of the reward
  # 'classifier', and of the one whose features trajectories are compared in.
  config.classifier = config_dict.ConfigDict()
  config.classifier.batch_size = 128
  config.classifier.learning_rate = 1e-3
  config.classifier.weight_decay = 1e-2

  # sweep: values of keys of `guidance`. All combinations are trained side by side, from
  # one set of statistics.
  config.sweep = config_dict.ConfigDict()
  config.sweep.beta = (0.1, 0.5, 1.0, 1.5, 1.75)
  config.sweep.interaction = (1.0,)
  config.sweep.gap = (0.01, 0.1, 0.2, 0.3)
  config.sweep.s_min = (0.001, 0.01, 0.1, 0.2)
  config.sweep.churn = (1.0,)
  config.sweep.num_particles = (2, 4)  # At most statistics.num_particles.
  config.sweep.learning_rate = (1e-3,)
  config.sweep.num_seeds = 3  # Trainings of each combination.
  config.sweep.num_steps = 500
  config.sweep.batch_size = 128
  config.sweep.samples_per_class = 30  # To evaluate each training.

  # frontier: values of guidance.gamma, each a weight of its own, trained side by side.
  config.frontier = config_dict.ConfigDict()
  config.frontier.gammas = (
      0.0, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.2, 0.3, 0.5,
      0.7, 1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 20.0, 30.0, 50.0,
  )  # fmt: skip

  # evaluate, evaluate_prompts, sample, and the sampler of all other commands. Every
  # method is sampled with the same seeds, so that differences are paired.
  config.evaluation = config_dict.ConfigDict()
  config.evaluation.num_seeds = 3
  config.evaluation.samples_per_class = 100
  config.evaluation.num_prompts = 256  # evaluate_prompts: held-out ones, a sample each.
  config.evaluation.num_steps = 50  # Transitions of the sampler.
  config.evaluation.t_max = 1.0  # Where sampling starts; below 1 if eps is predicted.
  config.evaluation.churn = 0.0  # 0 is DDIM, 1 is DDPM.
  config.evaluation.solver = 'first_order'  # Or, at churn 0, '2m' or 'heun'.
  # The null branch runs only for samples whose weight is not 0 at that step. Their
  # number is rounded up to a multiple of 1 / plan_levels of the batch.
  config.evaluation.plan_levels = 4
  config.evaluation.tolerance = 0.0  # Treats weights with |omega| <= tolerance as 0.
  # Hand-made weights to compare with; interval_omegas, clamp_linear_omegas and kappas
  # may be ().
  config.evaluation.constants = (
      0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0,
  )  # fmt: skip
  config.evaluation.interval_omegas = (0.25,)
  config.evaluation.interval_bounds = (0.0, 0.25, 0.5, 0.75)  # All pairs lo < hi.
  config.evaluation.clamp_linear_omegas = (0.1, 0.2)
  config.evaluation.clamp_linear_floors = (0.0,)
  config.evaluation.kappas = (0.5, 1.5)  # Strengths of learned weights, besides 1.
  config.evaluation.classifier_width = 64  # Of the classifier that judges samples.
  config.evaluation.classifier_steps = 1000  # Of its training.

  # validate_weights: the strength kappa at which a learned weight is used.
  config.verdict = config_dict.ConfigDict()
  # In which samples are compared with data: 'pixels', or 'features' as of `trajectory`.
  config.verdict.distance = 'pixels'
  config.verdict.kappas = (0.5, 1.0)  # Strengths to try, beside 0.
  config.verdict.samples_per_class = 200  # At each strength, from the same noise.
  config.verdict.num_blocks = 10  # Of the jackknife that gives standard errors.
  # Kappa is 0 unless the gain over 0 is more than this many standard errors.
  config.verdict.confidence = 1.0

  # compare: every rule and schedule against the learned weights.
  config.compare = config_dict.ConfigDict()
  config.compare.methods = ()  # Names of hand-made methods; (): all that can be used.
  config.compare.omegas = (0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.0)  # Strengths to search.
  config.compare.rates = (0.1, 0.3, 1.0, 3.0, 10.0)  # mpgd, stein: rates to search.
  config.compare.num_steps = (10, 25, 50, 100)
  # '': strengths are searched. 'mean': matched to the mean of a learned weight. 'nfe':
  # searched, with as many steps as 2 num_steps evaluations pay.
  config.compare.match = ''
  config.compare.reference = 'self_consistency'  # mean: the learned weight.

  # fid: for images.
  config.fid = config_dict.ConfigDict()
  config.fid.num_samples = 50_000
  # Conditions of the samples: 'balanced', equally many of each class; 'data', as often
  # as in the training split; 'test', those of test data, once each.
  config.fid.labels = 'balanced'
  config.fid.split = 'train'  # What samples are compared with.
  config.fid.num_reference = 50_000  # How many of that split, from the first on.
  config.fid.batch_size = 256  # Samples in one call.
  config.fid.shard_size = 2048  # Samples in one file of features.
  config.fid.kid_subset_size = 1000
  config.fid.num_neighbors_samples = 10_000  # For precision and recall.

  config.log_every = 250  # Steps.
  config.checkpoint_every = 1000  # Steps.
  return config


def get_smoke_overrides() -> dict:
  """The real config, shrunk until all commands run in a minute."""
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
    'endpoint': {'num_updates': 10, 'num_particles': 4, 'num_references': 8},
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
    'verdict': {'samples_per_class': 4, 'num_blocks': 2},
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


def get_exact_recipe() -> dict:
  """Overrides of `denoiser`: that of the mixture itself, which does not learn."""
  return {'network': 'exact', 'prediction': 'x0', 'num_steps': 1, 'ema_decay': 0.0}


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
