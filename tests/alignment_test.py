"""CLIP score and retrieval."""

import numpy as np
from absl.testing import absltest

from lgd import metrics


class AlignmentTest(absltest.TestCase):
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


if __name__ == '__main__':
  absltest.main()
