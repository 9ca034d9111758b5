"""The training loop that all trainers share: resume, step, report, checkpoint."""

import contextlib
from collections.abc import Callable
from collections.abc import Iterator
from typing import Any

import jax
from absl import logging
from etils import epath
from ml_collections import config_dict

from experiments import app
from experiments import builders
from experiments import workdirs
from lgd import arrays
from lgd import errors
from lgd import training
from lgd import types
from lgd.training import checkpoints
from lgd.training import reporting
from lgd.training import sharding


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
  at_end: Callable[[dict[str, float]], None] = lambda means: None,
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
    loss_fn: as in `training.make_train_step`.
    frozen: passed to `loss_fn` as it is, from the devices that it is on.
    batches: from the first step wanted to an endless iterator of host batches.
    stream: names the random streams; None is `stage`.
    at_end: is given the means of the last window.

  Returns:
    The final state.

  Raises:
    errors.NonFiniteError: before the state that caused it is saved; names the last
      that was.
    errors.SaveError: as in `save`.
    errors.InputError: the newest checkpoint is beyond `section.num_steps`.
    preemption.Preempted: asked to stop; the state of this step is saved.
  """
  mesh, stream = builders.models.mesh(config), stream or stage

  def init_state(key):
    return training.init_state(init(key), tx)

  key = arrays.stream(config.seed, f'{stream}/init')
  abstract = jax.eval_shape(init_state, key)
  shardings = sharding.fsdp(abstract, mesh)
  with (
    naming_last_good(directory),
    checkpoints.Checkpointer(directory, config=stored_config, keep=2) as checkpointer,
  ):
    if checkpoints.latest_step(directory) is None:
      state = jax.jit(init_state, out_shardings=shardings)(key)
    else:
      state = checkpointer.restore(checkpoints.abstract(abstract, shardings))
    start = int(state.step)
    num_params = sum(x.size for x in jax.tree.leaves(state.params))
    logging.info('%s: %d parameters, from step %d', stage, num_params, start)
    workdirs.refuse.require_steps(directory, start, section.num_steps, stage)
    if start == section.num_steps:
      logging.info('%s: step %d is already reached', stage, section.num_steps)
      return state

    workdirs.configs.record(workdir, stage, config)
    of_start = section.ema_decay**section.num_steps
    if of_start > 0.05:
      logging.warning(
        '%s: %.0f%% of the average, which every command uses, will be the untrained'
        ' start; a smaller ema_decay than %g forgets it.',
        stage,
        100.0 * of_start,
        section.ema_decay,
      )
    train_step = training.make_train_step(
      loss_fn,
      tx,
      ema_decay=section.ema_decay,
      num_microbatches=section.num_microbatches,
      skip_nonfinite=section.skip_nonfinite,
    )
    train_step = training.compile_step(train_step, mesh, shardings)
    step_key = arrays.stream(config.seed, stream)
    data = batches(start)
    with reporting.Reporter(
      workdir, stage, num_steps=section.num_steps, start=start
    ) as reporter:
      saved = start

      def save():
        nonlocal saved
        checkpointer.save(state)
        saved = int(state.step)

      def stop():
        reporter.flush()
        if saved < int(state.step):
          save()
        raise app.preemption.Preempted(f'{stage}: step {saved} is saved in {directory}')

      for step in range(start + 1, section.num_steps + 1):
        try:
          with reporter.waiting_for_data():
            batch = sharding.global_batch(next(data), mesh)
        except RuntimeError:  # Workers of Grain were sent the signal, too, and died.
          if app.preemption.requested():
            stop()
          raise
        state, metrics = train_step(state, frozen, batch, step_key)
        reporter.add(metrics)
        is_last = step == section.num_steps
        saves = is_last or step % config.checkpoint_every == 0
        if saves or step % config.log_every == 0:
          means = reporter.flush()  # Raises before a bad state could be saved.
        if saves:
          save()
        if app.preemption.requested() and not is_last:
          stop()
  at_end(means)
  return state


@contextlib.contextmanager
def naming_last_good(directory: epath.Path) -> Iterator[None]:
  """Adds to a NonFiniteError where the same command would go on from."""
  try:
    yield
  except errors.NonFiniteError as error:
    step = checkpoints.latest_step(directory)
    saved = 'none is saved' if step is None else f'{directory / str(step)} is the last'
    raise errors.NonFiniteError(f'{error} Of good checkpoints {saved}.') from error
