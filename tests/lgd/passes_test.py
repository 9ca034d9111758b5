"""A pass with the model elsewhere, against the same pass in JAX."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized

from lgd import adapters
from lgd import arrays
from lgd import errors
from lgd import objectives
from lgd import passes
from lgd import schedules
from lgd import statistics

FLOW = schedules.RectifiedFlow()
CONVENTIONS = {
  'SiT': adapters.Convention(
    FLOW, 'velocity', is_negated=True, is_time_reversed=True, num_guided=2,
    layout='NCHW', null=5,
  ),
  'DiT': adapters.Convention(
    schedules.DiscreteBetas.linear(), 'eps', num_channels=3, layout='NCHW', null=5
  ),
  'EDM': adapters.Convention(
    schedules.Karras(), 'x0', is_input_rescaled=True, layout='NCHW', null=5
  ),
  'NHWC': adapters.Convention(
    FLOW, 'x0', layout='NCHW', data_layout='NHWC', element='sample', null=5
  ),
}  # fmt: skip


def network(x, told, cond, *, concatenate=np.concatenate, element=None):
  """A network of NumPy, JAX or torch: smooth in all that it is given, 6 channels."""
  level = (0.3 + 0.001 * told + 0.1 * cond)[:, None, None, None]
  out = concatenate([level * x / (1.0 + x * x), 0.0 * x + level], 1)
  return {'sample': out[:, :3]} if element else out


def run(name, framework='numpy', batch_size=7, **settings):
  """The pass of a network, and its data."""
  convention = CONVENTIONS[name]
  rng = np.random.default_rng(0)
  shape = (11, 4, 4, 3) if name == 'NHWC' else (11, 3, 4, 4)
  x0 = rng.normal(size=shape).astype(np.float32)
  cond = np.arange(11) % 5
  given = {'num_data': 25, 'num_particles': 4, 'seed': 3, 't_max': 0.95, **settings}
  pass_ = passes.Pass(convention, x0, cond, **given)
  net = functools.partial(network, element=convention.element)
  if name != 'DiT':

    def net(*args, **kw):
      return _first_three(network(*args, **kw), convention.element)

  for batch in pass_.batches(batch_size):
    if framework == 'torch':
      import torch  # noqa: PLC0415 Where it is installed.

      net = functools.partial(net, concatenate=torch.cat)
      x, told, c, null = batch.tensors()
    else:
      x, told, c, null = batch.x, batch.told, batch.cond, batch.null
    pass_.add(batch, net(x, told, c), net(x, told, null))
  return pass_, x0, cond


def _first_three(out, element):
  out = out[:, :3]
  return {'sample': out} if element else out


def in_jax(name, x0, cond):
  """The Gram matrices of 25 items, as `collect_statistics` makes them."""
  convention = CONVENTIONS[name]

  def apply(params, x, told, c):
    out = network(x, told, c, concatenate=jnp.concatenate)
    return out if name == 'DiT' else _first_three(out, convention.element)

  order = [np.random.default_rng((3, e)).permutation(11) for e in range(3)]
  rows = np.concatenate(order)[:25]
  t = (np.modf((np.arange(25) + 1.0) * (5**0.5 - 1.0) / 2.0)[0] * 0.95).astype(
    'float32'
  )
  if name == 'DiT':
    t = (np.ceil(t * 1000.0) / 1000.0).astype('float32')
  root = arrays.stream(3, 'statistics/particles')
  keys = jax.vmap(lambda i: jax.random.fold_in(root, i))(jnp.arange(25))
  eps, _, x0_cond, x0_null = objectives.predict(
    keys,
    adapters.pair(apply, convention),
    None,
    convention.schedule,
    jnp.asarray(x0[rows]),
    jnp.asarray(cond[rows]),
    jnp.asarray(t),
    num_particles=4,
    antithetic=True,
  )
  gram = statistics.gram(eps, jnp.asarray(x0[rows]), x0_cond, x0_null)
  return np.asarray(statistics.pack(gram)), t, cond[rows]


class PassTest(parameterized.TestCase):
  @parameterized.product(name=tuple(CONVENTIONS), batch_size=(7, 25))
  def test_is_the_pass_in_jax(self, name, batch_size):
    pass_, x0, cond = run(name, batch_size=batch_size)
    gram, t, labels = in_jax(name, x0, cond)
    store = pass_.store()
    order = np.argsort(t, kind='stable')
    np.testing.assert_allclose(store.t, t[order], rtol=1e-6)
    np.testing.assert_array_equal(store.cond, labels[order])
    error = np.abs(store.gram - gram[order]) / np.abs(gram).max()
    self.assertLess(error.max(), 1e-5)
    self.assertEqual(
      (store.dim, store.num_particles, store.antithetic, store.schedule),
      (48, 4, True, CONVENTIONS[name].schedule),
    )

  @parameterized.parameters(*CONVENTIONS)
  def test_is_the_pass_in_torch(self, name):
    """On tensors that share the memory of NumPy's."""
    gram = run(name)[0].store().gram
    in_torch, x0, cond = run(name, framework='torch')
    error = np.abs(in_torch.store().gram - gram) / np.abs(gram).max()
    self.assertLess(error.max(), 1e-5)
    batch = next(passes.Pass(CONVENTIONS[name], x0, cond, num_data=5).batches())
    x, told, c, null = batch.tensors()
    for tensor, array in ((x, batch.x), (told, batch.told), (c, batch.cond)):
      self.assertTrue(np.shares_memory(tensor.numpy(), array))
    np.testing.assert_array_equal(null.numpy(), np.full(20, 5))

  def test_what_is_missing(self):
    pass_, x0, cond = run('SiT', num_data=10)
    whole = pass_.store()
    other = passes.Pass(
      CONVENTIONS['SiT'], x0, cond, num_data=10, num_particles=4, seed=3, t_max=0.95
    )

    def net(*args):
      return _first_three(network(*args), None)

    first = next(other.batches(4))
    other.add(
      first, net(first.x, first.told, first.cond), net(first.x, first.told, first.null)
    )
    with self.assertRaisesRegex(ValueError, '6 of 10 items have no predictions'):
      other.store()
    rest = list(other.batches(4))
    np.testing.assert_array_equal(np.concatenate([b.items for b in rest]), range(4, 10))
    for b in rest:
      other.add(b, net(b.x, b.told, b.cond), net(b.x, b.told, b.null))
    np.testing.assert_array_equal(other.store().gram, whole.gram)

  def test_not_finite(self):
    convention = CONVENTIONS['SiT']
    x0, cond = np.zeros((3, 3, 2, 2), np.float32), np.arange(3)
    pass_ = passes.Pass(convention, x0, cond, num_data=3)
    batch = next(pass_.batches())
    datum = int(batch.cond[4])  # Of the second item.
    out = np.where(np.arange(12)[:, None, None, None] == 4, np.nan, batch.x)
    with self.assertRaisesRegex(errors.NonFiniteError, f'datum {datum} are not finite'):
      pass_.add(batch, batch.x, out)

  def test_other_shapes(self):
    x0, cond = np.zeros((3, 3, 2, 2), np.float32), np.arange(3)
    pass_ = passes.Pass(CONVENTIONS['SiT'], x0, cond, num_data=3)
    batch = next(pass_.batches())
    with self.assertRaisesRegex(ValueError, r'shape \(12, 1, 2, 2\), the data \(12, 3'):
      pass_.add(batch, batch.x[:, :1], batch.x[:, :1])
    for data, labels in ((x0, np.arange(4)), (x0[:0], cond[:0])):
      with self.assertRaisesRegex(ValueError, 'x0 and cond have lengths'):
        passes.Pass(CONVENTIONS['SiT'], data, labels, num_data=3)
    with self.assertRaisesRegex(ValueError, 'null_cond=1000: conditions of uint8'):
      passes.Pass(CONVENTIONS['SiT'], x0, cond.astype('u1'), num_data=3, null=1000)

  def test_times_that_a_model_knows(self):
    """Not above t_max, where the next level is; not below the smallest noise."""
    few = schedules.DiscreteBetas.of(np.linspace(0.9, 0.0, 10))
    x0, cond = np.zeros((3, 3, 2, 2), np.float32), np.arange(3)
    for schedule, prediction in ((few, 'eps'), (schedules.Karras(), 'x0')):
      convention = adapters.Convention(schedule, prediction, null=5)
      pass_ = passes.Pass(convention, x0, cond, num_data=500, t_max=0.95)
      told = np.concatenate([b.told for b in pass_.batches()])
      if prediction == 'eps':
        self.assertEqual(sorted({*told.tolist()}), [float(k) for k in range(9)])
      else:
        self.assertGreaterEqual(told.min(), 0.002 * (1.0 - 1e-5))

  @parameterized.parameters(
    ({'num_data': 0}, 'num_data=0'),
    ({'num_particles': 0}, 'num_particles=0'),
    ({'t_max': 1.5}, 't_max=1.5'),
  )
  def test_arguments(self, changes, message):
    x0, cond = np.zeros((3, 3, 2, 2), np.float32), np.arange(3)
    settings = {'num_data': 3, **changes}
    with self.assertRaisesRegex(ValueError, message):
      passes.Pass(CONVENTIONS['SiT'], x0, cond, **settings)
    with self.assertRaisesRegex(ValueError, 'null=None'):
      passes.Pass(adapters.Convention(FLOW, 'x0'), x0, cond, num_data=3)


if __name__ == '__main__':
  absltest.main()
