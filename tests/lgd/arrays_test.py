"""Rows in whole batches; draws that know nothing of their batch; labels; bounds."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest
from absl.testing import parameterized

from lgd import arrays


class WholeBatchesTest(parameterized.TestCase):
  @parameterized.parameters((10, 4), (8, 4), (3, 5), (1, 1))
  def test_joined_and_cut_they_are_the_rows(self, num, size):
    batches = arrays.whole_batches(num, size)
    self.assertEqual({len(rows) for rows in batches}, {size})
    joined = np.concatenate(batches)
    np.testing.assert_array_equal(joined[:num], np.arange(num))
    self.assertLess(len(joined) - num, size)
    self.assertBetween(joined.max(), 0, num - 1)


class GeneratorTest(parameterized.TestCase):
  def tearDown(self):
    jax.config.update('jax_default_prng_impl', 'threefry2x32')
    super().tearDown()

  def test_streams_are_those_of_threefry(self):
    """Whatever the default, which on TPUs often is rbg."""
    expected = jax.random.key_data(arrays.stream(3, 'samples'))
    jax.config.update('jax_default_prng_impl', 'rbg')
    key = arrays.stream(3, 'samples')
    np.testing.assert_array_equal(jax.random.key_data(key), expected)
    again = arrays.wrap_key_data(jax.random.key_data(key))
    np.testing.assert_array_equal(arrays.normal(again, (4,)), arrays.normal(key, (4,)))

  @parameterized.parameters(1, 3)
  def test_a_row_does_not_depend_on_its_batch(self, first):
    jax.config.update('jax_default_prng_impl', 'rbg')
    keys = jax.vmap(lambda i: jax.random.fold_in(arrays.stream(0, 'rows'), i))(
      jnp.arange(6)
    )
    whole = arrays.normal(arrays.fold_in(keys, 7), (6, 5))
    part = arrays.normal(arrays.fold_in(keys[first:], 7), (6 - first, 5))
    np.testing.assert_array_equal(whole[first:], part)

  def test_keys_that_would_are_refused(self):
    keys = jax.random.split(jax.random.key(0, impl='rbg'), 3)
    for call in (lambda: arrays.normal(keys, (3, 2)), lambda: arrays.fold_in(keys, 1)):
      with self.assertRaisesRegex(ValueError, "keys of rbg: .* impl='threefry2x32'"):
        call()
    with self.assertRaisesRegex(ValueError, r'key of uint32\[2\]: must be typed'):
      arrays.normal(jax.random.PRNGKey(0), (3, 2))


class LabelTest(parameterized.TestCase):
  @parameterized.parameters('uint8', 'int8', 'int32')
  def test_a_row_that_is_not_there_is_nan(self, dtype):
    """Minus one is no row, and not the last."""
    rows = jnp.arange(3.0)
    label = jnp.asarray([0, 2, 3, 100] + ([-1] if dtype != 'uint8' else []), dtype)
    found = jnp.take(rows, arrays.index_or_nan(label, 3), mode='fill')
    np.testing.assert_array_equal(found[:2], [0.0, 2.0])
    self.assertTrue(np.all(np.isnan(found[2:])))


if __name__ == '__main__':
  absltest.main()
