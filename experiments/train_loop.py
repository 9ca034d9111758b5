"""The loop that both trainers share: resume, step, report, checkpoint."""

from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import jax
from absl import logging
from etils import epath
from ml_collections import config_dict

from experiments import builders
from lgd import arrays
from lgd import checkpointing
from lgd import reporting
from lgd import sharding
from lgd import training
from lgd import types


def train(
  *,
  config: config_dict.ConfigDict,
  section: config_dict.ConfigDict,
  workdir: epath.Path,
  directory: epath.Path,
  stage: str,
  stored_config: dict[str, Any],
  init: Callable[[jax.Array], types.Params],
  tx: Any,
  loss_fn: training.LossFn,
  frozen: Any,
  batches: Callable[[int], Iterator[Any]],
  stream: str | None = None,
) -> training.TrainState:
  """Trains from the newest checkpoint under `directory` up to `section.num_steps`.

  Args:
    config: whole config, for seed and intervals.
    section: the config of this stage.
    workdir: where metrics go.
    directory: where checkpoints go.
    stage: names the metrics.
    stored_config: saved beside every checkpoint.
    init: parameters from a key.
    tx: optimiser.
    loss_fn: as of `training.make_train_step`.
    frozen: passed to `loss_fn` as it is, from the devices that it is on.
    batches: from the first step wanted to an endless iterator of host batches.
    stream: names the random streams; None is `stage`.

  Returns:
    The final state.

  Raises:
    reporting.NonFiniteError: before the state that caused it is saved.
  """
  mesh, stream = builders.mesh(config), stream or stage

  def init_state(key):
    return training.init_state(init(key), tx)

  key = arrays.stream(config.seed, f'{stream}/init')
  abstract = jax.eval_shape(init_state, key)
  shardings = sharding.fsdp(abstract, mesh)
  with checkpointing.Checkpointer(
    directory, config=stored_config, keep=2
  ) as checkpointer:
    if checkpointing.latest_step(directory) is None:
      state = jax.jit(init_state, out_shardings=shardings)(key)
    else:
      state = checkpointer.restore(checkpointing.abstract(abstract, shardings))
    start = int(state.step)
    num_params = sum(x.size for x in jax.tree.leaves(state.params))
    logging.info('%s: %d parameters, from step %d', stage, num_params, start)
    if start >= section.num_steps:
      logging.info('%s: step %d is already reached', stage, section.num_steps)
      return state

    train_step = training.make_train_step(
      loss_fn,
      tx,
      ema_decay=section.ema_decay,
      num_microbatches=section.num_microbatches,
    )
    train_step = training.compile_step(train_step, mesh, shardings)
    step_key = arrays.stream(config.seed, stream)
    data = batches(start)
    with reporting.Reporter(
      workdir, stage, num_steps=section.num_steps, start=start
    ) as reporter:
      for step in range(start + 1, section.num_steps + 1):
        with reporter.waiting_for_data():
          batch = sharding.global_batch(next(data), mesh)
        state, metrics = train_step(state, frozen, batch, step_key)
        reporter.add(metrics)
        is_last = step == section.num_steps
        saves = is_last or step % config.checkpoint_every == 0
        if saves or step % config.log_every == 0:
          reporter.flush()  # Raises before a bad state could be saved.
        if saves:
          checkpointer.save(state)
  return state
