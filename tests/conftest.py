"""Eight virtual CPU devices for the whole suite; set before jax starts."""

import os

os.environ['JAX_PLATFORMS'] = 'cpu'
os.environ['JAX_NUM_CPU_DEVICES'] = '8'

from absl import flags

flags.FLAGS.mark_as_parsed()  # absltest reads its temporary directory from a flag.
