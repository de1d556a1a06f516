"""What a check says, and what all of them say together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["pass", "fail", "not applicable"]


@dataclass(frozen=True)
class Check:
    """One check's verdict: `detail` is a sentence for people, `facts` the numbers or the counter-example behind it."""

    name: str
    status: Status
    detail: str
    facts: dict[str, Any] = field(default_factory=dict)

    def plain(self) -> dict[str, Any]:
        """As JSON."""
        return {"name": self.name, "status": self.status, "detail": self.detail} | (
            {"facts": self.facts} if self.facts else {}
        )


def passed(name: str, detail: str, **facts: Any) -> Check:
    """A check that found nothing."""
    return Check(name, "pass", detail, facts)


def failed(name: str, detail: str, **facts: Any) -> Check:
    """A check that found a counter-example."""
    return Check(name, "fail", detail, facts)


def not_applicable(name: str, why: str) -> Check:
    """A check that this subject cannot be put to."""
    return Check(name, "not applicable", why)


def summary(subject: str, kind: str, checks: Iterable[Check]) -> dict[str, Any]:
    """What audit.json holds: the checks, and `honest`, whether none failed."""
    found = list(checks)
    return {
        "subject": subject,
        "kind": kind,
        "honest": all(check.status != "fail" for check in found),
        "checks": [check.plain() for check in found],
    }
