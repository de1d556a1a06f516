"""Reading the logs of the challenge's scripts, whoever wrote the script: line by line, and no line is ever fatal.

The real logs open with the source of the script and the output of nvidia-smi. Source never looks like a log line
here, since every pattern wants numbers where the source has format fields; and when the script says which Python runs
it, after a line of `=`, all that was read before is forgotten.
"""

from __future__ import annotations

import math
import re

from niblick.monitor.run_facts import MOST_SETTINGS, Check, Facts, FinalScore, Note, Point

_NUMBER = r"[-+]?(?:\d[\d,]*\.?\d*(?:[eE][-+]?\d+)?|nan|inf)"
_STEP = re.compile(r"^(?:step[:\s]\s*)?(\d+)/(\d+)\s+(?=.*(?:train|val)_loss:)(.*)$")
_FIELD = re.compile(rf"([A-Za-z][\w/]*)[:=]\s*({_NUMBER})\s*(ms|min|[smhx%])?(?=[\s,)]|$)")
_WARMUP = re.compile(r"^((?:\w+_)?)warmup_step:\s*(\d+)/(\d+)$")
_PARAMETERS = re.compile(r"^(?:model_params|num_params|model_parameters)\s*[:=]\s*([\d,]+)$")
_STOP = re.compile(rf"^stopping_early:\s*(\w+)\s+train_time:\s*({_NUMBER})ms\s+step:\s*(\d+)/(\d+)")
_SCORE = re.compile(rf"^([A-Za-z][\w.+ -]*?)\s+val_loss[:=]\s*({_NUMBER})\s+val_bpb[:=]\s*({_NUMBER})(?=\s|$)(.*)$")
_MODEL_BYTES = re.compile(r"^Serialized model ([^:]+):\s*([\d,]+) bytes")
_TOTAL_BYTES = re.compile(r"^Total submission size ([^:]+):\s*([\d,]+) bytes")
_CODE_BYTES = re.compile(r"^Code size:\s*([\d,]+) bytes")
_EFFECTIVE = re.compile(rf"^gptq:reserving .*effective=({_NUMBER})ms")
_SUMMARY = re.compile(rf"^(val_bpb|artifact_bytes):\s+({_NUMBER})$")
_SETTING = re.compile(r"^([A-Za-z]\w*):([^\s{}\"'()]+)$")
_BLOCK_SETTING = re.compile(r"^\s+([A-Za-z]\w*):\s(\S.*)$")
_PACKAGING = re.compile(r"^(?:Serialized model:|ema:applying|swa:applying|GPTQ:|gptq:(?!reserving)|Quantized weights)")
_NOTED = re.compile(r"^(?:swa|ema|late_qat|layer_loop|loop_warmup|ttt_sliding|gptq|prune|rollback|GPTQ)\b[:\w]*")
_ERROR = re.compile(r"^(?:[\w.]+(?:Error|Exception|Interrupt|Exit)\b|slurmstepd: error|srun: error)")
_KILLED = re.compile(r"^(?:Killed|Segmentation fault|Aborted|Terminated|Bus error)\b")
_ENDING = re.compile(r"(?:\d(?:ms|s)|bytes|\.\d{8})$")
_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_PREFIX = re.compile(r"^(?:\[[^\]]{1,40}\]:?\s*|\d{1,4}:\s+)")
_RULE = re.compile(r"^={20,}$")

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_WORDS_MOST = 3
"""A line of fields has no more words that are none."""
_LINE_MOST = 4000
"""Longer lines hold no log line; only their beginning is looked at."""


def ends_whole(line: str) -> bool:
    """Whether a line that lacks its end of line can be taken as whole: it ends with a unit or with all its digits."""
    return bool(_ENDING.search(line.rstrip()))


