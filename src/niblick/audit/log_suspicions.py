"""What in a challenge log is only unlikely: nothing in it contradicts itself, and a person should look.

Each suspicion names the line and the reason. A log without any gives none of these checks, except one that says so.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

from niblick.audit.checks import Check, look, passed
from niblick.challenge import rules
from niblick.challenge.log_line import Quantity
from niblick.challenge.log_reader import ChallengeLog, Claim

FLOAT_GAIN = 5e-4
"""BPB by which packed weights may be better than those that were packed: rounding can be lucky."""

AVERAGE_GAIN = 0.02
"""The same where weights were averaged after the last validation, and not scored before they were packed."""

FIRST_LOSS = 1.5
"""Times ln V that the loss before training may be at most."""


def suspicions(runs: Sequence[ChallengeLog], tokens: Mapping[str, int]) -> list[Check]:
    """All suspicions of the last run of a log; `tokens` are those of the validation split by data set."""
    log = runs[-1]
    found = [
        check
        for check in (
            _better_than_float(log),
            _trained_on_validation(log),
            _seeds(log),
            _scoring_time(log),
            _tokens(log, tokens),
            _first_loss(log),
            _told_twice(runs),
            _limits(log),
            _changed_text(log),
        )
        if check is not None
    ]
    return found or [passed("unlikely facts", "none of those that are looked for", "look")]


def _better_than_float(log: ChallengeLog) -> Check | None:
    """A packed model scored by the same windows cannot be better than the weights it was made of."""
    floats = [claim for claim in log.claims if claim.kind == "float"]
    others = {claim.bpb for claim in log.finals if claim.kind in ("sliding", "ttt")}
    plain = [c for c in log.finals if c.kind == "roundtrip" and c.bpb not in others]
    windows = {log.number("eval_seq_len"), log.number("train_seq_len")} - {None}
    if not floats or not plain or len(windows) > 1:  # other windows: longer ones alone make a score better
        return None
    final, best = min(plain, key=_bpb), floats[-1]
    averaged = log.averages and not any(claim.step is None for claim in floats)
    gain = float(best.bpb) - float(final.bpb) - _digit(best.bpb) - _digit(final.bpb)
    if gain <= (AVERAGE_GAIN if averaged else FLOAT_GAIN):
        return None
    return look(
        "float and packed",
        f"line {final.line}: {final.name} is {final.bpb} BPB, better than the {best.bpb} of line {best.line} that the "
        f"float weights had: packing gives nothing, so something else was scored, or otherwise",
        line=final.line,
    )


def _trained_on_validation(log: ChallengeLog) -> Check | None:
    if log.trained_on is None or not log.trained_on[1].validation:
        return None
    line = log.trained_on[0]
    return look("training files", f"line {line}: the training files are called validation files", line=line)


def _seeds(log: ChallengeLog) -> Check | None:
    scored = {line.seed for _, line in log.seeds if line.bpb is not None}
    chosen = [number for number, line in log.seeds if line.bpb is None]
    if len(scored) < 2 and not chosen:
        return None
    number = chosen[0] if chosen else log.seeds[0][0]
    said = f"line {number}: {len(scored)} seeds are scored" + (", and one is chosen" if chosen else "")
    return look("seeds", said + ": the best of several says less than one seed named before", line=number)


def _scoring_time(log: ChallengeLog) -> Check | None:
    """Scoring longer than the record track allows, where training kept its limit."""
    limit = log.number("max_wallclock_seconds")
    if limit is not None and not 0 < limit <= rules.TRAIN_SECONDS:
        return None  # not the record track, which is told elsewhere
    if re.search(r"non-?record|unlimited", log.settings.get("track", (0, ""))[1], re.IGNORECASE):
        return None
    spent = [(claim.line, claim.name, claim.seconds) for claim in log.finals if claim.seconds is not None]
    over = [row for row in [*spent, *log.scoring_times] if row[2] > rules.EVAL_SECONDS]
    if not over:
        return None
    line, what, seconds = over[0]
    said = f"line {line}: {what} took {seconds:,.0f} s, over the {rules.EVAL_SECONDS} s of the record track"
    return look("scoring time", said, line=line, seconds=seconds)


def _tokens(log: ChallengeLog, known: Mapping[str, int]) -> Check | None:
    """The count of validation tokens is not that of the data set that is named."""
    whole = known.get(log.dataset)
    if log.tokens is None or whole is None or abs(log.tokens / whole - 1) < 0.05:
        return None
    return look(
        "tokens",
        f"line {log.tokens_line}: {log.tokens:,} validation tokens, where {log.dataset} has {whole:,}",
        line=log.tokens_line,
    )


def _first_loss(log: ChallengeLog) -> Check | None:
    """Before training, no model knows anything: about ln V nats per token."""
    named = re.search(r"(?:sp|byte)(\d{3,6})", log.dataset)
    first = next((c for c in log.claims if c.step == 0 and c.loss is not None), None)
    if named is None or first is None or first.loss is None:
        return None
    expected = math.log(int(named[1]))
    if not float(first.loss) > FIRST_LOSS * expected:
        return None
    return look(
        "first loss",
        f"line {first.line}: a loss of {first.loss} before training, where a vocabulary of {int(named[1]):,} gives "
        f"about {expected:.2f}: losses or tokens are counted otherwise",
        line=first.line,
    )


def _told_twice(runs: Sequence[ChallengeLog]) -> Check | None:
    """An earlier run with the very lines of the last one, and another score."""
    log = runs[-1]
    mine = _told(log)
    for run in runs[:-1]:
        if log.best is None or run.best is None or log.best.bpb == run.best.bpb:
            continue
        if mine and _told(run) == mine:
            return look(
                "runs that agree",
                f"line {log.best.line}: {log.best.bpb} BPB, where the run of lines {run.first_line} to {run.lines} has "
                f"the same training lines and {run.best.bpb}",
                line=log.best.line,
            )
    return None


def _told(log: ChallengeLog) -> set[tuple[object, ...]]:
    """All that a log says of its training: times, losses and validations by step."""
    times = {("clock", clock.step, clock.milliseconds) for clock in log.clocks}
    losses = {("loss", step, text) for _, step, text in log.losses}
    return times | losses | {("validation", c.step, c.bpb) for c in log.claims if c.step is not None}


def _limits(log: ChallengeLog) -> Check | None:
    """A figure that is over the limit which its own line gives for it."""
    for number, said in log.limits:
        if said.value > said.limit:
            told = f"line {number}: {said.what} is {said.value:,g}, and the line itself says that it must be under "
            return look("own limits", f"{told}{said.limit:,g}", line=number)
    return None


_CHANGED = re.compile(
    r"(?:^|[_-])(case[-_]?fold\w*|lower(?:case)?\w*|uncased|nfkc|ascii|normali[sz]ed|stripped)(?:[_-]|$)"
)


def _changed_text(log: ChallengeLog) -> Check | None:
    """A data set whose name says that its text is not the challenge's, in a way that cannot be undone."""
    found = _CHANGED.search(log.dataset.lower())
    if found is None or "lossless" in log.dataset.lower():
        return None
    line = log.tokens_line or (log.trained_on[0] if log.trained_on else 1)
    told = (
        f"line {line}: the data set is called {log.dataset}: if {found[1]} cannot be undone, what is scored is another"
    )
    return look("text", f"{told} text than the challenge's, which is easier to predict", line=line)


def _bpb(claim: Claim) -> float:
    return float(claim.bpb)


def _digit(text: str) -> float:
    return 0.5 * Quantity(text).digit
