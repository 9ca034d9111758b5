"""Holds the verdicts of many work directories to what test data say.

  python -m experiments.check_verdicts --workdir=runs   # All work directories in it.

Reads what `validate_weights` and then `evaluate` left in each: of every learned weight
the gain over no guidance that validation data promise at strength 1, that which test
data show, from other noise, and that at the strength of the verdict. Writes
verdicts.json, verdicts.md and verdicts.png.
"""

from typing import Any

from etils import epath

from experiments import app
from experiments import report
from experiments import workdirs
from lgd import errors
from lgd.storage import files


def run(path: epath.PathLike) -> list[report.verdicts.Row]:
  """Reads, writes and returns a row for every weight with a verdict."""
  directory = epath.Path(path)
  rows = [
    row
    for entry in sorted(directory.iterdir())
    if (entry / 'results.json').exists() and (entry / 'verdicts').exists()
    for row in rows_of(entry)
  ]
  if not rows:
    raise errors.InputError(
      f'--workdir={path}: holds no work directory with verdicts and results; run'
      ' validate_weights and evaluate in some first.'
    )
  report.verdicts.draw(directory / 'verdicts.png', rows)
  files.write_text(directory / 'verdicts.md', report.verdicts.to_markdown(rows))
  files.write_json(directory / 'verdicts.json', [row._asdict() for row in rows])
  return rows


def rows_of(path: epath.Path) -> list[report.verdicts.Row]:
  """The rows of one work directory."""
  session = workdirs.open_trained(None, path)
  results: list[dict[str, Any]] = files.read_json(path / 'results.json')
  rows = []
  for name in session.workdir.guidance_names():
    verdict = workdirs.verdicts.load(session, name)
    if verdict is not None and any(row['method'] == name for row in results):
      rows.append(report.verdicts.make_row(path.name, name, verdict, results))
  return rows


if __name__ == '__main__':
  app.main(lambda flags: print(len(run(flags.workdir)), 'weights'), needs_config=False)
