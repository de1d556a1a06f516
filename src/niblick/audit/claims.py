"""What a run claims of its artifact, held against the files, the text and each other.

Claims stand in scores.jsonl (a line for each score), result.json, the artifact's header and the manifest of the data.
Whoever changes one of them by hand contradicts another, or what is measured here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from niblick.artifact.container import Artifact
from niblick.audit.checks import Check, failed, not_applicable, passed
from niblick.config.run_config import score_config
from niblick.data.dataset import Dataset, Split
from niblick.data.index import text_hash
from niblick.errors import ConfigError, NiblickError
from niblick.facts.reading import plain, read, read_objects
from niblick.facts.scores import ScoreRecord
from niblick.run.directory import Run, machine
from niblick.score.score_config import ScoreConfig
from niblick.submission.rerun import ENOUGH

SAME = 1e-6
"""Share by which a score may differ when it is made again on the same machine."""

ALIKE = 2e-3
"""The same on another machine or device, where rounding differs."""

OWN = 1e-9
"""Share by which the numbers of one record may differ from what follows from its others."""

COPIED = ("bpb", "loss", "bits", "tokens", "bytes", "text_hash", "stream_hash", "scorer", "artifact_bytes")
"""What result.json says of the official score as scores.jsonl does."""


@dataclass(frozen=True)
class Recorded:
    """One line of scores.jsonl."""

    line: int
    facts: dict[str, Any]

    @property
    def bpb(self) -> float:
        """The score."""
        return float(self.facts["bpb"])

    @property
    def dtype(self) -> str:
        """What it was scored in."""
        return str(self.facts["scorer"].get("dtype"))

    @property
    def scorer(self) -> ScoreConfig | None:
        """How it was scored, without what it ran on; None where that is no scorer of ours."""
        try:
            return score_config({k: v for k, v in self.facts["scorer"].items() if k not in ("dtype", "device")})
        except ConfigError:
            return None

    def of(self, split: Split, config: ScoreConfig) -> bool:
        """Whether it is a score of these tokens by this scorer."""
        return (
            split.stream_hash is not None and self.facts["stream_hash"] == split.stream_hash and self.scorer == config
        )

    def alike(self, other: Recorded) -> bool:
        """Whether both are scores of the same tokens by the same scorer."""
        same = self.facts["stream_hash"] is not None and self.facts["stream_hash"] == other.facts["stream_hash"]
        return same and self.scorer is not None and self.scorer == other.scorer

    def limit(self, other: Recorded | None, dtype: str) -> float:
        """How far it may be from another record, or from what is measured here in `dtype`."""
        where = other.facts["machine"] if other else plain(machine())
        kind = other.dtype if other else dtype
        return SAME if self.facts["machine"] == where and self.dtype == kind else ALIKE


def recorded_scores(path: Path) -> list[Recorded]:
    """All scores beside an artifact, oldest first."""
    return [Recorded(number, facts) for number, facts in enumerate(read_objects(path.parent / "scores.jsonl"), 1)]


def stated_score(stated: float | None, own: float | None, script: float | None) -> Check:
    """Hold the score that a submission states, and the one that its script prints here, against niblick's own of now.

    What a stranger's script prints is a claim. The verdict is niblick's own score of the artifact: what is stated may
    differ by another machine's arithmetic (ALIKE), the script, which ran on this one, by ENOUGH.
    """
    name = "stated score"
    if own is None or not math.isfinite(own):
        return not_applicable(name, "niblick has no score of its own to hold the stated one against")
    if stated is None:
        return not_applicable(name, f"no score is stated; niblick's own is {own:.6f} BPB")
    facts = {"own": own, "stated": stated, "script": script}
    if not abs(stated / own - 1) <= ALIKE:
        return failed(
            name, f"{stated:.6f} BPB is stated, and niblick's own score of the artifact is {own:.6f}", **facts
        )
    if script is not None and not abs(script - own) <= ENOUGH:
        told = f"the script prints {script:.6f} BPB here, where niblick's own score of the artifact is {own:.6f}"
        return failed(name, told, **facts)
    beside = "" if script is None else f", and the script's {script:.6f}"
    return passed(
        name, f"{own:.6f} BPB is niblick's own score of the artifact; {stated:.6f} is stated{beside}", **facts
    )


def last_score(path: Path, split: Split, config: ScoreConfig) -> ScoreRecord | None:
    """The newest score beside an artifact that is of these tokens and by this scorer; None if there is none."""
    same = [record for record in recorded_scores(path) if record.of(split, config)]
    return read(ScoreRecord, same[-1].facts, str(path.parent / "scores.jsonl")) if same else None


def scores_agree(path: Path, split: Split, config: ScoreConfig, dtype: str, fresh: float) -> Check:
    """Every recorded score follows from its own numbers; those of this text agree with the fresh one, and all alike."""
    name = "recorded scores"
    records = recorded_scores(path)
    if not records:
        return not_applicable(name, "no score is recorded")
    for record in records:
        if (wrong := _inside(record)) is not None:
            return failed(name, f"scores.jsonl, line {record.line}: {wrong}", "stated", line=record.line)
    mine = [record for record in records if record.of(split, config)]
    for record in mine:
        off = fresh / record.bpb - 1
        if not abs(off) <= record.limit(None, dtype):
            said = f"line {record.line} says {record.bpb:.6f} BPB, and a fresh process gives {fresh:.6f} ({off:+.2e})"
            return failed(name, f"scores.jsonl, {said}", line=record.line, off=off)
    for i, record in enumerate(records):
        for other in records[:i]:
            if record.alike(other) and not abs(record.bpb / other.bpb - 1) <= record.limit(other, dtype):
                said = f"lines {other.line} and {record.line} say {other.bpb:.6f} and {record.bpb:.6f} BPB of the same"
                return failed(name, f"scores.jsonl, {said}", "stated", lines=[other.line, record.line])
    others = len(records) - len(mine)
    told = f"{len(mine)} scores of this text by the artifact's scorer are the fresh one"
    beside = f"; {others} of other texts or scorers agree in themselves and are not made again" if others else ""
    return passed(name, told + beside, records=len(records), compared=len(mine))


def _inside(record: Recorded) -> str | None:
    """What does not follow from a record's own numbers."""
    facts = record.facts
    try:
        bits, tokens, count = float(facts["bits"]), int(facts["tokens"]), int(facts["bytes"])
        pairs = (("bpb", bits / count, record.bpb), ("loss", bits * math.log(2) / tokens, float(facts["loss"])))
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        return f"it is no record of a score ({type(error).__name__}: {error})"
    for name, expected, said in pairs:
        if not abs(said / expected - 1) <= OWN:
            return f"it says {name} {said:.6f}, and its bits, tokens and bytes make {expected:.6f}"
    return None


