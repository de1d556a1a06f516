"""An audit as a terminal shows it."""

from __future__ import annotations

import textwrap

from rich.console import Console

from niblick.audit.checks import Audit
from niblick.console import plain_table

MARKS = {"pass": "pass", "fail": "FAIL", "look": "look", "not applicable": "n/a "}


def print_audit(found: Audit, console: Console) -> None:
    """Show a line or more for each check, and the verdict."""
    plain = [check for check in found.checks if "evidence" not in check.facts]
    width = max((len(check.name) for check in plain), default=0) + 2
    for check in plain:
        head = f"{MARKS[check.status]}  {check.name:<{width}}"
        text = textwrap.fill(check.detail, 110, initial_indent=head, subsequent_indent=" " * len(head))
        console.print(text, markup=False, soft_wrap=True)
    if compared := [check for check in found.checks if "evidence" in check.facts]:
        console.print()
        cells = [
            [c.name.removeprefix("claim: "), *(str(c.facts[key]) for key in ("claim", "evidence"))] for c in compared
        ]
        rows = [[*cell, MARKS[c.status]] for cell, c in zip(cells, compared, strict=True)]
        console.print(plain_table(["what", "claim", "evidence", "verdict"], rows))
    console.print(f"\n{found.subject}: {found.sentence()}", markup=False, soft_wrap=True)
