"""One line of a challenge log, whoever wrote the script: what it says, with the digits it was printed with.

A line is read if it is of a form that published scripts print, and its numbers are numbers: the source of a script,
which real logs open with, has format fields there. A clock, a rank or a level before the line is taken off. Every
other line says nothing; no line is ever fatal.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Literal

LINE_MOST = 4000
"""Longer lines hold no log line; only their beginning is looked at."""

NUMBER = r"[-+]?(?:\d[\d,]*\.?\d*(?:[eE][-+]?\d+)?|nan|inf)"
_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_PREFIX = re.compile(
    r"^(?:\[[^\]]{1,40}\]:?|\d{1,4}:(?=\s)|\d{9,}(?:\.\d+)?(?=\s)|rank\s?\d+:?(?=\s)"
    r"|\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?(?:[.,]\d+)?(?:Z|[+-]\d\d:?\d\d)?)?(?=\s)"
    r"|\d\d:\d\d:\d\d(?:[.,]\d+)?(?=\s)"
    r"|(?:TRACE|DEBUG|INFO|WARNING|WARN|ERROR|CRITICAL)\b:?(?:[\w.]+:)?|[-|>]+(?=\s))\s*"
)
_PREFIXES_MOST = 6
_FIELD = re.compile(rf"([A-Za-z][\w/]*)[:=]\s*({NUMBER})\s*(ms|min|[smhx%])?(?=[\s,)|]|$)")
_STEP = re.compile(r"^(?:step[:\s]\s*)?(\d+)/(\d+)\s+(?=.*(?:train_|val_|\b)loss:)(.*)$")
_WARMUP = re.compile(r"^((?:\w+_)?)warmup_step:\s*(\d+)/(\d+)$")
_STOP = re.compile(rf"^stopping_early:\s*(\w+)\s+train_time:\s*({NUMBER})ms\s+step:\s*(\d+)/(\d+)")
_SIZE = r"([\d,]+(?:\.\d+)?)\s*(bytes|B|kB|KB|MB|MiB)\b"
_SIZES = re.compile(rf"^(Serialized model|Total submission size) ([^:]+):\s*{_SIZE}")
_CODE = re.compile(rf"^Code size[^:]{{0,40}}:\s*{_SIZE}")
_ARTIFACT = re.compile(rf"^artifact[:=]\s*{_SIZE}(.*)$")
_BUDGET = re.compile(r"^(?:budget|total)[:=]\s*([\d,]+)/[\d,]+")
_PARTS = re.compile(rf"{_SIZE} model \+ {_SIZE} code")
_PART = re.compile(rf"^(?!Serialized|Total|Code)([A-Z][\w+-]*(?: [\w+-]+){{0,4}}):\s*{_SIZE}$")
_LIMIT = re.compile(
    rf"^(\w+):\s*({NUMBER})\s*(ms|s|bytes|B)? \((?:must be|limit)\s*<=?\s*({NUMBER})\s*(?:ms|s|bytes|B)?\)"
)
_TRAINED_ON = re.compile(r"^train_files:\s*(\S+)$")
_WINDOW = re.compile(r"^eval_seq_len[:=]\s*(\d+)(?:\s+\(.*\))?$")
_LISTED = re.compile(rf"^([A-Za-z]\w*):\s+({NUMBER}|True|False)$")
_TOKENS = re.compile(r"(?:^val_loader:.*\btokens[:=]\s*|^val_tokens[:=]\s*)([\d,]+)\s*$")
_TRAIN_FILES = re.compile(r"^train_loader:.*")
_DATASET = re.compile(r"datasets/([\w.-]+)/|\bdataset:([\w.-]+)")
_SUMMARY = re.compile(rf"^(val_bpb|artifact_bytes):\s+({NUMBER})$")
_BPB = re.compile(rf"(?<![\w-])val_bpb[:=]\s*({NUMBER})(?=[\s,)|]|$)")
_LOSS = re.compile(rf"(?<![\w-])val_loss[:=]\s*({NUMBER})(?=[\s,)|]|$)")
_SEED_SCORE = re.compile(rf"^seed[:=\s]\s*(\d+)[\s,:]+(?:\w+[:=]\S+\s+)?val_bpb[:=]\s*({NUMBER})")
_BEST_SEED = re.compile(r"^(?:best|chosen|selected)[ _]seed[:=\s]\s*(\d+)")
_SETTING = re.compile(r"^([A-Za-z]\w*):([^\s{}\"'()]+)$")
_WORD = re.compile(r"^[\w.+:=()/,|-]+$")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_UNITS = {"bytes": 1, "B": 1, "kB": 1000, "KB": 1000, "MB": 10**6, "MiB": 1 << 20}
_ENDLESS = re.compile(r"\d{300}")
"""More digits than a float has room for, and soon more than int() reads: no script prints such a number."""
_WORDS_MOST = 3
"""A line of fields has no more words that are none."""


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number as it was printed, and its unit, "" if it has none."""

    text: str
    unit: str = ""

    @property
    def value(self) -> float:
        """The number."""
        return float(self.text.replace(",", ""))

    @property
    def digit(self) -> float:
        """What one more in its last digit would be."""
        try:
            exponent = Decimal(self.text.replace(",", "")).as_tuple().exponent
        except InvalidOperation:
            return 0.0
        return float(f"1e{exponent}") if isinstance(exponent, int) else 0.0  # inf, where ** would raise

    @property
    def seconds(self) -> float:
        """The number as seconds; without a unit it is taken as such."""
        return self.value * _SECONDS.get(self.unit, 1.0)

    @property
    def slack(self) -> float:
        """Half of the last digit, in seconds."""
        return 0.5 * self.digit * _SECONDS.get(self.unit, 1.0)


