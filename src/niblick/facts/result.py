"""What a run leaves when it has come to its end: result.json, and export.json beside each artifact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from niblick.facts.reading import read
from niblick.facts.record import Record
from niblick.facts.scores import ScoreRecord, Sizes
from niblick.files import read_json


@dataclass(frozen=True, kw_only=True)
class Calibration(Record):
    """What an export took from training text: GPTQ, with what it rounded plainly and why, and text that is packed."""

    calibration_seconds: float | None = None
    """They count as training: it is training text that they are about."""
    calibration_tokens: int | None = None
    gptq_notes: Mapping[str, str] | None = None
    text_bytes: int | None = None
    """Of training text in the artifact."""
    packed_text: int | None = None
    """Bytes of the artifact that it takes."""


@dataclass(frozen=True, kw_only=True)
class ExportFacts(Sizes, Calibration):
    """What an artifact weighs and what packing it took."""

    SELDOM: ClassVar[tuple[str, ...]] = (
        *("calibration_seconds", "calibration_tokens", "gptq_notes", "text_bytes", "packed_text"),
        *("export", "export_seconds", "cap"),
    )

    export: Mapping[str, object] | None = None
    """The `ExportConfig` that it was packed by: in export.json alone."""
    export_seconds: float | None = None
    cap: int | None = None
    """Bytes that weights were fitted to."""


@dataclass(frozen=True, kw_only=True)
class Clocks(Record):
    """How long training was."""

    SELDOM: ClassVar[tuple[str, ...]] = ("step", "steps", "train_seconds", "wall_seconds", "average")

    step: int | None = None
    steps: int | None = None
    train_seconds: float | None = None
    wall_seconds: float | None = None
    average: str | None = None
    """Which weights are the final ones: raw, ema or swa."""


@dataclass(frozen=True, kw_only=True)
class Finished(Sizes):
    """What every finished run says, one that was scored and one that was imported."""

    run: str = ""
    artifact: str
    """Name of its artifact."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Digests of the files that must not change any more."""


@dataclass(frozen=True, kw_only=True)
class Result(ScoreRecord, ExportFacts, Clocks, Finished):
    """The result of a run: its clocks, its artifact and the official score."""

    SELDOM: ClassVar[tuple[str, ...]] = (*ScoreRecord.SELDOM, *ExportFacts.SELDOM, *Clocks.SELDOM, "files")


@dataclass(frozen=True, kw_only=True)
class Source(Record):
    """The file that an artifact was made of."""

    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class ImportResult(Finished):
    """The result of an import: no score yet."""

    imported: Source


def read_finished(path: Path) -> Result | ImportResult | None:
    """Read the result.json of a run; None if there is none. Raises DataError if it cannot be read."""
    if not path.is_file():
        return None
    data = read_json(path)
    imported = isinstance(data, dict) and "imported" in data
    return read(ImportResult, data, str(path)) if imported else read(Result, data, str(path))
