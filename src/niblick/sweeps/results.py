"""The results of a sweep: its points with the mean and deviation of their seeds."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from niblick.errors import ConfigError, nearest
from niblick.facts.reading import typed
from niblick.facts.result import Result
from niblick.ledger.rows import largest
from niblick.ledger.seeds import deviation
from niblick.run.directory import STOPPED, Run, read_json
from niblick.sweeps.running import State
from niblick.sweeps.sweep import load_sweep


def by_point(states: Sequence[State]) -> list[dict[str, Any]]:
    """Return a row for each point: name, branch, seeds, how many are done, BPB mean and deviation, bytes, a note."""
    rows = []
    for name in dict.fromkeys(state.member.point.name for state in states):
        those = [state for state in states if state.member.point.name == name]
        results = [state.result for state in those if state.kind == "done" and state.result]
        scores = [result.bpb for result in results]
        rows.append(
            {
                "name": name,
                "branch": those[0].member.point.branch,
                "seeds": len(those),
                "done": len(results),
                "bpb": statistics.mean(scores) if scores else None,
                "deviation": deviation(scores),
                "total_bytes": largest(result.total_bytes for result in results),
                "note": _note(those),
            }
        )
    return rows


def _note(states: Sequence[State]) -> str:
    kinds = [state.kind for state in states]
    if "stopped" in kinds:
        return f"stopped: {states[kinds.index('stopped')].lines[0]}"
    return ", ".join(f"{kinds.count(kind)} {kind}" for kind in ("failed", "changed") if kind in kinds)


def sweep_directory(target: str, runs: Path) -> Path:
    """Return the directory of a sweep, given by file, name or path. Raises ConfigError if it is none."""
    name = load_sweep(Path(target)).name if target.endswith(".py") else target
    for path in (runs / name, Path(name)):
        if (path / "sweep.json").is_file():
            return path
    known = [path.parent.name for path in runs.glob("*/sweep.json")]
    raise ConfigError(f"there is no sweep {name!r} in {runs}{nearest(name, known) if known else ''}")


@dataclass(frozen=True)
class _Point:
    name: str


@dataclass(frozen=True)
class _Recorded:
    """What is asked of a sweep.json here."""

    points: tuple[_Point, ...]
    seeds: tuple[int, ...]


def finished_runs(folder: Path) -> dict[str, list[tuple[Run, Result]]]:
    """Return the finished runs of a sweep's directory by point, in its order; stopped ones are left out.

    Raises ConfigError if a file of one was changed after it was finished.
    """
    recorded = typed(_Recorded, read_json(folder / "sweep.json"), str(folder / "sweep.json"))
    found: dict[str, list[tuple[Run, Result]]] = {point.name: [] for point in recorded.points}
    for point, those in found.items():
        for seed in recorded.seeds:
            run = Run(folder / f"{point}-s{seed}")
            result = run.result()
            if result is None or (run.path / STOPPED).is_file():
                continue
            if changed := run.changed():
                raise ConfigError(
                    f"{run.path} does not count: {', '.join(changed)} changed after it was finished; remove that "
                    "directory and run the sweep again"
                )
            those.append((run, result))
    return found
