"""The probe on exact denoisers of a mixture, dressed as the networks of others."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized

from configs import digits
from experiments import builders
from experiments import train_denoiser
from experiments import workdirs
from lgd import adapters
from lgd import noising
from lgd import probe
from lgd import schedules
from lgd.data import mixtures

NUM_CLASSES, DIM = 6, 16
MIXTURE = mixtures.random(
  jax.random.key(3), NUM_CLASSES, dim=DIM, components=2, radius=4.0, std=0.3
)
FLOW, DDPM = schedules.RectifiedFlow(), schedules.DiscreteBetas.linear()
SD2 = schedules.DiscreteBetas.scaled_linear().with_zero_terminal_snr()

# How four kinds of model are called, and then some more.
KINDS = {
  'DiT': adapters.Convention(DDPM, 'eps'),
  'SiT': adapters.Convention(FLOW, 'velocity', is_negated=True, is_time_reversed=True),
  'EDM': adapters.Convention(
    schedules.Karras(data_std=1.0), 'x0', is_input_rescaled=True
  ),
  'SD3': adapters.Convention(
    schedules.RectifiedFlow(timestep_scale=1000.0), 'velocity'
  ),
  'SD2': adapters.Convention(SD2, 'v'),
  'JiT': adapters.Convention(FLOW, 'x0', is_time_reversed=True),
  'cosine': adapters.Convention(schedules.Cosine(), 'v'),
}


def draw(n=256):
  """Data of all classes, with their labels."""
  label = np.arange(n) % NUM_CLASSES
  keys = jax.random.split(jax.random.key(0))
  which = np.asarray(jax.random.randint(keys[0], (n,), 0, 2))
  noise = np.asarray(jax.random.normal(keys[1], (n, DIM)))
  x0 = np.asarray(MIXTURE.means)[label, which] + 0.3 * noise
  return x0.astype(np.float32), label.astype(np.int32)


VARIANCE = float(np.var(draw()[0]))


def blurred(x0_hat, xt, alpha, sigma):
  """A third of what the exact denoiser says, the rest a Gaussian's: hardly trained."""
  linear = alpha * VARIANCE / (alpha**2 * VARIANCE + sigma**2) * xt
  return 0.3 * x0_hat + 0.7 * linear


@functools.cache
def network(convention, worsen=None):
  """The network that `convention` is right for, from the exact denoiser."""
  schedule = convention.schedule
  exact = mixtures.denoiser(schedule)

  @jax.jit
  def call(x, t, label):
    alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
    xt = alpha * x if convention.is_input_rescaled else x
    x0_hat = exact(MIXTURE, xt, t, label)
    if worsen is not None:
      x0_hat = worsen(x0_hat, xt, alpha, sigma)
    out = noising.from_x0(schedule, x0_hat, xt, t, convention.prediction)
    return -out if convention.is_negated else out

  def predict(x, told, label):
    t = np.clip(schedule.from_model_time(told), 0.0, 1.0)
    t = 1.0 - t if convention.is_time_reversed else t
    return call(jnp.asarray(x), jnp.asarray(t, jnp.float32), jnp.asarray(label))

  return predict


def run(predict, convention, *, null=NUM_CLASSES, change=lambda x: x, **settings):
  x0, label = draw()
  return probe.run(predict, convention, change(x0), label, null=null, **settings)


class RightTest(parameterized.TestCase):
  @parameterized.product(kind=tuple(KINDS), worsen=(None, blurred), seed=(0, 1))
  def test_is_never_refused(self, kind, worsen, seed):
    convention = KINDS[kind]
    report = run(network(convention, worsen), convention, seed=seed)
    self.assertEqual(report.findings, ())
    report.require()
    if worsen is None:
      self.assertEqual(report.num_evaluations, 512)

  def test_errors(self):
    """Of a network that says the mean of its class, by hand."""
    x0, label = draw()
    means = np.stack([x0[label == c].mean(axis=0) for c in range(NUM_CLASSES)])
    means = np.concatenate([means, x0.mean(axis=0, keepdims=True)])

    def predict(x, told, cond):
      return means[cond]

    report = probe.run(predict, adapters.Convention(FLOW, 'x0', null=6), x0, label)
    error = np.square(means[label] - x0).mean(axis=1)
    delta = np.square(means[label] - means[-1]).mean(axis=1)
    for i, quarter in enumerate(report.quarters):
      rows = slice(64 * i, 64 * i + 64)
      self.assertAlmostEqual(quarter.error, error[rows].mean(), places=5)
      self.assertAlmostEqual(quarter.delta, delta[rows].mean(), places=5)
    variance = x0.var(axis=0).mean()
    self.assertAlmostEqual(report.quarters[-1].trivial, variance, places=5)
    t = np.linspace(*report.quarters[0].t, 64)
    trivial = np.minimum((t / (1.0 - t)) ** 2, variance).mean()
    self.assertAlmostEqual(report.quarters[0].trivial, trivial, places=2)
    self.assertIn('0.08 to 0.2', str(report))


class TrainedTest(parameterized.TestCase):
  @parameterized.product(
    prediction=noising.PREDICTIONS,
    schedule=('rectified_flow', 'cosine'),
    num_steps=(100,),
  )
  def test_hardly_trained_networks(self, prediction, schedule, num_steps):
    """Of digits, with every second label dropped; none is refused."""
    config = digits.get_config()
    config.schedule = schedule
    config.denoiser.update(prediction=prediction, num_steps=num_steps)
    for section in ('evaluation', 'statistics'):
      config[section].t_max = 0.99
    workdir = self.create_tempdir().full_path
    train_denoiser.run(config, workdir)
    session = workdirs.open_trained(None, workdir)
    params = workdirs.base_model.load_denoiser(session)
    apply = jax.jit(builders.models.network(session.config, session.spec).apply)
    path = builders.models.schedule(config)
    x0, label = builders.data.load(config).validation
    report = probe.run(
      lambda x, t, label: apply(params, x, t, label),
      adapters.Convention(path, prediction, null=10),
      x0[:256],
      label[:256],
    )
    report.require()