@dataclass(frozen=True, slots=True)
class StepLine:
    """A step of training or a validation between steps, with all `name:number` fields of the line."""

    step: int
    steps: int
    fields: dict[str, Quantity]

    @property
    def loss(self) -> Quantity | None:
        """The training loss."""
        return self.fields.get("train_loss") or self.fields.get("loss")

    @property
    def clock(self) -> Quantity | None:
        """The train clock."""
        return self.fields.get("train_time") or self.fields.get("t")

    def first(self, *names: str) -> float | None:
        """The value of the first of these fields that is there."""
        return next((self.fields[name].value for name in names if name in self.fields), None)


@dataclass(frozen=True, slots=True)
class ScoreLine:
    """A score under a name, in bits per byte, and the loss in nats per token where it stands beside it."""

    name: str
    loss: str | None
    bpb: str
    seconds: float | None

    @property
    def exact(self) -> bool:
        """Whether the script calls it so: it repeats a rounded one with all its digits."""
        return self.name.endswith("_exact")

    @property
    def base(self) -> str:
        """The name without `_exact`."""
        return self.name.removesuffix("_exact")

    @property
    def kind(self) -> Literal["float", "roundtrip", "sliding", "ttt", ""]:
        """What was scored, by its name: float weights, or those that came back and how; "" for something else."""
        low = self.name.lower()
        if re.search(r"diagnostic|pre-?quant|post[_-]ema|post[_-]swa", low):
            return "float"
        if not re.search(r"final|quant|roundtrip|sliding|ttt|int\d", low):
            return ""
        return "ttt" if "ttt" in low else "sliding" if "sliding" in low else "roundtrip"


@dataclass(frozen=True, slots=True)
class StopLine:
    """Training stopped before its last step."""

    reason: str
    milliseconds: float
    step: int
    steps: int


@dataclass(frozen=True, slots=True)
class WarmupLine:
    """A step of warmup."""

    step: int
    steps: int


@dataclass(frozen=True, slots=True)
class SizeLine:
    """Bytes of code, of an export's weights, of all, or of a part under its own name; rounding leaves `slack` open."""

    what: Literal["code", "model", "total", "part"]
    name: str
    size: int
    slack: int


@dataclass(frozen=True, slots=True)
class TokensLine:
    """How many validation tokens there are, and the data set where the line names it."""

    tokens: int
    dataset: str


@dataclass(frozen=True, slots=True)
class TrainFilesLine:
    """What is trained on."""

    dataset: str
    validation: bool
    """Whether the files are called validation files."""


@dataclass(frozen=True, slots=True)
class ScoringTimeLine:
    """How long a scoring took, said elsewhere than with its score."""

    what: str
    seconds: float


@dataclass(frozen=True, slots=True)
class LimitLine:
    """A figure beside the limit that the line itself gives for it."""

    what: str
    value: float
    limit: float


@dataclass(frozen=True, slots=True)
class SeedLine:
    """The score of one of several seeds, or with None for the score, which seed was chosen."""

    seed: int
    bpb: str | None


