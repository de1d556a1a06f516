"""Checks of a challenge log: do its numbers follow from each other?

A loss in nats per token, a number of tokens and a score in bits per byte imply how many bytes the text has: loss / ln 2
× tokens / BPB. The challenge's validation split has one true count, so a score made with another one shows.
"""

from __future__ import annotations

import math
from dataclasses import replace
from decimal import Decimal
from typing import Any

from niblick.audit.checks import Check, failed, not_applicable, passed
from niblick.challenge import rules
from niblick.challenge.log_reader import ChallengeLog, Claim, read_log

VALIDATION_BYTES = 151_080_891
"""UTF-8 bytes of the challenge's validation split: the first 50,000 documents."""

BYTE_TOLERANCE = 1e-4
"""Share that the implied count may be off by, beside what the printed digits leave open."""

OTHER_SPLITS = {63_779_840: "another validation split (of 63,779,840 sp1024 tokens, as in the first baseline runs)"}
"""Splits that published runs were scored on besides, by their tokens."""


def audit_log(text: str, true_bytes: int = VALIDATION_BYTES) -> list[Check]:
    """All checks of a log."""
    log = read_log(text)
    found = [implied_bytes(log, true_bytes), scores_agree(log), sizes(log), clocks(log)]
    return [replace(check, strength="stated") for check in found]


def implied_range(claim: Claim, tokens: int) -> tuple[float, float, float]:
    """Return the byte count that a claim implies, and the least and the most that its printed digits leave open."""

    def count(loss: float, bpb: float) -> float:
        return loss / math.log(2) * tokens / bpb

    loss, bpb = float(claim.loss), float(claim.bpb)
    d_loss, d_bpb = (0.5 * 10.0 ** int(Decimal(text).as_tuple().exponent) for text in (claim.loss, claim.bpb))
    return count(loss, bpb), count(loss - d_loss, bpb + d_bpb), count(loss + d_loss, max(bpb - d_bpb, 1e-12))


def implied_bytes(log: ChallengeLog, true_bytes: int) -> Check:
    """Every score implies the true byte count of the split."""
    name = "bytes"
    usable = [claim for claim in log.claims if float(claim.loss) > 0 and float(claim.bpb) > 0]
    if not usable or log.tokens is None:
        missing = "no loss with a score" if not usable else "no count of validation tokens"
        return not_applicable(name, f"the log has {missing}, so it implies no byte count")
    sharpest = max(usable, key=lambda claim: len(claim.loss) + len(claim.bpb))
    best, _, _ = implied_range(sharpest, log.tokens)
    facts: dict[str, Any] = {"tokens": log.tokens, "implied_bytes": round(best), "true_bytes": true_bytes}
    if abs(best / true_bytes - 1) > BYTE_TOLERANCE:
        why = OTHER_SPLITS.get(log.tokens, "another split, or bytes that are counted otherwise")
        return failed(
            name,
            f"line {sharpest.line}: a loss of {sharpest.loss} over {log.tokens:,} tokens and {sharpest.bpb} BPB imply "
            f"{best:,.0f} bytes, not the {true_bytes:,} of the challenge's split ({best / true_bytes - 1:+.2%}): {why}",
            line=sharpest.line,
            **facts,
        )
    for claim in usable:
        value, low, high = implied_range(claim, log.tokens)
        slack = BYTE_TOLERANCE * true_bytes
        if not low - slack <= true_bytes <= high + slack:
            return failed(
                name,
                f"line {claim.line}: a loss of {claim.loss} and {claim.bpb} BPB imply {value:,.0f} bytes, where the "
                f"others imply {best:,.0f}: one of the two was changed",
                line=claim.line,
                **facts,
            )
    return passed(
        name,
        f"{len(usable)} scores over {log.tokens:,} tokens imply {best:,.0f} bytes, the challenge's {true_bytes:,} "
        f"within {abs(best / true_bytes - 1):.4%}",
        **facts,
    )