class LogReader:
    """Reads one log into `facts`. `at` is when a line was seen to arrive, in seconds since 1970, where known."""

    def __init__(self) -> None:
        self.facts = Facts()
        self._after_rule = False
        self._in_block = False
        self._in_traceback = False

    def feed(self, line: str, at: float | None = None) -> None:
        """Take in one line."""
        text = line[:_LINE_MOST].rsplit("\r", 1)[-1] if "\r" in line.rstrip("\r\n") else line[:_LINE_MOST]
        text = _ANSI.sub("", text).rstrip()
        if self._restarts(text):
            self.facts = Facts()
        if self._block(text):
            return
        text = text.strip()
        if not text or self._read(text, at) or self._trouble(text, at):
            return
        bare = _PREFIX.sub("", text, count=1)
        if bare != text:
            self._read(bare, at) or self._trouble(bare, at)

    def _restarts(self, text: str) -> bool:
        """Whether another run, or the run after the script's own source, begins with this line."""
        after_rule, self._after_rule = self._after_rule, bool(_RULE.match(text))
        if after_rule and text.startswith("Running Python"):
            return True
        facts = self.facts
        begun = (facts.step or 0) > 0 or bool(facts.scores)
        return begun and bool(_PARAMETERS.match(text) or re.match(r"^(?:warmup_step:\s*1|step:0)/\d", text))

    def _block(self, text: str) -> bool:
        """Settings as an indented list below `Hyperparameters:`."""
        if text.strip() == "Hyperparameters:":
            self._in_block = True
            return True
        found = _BLOCK_SETTING.match(text) if self._in_block else None
        self._in_block = self._in_block and (found is not None or not text.strip())
        if found:
            self._setting(found[1].lower(), found[2].strip())
        return found is not None

    def _read(self, text: str, at: float | None) -> bool:
        """Take in a line if it is one that we know."""
        for read in (self._step, self._warmup, self._stop, self._score, self._sizes, self._start, self._other):
            if read(text, at):
                return True
        return False

    def _step(self, text: str, at: float | None) -> bool:
        found = _STEP.match(text)
        if not found or len(_FIELD.sub("", found[3]).split()) > _WORDS_MOST:
            return False  # the second is a sentence about a log line
        fields = {name: (_number(value), unit) for name, value, unit in _FIELD.findall(found[3])}
        facts, step = self.facts, int(found[1])
        seconds = _clock(fields)
        facts.step, facts.steps = step, int(found[2])
        facts.train_seconds = seconds if seconds is not None else facts.train_seconds
        facts.message = ""
        self._in_traceback = False
        if "train_loss" in fields:
            speed = fields.get("tok/s", fields.get("tokens_per_second", (None, "")))[0]
            loss = fields["train_loss"][0]
            facts.enter("training", at)
            facts.curve.add(Point(step, seconds, loss, _rate(fields), _first(fields, "grad_norm"), speed))
            if not math.isfinite(loss):
                facts.notes.append(Note("warning", f"the loss is {loss}", step, at))
            if step >= facts.steps:
                self._trained()
                facts.enter("final_validation", at)
        else:
            self._validation(step, seconds, fields, at)
        return True

    def _validation(
        self, step: int, seconds: float | None, fields: dict[str, tuple[float, str]], at: float | None
    ) -> None:
        facts = self.facts
        if "val_bpb" not in fields:
            return
        facts.check(Check(step, seconds, _first(fields, "val_loss"), fields["val_bpb"][0]))
        if facts.steps is not None and step >= facts.steps:
            self._trained()
            facts.enter("packaging", at)
        else:
            facts.enter("training", at)

    def _trained(self) -> None:
        if self.facts.train_seconds is not None:
            self.facts.took("training", self.facts.train_seconds)

    def _warmup(self, text: str, at: float | None) -> bool:
        found = _WARMUP.match(text)
        if not found:
            return False
        facts, done, count = self.facts, int(found[2]), int(found[3])
        if done > count:
            return True
        facts.warmup = (done, count)
        facts.enter("warmup", at)
        if done == count:
            facts.enter("initial_validation", at)
        return True

    def _stop(self, text: str, at: float | None) -> bool:
        found = _STOP.match(text)
        if not found:
            return False
        facts = self.facts
        facts.step, facts.steps, facts.train_seconds = int(found[3]), int(found[4]), _number(found[2]) / 1000
        if found[1].startswith("SIG"):
            facts.enter("stopped", at, facts.train_seconds)
            facts.message = f"stopped by {found[1]}"
        else:
            if not any(span.phase == "training" for span in facts.spans):
                facts.enter("training", None)  # a log without a line of it
            self._trained()
            facts.enter("packaging", at)
        facts.notes.append(Note("info", text, facts.step, at))
        return True

    def _score(self, text: str, at: float | None) -> bool:
        found = _SCORE.match(text)
        if not found or (found[1].startswith("ttt_") and ":" in found[1]):
            return False
        facts, name, low = self.facts, found[1], found[1].lower()
        loss, bpb = _number(found[2]), _number(found[3])
        seconds = next(
            (_number(v) * _SECONDS[u] for n, v, u in _FIELD.findall(found[4]) if n == "eval_time" and u), None
        )
        if re.search(r"diagnostic|pre-?quant|post[_-]ema|post[_-]swa", low):
            facts.float_bpb = bpb
            facts.notes.append(Note("info", text, facts.step, at))
            return True
        if not re.search(r"final|quant|roundtrip|sliding|ttt|int\d", low):
            return False
        kind = "ttt" if "ttt" in low else "sliding" if "sliding" in low else "roundtrip"
        facts.score(FinalScore(name, kind, bpb, loss, seconds, name.endswith("_exact")))
        if name.endswith("_exact") and loss and bpb:
            facts.bytes_per_token = loss / math.log(2) / bpb
        phase = "quantized_validation" if kind == "roundtrip" else kind
        if seconds is not None:
            facts.enter(phase, at - seconds if at is not None else None)
            facts.took(phase, seconds)
        facts.enter("done", at)
        return True

    def _sizes(self, text: str, at: float | None) -> bool:
        facts = self.facts
        if found := _MODEL_BYTES.match(text):
            facts.artifact_bytes = _integer(found[2])
            facts.enter("quantized_validation", at)
        elif found := _TOTAL_BYTES.match(text):
            facts.total_bytes = _integer(found[2])
            facts.enter("quantized_validation", at)
        elif found := _CODE_BYTES.match(text):
            facts.code_bytes = _integer(found[1])
        elif _PACKAGING.match(text):
            if facts.phase in ("training", "final_validation", "starting"):
                facts.enter("packaging", at)
            facts.notes.append(Note("info", text, facts.step, at))
        elif text.startswith(("Serialized model:", "Total submission size:")):
            pass
        else:
            return False
        return True

    def _start(self, text: str, at: float | None) -> bool:
        facts = self.facts
        if found := _PARAMETERS.match(text):
            facts.parameters = _integer(found[1])
        elif found := _EFFECTIVE.match(text):
            facts.max_seconds = _number(found[1]) / 1000
            facts.notes.append(Note("info", text, None, at))
        elif found := _SUMMARY.match(text):
            self._summary(found[1], _number(found[2]))
        else:
            tokens = text.split()
            pairs = [pair for token in tokens if (pair := _SETTING.match(token))]
            if len(pairs) < len(tokens):
                return False
            for pair in pairs:
                self._setting(pair[1], pair[2])
        return True

    def _summary(self, name: str, value: float) -> None:
        """What a checker appends: bytes are those of weights and code together."""
        facts = self.facts
        if name == "artifact_bytes" and facts.total_bytes is None:
            facts.total_bytes = int(value)
        if name == "val_bpb" and not facts.scores:
            facts.score(FinalScore("val_bpb", "roundtrip", value, None, None, True))

    def _setting(self, name: str, value: str) -> None:
        facts = self.facts
        if len(facts.settings) < MOST_SETTINGS:
            facts.settings[name] = value
        number = _as_number(value)
        if number is None:
            return
        if name == "seed":
            facts.seed = int(number)
        elif name == "iterations":
            facts.steps = int(number)
        elif name == "train_batch_tokens":
            facts.batch_tokens = int(number)
        elif name == "max_wallclock_seconds":
            facts.max_seconds = number if number > 0 else None

    def _other(self, text: str, at: float | None) -> bool:
        facts = self.facts
        if text.startswith("ttt_sliding:start"):
            facts.enter("ttt", at)
        if _NOTED.match(text) or text.startswith("peak memory"):
            facts.notes.append(Note("info", text[:300], facts.step, at))
            return True
        return False

    def _trouble(self, text: str, at: float | None) -> bool:
        """Tracebacks and what a shell or a scheduler says of a dead process."""
        facts = self.facts
        if text.startswith("Traceback (most recent call last)"):
            self._in_traceback = True
            return True
        if not (
            _KILLED.match(text)
            or (_ERROR.match(text) and (self._in_traceback or "srun" in text[:12] or "slurm" in text[:12]))
        ):
            return False
        if facts.scores or facts.message:
            return True  # the first word is the cause; and what is scored is done
        self._in_traceback = False
        facts.message = text[:300]
        facts.enter("stopped" if "KeyboardInterrupt" in text or text.startswith("Terminated") else "failed", at)
        facts.notes.append(Note("warning", facts.message, facts.step, at))
        return True


def _clock(fields: dict[str, tuple[float, str]]) -> float | None:
    value, unit = fields.get("train_time", (None, ""))
    return value * _SECONDS.get(unit, 1.0) if value is not None else None


def _rate(fields: dict[str, tuple[float, str]]) -> float | None:
    return _first(fields, "lr_scale", "lr_mul", "scale")


def _first(fields: dict[str, tuple[float, str]], *names: str) -> float | None:
    return next((fields[name][0] for name in names if name in fields), None)


def _number(text: str) -> float:
    return float(text.replace(",", ""))


def _integer(text: str) -> int:
    return int(text.replace(",", ""))


def _as_number(text: str) -> float | None:
    try:
        value = _number(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
