"""What several tests share."""

import pathlib


def files_under(path: pathlib.Path) -> dict[pathlib.Path, int]:
  """Every file and directory, with the time of its last change."""
  return {p: p.stat().st_mtime_ns for p in path.rglob('*')}
