"""A learned network in torch alone: to be copied to where weights are used.

  weight = TorchNet('network.npz').to('cuda')
  omega = weight(labels, logsnr_s, logsnr_t)        # [batch]

logsnr = log alpha^2 / sigma^2 of the times that a step goes to and from. labels are
integers `[batch]`; or arrays `[batch, dim]`, attributes as they are and the pooled
embeddings of several encoders side by side, each scaled to a root mean square of 1.
"""

import json

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class TorchNet(nn.Module):
  """omega(c, s, t) from a file of `experiments.export --format=network`."""

  def __init__(self, path):
    super().__init__()
    with np.load(path, allow_pickle=False) as file:
      self.meta = json.loads(str(file['meta']))
      for name in file.files:
        if name != 'meta':
          self.register_buffer(name.replace('/', '_'), torch.from_numpy(file[name]))

  def forward(self, cond, logsnr_s, logsnr_t):
    h = self._time(logsnr_s, 's') + self._time(logsnr_t, 't') + self._embed(cond)
    for i in range(self.meta['depth'] - 1):
      h = functional.silu(self._dense(h, f'trunk_{i}'))
    return self.meta['kappa'] * self._dense(h, 'out')[:, 0].clamp(min=0.0)

  def _dense(self, h, name):
    return h @ getattr(self, f'{name}_kernel') + getattr(self, f'{name}_bias')

  def _time(self, logsnr, name):
    largest = self.meta['max_logsnr']
    logsnr = logsnr.to(self.out_bias.dtype).clamp(-largest, largest)[:, None]
    h = functional.silu(self._dense(4.0 * logsnr / largest, f'logsnr_{name}_hidden'))
    return self._dense(h, f'logsnr_{name}_out')

  def _embed(self, cond):
    if self.meta['embed'] == 'labels':
      return functional.embedding(cond.long(), self.embed_table_embedding)
    name = 'embed_projection' if hasattr(self, 'embed_projection_out_bias') else 'embed'
    h = functional.silu(self._dense(cond.to(self.out_bias.dtype), f'{name}_hidden'))
    return self._dense(h, f'{name}_out')
