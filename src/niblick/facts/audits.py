"""What an audit leaves: audit.json beside an artifact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from niblick.facts.record import Record
from niblick.facts.scores import Machine


@dataclass(frozen=True, kw_only=True)
class CheckRecord(Record):
    """What one check said."""

    SELDOM: ClassVar[tuple[str, ...]] = ("facts",)

    name: str
    status: str
    """`pass`, `fail`, `look` or `not applicable`."""
    strength: str = "measured"
    detail: str = ""
    """A sentence for people."""
    facts: Mapping[str, object] = field(default_factory=dict)
    """The numbers behind it, which are each check's own."""


@dataclass(frozen=True, kw_only=True)
class AuditRecord(Record):
    """All checks of one subject."""

    subject: str = ""
    kind: str = ""
    outcome: str = ""
    honest: bool | None = None
    """Whether something was checked and nothing failed."""
    checks: tuple[CheckRecord, ...]

    @property
    def faults(self) -> tuple[str, ...]:
        """The names of the checks that failed."""
        return tuple(check.name for check in self.checks if check.status == "fail")


@dataclass(frozen=True, kw_only=True)
class Subject(Record):
    """Which artifact and score an audit is of, on which text, made by which machine."""

    artifact_sha256: str | None = None
    data: str = ""
    machine: Machine | None = None
    score_sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class ArtifactAudit(Subject, AuditRecord):
    """The audit of an artifact."""