# Kind, what is believed of it, and what the probe must name.
WRONG = (
  ('DiT', {'prediction': 'x0'}, "prediction='eps'"),
  ('DiT', {'prediction': 'v'}, "prediction='eps'"),
  ('DiT', {'is_negated': True}, 'is_negated=False'),
  ('DiT', {'is_time_reversed': True}, 'is_time_reversed=False'),
  ('DiT', {'schedule': FLOW}, r'schedule=DiscreteBetas.linear\(\)'),
  ('SiT', {'is_negated': False}, 'is_negated=True'),
  ('SiT', {'is_time_reversed': False}, 'is_time_reversed=True'),
  ('SiT', {'is_negated': False, 'is_time_reversed': False}, 'is_time_reversed=True'),
  ('SiT', {'prediction': 'v'}, "prediction='velocity'"),
  ('SiT', {'prediction': 'eps'}, "prediction='velocity'"),
  ('EDM', {'prediction': 'eps'}, "prediction='x0'"),
  ('EDM', {'is_time_reversed': True}, 'is_time_reversed=False'),
  ('SD3', {'prediction': 'v'}, "prediction='velocity'"),
  ('SD3', {'schedule': FLOW}, 'timestep_scale=1000'),
  ('SD2', {'prediction': 'eps'}, "prediction='v'"),
  ('SD2', {'prediction': 'velocity'}, "prediction='v'"),
)


class WrongTest(parameterized.TestCase):
  @parameterized.parameters(*WRONG)
  def test_is_refused_and_the_right_one_named(self, kind, changes, named):
    convention = dataclasses.replace(KINDS[kind], **changes)
    report = run(network(KINDS[kind]), convention)
    with self.assertRaisesRegex(ValueError, named):
      report.require()

  @parameterized.product(kind=('DiT', 'SiT'), factor=(5.5, 0.1), worsen=(None, blurred))
  def test_data_of_another_scale(self, kind, factor, worsen):
    predict = network(KINDS[kind], worsen)
    report = run(predict, KINDS[kind], change=lambda x0: factor * x0)
    with self.assertRaisesRegex(ValueError, r'scale=.* of the data \(deviation'):
      report.require()

  def test_parameters_that_were_not_meant(self):
    convention = KINDS['DiT']

    def noise(x, told, label):
      return np.random.default_rng(label.sum()).normal(size=x.shape)

    report = run(noise, convention)
    with self.assertRaisesRegex(ValueError, 'no other convention mends it'):
      report.require()
    report = run(noise, convention, others={'ema': network(convention)})
    with self.assertRaisesRegex(ValueError, 'parameters=ema is what'):
      report.require()

  @parameterized.parameters('DiT', 'SiT', 'EDM', 'SD2')
  def test_null_that_is_a_class(self, kind):
    report = run(network(KINDS[kind]), KINDS[kind], null=2)
    with self.assertRaisesRegex(ValueError, 'null: is the condition of datum 2'):
      report.require()

  def test_null_that_is_out_of_range(self):
    with self.assertRaisesRegex(ValueError, 'null prediction of datum 0 is not finite'):
      run(network(KINDS['SiT']), KINDS['SiT'], null=NUM_CLASSES + 1)

  def test_conditions_without_effect(self):
    convention, predict = KINDS['SiT'], network(KINDS['SiT'])

    def ignores(x, told, label):
      return predict(x, told, np.full_like(label, NUM_CLASSES))

    with self.assertRaisesRegex(ValueError, 'null: both predictions are the same'):
      run(ignores, convention).require()

  def test_conditions_of_other_data(self):
    x0, label = draw()
    shifted = (label + 1) % NUM_CLASSES
    convention = KINDS['SiT']
    report = probe.run(network(convention), convention, x0, shifted, null=NUM_CLASSES)
    with self.assertRaisesRegex(ValueError, 'cond: .* may be of other data'):
      report.require()

  def test_few_levels(self):
    """Of which the last, noise alone, is left out; and where nothing is left."""
    few = schedules.DiscreteBetas.of([0.9, 0.5, 0.1, 0.0])
    convention = adapters.Convention(few, 'eps')
    self.assertEqual(run(network(convention), convention).findings, ())
    hardly = schedules.DiscreteBetas.of([0.9999, 0.999])
    convention = adapters.Convention(hardly, 'eps')
    with self.assertRaisesRegex(ValueError, r'no time has \|logsnr\| <= 5'):
      run(network(convention), convention)

  def test_null_that_labels_cannot_hold(self):
    x0, label = draw()
    with self.assertRaisesRegex(ValueError, 'null_cond=1000: conditions of uint8'):
      probe.run(network(KINDS['SiT']), KINDS['SiT'], x0, label.astype('u1'), null=1000)

  def test_arguments(self):
    x0, label = draw(8)
    predict = network(KINDS['SiT'])
    check = functools.partial(probe.run, predict, KINDS['SiT'])
    with self.assertRaisesRegex(ValueError, 'null=None'):
      check(x0, label)
    with self.assertRaisesRegex(ValueError, 'at least 8 data'):
      check(x0[:7], label[:7], null=0)

    def flat(x, told, cond):
      return x[:, :1]

    with self.assertRaisesRegex(ValueError, r'has shape \(8, 1\), the data \(8, 16\)'):
      probe.run(flat, KINDS['SiT'], x0, label, null=0)


if __name__ == '__main__':
  absltest.main()
