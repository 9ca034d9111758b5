"""A learned network in NumPy alone: to be copied to where weights are used.

  weight = NumpyNet('network.npz')
  omega = weight(labels, logsnr_s, logsnr_t)        # [batch]

logsnr = log alpha^2 / sigma^2 of the times that a step goes to and from. labels are
integers `[batch]`; or arrays `[batch, dim]`, attributes as they are and the pooled
embeddings of several encoders side by side, each scaled to a root mean square of 1.
"""

import json

import numpy as np


class NumpyNet:
  """omega(c, s, t) from a file of `experiments.export --format=network`."""

  def __init__(self, path):
    with np.load(path, allow_pickle=False) as file:
      self._params = {name: file[name] for name in file.files if name != 'meta'}
      self.meta = json.loads(str(file['meta']))

  def __call__(self, cond, logsnr_s, logsnr_t):
    h = self._time(logsnr_s, 's') + self._time(logsnr_t, 't') + self._embed(cond)
    for i in range(self.meta['depth'] - 1):
      h = _silu(self._dense(h, f'trunk_{i}'))
    omega = np.maximum(self._dense(h, 'out')[:, 0], 0.0)
    return self.meta['kappa'] * omega

  def _dense(self, h, name):
    return h @ self._params[f'{name}/kernel'] + self._params[f'{name}/bias']

  def _time(self, logsnr, name):
    largest = self.meta['max_logsnr']
    logsnr = np.clip(np.asarray(logsnr, np.float32), -largest, largest)
    h = self._dense(4.0 * logsnr[:, None] / largest, f'logsnr_{name}_hidden')
    return self._dense(_silu(h), f'logsnr_{name}_out')

  def _embed(self, cond):
    if self.meta['embed'] == 'labels':
      if np.min(cond) < 0:
        raise ValueError('a label is negative.')  # NumPy would count from the end.
      return self._params['embed/table/embedding'][cond]
    name = (
      'embed/projection' if 'embed/projection/out/bias' in self._params else 'embed'
    )
    h = self._dense(np.asarray(cond, np.float32), f'{name}/hidden')
    return self._dense(_silu(h), f'{name}/out')


def _silu(x):
  return x / (1.0 + np.exp(-x))
