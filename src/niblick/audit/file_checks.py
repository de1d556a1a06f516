"""Audits of single files of text, scripts and logs: their text is all that is needed, so torch is not imported."""

from __future__ import annotations

from pathlib import Path

from niblick.audit.checks import Audit
from niblick.audit.log_checks import audit_log
from niblick.audit.script_checks import audit_script
from niblick.errors import DataError
from niblick.files import read_text

_TABLES = (".csv", ".tsv", ".json", ".jsonl")
"""How other trainers keep their numbers."""


def audit_file(target: str) -> Audit | None:
    """Audit a script or a log; None for anything else. Raises DataError if it cannot be read."""
    path = Path(target)
    if path.suffix == ".py" and path.is_file():
        return Audit(target, "script", tuple(audit_script(read_text(path), target)))
    if path.suffix in (".txt", ".log") and path.is_file():
        return Audit(target, "log", tuple(audit_log(read_text(path))))
    if path.suffix in _TABLES and path.is_file():
        raise DataError(f"{path} is a table, and no table is read: give the log of a script (.txt or .log)")
    return None
