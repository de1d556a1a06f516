"""Checks of a challenge log: do its numbers follow from each other?

A loss in nats per token, a number of tokens and a score in bits per byte imply how many bytes the text has: loss / ln 2
× tokens / BPB. The challenge's validation split has one true count, so a score made with another one shows. Facts that
disagree fail; what is only unlikely is to be looked at (`log_suspicions`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from niblick.audit import log_suspicions
from niblick.audit.checks import Check, failed, look, not_applicable, passed
from niblick.challenge import rules
from niblick.challenge.log_line import Quantity
from niblick.challenge.log_reader import ChallengeLog, Claim, Clock, Sized, read_runs

VALIDATION_BYTES = 151_080_891
"""UTF-8 bytes of the challenge's validation split: the first 50,000 documents."""

VALIDATION_TOKENS = {"fineweb10B_sp1024": 62_021_846}
"""Tokens of that split, by data set, where the count is known."""

BYTE_TOLERANCE = 1e-4
"""Share that the implied count may be off by, beside what the printed digits leave open."""

OTHER_SPLITS = {63_779_840: "another validation split (of 63,779,840 sp1024 tokens, as in the first baseline runs)"}
"""Splits that published runs were scored on besides, by their tokens."""

LIKELY_WINDOW = 4096
"""Windows of a log that does not say how long they are."""


def audit_log(
    text: str, true_bytes: int = VALIDATION_BYTES, shipped_code: int | None = None, beyond: str = ""
) -> list[Check]:
    """All checks of a log: of the last run in it, with the others named.

    `shipped_code` is what the script weighs that lies beside it: logs may have counted its unpacked source. `beyond` is
    what the submission says itself of being over the cap.
    """
    runs = read_runs(text)
    log = runs[-1]
    found = [
        implied_bytes(log, true_bytes),
        scores_agree(log),
        sizes(log, shipped_code, beyond),
        clocks(log),
        track(log),
    ]
    if not log.empty:
        found += [several_runs(runs)] if len(runs) > 1 else []
        found += log_suspicions.suspicions(runs, VALIDATION_TOKENS)
    return found


def implied_range(claim: Claim, tokens: int) -> tuple[float, float, float]:
    """Return the byte count that a claim implies, and the least and the most that its printed digits leave open."""

    def count(loss: float, bpb: float) -> float:
        return loss / math.log(2) * tokens / bpb

    assert claim.loss is not None
    loss, bpb = float(claim.loss), float(claim.bpb)
    d_loss, d_bpb = (0.5 * Quantity(text).digit for text in (claim.loss, claim.bpb))
    return count(loss, bpb), count(loss - d_loss, bpb + d_bpb), count(loss + d_loss, max(bpb - d_bpb, 1e-12))


def scored_bytes(log: ChallengeLog, true_bytes: int) -> tuple[float, float, str]:
    """The least and the most bytes that the tokens scored can have, and what is left out, for people.

    Windows leave out the tail of the split: fewer tokens than a window has. How many, is known where the split's
    tokens are; else it may be any number of them.
    """
    assert log.tokens is not None
    window = int(log.number("eval_seq_len") or log.number("train_seq_len") or LIKELY_WINDOW)
    whole = VALIDATION_TOKENS.get(log.dataset)
    if true_bytes == VALIDATION_BYTES and whole is not None and 0 <= whole - log.tokens < window:
        missing = whole - log.tokens
        share = log.tokens / whole
        told = f"; {missing:,} tokens at the end are not scored (windows of {window:,})" if missing else ""
        return true_bytes * share, true_bytes * share, told
    if log.tokens % window == 0 and log.dataset:
        return true_bytes * log.tokens / (log.tokens + window), true_bytes, ""
    return true_bytes, true_bytes, ""


