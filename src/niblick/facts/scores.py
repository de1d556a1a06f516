"""What is kept of a score: a line of scores.jsonl."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from niblick.facts.record import Record


@dataclass(frozen=True, kw_only=True)
class Sizes(Record):
    """Bytes of an artifact, of the code that it needs, and of both."""

    artifact_bytes: int
    code_bytes: int | None = None
    """None, as are the total bytes, where the code could not be weighed."""
    total_bytes: int | None = None
    code_not_weighed: str | None = None
    """Why it could not."""


@dataclass(frozen=True, kw_only=True)
class Machine(Record):
    """What something ran on, as far as speed depends on it."""

    system: str = ""
    processor: str = ""
    cores: int | None = None
    threads: int | None = None
    gpu: str | None = None
    gpus: int = 0

    def __str__(self) -> str:
        """As people are told it."""
        return f"{self.gpus}×{self.gpu}" if self.gpu else f"{self.cores} CPU cores"


@dataclass(frozen=True, kw_only=True)
class Legality(Record):
    """How a score stands on the challenge's record track."""

    under_cap: bool | None
    """About bytes alone; None where nobody knows what code and artifact take together."""
    code_bytes: int | None = None
    artifact_bytes: int | None = None
    total_bytes: int | None = None
    train_seconds: float | None = None
    eval_seconds: float | None = None
    hardware: str = ""
    score_first: bool = True
    """Whether nothing was learned from a token before it was scored."""
    reasons: tuple[str, ...] = ()
    """Everything that keeps it off the record track."""

    @property
    def standing(self) -> str:
        """`legal`, `local` (under the cap, but off the record track), `over cap` or `not weighed`."""
        if not self.under_cap:
            return "not weighed" if self.under_cap is None else "over cap"
        return "local" if self.reasons else "legal"


@dataclass(frozen=True, kw_only=True)
class ScorerFacts(Record):
    """How something was scored. The settings of its `ScoreConfig` are among `extra`."""

    scorer: str = ""
    dtype: str = ""
    device: str = ""


@dataclass(frozen=True, kw_only=True)
class TextFacts(Record):
    """Whether the scored text is all in its tokens, and what a byte of the original costs; None for what is unknown."""

    lossless: bool | None = None
    documents: int | None = None
    original_bytes: int | None = None
    lost: Mapping[str, int] | None = None
    """Documents that do not come back, their bytes, and the bytes that come instead."""
    repair_bits: int | None = None
    bpb_repaired: float | None = None
    """With what a lossy tokenizer loses put right; None where nobody knows what it loses."""


@dataclass(frozen=True, kw_only=True)
class ScoreRecord(Sizes, TextFacts):
    """Everything that is kept of a score: what it is, of which text, how it came about, and whether it is legal."""

    SELDOM: ClassVar[tuple[str, ...]] = ("document_costs",)

    bpb: float
    loss: float | None = None
    """Nats per token."""
    bits: float | None = None
    tokens: int
    bytes: int
    """Of the text that the tokens give."""
    seconds: float | None = None
    unavailable: tuple[str, ...] = ()
    """What nobody recorded of the text, a sentence each."""
    text_hash: str | None = None
    stream_hash: str | None = None
    slice: str = "all"
    scorer: ScorerFacts = field(default_factory=ScorerFacts)
    knife_edges: int = 0
    decisions: int = 0
    ttt_log: tuple[tuple[int, int, float, float | None], ...] = ()
    machine: Machine | None = None
    legality: Legality
    document_costs: str | None = None
    """Name of the file with the costs of its documents."""
