"""Moving runs out of the way: into `.trash` among the runs, where nothing looks for runs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from niblick.errors import ConfigError, StorageError
from niblick.files import locked
from niblick.ledger.ledger import Ledger, find_rows
from niblick.ledger.rows import Row

TRASH = ".trash"


def remove_named(targets: Sequence[str], folder: Path) -> dict[str, Path]:
    """Move runs away by their names; a sweep stands for its runs. Raises as `throw_away`, for none and for `latest`."""
    if not targets:
        raise ConfigError("there is nothing to move away: name runs (`niblick runs` lists them)")
    if "latest" in targets:
        raise ConfigError("`latest` changes with every run: name the runs to move away (`niblick runs` lists them)")
    return throw_away(find_rows(Ledger(folder), targets), folder)


def throw_away(rows: list[Row], folder: Path) -> dict[str, Path]:
    """Move runs into the trash; returns where each is by its id. Raises ConfigError, and moves none, if one runs.

    A run that was killed counts as running no longer as soon as nobody holds its lock.
    """
    for row in rows:
        path = Path(row.path)
        if (path / "writer.lock").exists():
            with locked(path / "writer.lock", f"{path} is running: it"):
                pass
        elif row.status == "running":
            raise ConfigError(f"{path} has written something within the last minutes: stop it first, or wait")
    stamp = time.strftime("%Y%m%d-%H%M%S")
    moved = {row.id: folder / TRASH / f"{row.id.replace('/', '+')}-{stamp}" for row in rows}
    try:
        for row in rows:
            moved[row.id].parent.mkdir(parents=True, exist_ok=True)
            Path(row.path).rename(moved[row.id])
    except OSError as error:
        raise StorageError(f"{row.path} cannot be moved to {folder / TRASH}: {error.strerror}") from error
    return moved
