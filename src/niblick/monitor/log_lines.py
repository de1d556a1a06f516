"""Reading the logs of the challenge's scripts into `Facts`: line by line, and no line is ever fatal.

What a line says is read by `challenge.log_line`, as for the audit. The real logs open with the source of the script
and the output of nvidia-smi; when the script says which Python runs it, after a line of `=`, all that was read before
is forgotten.
"""

from __future__ import annotations

import math
import re

from niblick.challenge.log_line import (
    NUMBER,
    Line,
    Runs,
    ScoreLine,
    SettingsLine,
    SizeLine,
    StepLine,
    StopLine,
    SummaryLine,
    WarmupLine,
    bare,
    clean,
    read_line,
)
from niblick.monitor.run_facts import MOST_SETTINGS, Check, Facts, FinalScore, Note, Point

_EFFECTIVE = re.compile(rf"^gptq:reserving .*effective=({NUMBER})ms")
_BLOCK_SETTING = re.compile(r"^\s+([A-Za-z]\w*):\s(\S.*)$")
_PARAMETERS = ("model_params", "num_params", "model_parameters")
_PACKAGING = re.compile(r"^(?:Serialized model:|ema:applying|swa:applying|GPTQ:|gptq:(?!reserving)|Quantized weights)")
_NOTED = re.compile(r"^(?:swa|ema|late_qat|layer_loop|loop_warmup|ttt_sliding|gptq|prune|rollback|GPTQ)\b[:\w]*")
_ERROR = re.compile(r"^(?:[\w.]+(?:Error|Exception|Interrupt|Exit)\b|slurmstepd: error|srun: error)")
_KILLED = re.compile(r"^(?:Killed|Segmentation fault|Aborted|Terminated|Bus error)\b")
_ENDING = re.compile(r"(?:\d(?:ms|s)|bytes|\.\d{8})$")


def ends_whole(line: str) -> bool:
    """Whether a line that lacks its end of line can be taken as whole: it ends with a unit or with all its digits."""
    return bool(_ENDING.search(line.rstrip()))


