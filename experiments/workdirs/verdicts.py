"""Verdicts: the strength at which a learned weight is used, and what speaks for it.

verdicts/NAME.json    of `experiments.validate_weights`, sealed

A verdict is of one step of the base model, and of a weight as it was learned, with its
step. Where one of them is another since, it counts no more.
"""

from typing import Any
from typing import NamedTuple

import jax
from absl import logging

from experiments.workdirs.session import Session
from lgd import errors
from lgd.storage import files
from lgd.training import checkpoints


class Verdict(NamedTuple):
  """What held-out data say of a learned weight.

  Attributes:
    kappa: the strength at which the weight is used; 0 is no guidance.
    kappas: strengths that were tried, 0 first.
    energy: energy distance to validation data at each.
    gain: by how much that of 0 is larger, at each.
    error: standard error of the gain, at each.
    num_evaluations: denoiser evaluations that the verdict cost.
  """

  kappa: float
  kappas: tuple[float, ...]
  energy: tuple[float, ...]
  gain: tuple[float, ...]
  error: tuple[float, ...]
  num_evaluations: int

  def __str__(self) -> str:
    i = self.kappas.index(self.kappa)
    if not i:
      return 'kappa 0: no strength is better than no guidance beyond its noise'
    return f'kappa {self.kappa:g}: gains {self.gain[i]:.4f} +- {self.error[i]:.4f}'


def save(session: Session, name: str, verdict: Verdict) -> None:
  """Stores the verdict of the weight `name`."""
  if jax.process_index() == 0:
    stored = {**verdict._asdict(), **_made_of(session, name)}
    files.write_sealed(session.workdir.verdict(name), stored)


def load(session: Session, name: str) -> Verdict | None:
  """The verdict of the weight `name`; None if there is none that counts.

  Raises:
    errors.InputError: a damaged file.
  """
  path = session.workdir.verdict(name)
  if not path.exists():
    return None
  try:
    stored = files.read_sealed(path)
    now = _made_of(session, name)
    if {key: stored.get(key) for key in now} != now:
      logging.warning(
        '%s: is of another step of the base model, or of another weight or step of it,'
        ' and does not count; run validate_weights again.',
        path,
      )
      return None
    fields = [stored[key] for key in Verdict._fields]
  except (errors.FileError, KeyError) as error:
    raise errors.InputError(f'{error} Remove {path}.') from error
  return Verdict(*(tuple(v) if isinstance(v, list) else v for v in fields))


def _made_of(session: Session, name: str) -> dict[str, Any]:
  """The base model's step, and the record and step of the weight."""
  path = session.workdir.guidance(name)
  return {
    'denoiser_step': checkpoints.latest_step(session.workdir.denoiser),
    'guidance_step': checkpoints.latest_step(path),
    'guidance': checkpoints.load_config(path),
  }
