"""Algorithm 1 against statistics: the noise of both estimates, at equal denoiser calls.

  python -m experiments.variance --config=configs/digits.py --workdir=runs/digits

At random (x_0, c, s, t) of the training data, draws the noise of the particles again
and again, and compares loss and gradient in omega of Algorithm 1 with those from Gram
matrices: of the same particles (independent), and of antithetic ones. Prints, for every
exponent of `config.sweep.beta`, the ratio of the variances (of the means over all
points, where the noisiest count most, and the median of the points' own ratios), and
the largest distance of the means in standard errors.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import config_dict

from experiments import app
from experiments import builders
from experiments import workdirs
from lgd import arrays
from lgd import guidance
from lgd import noising
from lgd import objectives
from lgd import statistics
from lgd import types
from lgd.data import splits

NUM_POINTS = 256
NUM_DRAWS = 512
OMEGA = 0.0  # Where every training starts.
NOISES = ('independent', 'antithetic')


def run(config: config_dict.ConfigDict, workdir: str) -> dict[float, dict[str, float]]:
  """Measures, prints and returns the ratios by beta."""
  # Rules that weights cannot be learned for have neither of the two estimates.
  session = workdirs.open_to_learn(config, workdir, finished=False)
  dataset = builders.data.load(config)
  params = workdirs.base_model.load_pair(session)
  results = {}
  for beta in config.sweep.beta:
    direct, *from_statistics = estimates(config, dataset, params, beta)
    results[beta] = {
      f'{noise}_{quantity}_{name}': value
      for noise, estimate in zip(NOISES, from_statistics, strict=True)
      for i, quantity in enumerate(('loss', 'gradient'))
      for name, value in compare(direct[:, i], estimate[:, i]).items()
    }
    for name, value in results[beta].items():
      print(f'beta {beta:g}  {name} {value:.2f}')
  return results


def compare(direct: np.ndarray, estimate: np.ndarray) -> dict[str, float]:
  """Statistics of two estimates of one quantity, each `[NUM_DRAWS, NUM_POINTS]`."""
  variance, ours = direct.var(axis=0), estimate.var(axis=0)
  error = np.sqrt((direct - estimate).var(axis=0) / len(direct))  # Noise may be shared.
  z = np.abs(direct.mean(axis=0) - estimate.mean(axis=0)) / error
  return {
    'ratio': float(variance.mean() / ours.mean()),
    'median_ratio': float(np.median(variance / ours)),
    'max_z': float(z.max()),
  }


def estimates(
  config: config_dict.ConfigDict,
  dataset: splits.Dataset,
  params: types.Params,
  beta: float,
) -> tuple[np.ndarray, ...]:
  """Losses and gradients in omega, `[NUM_DRAWS, 2, NUM_POINTS]`.

  Of Algorithm 1, and from statistics of each of `NOISES`.
  """
  section = config.guidance
  schedule = builders.models.schedule(config)
  pair = builders.rules.pair(config, dataset.spec)
  energy = {'beta': beta, 'interaction': section.interaction}
  key_times, key_draws = jax.random.split(arrays.stream(config.seed, 'variance'))
  s, t = objectives.sample_times(
    key_times, NUM_POINTS, s_min=section.s_min, zeta=section.zeta, gap=section.gap
  )
  rows = np.random.default_rng(config.seed).choice(len(dataset.train.label), NUM_POINTS)
  cond = builders.captions.lookup(config)(dataset.train.label[rows])
  x0, cond = jax.tree.map(jnp.asarray, (dataset.train.x[rows], cond))
  omega = jnp.full(NUM_POINTS, OMEGA)

  def loss_and_gradient(loss):
    gradient = jax.grad(lambda w: loss(w).sum())(omega)
    return jnp.stack([loss(omega), gradient])

  def predict(params, key, antithetic):
    return objectives.predict(
      key,
      pair,
      params,
      schedule,
      x0,
      cond,
      t,
      num_particles=section.num_particles,
      antithetic=antithetic,
    )

  def integrated(predictions, antithetic):
    eps, _, x0_cond, x0_null = predictions
    return functools.partial(
      statistics.self_consistency,
      statistics.gram(eps, x0, x0_cond, x0_null),
      s=s,
      t=t,
      schedule=schedule,
      churn=section.churn,
      dim=int(np.prod(dataset.shape)),
      antithetic=antithetic,
      **energy,
    )

  @jax.jit
  def draw(params, key):
    key_xs, key_xt, key_z, key_mirrored = jax.random.split(key, 4)
    independent = predict(params, key_xt, False)
    _, xt, x0_cond, x0_null = independent
    xs = noising.add_noise(
      schedule, x0[:, None], jax.random.normal(key_xs, xt.shape), s
    )
    particles = objectives.Particles(s, t, xs, xt, x0_cond, x0_null)

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

    losses = (
      direct,
      integrated(independent, False),
      integrated(predict(params, key_mirrored, True), True),
    )
    return tuple(loss_and_gradient(loss) for loss in losses)

  draws = [
    jax.device_get(draw(params, key)) for key in jax.random.split(key_draws, NUM_DRAWS)
  ]
  return tuple(np.float64(each) for each in zip(*draws, strict=True))


if __name__ == '__main__':
  app.main(lambda flags: run(flags.config, flags.workdir), needs_config=True)
