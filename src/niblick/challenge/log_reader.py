"""The lines of a challenge training log that make a claim: scores, tokens, sizes, steps, clocks.

Strict: a line is read if it is one of the forms that published scripts print, and its numbers are kept as they stand,
with the digits they were printed with. Everything else is passed over.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_NUMBER = r"([-+]?\d+\.?\d*(?:[eE][-+]?\d+)?)"
_TOKENS = re.compile(r"(?:^val_loader:.*\btokens:|^\s*val_tokens:\s*)(\d+)\s*$")
_CHECK = re.compile(
    rf"^step:(\d+)/(\d+) val_loss:{_NUMBER} val_bpb:{_NUMBER}(?: train_time:\s*(\d+)ms)?(?: step_avg:{_NUMBER}ms)?"
)
_STEP = re.compile(rf"^step:(\d+)/(\d+) train_loss:{_NUMBER} train_time:\s*(\d+)ms(?: step_avg:{_NUMBER}ms)?")
_SCORE = re.compile(rf"^([A-Za-z][\w.+ -]*?) val_loss:{_NUMBER} val_bpb:{_NUMBER}(.*)$")
_STOP = re.compile(r"^stopping_early: (\w+) train_time:\s*(\d+)ms step:\s*(\d+)/(\d+)")
_CODE = re.compile(r"^Code size: (\d+) bytes")
_MODEL = re.compile(r"^Serialized model ([^:]+): (\d+) bytes")
_TOTAL = re.compile(r"^Total submission size ([^:]+): (\d+) bytes")
_LIMIT = re.compile(rf"\bmax_wallclock_seconds:{_NUMBER}")
_SUMMARY = re.compile(rf"^(val_bpb|artifact_bytes):\s+{_NUMBER}\s*$")
_EVAL = re.compile(r"\beval_time:(\d+)ms")
_ENDLESS = re.compile(r"\d{300}")
"""More digits than a float has room for, and soon more than int() reads: no script prints such a number."""


@dataclass(frozen=True)
class Claim:
    """A loss in nats per token and a score in bits per byte, which imply a byte count; texts keep their digits."""

    line: int
    name: str
    loss: str
    bpb: str
    step: int | None = None


@dataclass(frozen=True)
class Clock:
    """A step, the milliseconds of training up to it, and those per step where the line says them."""

    line: int
    step: int
    milliseconds: int
    average: float | None


@dataclass
class ChallengeLog:
    """What a log claims; sizes by what the script calls the export, each with its line."""

    tokens: int | None = None
    claims: list[Claim] = field(default_factory=list)
    clocks: list[Clock] = field(default_factory=list)
    stop: tuple[int, str, int, int] | None = None
    """Line, reason, milliseconds, step."""
    code: tuple[int, int] | None = None
    models: dict[str, tuple[int, int]] = field(default_factory=dict)
    totals: dict[str, tuple[int, int]] = field(default_factory=dict)
    summary: dict[str, tuple[int, str]] = field(default_factory=dict)
    """`val_bpb` and `artifact_bytes` at the end, where a script repeats them."""
    limit_seconds: float | None = None
    eval_seconds: float | None = None
    """The longest scoring after training."""
    lines: int = 0


def read_log(text: str) -> ChallengeLog:
    """Read a log. Of a log with several runs in it, all lines count."""
    log = ChallengeLog()
    for number, line in enumerate(text.splitlines(), 1):
        log.lines = number
        if not _ENDLESS.search(line):
            _read(log, number, line.rstrip())
    return log


def _read(log: ChallengeLog, number: int, line: str) -> None:
    if found := _TOKENS.search(line):
        log.tokens = int(found[1])
    elif found := _CHECK.match(line):
        log.claims.append(Claim(number, "validation", found[3], found[4], int(found[1])))
        if found[5]:
            log.clocks.append(Clock(number, int(found[1]), int(found[5]), _average(found[6])))
    elif found := _STEP.match(line):
        log.clocks.append(Clock(number, int(found[1]), int(found[4]), _average(found[5])))
    elif found := _STOP.match(line):
        log.stop = (number, found[1], int(found[2]), int(found[3]))
    elif found := _SCORE.match(line):
        log.claims.append(Claim(number, found[1], found[2], found[3]))
        if spent := _EVAL.search(found[4]):
            log.eval_seconds = max(log.eval_seconds or 0.0, int(spent[1]) / 1000)
    elif found := _CODE.match(line):
        log.code = (number, int(found[1]))
    elif found := _MODEL.match(line):
        log.models[found[1]] = (number, int(found[2]))
    elif found := _TOTAL.match(line):
        log.totals[found[1]] = (number, int(found[2]))
    elif found := _SUMMARY.match(line):
        log.summary[found[1]] = (number, found[2])
    if found := _LIMIT.search(line):
        log.limit_seconds = float(found[1])


def _average(text: str | None) -> float | None:
    return None if text is None else float(text)