@dataclass(frozen=True, slots=True)
class SummaryLine:
    """`val_bpb` or `artifact_bytes` alone, as scripts repeat them at the end."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class SettingsLine:
    """`name:value` pairs and nothing else."""

    pairs: tuple[tuple[str, str], ...]


Line = (
    StepLine
    | ScoreLine
    | StopLine
    | WarmupLine
    | SizeLine
    | TokensLine
    | TrainFilesLine
    | ScoringTimeLine
    | LimitLine
    | SeedLine
    | SummaryLine
    | SettingsLine
)


def clean(line: str) -> str:
    """A line as a terminal would leave it: without colours, and only what stands after the last return."""
    text = line[:LINE_MOST].rstrip("\r\n")
    return _ANSI.sub("", text.rsplit("\r", 1)[-1]).lstrip("\ufeff\ufffd").rstrip()


def bare(text: str) -> str:
    """A line without the clocks, ranks and levels before it."""
    text = text.strip()
    for _ in range(_PREFIXES_MOST):
        shorter = _PREFIX.sub("", text, count=1)
        if shorter == text:
            break
        text = shorter
    return text


def read_line(text: str) -> tuple[Line, ...]:
    """What a cleaned line says; nothing for most. What stands before it (clocks, ranks, levels) is taken off."""
    text = bare(text)
    if not text or _ENDLESS.search(text):
        return ()
    for read in _READERS:
        if found := read(text):
            return found
    return ()


def _step(text: str) -> tuple[Line, ...]:
    found = _STEP.match(text)
    if not found or len(_FIELD.sub("", found[3]).replace("|", " ").split()) > _WORDS_MOST:
        return ()  # the second is a sentence about a log line
    fields = {name: Quantity(_plain(number), unit) for name, number, unit in _FIELD.findall(found[3])}
    if not {"train_loss", "loss", "val_loss", "val_bpb"} & fields.keys():
        return ()
    return (StepLine(int(found[1]), int(found[2]), fields),)


def _warmup(text: str) -> tuple[Line, ...]:
    found = _WARMUP.match(text)
    return (WarmupLine(int(found[2]), int(found[3])),) if found else ()


def _stop(text: str) -> tuple[Line, ...]:
    found = _STOP.match(text)
    return (StopLine(found[1], Quantity(found[2]).value, int(found[3]), int(found[4])),) if found else ()


def _score(text: str) -> tuple[Line, ...]:
    bpb = _BPB.search(text)
    if bpb is None:
        return ()
    loss = _LOSS.search(text)
    head = text[: min(bpb.start(), loss.start() if loss else bpb.start())].split()
    plain = [word for word in head if not set(word) & set(":=()")]
    if not plain or plain[0] != head[0] or not head[0][0].isalpha() or not all(map(_WORD.match, head)):
        return ()
    if len(plain) > _WORDS_MOST or len(head) > 2 * _WORDS_MOST or head[0].lower().startswith(("step", "seed")):
        return ()
    if loss is None and "final" not in plain[0].lower():
        return ()
    spent = [
        Quantity(v, u) for n, v, u in _FIELD.findall(text[bpb.end() :]) if u and n in ("eval_time", "eval", "time")
    ]
    seconds = spent[0].seconds if spent else None
    return (ScoreLine(" ".join(plain), _plain(loss[1]) if loss else None, _plain(bpb[1]), seconds),)


def _plain(number: str) -> str:
    """A number without commas between its digits."""
    return number.replace(",", "")


def _sized(what: Literal["code", "model", "total", "part"], name: str, number: str, unit: str) -> SizeLine:
    quantity, factor = Quantity(number), _UNITS[unit]
    return SizeLine(
        what, name, round(quantity.value * factor), 0 if factor == 1 else int(0.5 * quantity.digit * factor)
    )


def _sizes(text: str) -> tuple[Line, ...]:
    if found := _SIZES.match(text):
        return (_sized("model" if found[1].startswith("S") else "total", found[2], found[3], found[4]),)
    if found := _CODE.match(text):
        return (_sized("code", "", found[1], found[2]),)
    if found := _ARTIFACT.match(text):
        fields = {name: number for name, number, unit in _FIELD.findall(found[3]) if not unit}
        code = [_sized("code", "", fields["code"], "bytes")] if "code" in fields else []
        budget = re.search(r"\btotal[:=]\s*([\d,]+)/[\d,]+", found[3])
        total = [_sized("total", "", budget[1], "bytes")] if budget else []
        return (_sized("model", "", found[1], found[2]), *code, *total)
    if found := _BUDGET.match(text):
        return (_sized("total", "", found[1], "bytes"),)
    if found := _PARTS.search(text):
        return (_sized("model", "", found[1], found[2]), _sized("code", "", found[3], found[4]))
    if found := _PART.match(text):
        return (_sized("part", found[1], found[2], found[3]),)
    return ()


def _data(text: str) -> tuple[Line, ...]:
    named = _DATASET.search(text)
    dataset = (named[1] or named[2]) if named else ""
    if found := _TOKENS.match(text):
        return (TokensLine(int(found[1].replace(",", "")), dataset),)
    if found := _TRAINED_ON.match(text):
        return (TrainFilesLine(dataset, _validation_files(text)),)
    if _TRAIN_FILES.match(text) and ("dataset" in text or "pattern" in text):
        return (TrainFilesLine(dataset, _validation_files(text)),)
    return ()


def _validation_files(text: str) -> bool:
    return bool(re.search(r"fineweb_val_|[_/]val[_*/]|[_-](?:val|validation)[-_]?only\b", text))


def _seeds(text: str) -> tuple[Line, ...]:
    if found := _SEED_SCORE.match(text):
        return (SeedLine(int(found[1]), found[2]),)
    found = _BEST_SEED.match(text)
    return (SeedLine(int(found[1]), None),) if found else ()


def _times(text: str) -> tuple[Line, ...]:
    for name, number, unit in _FIELD.findall(text):
        said = name in ("eval_time", "total_eval_time") or (
            name == "elapsed" and re.match(r"\w*(?:ttt|eval)\w*:done", text)
        )
        if said and unit in _SECONDS:
            return (ScoringTimeLine(text.split()[0].rstrip(":"), Quantity(number, unit).seconds),)
    return ()


def _limits(text: str) -> tuple[Line, ...]:
    found = _LIMIT.match(text)
    return (LimitLine(found[1], Quantity(found[2]).value, Quantity(found[4]).value),) if found else ()


def _summary(text: str) -> tuple[Line, ...]:
    found = _SUMMARY.match(text)
    return (SummaryLine(found[1], _plain(found[2])),) if found else ()


def _settings(text: str) -> tuple[Line, ...]:
    if found := _WINDOW.match(text):
        return (SettingsLine((("eval_seq_len", found[1]),)),)
    if found := _LISTED.match(text):
        return (SettingsLine(((found[1], found[2]),)),)
    pairs = [_SETTING.match(token) for token in text.split()]
    return (SettingsLine(tuple((pair[1], pair[2]) for pair in pairs if pair)),) if pairs and all(pairs) else ()


_READERS: tuple[Callable[[str], tuple[Line, ...]], ...] = (
    _step,
    _warmup,
    _stop,
    _data,
    _seeds,
    _score,
    _sizes,
    _times,
    _limits,
    _summary,
    _settings,
)


class Runs:
    """Tells where in a log another run begins.

    A first step, or the line after the script's own source, begins one at once. Lines that describe a run begin one
    if steps follow: some scripts print them again before they score.
    """

    def __init__(self) -> None:
        self._begun = False
        self._after_rule = False
        self._head: list[tuple[int, str]] = []
        """Lines since a head that may begin a run, with their numbers."""

    def feed(self, number: int, text: str, lines: tuple[Line, ...]) -> list[tuple[int, str]] | None:
        """Take in a line; returns the lines that the new run begins with, this one last; None where none begins."""
        after_rule, self._after_rule = self._after_rule, bool(re.match(r"^={20,}$", text))
        if after_rule and text.startswith("Running Python"):
            self._begun, self._head = False, []
            return []
        moves = [line for line in lines if isinstance(line, StepLine | WarmupLine)]
        first = any(isinstance(line, StepLine) and line.step == 0 for line in moves) or any(
            isinstance(line, WarmupLine) and line.step == 1 for line in moves
        )
        if self._begun and (first or (moves and self._head)):
            head, self._head = [*self._head, (number, text)], []
            self._begun = any(isinstance(line, StepLine) and line.step > 0 for line in moves)
            return head
        if any(
            (isinstance(line, StepLine) and line.step > 0) or (isinstance(line, ScoreLine) and line.kind)
            for line in lines
        ):
            self._begun, self._head = True, []
        elif self._begun and (self._head or _heads(lines)):
            self._head.append((number, text))
            if len(self._head) > _HEAD_MOST:
                self._head = []
        return None


_HEAD_MOST = 400


def _heads(lines: tuple[Line, ...]) -> bool:
    """Whether a line describes a run."""
    names = {name for line in lines if isinstance(line, SettingsLine) for name, _ in line.pairs}
    return any(isinstance(line, TokensLine | TrainFilesLine) for line in lines) or bool(
        names & {"model_params", "num_params", "model_parameters", "max_wallclock_seconds"}
    )