class LogReader:
    """Reads one log into `facts`. `at` is when a line was seen to arrive, in seconds since 1970, where known."""

    def __init__(self) -> None:
        self._runs = Runs()
        self._lines = 0
        self._begin()

    def _begin(self) -> None:
        self.facts = Facts()
        self._artifact = 0
        self._scored = False
        self._in_block = False
        self._in_traceback = False

    def feed(self, line: str, at: float | None = None) -> None:
        """Take in one line."""
        text = clean(line)
        said = read_line(text)
        self._lines += 1
        head = self._runs.feed(self._lines, text, said)
        if head is not None:
            self._begin()
            for _, earlier in head[:-1]:
                self._take(earlier, read_line(earlier), None)
        self._take(text, said, at)

    def _take(self, text: str, said: tuple[Line, ...], at: float | None) -> None:
        if self._block(text):
            return
        if said:
            for line in said:
                self._read(text.strip(), line, at)
            return
        text = text.strip()
        if not text or self._other(text, at) or self._trouble(text, at):
            return
        plain = bare(text)
        if plain != text:
            self._other(plain, at) or self._trouble(plain, at)

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

    def _read(self, text: str, line: Line, at: float | None) -> None:
        """Take in what a line says; what only the audit asks for is left out."""
        if isinstance(line, StepLine):
            self._step(line, at)
        elif isinstance(line, WarmupLine):
            self._warmup(line, at)
        elif isinstance(line, StopLine):
            self._stop(text, line, at)
        elif isinstance(line, ScoreLine):
            self._score(text, line, at)
        elif isinstance(line, SizeLine):
            self._size(line, at)
        elif isinstance(line, SummaryLine):
            self._summary(line)
        elif isinstance(line, SettingsLine):
            for name, value in line.pairs:
                self._setting(name, value)
        else:
            self._other(text, at)

    def _step(self, line: StepLine, at: float | None) -> None:
        facts, clock = self.facts, line.clock
        seconds = clock.seconds if clock else None
        facts.step, facts.steps = line.step, line.steps
        facts.train_seconds = seconds if seconds is not None else facts.train_seconds
        facts.message = ""
        self._in_traceback = False
        if line.loss is not None:
            loss = line.loss.value
            rate, norm = line.first("lr_scale", "lr_mul", "scale"), line.first("grad_norm")
            facts.enter("training", at)
            facts.curve.add(Point(line.step, seconds, loss, rate, norm, line.first("tok/s", "tokens_per_second")))
            if not math.isfinite(loss):
                facts.notes.append(Note("warning", f"the loss is {loss}", line.step, at))
            if line.step >= line.steps:
                self._trained()
                facts.enter("final_validation", at)
        else:
            self._validation(line, seconds, at)

    def _validation(self, line: StepLine, seconds: float | None, at: float | None) -> None:
        facts, bpb = self.facts, line.first("val_bpb")
        if bpb is None:
            return
        facts.check(Check(line.step, seconds, line.first("val_loss"), bpb))
        if line.step >= line.steps:
            self._trained()
            facts.enter("packaging", at)
        else:
            facts.enter("training", at)

    def _trained(self) -> None:
        if self.facts.train_seconds is not None:
            self.facts.took("training", self.facts.train_seconds)

    def _warmup(self, line: WarmupLine, at: float | None) -> None:
        if line.step > line.steps:
            return
        facts = self.facts
        facts.warmup = (line.step, line.steps)
        facts.enter("warmup", at)
        if line.step == line.steps:
            facts.enter("initial_validation", at)

    def _stop(self, text: str, line: StopLine, at: float | None) -> None:
        facts = self.facts
        facts.step, facts.steps, facts.train_seconds = line.step, line.steps, line.milliseconds / 1000
        if line.reason.startswith("SIG"):
            facts.enter("stopped", at, facts.train_seconds)
            facts.message = f"stopped by {line.reason}"
        else:
            if not any(span.phase == "training" for span in facts.spans):
                facts.enter("training", None)  # a log without a line of it
            self._trained()
            facts.enter("packaging", at)
        facts.notes.append(Note("info", text, facts.step, at))

    def _score(self, text: str, line: ScoreLine, at: float | None) -> None:
        facts, kind, bpb = self.facts, line.kind, float(line.bpb.replace(",", ""))
        loss = float(line.loss.replace(",", "")) if line.loss is not None else None
        if kind == "float":
            facts.float_bpb = bpb
            facts.notes.append(Note("info", text, facts.step, at))
        if kind in ("", "float"):
            return
        self._scored = True
        facts.score(FinalScore(line.name, kind, bpb, loss, line.seconds, line.exact, str(self._artifact)))
        if line.exact and loss and bpb:
            facts.bytes_per_token = loss / math.log(2) / bpb
        phase = "quantized_validation" if kind == "roundtrip" else kind
        if line.seconds is not None:
            facts.enter(phase, at - line.seconds if at is not None else None)
            facts.took(phase, line.seconds)
        facts.enter("done", at)

    def _size(self, line: SizeLine, at: float | None) -> None:
        if line.what == "part":  # of the model's bytes, or of the code's
            return
        if line.what == "model" and self._scored:  # another export of the same weights
            self._artifact, self._scored = self._artifact + 1, False
        name = {"model": "artifact_bytes", "code": "code_bytes", "total": "total_bytes"}[line.what]
        self.facts.weigh(str(self._artifact), **{name: line.size})
        if line.what != "code":
            self.facts.enter("quantized_validation", at)

    def _summary(self, line: SummaryLine) -> None:
        """What a checker appends: bytes are those of weights and code together."""
        facts, value = self.facts, float(line.text.replace(",", ""))
        if line.name == "artifact_bytes" and facts.bytes.total_bytes is None and math.isfinite(value):
            facts.weigh(str(self._artifact), total_bytes=int(value))
        if line.name == "val_bpb" and not facts.scores:
            facts.score(FinalScore("val_bpb", "roundtrip", value, None, None, True, str(self._artifact)))

    def _setting(self, name: str, value: str) -> None:
        facts = self.facts
        if len(facts.settings) < MOST_SETTINGS:
            facts.settings[name] = value
        number = _as_number(value)
        if number is None:
            return
        if name in _PARAMETERS:
            facts.parameters = int(number)
        elif name == "seed":
            facts.seed = int(number)
        elif name == "iterations":
            facts.steps = int(number)
        elif name == "train_batch_tokens":
            facts.batch_tokens = int(number)
        elif name == "max_wallclock_seconds":
            facts.max_seconds = number if number > 0 else None

    def _other(self, text: str, at: float | None) -> bool:
        facts = self.facts
        if found := _EFFECTIVE.match(text):
            facts.max_seconds = float(found[1].replace(",", "")) / 1000
            facts.notes.append(Note("info", text, None, at))
            return True
        if _PACKAGING.match(text):
            if facts.phase in ("training", "final_validation", "starting"):
                facts.enter("packaging", at)
            facts.notes.append(Note("info", text, facts.step, at))
            return True
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


def _as_number(text: str) -> float | None:
    try:
        value = float(text.replace(",", ""))
    except ValueError:
        return None
    return value if math.isfinite(value) else None
