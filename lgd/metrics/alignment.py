"""Agreement of images with their prompts, in the embeddings of CLIP.

  (1)  score_ij = <image_i, text_j> / (|image_i| |text_j|)
  (2)  clip_score      = mean of score_ii
  (3)  retrieval_at_k  = share of the images i for which fewer than k of the other texts
                         have score_ij >= score_ii

A share of (3) depends on the number of texts: compare values only at equal ones. Ties
count against the image: embeddings that do not tell texts apart retrieve none.
"""

import numpy as np

# Scores nearer than embeddings in float32 can tell are equal. Even those of one text
# twice differ: a product of matrices may sum two equal columns in different orders.
_TIE = 1e-6


def alignment(image_embed: np.ndarray, text_embed: np.ndarray) -> dict[str, float]:
  """`clip_score`, `retrieval_at_1` and `retrieval_at_5`, (1)-(3).

  Args:
    image_embed: `[n, dim]`, not zero.
    text_embed: `[n, dim]`, of the prompt of the image in the same row.

  Raises:
    ValueError: an embedding that is 0 or not finite; names its row.

  Cost: n^2 numbers.
  """
  image, text = _unit('image', image_embed), _unit('text', text_embed)
  score = image @ text.T
  own = np.diagonal(score)
  others = np.sum(score >= own[:, None] - _TIE, axis=1) - 1
  return {
    'clip_score': float(np.mean(own)),
    'retrieval_at_1': float(np.mean(others < 1)),
    'retrieval_at_5': float(np.mean(others < 5)),
  }


def _unit(name, embed):
  embed = np.asarray(embed, np.float64)
  norm = np.linalg.norm(embed, axis=1, keepdims=True)
  wrong = np.flatnonzero(~(np.isfinite(norm) & (norm > 0.0)))
  if len(wrong):  # Every comparison with NaN is False: it would count as retrieved.
    raise ValueError(
      f'{name}_embed: row {wrong[0]} has norm {norm[wrong[0], 0]}, must be finite and'
      ' above 0; look at what was embedded.'
    )
  return embed / norm