def scores_agree(log: ChallengeLog) -> Check:
    """A score that is printed twice, rounded and exact, says the same; the summary repeats the last one."""
    name, by_name = "scores", {claim.name: claim for claim in log.claims if claim.step is None}
    compared = 0
    for claim in by_name.values():
        exact = by_name.get(f"{claim.name}_exact")
        if exact is None:
            continue
        compared += 1
        for what, rounded, sharp in (("loss", claim.loss, exact.loss), ("score", claim.bpb, exact.bpb)):
            step = 10.0 ** int(Decimal(rounded).as_tuple().exponent)
            if abs(float(rounded) - float(sharp)) > 0.51 * step:
                return failed(
                    name,
                    f"line {exact.line} says a {what} of {sharp} where line {claim.line} says {rounded} of the same",
                    lines=[claim.line, exact.line],
                )
    if "val_bpb" in log.summary and by_name:
        line, said = log.summary["val_bpb"]
        if not any(abs(float(said) - float(claim.bpb)) < 1e-8 for claim in by_name.values()):
            return failed(name, f"line {line} sums up a score of {said}, which no line above says", lines=[line])
        compared += 1
    if not compared:
        return not_applicable(name, "no score is printed twice")
    return passed(name, f"{compared} scores that are printed more than once agree")


def sizes(log: ChallengeLog) -> Check:
    """Code and model add up to the total, which is under the cap."""
    name = "artifact"
    if not log.totals or log.code is None or not log.models:
        return not_applicable(name, "the log does not say what code and model weigh")
    code = log.code[1]
    sums = {code + size for _, size in log.models.values()}
    for kind, (line, total) in log.totals.items():
        if total not in sums:
            return failed(
                name,
                f"line {line}: a total of {total:,} bytes for {kind}, but code of {code:,} and models of "
                f"{', '.join(f'{size:,}' for _, size in log.models.values())} do not add up to it",
                line=line,
            )
        if total > rules.CAP_BYTES:
            return failed(name, f"line {line}: {total:,} bytes are over the cap of {rules.CAP_BYTES:,}", line=line)
    if "artifact_bytes" in log.summary:
        line, said = log.summary["artifact_bytes"]
        if int(float(said)) not in {total for _, total in log.totals.values()}:
            return failed(name, f"line {line} sums up {said} bytes, which no line above says", line=line)
    largest = max(total for _, total in log.totals.values())
    return passed(name, f"code and model add up to {largest:,} bytes, under the cap of {rules.CAP_BYTES:,}")


def clocks(log: ChallengeLog) -> Check:
    """Steps and times ascend together, averages are their quotients, and a limit that is stated is kept."""
    name = "steps and times"
    if not log.clocks and log.stop is None:
        return not_applicable(name, "the log has no steps with times")
    step = milliseconds = -1
    for clock in log.clocks:
        if clock.step < step or clock.milliseconds < milliseconds:
            return failed(
                name,
                f"line {clock.line}: step {clock.step} at {clock.milliseconds:,} ms comes after step {step} at "
                f"{milliseconds:,} ms",
                line=clock.line,
            )
        step, milliseconds = clock.step, clock.milliseconds
        if clock.average is not None and clock.step:
            average = clock.milliseconds / clock.step
            if abs(average - clock.average) > 0.006 + 0.51 / clock.step:
                return failed(
                    name,
                    f"line {clock.line}: {clock.milliseconds:,} ms over {clock.step} steps are {average:.2f} ms each, "
                    f"not {clock.average:.2f}",
                    line=clock.line,
                )
    if log.stop is not None:
        line, _, stopped_at, last = log.stop
        if log.clocks and (last < step or stopped_at < milliseconds):
            return failed(name, f"line {line}: stopped at step {last}, but step {step} came before", line=line)
        if log.clocks and last == step and abs(stopped_at - milliseconds) > 1:
            return failed(
                name, f"line {line}: stopped at {stopped_at:,} ms, but step {step} is at {milliseconds:,}", line=line
            )
        milliseconds, step = max(milliseconds, stopped_at), last
    limit = log.limit_seconds or rules.TRAIN_SECONDS
    over = milliseconds / 1000 > limit * 1.01 + 1
    if over:
        return failed(name, f"{milliseconds / 1000:.1f} s of training are over the limit of {limit:g} s")
    if log.eval_seconds is not None and log.eval_seconds > rules.EVAL_SECONDS:
        return failed(name, f"{log.eval_seconds:.1f} s of scoring are over {rules.EVAL_SECONDS} s")
    return passed(
        name,
        f"{step:,} steps in {milliseconds / 1000:.1f} s"
        + (f", {log.eval_seconds:.1f} s of scoring" if log.eval_seconds else ""),
        steps=step,
        train_seconds=milliseconds / 1000,
    )
