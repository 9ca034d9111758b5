"""Small classifiers of the training data: a judge, a reward, noise-aware features."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import logging
from flax import traverse_util
from ml_collections import config_dict

from experiments import app
from experiments import builders
from lgd import arrays
from lgd import networks
from lgd import noising
from lgd import training
from lgd import types
from lgd.data import splits

# x [n, *data] -> (log_prob [n, num_classes], features [n, width]).
Judge = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def train_judge(
  config: config_dict.ConfigDict, dataset: splits.Dataset, pieces: app.Pieces
) -> Judge:
  """Trains the classifier (seconds) and logs its accuracy on held-out data.

  It is a piece itself: where training is not the same twice, all rows have one judge.
  """
  net = _classifier(config, dataset)
  train = functools.partial(_train_classifier, config, dataset, 'judge')
  params = kept(pieces, 'judge', train)

  @jax.jit
  def apply(params, x):
    logits, features = net.apply(params, x)
    return jax.nn.log_softmax(logits), features

  def judge(x):
    return jax.device_get(apply(params, x))

  log_prob, _ = judge(dataset.test.x)
  accuracy = np.mean(np.argmax(log_prob, axis=1) == dataset.test.label)
  logging.info('classifier: accuracy %.3f on test data', accuracy)
  return judge


def train_reward(
  config: config_dict.ConfigDict, dataset: splits.Dataset
) -> types.Params:
  """Parameters for `builders.models.reward`, from another start than the judge's."""
  config = config.copy_and_resolve_references()
  config.seed += 1
  return _train_classifier(config, dataset, 'reward')


def kept(
  pieces: app.Pieces, key: str, train: Callable[[], types.Params]
) -> types.Params:
  """The parameters that `train` returns, as a piece."""

  def make():
    return traverse_util.flatten_dict(jax.device_get(train()), sep='/')

  return traverse_util.unflatten_dict(pieces.get(key, make), sep='/')


def train_noisy_features(
  config: config_dict.ConfigDict, dataset: splits.Dataset
) -> tuple[Callable[[types.Params, jax.Array, jax.Array], jax.Array], types.Params]:
  """Trains a classifier of noisy data; returns its features and their parameters.

  Returns:
    `(params, xt [batch, *data], t [batch]) -> [batch, width]`, and params.
  """
  section = config.trajectory
  schedule = builders.models.schedule(config)
  net = networks.NoisyClassifier(dataset.num_classes, section.classifier_width)

  def logits_of(params, x, key):
    key_t, key_eps = jax.random.split(key)
    t = jax.random.uniform(key_t, x.shape[:1])
    eps = jax.random.normal(key_eps, x.shape)
    return net.apply(params, noising.add_noise(schedule, x, eps, t), t)[0]

  params, loss = _train(
    config,
    dataset,
    'noisy_features',
    section.classifier_steps,
    init=lambda key, x: net.init(key, x, jnp.zeros(1)),
    logits_of=logits_of,
  )
  logging.info('noise-aware classifier: loss %.3f', loss)
  return lambda params, xt, t: net.apply(params, xt, t)[1], params


def _classifier(config, dataset):
  return networks.Classifier(dataset.num_classes, config.evaluation.classifier_width)


def _train_classifier(config, dataset, stream):
  net = _classifier(config, dataset)
  params, _ = _train(
    config,
    dataset,
    stream,
    config.evaluation.classifier_steps,
    init=net.init,
    logits_of=lambda params, x, key: net.apply(params, x)[0],
  )
  return params


def _train(config, dataset, stream, num_steps, *, init, logits_of):
  """Averaged parameters after `num_steps`, and the last loss.

  Args:
    config: the config.
    dataset: with classes.
    stream: names the random draws.
    num_steps: of the training.
    init: `(key, x [1, *data]) -> params`.
    logits_of: `(params, x [n, *data], key) -> logits [n, num_classes]`.
  """
  section, train = config.classifier, dataset.train

  def loss_fn(params, frozen, batch, key):
    del frozen
    loss = optax.softmax_cross_entropy_with_integer_labels(
      logits_of(params, batch.x, key), batch.label
    )
    return loss.mean(), {}

  key = arrays.stream(config.seed, stream)
  tx = optax.adamw(section.learning_rate, weight_decay=section.weight_decay)
  state = training.init_state(init(key, jnp.zeros((1, *dataset.shape))), tx)
  # Of the start a hundredth is left in the average, or less.
  ema_decay = min(0.99, 0.01 ** (1.0 / num_steps))
  step = jax.jit(training.make_train_step(loss_fn, tx, ema_decay=ema_decay))
  batch_size = min(section.batch_size, len(train.label))
  batches = splits.batches(train, batch_size, seed=config.seed)
  for _ in range(num_steps):
    state, metrics = step(state, None, next(batches), key)
  return state.ema_params, metrics['loss']