def implied_bytes(log: ChallengeLog, true_bytes: int) -> Check:
    """Every score implies the true byte count of the tokens that were scored."""
    name = "bytes"
    usable = [c for c in log.claims if c.loss is not None and _positive(c.loss) and _positive(c.bpb)]
    if not usable or not log.tokens:
        missing = "no loss with a score" if not usable else "no count of validation tokens"
        return not_applicable(name, f"the log has {missing}, so it implies no byte count", "stated")
    if log.dataset and "fineweb" not in log.dataset.lower():
        return not_applicable(name, f"{log.dataset} is not the challenge's text, whose bytes are known", "stated")
    sharpest = max(usable, key=lambda claim: len(claim.loss or "") + len(claim.bpb))
    best, _, _ = implied_range(sharpest, log.tokens)
    least, most, told = scored_bytes(log, true_bytes)
    facts: dict[str, object] = {"tokens": log.tokens, "implied_bytes": round(best), "true_bytes": true_bytes}
    slack = BYTE_TOLERANCE * true_bytes
    if not _within(implied_range(sharpest, log.tokens), least, most, slack):
        why = OTHER_SPLITS.get(log.tokens, "another split, or bytes that are counted otherwise")
        return failed(
            name,
            f"line {sharpest.line}: a loss of {sharpest.loss} over {log.tokens:,} tokens and {sharpest.bpb} BPB imply "
            f"{best:,.0f} bytes, not the {true_bytes:,} of the challenge's split ({best / true_bytes - 1:+.2%}): {why}",
            "stated",
            line=sharpest.line,
            **facts,
        )
    for claim in usable:
        span = implied_range(claim, log.tokens)
        if not _within(span, least, most, slack):
            return failed(
                name,
                f"line {claim.line}: a loss of {claim.loss} and {claim.bpb} BPB imply {span[0]:,.0f} bytes, where the "
                f"others imply {best:,.0f}: one of the two was changed",
                "stated",
                line=claim.line,
                **facts,
            )
    return passed(
        name,
        f"{len(usable)} scores over {log.tokens:,} tokens imply {best:,.0f} bytes, the challenge's {true_bytes:,} "
        f"within {abs(best / true_bytes - 1):.4%}{told}",
        "stated",
        **facts,
    )


def _positive(text: str) -> bool:
    return math.isfinite(float(text)) and float(text) > 0


def _within(span: tuple[float, float, float], least: float, most: float, slack: float) -> bool:
    """Whether a range of byte counts meets another; the digits alone may not carry it further than they leave open."""
    _, low, high = span
    return low - slack <= most and high + slack >= least


def scores_agree(log: ChallengeLog) -> Check:
    """A score that is printed twice, rounded and exact, says the same; the summary repeats one of them."""
    name, compared = "scores", 0
    rounded: dict[tuple[int, str], Claim] = {}
    for claim in (c for c in log.claims if c.step is None):
        before = rounded.get((claim.artifact, claim.base))
        if before is None or not claim.name.endswith("_exact"):
            rounded[claim.artifact, claim.base] = claim
            continue
        compared += 1
        pairs = (("loss", before.loss, claim.loss), ("score", before.bpb, claim.bpb))
        for what, coarse, sharp in pairs:
            if coarse is None or sharp is None:
                continue
            if not abs(float(coarse) - float(sharp)) <= 0.51 * max(Quantity(coarse).digit, Quantity(sharp).digit):
                return failed(
                    name,
                    f"line {claim.line} says a {what} of {sharp} where line {before.line} says {coarse} of the same",
                    "stated",
                    lines=[before.line, claim.line],
                )
    if "val_bpb" in log.summary and (final := [c for c in log.claims if c.step is None]):
        line, said = log.summary["val_bpb"]
        if not any(abs(float(said) - float(claim.bpb)) < 1e-8 for claim in final):
            return failed(name, f"line {line} sums up a score of {said}, which no line says", "stated", lines=[line])
        compared += 1
    best = log.best
    worse = _worse(log, best) if best else ""
    if not compared and not worse:
        return not_applicable(name, "no score is printed twice", "stated")
    said = f"{compared} scores that are printed more than once agree" if compared else "no score is printed twice"
    return passed(name, said + worse, "stated")


def _worse(log: ChallengeLog, best: Claim) -> str:
    """A score after the best one of the same artifact that is worse by more than its digits."""
    later = [
        c for c in log.finals if c.artifact == best.artifact and c.line > best.line and c.kind != best.kind
        and float(c.bpb) > float(best.bpb) + 1e-3
    ]  # fmt: skip
    if not later:
        return ""
    worst = later[-1]
    return (
        f"; the run's score is {best.bpb} ({best.name}, line {best.line}); {worst.name} made it worse afterwards, "
        f"{worst.bpb} (line {worst.line})"
    )


