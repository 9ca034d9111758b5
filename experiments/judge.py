"""A small classifier, trained on the training split, that judges samples."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging
from ml_collections import config_dict

from lgd import arrays
from lgd import networks
from lgd import training
from lgd.data import splits

# x [n, *data] -> (log_prob [n, num_classes], features [n, width]).
Judge = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def train_judge(config: config_dict.ConfigDict, dataset: splits.Dataset) -> Judge:
  """Trains the classifier (seconds) and logs its accuracy on held-out data."""
  section = config.evaluation
  net = networks.Classifier(dataset.num_classes, section.classifier_width)
  tx = optax.adamw(1e-3, weight_decay=1e-2)

  def loss_fn(params, frozen, batch, key):
    del frozen, key
    logits, _ = net.apply(params, batch.x)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, batch.label)
    return loss.mean(), {}

  key = arrays.stream(config.seed, 'judge')
  state = training.init_state(net.init(key, jnp.zeros((1, *dataset.shape))), tx)
  step = jax.jit(training.make_train_step(loss_fn, tx, ema_decay=0.99))
  batches = splits.batches(
    dataset.train, min(128, len(dataset.train.label)), seed=config.seed
  )
  for _ in range(section.classifier_steps):
    state, _ = step(state, None, next(batches), key)

  @jax.jit
  def apply(params, x):
    logits, features = net.apply(params, x)
    return jax.nn.log_softmax(logits), features

  def judge(x):
    return jax.device_get(apply(state.ema_params, x))

  log_prob, _ = judge(dataset.test.x)
  accuracy = np.mean(np.argmax(log_prob, axis=1) == dataset.test.label)
  logging.info('classifier: accuracy %.3f on test data', accuracy)
  return judge