def result_agrees(path: Path, run: Run | None) -> Check:
    """result.json says of the official artifact what scores.jsonl and the file say; no finished file was changed."""
    name = "result"
    try:
        found = run.result() if run else None
    except NiblickError as error:
        return failed(name, str(error), "stated")
    if run is None or found is None:
        return not_applicable(name, "there is no result.json", "stated")
    result = plain(found)
    if result.get("artifact") != path.parent.name:
        return not_applicable(name, f"result.json is of the artifact {result.get('artifact')}", "stated")
    if changed := run.changed():
        return failed(name, f"changed after the run finished: {', '.join(changed)}", files=changed)
    size = path.stat().st_size
    if result.get("artifact_bytes") != size:
        said = f"result.json says {result.get('artifact_bytes')} bytes of the artifact, which has {size:,}"
        return failed(name, said)
    records = recorded_scores(path)
    known = [key for key in COPIED if key in result]
    if not any(all(record.facts.get(key) == result[key] for key in known) for record in records):
        near = [r for r in records if r.facts.get("stream_hash") == result.get("stream_hash")]
        which = next((k for k in known if near and near[0].facts.get(k) != result[k]), "bpb")
        return failed(
            name, f"result.json says {which} {result.get(which)}, which no line of scores.jsonl says", "stated"
        )
    return passed(name, f"{found.bpb:.6f} BPB as in scores.jsonl; no finished file was changed", "stated")


def data_agrees(artifact: Artifact, whole: Dataset) -> Check:
    """The manifest's hashes are those of the tokens, and the model knows the training text alone."""
    name = "data"
    known = artifact.config.get("train_text_hash")
    for split in (whole.val, whole.train):
        if split.stream_hash is not None and (found := split.stream_digest()) != split.stream_hash:
            said = f"the manifest says stream_hash {split.stream_hash[:16]}… of the {split.name} split"
            return failed(name, f"{said}, and its tokens have {found[:16]}…", split=split.name)
        if split.index is not None and split.text_hash is not None and text_hash(split.index) != split.text_hash:
            return failed(name, f"the manifest's text_hash of the {split.name} split is not that of its documents")
    val, train = whole.val.text_hash, whole.train.text_hash
    if val is not None and val in (known, train):
        who = "the artifact says that it was trained on" if val == known else "the training split is"
        return failed(name, f"{who} the validation text (text hash {val[:16]}…)", text_hash=val)
    if known is not None and train is not None and known != train:
        said = (
            f"the artifact was trained on a text of hash {known[:16]}…, and the data's training text has {train[:16]}…"
        )
        return failed(name, said, "stated", artifact=known, data=train)
    if whole.val.stream_hash is None:
        return not_applicable(name, "the data has no hashes to hold its tokens against")
    told = "" if known else "; the artifact does not say what it was trained on"
    return passed(name, "the manifest's hashes are those of its tokens and documents" + told)