def sizes(log: ChallengeLog, shipped_code: int | None = None, beyond: str = "") -> Check:
    """Code, model and whatever else the log weighs add up to the total, which is under the cap."""
    name = "artifact"
    code, models, totals = ([s for s in log.sizes if s.said.what == what] for what in ("code", "model", "total"))
    parts = [s for s in log.sizes if s.said.what == "part"]
    if not totals or not code or not models:
        return not_applicable(name, "the log does not say what code and model weigh", "stated")
    for total in totals:
        if not any(_adds_up(c, m, total, parts) for c in code for m in models):
            return failed(
                name,
                f"line {total.line}: a total of {total.said.size:,} bytes{_of(total)}, but code of "
                f"{_listed(code)} and models of {_listed(models)} do not add up to it",
                "stated",
                line=total.line,
            )
    for total in totals:
        if total.said.size - total.said.slack > rules.CAP_BYTES:
            if shipped_code is not None and (said := _as_shipped(total, code, models, shipped_code)):
                return passed(name, said, "stated", total_bytes=total.said.size)
            said = f"line {total.line}: {total.said.size:,} bytes are over the cap of {rules.CAP_BYTES:,}"
            if beyond:
                return look(name, f"{said}, which the submission says itself ({beyond})", line=total.line)
            return failed(name, said, "stated", line=total.line, total=total.said.size)
    if "artifact_bytes" in log.summary:
        line, said = log.summary["artifact_bytes"]
        if float(said) not in {size.said.size for size in [*totals, *models]}:
            return failed(name, f"line {line} sums up {said} bytes, which no line says", "stated", line=line)
    largest = max(total.said.size for total in totals)
    several = f" ({len(models)} artifacts)" if len({size.artifact for size in models}) > 1 else ""
    told = f"code and model add up to {largest:,} bytes{several}, under the cap of {rules.CAP_BYTES:,}"
    return passed(name, told, "stated", total_bytes=largest)


def _adds_up(code: Sized, model: Sized, total: Sized, parts: Sequence[Sized] = ()) -> bool:
    """Whether code and model make the total: by themselves, with one other part that is weighed, or with all."""
    slack = code.said.slack + model.said.slack + total.said.slack
    rest = total.said.size - code.said.size - model.said.size
    choices: list[Sequence[Sized]] = [(), *([part] for part in parts), parts]
    return any(abs(rest - sum(p.said.size for p in c)) <= slack + sum(p.said.slack for p in c) for c in choices)


def _as_shipped(total: Sized, code: list[Sized], models: list[Sized], shipped: int) -> str:
    """What to say of a total over the cap that is under it with the code as it is shipped; "" where it is not."""
    for counted in code:
        for model in models:
            fits = _adds_up(counted, model, total) and model.said.size + shipped <= rules.CAP_BYTES
            if fits and shipped < counted.said.size:
                return (
                    f"line {total.line}: {total.said.size:,} bytes are over the cap with {counted.said.size:,} of "
                    f"code; the script is shipped in {shipped:,}, which makes {model.said.size + shipped:,}, under it"
                )
    return ""


def _of(size: Sized) -> str:
    return f" for {size.said.name}" if size.said.name else ""


def _listed(stated: list[Sized]) -> str:
    return ", ".join(dict.fromkeys(f"{size.said.size:,}" for size in stated))


UNTIMED = (0, 10)
"""Steps before the clock starts: none, or ten as in modded-nanogpt's scripts."""


def _misfit(clocks: Iterable[Clock], untimed: int) -> Clock | None:
    """The first clock whose average is not the quotient of time and timed steps; None if all are."""
    for clock in clocks:
        steps, average = clock.step - untimed, clock.average
        if average is None or math.isnan(average) or not clock.step:
            continue
        if steps < 1 or abs(clock.milliseconds / steps - average) > 0.006 + (0.01 + clock.slack) / steps:
            return clock
    return None


