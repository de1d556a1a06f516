"""Judging runs: compare them with each other, draw them, audit one."""

from __future__ import annotations

import os
from pathlib import Path

from rich.console import Console

from niblick.api.shown import Pictures, Shown
from niblick.api.wording import edged
from niblick.arguments import Folder, Number, PathLike
from niblick.audit import auditor
from niblick.audit.checks import Audit, Check
from niblick.audit.file_checks import audit_file
from niblick.audit.printed import print_audit
from niblick.compare import groups
from niblick.console import RunConsole
from niblick.errors import DataError
from niblick.reports.plots import figures
from niblick.reports.tables import print_comparison


@edged
class Comparison(Shown):
    """Runs by config, and every further group of seeds against the first: `facts` has all numbers."""

    def __init__(self, facts: groups.Compared) -> None:
        self.facts = facts

    def paint(self, console: Console) -> None:
        """Show groups, differences and verdicts."""
        print_comparison(self.facts, console)


def compare(*targets: PathLike, scorer: str = "", runs: Folder = "runs") -> Comparison:
    """Which of two or more runs is better, and is it luck? Runs that differ in their seeds alone are one group.

    Each target is a run, `RUN:NAME` or an artifact. `facts.groups` has means and deviations in bits per byte,
    `facts.comparisons` every further group against the first: the difference (second minus first, BPB), a paired
    bootstrap over documents, Welch's test over seeds, the challenge's verdict, what differs in the configs. Raises
    ConfigError for fewer than two targets, one without a score, and scores of different texts.
    """
    return Comparison(groups.compare([os.fspath(target) for target in targets], Path(runs), scorer))


def plot(*targets: PathLike, over: str = "time", compressors: bool = False, runs: Folder = "runs") -> Pictures:
    """Draw runs or sweeps, by default the newest run: a notebook shows it, `.save(folder, "png")` writes files.

    The figures are `curves` (bits per byte `over` time, step or bytes), `boundaries` (share of positions where routers
    cut), `bytes` (of artifact and code, by part) and `cap` (bits per byte against bytes, with the cap; `compressors`
    draws what xz and others need for the same text). Raises ConfigError for a target that is not there, or if none has
    anything to draw.
    """
    return Pictures(figures([os.fspath(each) for each in targets], Path(runs), x=over, compressors=compressors))


@edged
class AuditResult(Shown):
    """What an audit found: `honest` in one word, `checks` one by one."""

    def __init__(self, found: Audit) -> None:
        self.found = found

    @property
    def honest(self) -> bool:
        """Whether something was checked and nothing failed."""
        return self.found.outcome in ("pass", "look")

    @property
    def checks(self) -> tuple[Check, ...]:
        """Each check: name, status, a sentence, and the facts behind it."""
        return self.found.checks

    def paint(self, console: Console) -> None:
        """Show a line or more for each check, and the verdict."""
        print_audit(self.found, console)


def audit(target: PathLike = "latest", *, prove: Number = 0, data: PathLike = "", runs: Folder = "runs") -> AuditResult:
    """Is a score honest? Asks the model about changed and shuffled text, counts bytes again, scores it again, and more.

    `target` is a run, an artifact, a log, a script, `module:function` or the folder of a submission. `prove` so many
    documents by coding and decoding them. Raises a NiblickError for what is not there, or says
    nothing that could be checked; a failed check is no error.
    """
    named = os.fspath(target)
    found = audit_file(named)
    if found is None:
        with RunConsole() as console:
            options = auditor.Options(prove=prove)
            found = auditor.audit(named, Path(runs), os.fspath(data), options, console.say)
    if found.outcome == "nothing read":
        raise DataError(f"{named}: {found.sentence()}")
    return AuditResult(found)
