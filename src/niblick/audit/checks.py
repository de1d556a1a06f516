"""What a check says, how strong its word is, and what all of them say together.

A check that measured (decoded, scored again, counted) and one that compared stated facts can fail. One that only read
a script or a log for what looks wrong cannot: it says where to look, with line and reason, and a person decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from niblick.facts.audits import ArtifactAudit, AuditRecord, CheckRecord, Subject
from niblick.facts.reading import merged

Status = Literal["pass", "fail", "look", "not applicable"]
Strength = Literal["measured", "stated", "look"]
Outcome = Literal["pass", "look", "not honest", "nothing read"]


@dataclass(frozen=True)
class Check:
    """One check's verdict: `detail` is a sentence for people, `facts` the numbers or the counter-example behind it."""

    name: str
    status: Status
    detail: str
    facts: Mapping[str, object] = field(default_factory=dict)
    strength: Strength = "measured"

    def __post_init__(self) -> None:
        if self.status == "fail" and self.strength == "look":
            raise ValueError(f"{self.name}: what was only read cannot fail, it can say where to look")

    def record(self) -> CheckRecord:
        """What audit.json says of it."""
        return CheckRecord(
            name=self.name, status=self.status, strength=self.strength, detail=self.detail, facts=self.facts
        )


def passed(name: str, detail: str, strength: Strength = "measured", /, **facts: object) -> Check:
    """A check that found nothing."""
    return Check(name, "pass", detail, facts, strength)


def failed(name: str, detail: str, strength: Strength = "measured", /, **facts: object) -> Check:
    """A check that found a counter-example, or stated facts that disagree."""
    return Check(name, "fail", detail, facts, strength)


def look(name: str, detail: str, /, **facts: object) -> Check:
    """A check that found something to look at, which may be all right."""
    return Check(name, "look", detail, facts, "look")


def not_applicable(name: str, why: str, strength: Strength = "measured", /) -> Check:
    """A check that this subject cannot be put to."""
    return Check(name, "not applicable", why, {}, strength)


@dataclass(frozen=True)
class Audit:
    """All checks of one subject, and what they say together."""

    subject: str
    kind: str
    checks: tuple[Check, ...]
    about: Subject | None = None
    """What else audit.json says of the subject: its digest, the text, the machine."""

    def named(self, status: Status) -> list[str]:
        """The names of the checks that say so."""
        return [check.name for check in self.checks if check.status == status]

    @property
    def outcome(self) -> Outcome:
        """Not honest if a check failed; something to look at; a pass; or nothing was there to be checked."""
        if self.named("fail"):
            return "not honest"
        if self.named("look"):
            return "look"
        return "pass" if self.named("pass") else "nothing read"

    def exit_code(self, strict: bool = False) -> int:
        """0 for a pass, 1 for not honest, 2 where nothing was read; what is to be looked at is 1 if `strict`."""
        return {"pass": 0, "look": int(strict), "not honest": 1, "nothing read": 2}[self.outcome]

    def sentence(self) -> str:
        """The verdict for people."""
        failures, looks, passes = (self.named(status) for status in ("fail", "look", "pass"))
        if self.outcome == "nothing read":
            why = "; ".join(check.detail for check in self.checks[:2]) or "it is empty"
            return f"nothing in it could be checked, which is no pass ({why})"
        if failures:
            return f"not honest: {', '.join(failures)}"
        count = f"{len(passes)} checks passed"
        return f"look at {', '.join(looks)}; {count}" if looks else count

    def record(self) -> AuditRecord:
        """What audit.json holds."""
        found = AuditRecord(
            subject=self.subject,
            kind=self.kind,
            outcome=self.outcome,
            honest=self.outcome in ("pass", "look"),
            checks=tuple(check.record() for check in self.checks),
        )
        return found if self.about is None else merged(ArtifactAudit, found, self.about)
