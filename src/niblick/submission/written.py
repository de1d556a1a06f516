"""What submission.json holds: the challenge's fields, and what it takes to check them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from niblick.facts.record import Record
from niblick.ledger.seeds import Ruling


@dataclass(frozen=True, kw_only=True)
class SeedScore(Record):
    """The score of one run."""

    seed: int
    val_bpb: float
    val_loss: float | None
    run: str


@dataclass(frozen=True, kw_only=True)
class RecordRuling(Ruling):
    """Whether a submission beats a record, by the challenge's rule."""

    record: tuple[float, ...]
    """BPB of the record's runs."""
    record_mean: float


@dataclass(frozen=True, kw_only=True)
class Written(Record):
    """submission.json."""

    author: str
    github_id: str
    name: str
    blurb: str
    date: str
    track: str
    record: bool
    reasons: tuple[str, ...]
    """Everything that speaks against it."""
    val_loss: float | None
    val_bpb: float
    val_bpb_mean: float
    val_bpb_deviation: float | None
    pre_quant_val_bpb: float | None
    step_stop: int | None
    wallclock_seconds: float | None
    eval_seconds: float | None
    hardware: str
    bytes_total: int
    bytes_model_int8_zlib: int
    bytes_code: int
    bytes_by_module: Mapping[str, int]
    export: str
    artifact_sha256: str
    seeds: tuple[SeedScore, ...]
    verdict: RecordRuling | None
    tokenizer: str
    text_hash: str | None
    stream_hash: str | None
    niblick: str
