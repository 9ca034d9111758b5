"""MNIST (28x28, through TensorFlow Datasets), with the digits' MLP or a small U-Net.

  python -m experiments.prepare_data --name=mnist    # once; needs TensorFlow
  F="--config=configs/mnist.py --workdir=runs/mnist"
  python -m experiments.train_denoiser $F
  python -m experiments.collect_statistics $F
  python -m experiments.train_guidance $F
  python -m experiments.search_trajectory $F
  python -m experiments.evaluate --workdir=runs/mnist

Data elsewhere than in ~/tensorflow_datasets: --config.data.dir=DIR. Labels are dropped
half of the time, so that the base learns its condition slowly.

Variants (`--config=configs/mnist.py:VARIANT`), with the energy distance to test
data that seed 0 gives, mean of 5 sampling seeds, unguided / best constant /
self-consistency / trajectory:
  under_trained  1500 steps, the default: guidance helps.
                 1.2785 / 1.1959 / 1.2521 / 1.1651
  well_trained   15,000 steps.
                 1.0581 / 1.0352 / 1.0507 / 1.0350
  unet_under_trained  a U-Net of 0.63M parameters, 1500 steps: 10 minutes on 2 cores,
                 35 for all of it. Mean of 3 sampling seeds.
                 0.7934 / 0.4629 / 0.4704 / 0.3987
  unet_well_trained   4000 steps: 26 minutes, and 50 for all of it.
                 0.1380 / 0.0764 / 0.0758 / 0.0695
  smoke          a minute on one core; its numbers mean nothing.
"""

from configs import common


def get_config(variant: str = 'under_trained'):
  """The config of one variant."""
  config = common.get_default()
  config.data.name = 'mnist'
  config.denoiser.width = 512
  config.denoiser.num_steps = 1500
  config.denoiser.learning_rate = 1e-3
  config.denoiser.label_dropout = 0.5
  config.evaluation.num_seeds = 5
  config.evaluation.num_steps = 30
  config.evaluation.constants = (
      0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 3.0,
  )  # fmt: skip
  config.evaluation.interval_omegas = (0.5, 1.0)
  config.evaluation.clamp_linear_omegas = (0.4, 0.8, 1.2)
  config.evaluation.classifier_width = 128
  longer = {'num_steps': 15_000, 'ema_decay': 0.999}
  unet = {
    'network': 'unet',
    'channels': 16,
    'multipliers': (1, 2, 4),
    'attention_sizes': (7,),
    'head_dim': 16,
    'num_steps': 1500,
    'batch_size': 64,
    'weighting': 'sigmoid',
  }
  cheaper = {  # An evaluation of the U-Net costs a hundred of the MLP.
    'statistics': {'num_data': 16_384},
    'evaluation': {
      'num_seeds': 3,
      'samples_per_class': 30,
      'num_steps': 20,
      'constants': (0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 5.0),
      'interval_omegas': (0.5,),
      'interval_bounds': (0.25, 0.75),
      'clamp_linear_omegas': (0.4,),
      'kappas': (0.5,),
    },
    'verdict': {'samples_per_class': 30},
  }
  longer_unet = {**unet, 'num_steps': 4000, 'ema_decay': 0.999}
  variants = {
    'under_trained': {},
    'well_trained': {'denoiser': longer},
    'unet_under_trained': {'denoiser': unet, **cheaper},
    'unet_well_trained': {'denoiser': longer_unet, **cheaper},
  }
  return common.apply_variant(config, variant, variants)