def clocks(log: ChallengeLog) -> Check:
    """Steps and times ascend together, averages are their quotients, and a limit that is stated is kept."""
    name = "steps and times"
    if not log.clocks and log.stop is None:
        return not_applicable(name, "the log has no steps with times", "stated")
    step, milliseconds, slack = -1, -1.0, 0.0
    for clock in log.clocks:
        if clock.step < step or clock.milliseconds + clock.slack < milliseconds - slack:
            return failed(
                name,
                f"line {clock.line}: step {clock.step} at {clock.milliseconds:,.0f} ms comes after step {step} at "
                f"{milliseconds:,.0f} ms",
                "stated",
                line=clock.line,
            )
        step, milliseconds, slack = clock.step, clock.milliseconds, clock.slack
    misfits = [_misfit(log.clocks, untimed) for untimed in UNTIMED]
    if all(misfits) and (wrong := misfits[0]) is not None:
        said = f"line {wrong.line}: {wrong.milliseconds:,.0f} ms over {wrong.step} steps are "
        said += f"{wrong.milliseconds / wrong.step:.2f} ms each, not {wrong.average:.2f}"
        return failed(name, said, "stated", line=wrong.line)
    if log.stop is not None:
        line, stop = log.stop
        if log.clocks and (stop.step < step or stop.milliseconds < milliseconds - slack - 1):
            said = f"line {line}: stopped at step {stop.step}, but step {step} came before"
            return failed(name, said, "stated", line=line)
        if log.clocks and stop.step == step and abs(stop.milliseconds - milliseconds) > 1 + slack:
            said = f"line {line}: stopped at {stop.milliseconds:,.0f} ms, but step {step} is at {milliseconds:,.0f}"
            return failed(name, said, "stated", line=line)
        milliseconds, step = max(milliseconds, stop.milliseconds), stop.step
    limit = log.number("max_wallclock_seconds")
    each = milliseconds / 1000 / max(step, 1)
    if limit and milliseconds / 1000 > limit * 1.01 + 1 + each:
        said = f"{milliseconds / 1000:,.1f} s of training are over the limit of {limit:g} s that the log states"
        return failed(name, said, "stated")
    return passed(
        name, f"{step:,} steps in {milliseconds / 1000:,.1f} s", "stated", steps=step, train_seconds=milliseconds / 1000
    )


def track(log: ChallengeLog) -> Check:
    """Which of the record track's limits the log is beyond: that is no dishonesty, but no record either."""
    name, beyond = "track", []
    train = [c.milliseconds / 1000 for c in log.clocks] + ([log.stop[1].milliseconds / 1000] if log.stop else [])
    limit, ranks = log.number("max_wallclock_seconds"), log.number("world_size")
    if not train and limit is None and ranks is None:
        return not_applicable(name, "the log says neither how long it trained nor on what", "stated")
    if train and max(train) > rules.TRAIN_SECONDS * 1.01 + 1 + max(train) / max([c.step for c in log.clocks] or [1]):
        beyond.append(f"{max(train):,.0f} s of training")
    elif limit is not None and not 0 < limit <= rules.TRAIN_SECONDS:
        beyond.append("no limit of training" if limit <= 0 else f"a limit of {limit:,.0f} s of training")
    if ranks is not None and ranks > rules.GPUS:
        beyond.append(f"{ranks:.0f} GPUs")
    declared = next((v for n, (_, v) in log.settings.items() if n == "track"), "")
    if re.search(r"non-?record|unlimited", declared, re.IGNORECASE):
        beyond.append(f"the log calls it {declared}")
    if beyond:
        said = f"not the record track ({rules.TRAIN_SECONDS} s on {rules.GPUS} GPUs), which is no dishonesty: "
        return passed(name, said + ", ".join(beyond), "stated", beyond=beyond)
    return passed(name, "within the record track's limits, as far as the log says", "stated", beyond=[])


def several_runs(runs: list[ChallengeLog]) -> Check:
    """Name the runs that the file holds besides the last one, which is read."""
    rows = []
    for run in runs:
        score = f"{run.best.bpb} BPB" if run.best else "no score"
        rows.append(f"lines {run.first_line} to {run.lines}: {score}")
    count = {2: "two", 3: "three"}.get(len(runs), str(len(runs)))
    said = f"{count} runs in one file; the last one is read, and the other{'s' * (len(runs) > 2)} named: "
    return passed("runs", said + "; ".join(rows), "stated", runs=rows)
