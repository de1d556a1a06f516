"""Artifacts that a run has already: made in the same way they stay as they are, and nothing else takes their place."""

from __future__ import annotations

from collections.abc import Mapping

from niblick.artifact.container import read_artifact
from niblick.config.run_config import RunConfig, dotted, to_dict
from niblick.errors import ArtifactError, ConfigError
from niblick.facts.reading import read_lines
from niblick.facts.result import ExportFacts, ImportResult, Result
from niblick.facts.scores import ScoreRecord
from niblick.run.directory import Run
from niblick.run.packing import exported
from niblick.run.scoring import result_of

NAMED = 3
"""So many keys that differ are named."""


def kept_export(run: Run, name: str, own: RunConfig, config: RunConfig) -> Result | None:
    """Return what is known of the artifact `name` of a run, if `config` made it and it was scored; None if it is free.

    `own` is the config of the run, which alone makes its official artifact. Raises ConfigError, and says what differs,
    if that name belongs to an artifact that is made or scored otherwise.
    """
    official, path = run.finished(), run.artifact(name)
    facts = exported(run, name) if path.is_file() else None
    wanted = {"export": to_dict(config.export), "score": to_dict(config.score)}
    if name == (official.artifact if official else own.export.name):
        said = f"{name} is the official artifact of {run.path}"
        if isinstance(official, ImportResult):
            raise _taken(f"{said}, as it was imported", name)
        was: dict[str, object] = {"export": to_dict(own.export), "score": to_dict(own.score)}
    elif path.is_file():
        said, was = f"{run.path} has an artifact {name} already", _made_by(run, name, facts)
    else:
        return None
    if differs := _differing(dotted(was), dotted(wanted)):
        raise _taken(f"{said} ({differs})", name)
    records = read_lines(ScoreRecord, path.with_name("scores.jsonl")) if facts else []
    return result_of(run, name, facts, records[0]) if facts and records else None


def expect_refit(run: Run, name: str, codec: str) -> None:
    """Raise ConfigError if the artifact `name` is there and no fit by this codec made it."""
    path = run.artifact(name)
    if not path.is_file():
        return
    try:
        found = read_artifact(path).codec
    except ArtifactError:
        found = "unreadable"
    if found != codec or not path.with_name("fit.json").is_file():
        what = f"codec was {found!r} and is {codec!r}" if found != codec else "no fit made it"
        raise ConfigError(
            f"{run.path} has an artifact {name} already ({what}): fit to another number of bytes, or move "
            f"{path.parent} away"
        )


def _taken(said: str, name: str) -> ConfigError:
    return ConfigError(f"{said}: give this one a name of its own, as --name '{name}-2'")


def _made_by(run: Run, name: str, facts: ExportFacts | None) -> dict[str, object]:
    """How an artifact was packed, and is scored, as far as that can be read."""
    try:
        score = read_artifact(run.artifact(name)).config["score"]
    except (ArtifactError, KeyError):
        score = {}
    return {"export": dict((facts and facts.export) or {}), "score": dict(score)}


def _differing(was: Mapping[str, object], wanted: Mapping[str, object]) -> str:
    """What differs, in words; empty where nothing does. Keys that came with a later version are as by default."""
    known = [key for key in wanted if key in was and was[key] != wanted[key]]
    if not any(key.startswith("export.") for key in was):
        return "how it was made, nothing says"
    more = f", and {len(known) - NAMED} more" if len(known) > NAMED else ""
    return ", ".join(f"{key} was {was[key]!r} and is {wanted[key]!r}" for key in known[:NAMED]) + more
