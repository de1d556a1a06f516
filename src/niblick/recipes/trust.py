"""Whose code is run: recipes that this user has trained, and no others until they are trusted by name.

A recipe is code. A run that was pulled, copied or written by somebody else brings one along, and whatever opens its
model would run it. So the user's own list holds the digests of recipes that were trained here; it lies outside of all
runs, where no run can write.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from niblick.errors import ConfigError
from niblick.files import append_line, imported_beside


def recipe_digest(recipe: Path) -> str:
    """SHA-256 of a recipe and of the modules beside it that it imports: their names and contents.

    In a run, where only those were put, it is of every Python file, so that none can be added and imported otherwise.
    """
    folder, digest = recipe.parent, hashlib.sha256()
    if in_run(recipe):
        beside = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.py") if path != recipe}
    else:
        beside = imported_beside(recipe)
    for name, path in {"": recipe, **dict(sorted(beside.items()))}.items():
        data = path.read_bytes()
        digest.update(f"{name}:{len(data)}:".encode() + data)
    return digest.hexdigest()


def in_run(recipe: Path) -> bool:
    """Whether a recipe lies in a run's directory."""
    return (recipe.parent / "config.json").is_file()


def trust(recipe: Path) -> None:
    """Note that this recipe may be run. Raises OSError where the list cannot be written: this process alone knows."""
    digest = recipe_digest(recipe)
    _KNOWN.add(digest)
    if digest not in _written():
        trusted_list().parent.mkdir(parents=True, exist_ok=True)
        append_line(trusted_list(), digest)


def expect_trusted(recipe: Path) -> None:
    """Raise ConfigError for a recipe that was neither trained nor trusted here."""
    if recipe_digest(recipe) not in _KNOWN | _written():
        raise ConfigError(
            f"{recipe} is code that was never trained here, so it is not run: read it, and if you trust it, "
            f"`niblick trust {recipe.parent}`"
        )


def trusted_list() -> Path:
    """Where the digests stand, a line each."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "niblick" / "trusted_recipes"


_KNOWN: set[str] = set()
"""Of this process."""


def _written() -> set[str]:
    try:
        return set(trusted_list().read_text(encoding="ascii").split())
    except (OSError, ValueError):
        return set()
