"""CLIP score and retrieval."""

import numpy as np
from absl.testing import absltest
from absl.testing import parameterized

from lgd import metrics


class AlignmentTest(parameterized.TestCase):
  def test_loops_give_the_same(self):
    rng = np.random.default_rng(0)
    text = rng.normal(size=(40, 6))
    image = text + 1.5 * rng.normal(size=(40, 6))
    scores, ranks = [], []
    for i in range(40):
      cosines = [
        sum(image[i] * t) / (sum(image[i] ** 2) * sum(t**2)) ** 0.5 for t in text
      ]
      scores.append(cosines[i])
      ranks.append(sorted(cosines, reverse=True).index(cosines[i]))
    measured = metrics.alignment(image, text)
    self.assertAlmostEqual(measured['clip_score'], np.mean(scores), places=12)
    self.assertEqual(measured['retrieval_at_1'], np.mean(np.array(ranks) == 0))
    self.assertEqual(measured['retrieval_at_5'], np.mean(np.array(ranks) < 5))

  def test_own_prompts_are_found_whatever_the_lengths(self):
    text = np.diag(np.arange(1.0, 9.0))
    measured = metrics.alignment(3.0 * text, text)
    self.assertEqual(measured['retrieval_at_1'], 1.0)
    self.assertAlmostEqual(measured['clip_score'], 1.0)

  def test_embeddings_that_tell_nothing_apart_retrieve_nothing(self):
    measured = metrics.alignment(np.ones((20, 3)), np.ones((20, 3)))
    self.assertEqual(measured['retrieval_at_1'], 0.0)
    self.assertEqual(measured['retrieval_at_5'], 0.0)

  @parameterized.parameters((37, 512), (203, 512))
  def test_one_text_many_times_is_a_tie(self, num, dim):
    """Sizes at which a product of matrices rounds equal columns differently."""
    rng = np.random.default_rng(0)
    image, text = rng.normal(size=(num, dim)), rng.normal(size=(1, dim))
    measured = metrics.alignment(image, np.repeat(text, num, axis=0))
    self.assertEqual(measured['retrieval_at_1'], 0.0)
    self.assertEqual(measured['retrieval_at_5'], 0.0)

  @parameterized.parameters(np.nan, np.inf, 0.0)
  def test_an_embedding_without_direction_is_refused(self, value):
    good, bad = np.eye(6), np.eye(6)
    bad[4] = value
    with self.assertRaisesRegex(ValueError, 'image_embed: row 4 has norm'):
      metrics.alignment(bad, good)
    with self.assertRaisesRegex(ValueError, 'text_embed: row 4 has norm'):
      metrics.alignment(good, bad)


if __name__ == '__main__':
  absltest.main()
