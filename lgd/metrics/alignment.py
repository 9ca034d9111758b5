"""How well images go with their prompts, in the embeddings of CLIP.

  (1)  score_ij = <image_i, text_j> / (|image_i| |text_j|)
  (2)  clip_score      = mean of score_ii
  (3)  retrieval_at_k  = share of the images i for which fewer than k of the other texts
                         have score_ij >= score_ii

A share of (3) depends on the number of texts: compare values only at equal ones. Ties
count against the image: embeddings that do not tell texts apart retrieve none.
"""

import numpy as np


def alignment(image_embed: np.ndarray, text_embed: np.ndarray) -> dict[str, float]:
  """`clip_score`, `retrieval_at_1` and `retrieval_at_5`, (1)-(3).

  Args:
    image_embed: `[n, dim]`, not zero.
    text_embed: `[n, dim]`, of the prompt of the image in the same row.

  Cost: n^2 numbers.
  """
  image, text = (
    np.asarray(x, np.float64) / np.linalg.norm(x, axis=1, keepdims=True)
    for x in (image_embed, text_embed)
  )
  score = image @ text.T
  own = np.diagonal(score)
  others = np.sum(score >= own[:, None], axis=1) - 1
  return {
    'clip_score': float(np.mean(own)),
    'retrieval_at_1': float(np.mean(others < 1)),
    'retrieval_at_5': float(np.mean(others < 5)),
  }
