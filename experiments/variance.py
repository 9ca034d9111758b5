"""Algorithm 1 against statistics: the noise of both estimates, at equal denoiser calls.

  python -m experiments.variance --config=configs/digits.py --workdir=runs/digits

At random (x_0, c, s, t) of the training data, draws the noise of the particles again
and again, and compares loss and gradient in omega of Algorithm 1 with those from the
Gram matrix of the same particles. Prints, for every exponent of `config.sweep.beta`,
the ratio of their variances (of the means over all points, where the noisiest count
most, and the median of the points' own ratios), and the largest distance of their means
in standard errors.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from ml_collections import config_dict

from experiments import builders
from experiments import launch
from experiments import validation
from experiments import workdir as workdir_lib
from lgd import arrays
from lgd import guidance
from lgd import noising
from lgd import objectives
from lgd import statistics

NUM_POINTS = 256
NUM_DRAWS = 512
OMEGA = 0.0  # Where every training starts.


def run(config: config_dict.ConfigDict, workdir: str) -> dict[float, dict[str, float]]:
  """Measures, prints and returns the ratios by beta."""
  validation.validate(config)
  workdir = workdir_lib.Workdir(workdir)
  workdir_lib.require_base_of(workdir, config)
  dataset = builders.dataset(config)
  params, _ = workdir_lib.load_denoiser(workdir, dataset.num_classes, dataset.shape)
  results = {}
  for beta in config.sweep.beta:
    direct, integrated = estimates(config, dataset, params, beta)
    variances = direct.var(axis=0), integrated.var(axis=0)  # [2, NUM_POINTS] each
    pooled = variances[0].mean(axis=1) / variances[1].mean(axis=1)
    median = np.median(variances[0] / variances[1], axis=1)
    difference = direct - integrated  # Paired: the particles are the same.
    error = difference.std(axis=0) / np.sqrt(len(difference))
    z = np.max(np.abs(difference.mean(axis=0)) / error, axis=1)
    results[beta] = {
      f'{quantity}_{name}': float(value[i])
      for i, quantity in enumerate(('loss', 'gradient'))
      for name, value in (('ratio', pooled), ('median_ratio', median), ('max_z', z))
    }
    values = '  '.join(f'{k} {v:.2f}' for k, v in results[beta].items())
    logging.info('variance: beta %g  %s', beta, values)
    print(f'beta {beta:g}  {values}')
  return results


def estimates(config, dataset, params, beta: float) -> tuple[np.ndarray, np.ndarray]:
  """Both estimates, `[NUM_DRAWS, 2, NUM_POINTS]`: losses and gradients in omega."""
  section = config.guidance
  schedule = builders.schedule(config)
  denoiser = builders.denoiser(config, dataset.num_classes)
  energy = {'beta': beta, 'interaction': section.interaction}
  key_times, key_draws = jax.random.split(arrays.stream(config.seed, 'variance'))
  s, t = objectives.sample_times(
    key_times, NUM_POINTS, s_min=section.s_min, zeta=section.zeta, gap=section.gap
  )
  rows = np.random.default_rng(config.seed).choice(len(dataset.train.label), NUM_POINTS)
  x0, label = jnp.asarray(dataset.train.x[rows]), jnp.asarray(dataset.train.label[rows])
  omega = jnp.full(NUM_POINTS, OMEGA)

  def loss_and_gradient(loss):
    gradient = jax.grad(lambda w: loss(w).sum())(omega)
    return jnp.stack([loss(omega), gradient])

  @jax.jit
  def draw(params, key):
    key_xs, key_xt, key_z = jax.random.split(key, 3)
    eps, xt, x0_cond, x0_null = objectives.predict(
      key_xt,
      denoiser,
      params,
      schedule,
      x0,
      label,
      dataset.num_classes,
      t,
      num_particles=section.num_particles,
    )
    xs = noising.add_noise(
      schedule, x0[:, None], jax.random.normal(key_xs, xt.shape), s
    )
    particles = objectives.Particles(s, t, xs, xt, x0_cond, x0_null)
    gram = statistics.gram(eps, x0, x0_cond, x0_null)

    def direct(omega):
      x_guided = objectives.guided_particles(
        key_z,
        particles,
        omega,
        schedule=schedule,
        churn=section.churn,
        rule=guidance.linear,
      )
      return objectives.self_consistency(x_guided, xs, **energy)

    integrated = functools.partial(
      statistics.self_consistency,
      gram,
      s=s,
      t=t,
      schedule=schedule,
      churn=section.churn,
      dim=int(np.prod(dataset.shape)),
      **energy,
    )
    return loss_and_gradient(direct), loss_and_gradient(integrated)

  draws = [draw(params, key) for key in jax.random.split(key_draws, NUM_DRAWS)]
  direct, integrated = zip(*jax.device_get(draws), strict=True)
  return np.float64(direct), np.float64(integrated)


if __name__ == '__main__':
  launch.main(lambda flags: run(flags.config, flags.workdir), needs_config=True)
