"""Audits of single files of text, scripts and logs: their text is all that is needed, so torch is not imported."""

from __future__ import annotations

from pathlib import Path

from niblick.audit.checks import Audit
from niblick.audit.log_checks import audit_log
from niblick.audit.script_checks import audit_script
from niblick.files import read_text


def audit_file(target: str) -> Audit | None:
    """Audit a script or a log; None for anything else. Raises DataError if it cannot be read."""
    path = Path(target)
    if path.suffix == ".py" and path.is_file():
        return Audit(target, "script", tuple(audit_script(read_text(path), target)))
    if path.suffix in (".txt", ".log") and path.is_file():
        return Audit(target, "log", tuple(audit_log(read_text(path))))
    return None
