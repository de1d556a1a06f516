"""The config of a score, without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from niblick.errors import ConfigError, nearest
from niblick.model.model_config import LevelConfig
from niblick.score.windowing import SCORERS, Scorer

OPTIMIZERS = ("sgd", "adamw")
"""Of test-time training."""
SIDECARS = {"cache", "bigram", "ngram", "mixture"}
"""Kinds of sidecars, see `sidecars.ADJUSTERS`; `register_sidecar` adds to them."""
MAX_ORDER = 64
MEMORY = [2**n for n in range(14)]


@dataclass(frozen=True)
class TTTConfig:
    """How a model learns from what has been scored."""

    optimizer: Literal["", "sgd", "adamw"] = ""
    """"": nothing is learned."""
    lr: float = 0.002
    """Rate of the first stretch."""
    decay: Literal["cosine", "constant"] = "cosine"
    """`cosine`: the rate falls along a half cosine over the stretches, to 0 at the last of the stream, as in the
    records; `constant`: it stays. With reset=document it stays, too: where a document ends is not known before."""
    momentum: float = 0.9
    """Of SGD; AdamW's β₁, beside β₂ = 0.95."""
    grad_clip: float = 1.0
    """Largest norm of all gradients of a step together; 0 leaves them alone."""
    weights: str = "all"
    """Which weights learn: `all`, or patterns of their names with commas between, as in `body.main.*,*.resid_mix`."""
    lora: int = 0
    """Rank of what is added to the linear maps among those weights, which are then all that learns; 0: the weights
    themselves learn."""
    chunk_tokens: int = 32_768
    """Targets of a stretch: scored together, then learned together."""
    step_tokens: int = 8_192
    """Targets of one optimizer step."""
    epochs: int = 3
    """Passes over each stretch."""
    reset: Literal["carry", "document"] = "carry"
    """`carry`: what was learned stays; `document`: each document starts from the artifact's weights."""
    max_seconds: float | None = None
    """Time for learning; when it is used up, scoring goes on without."""

    def __post_init__(self) -> None:
        if self.optimizer not in ("", *OPTIMIZERS):
            raise ConfigError(f"unknown score.ttt.optimizer={self.optimizer!r}{nearest(self.optimizer, OPTIMIZERS)}")
        if self.reset not in ("carry", "document"):
            raise ConfigError(f"unknown score.ttt.reset={self.reset!r}{nearest(self.reset, ('carry', 'document'))}")
        if self.decay not in ("cosine", "constant"):
            raise ConfigError(f"unknown score.ttt.decay={self.decay!r}{nearest(self.decay, ('cosine', 'constant'))}")
        for name in ("chunk_tokens", "step_tokens", "epochs"):
            if getattr(self, name) < 1:
                raise ConfigError(f"score.ttt.{name}={getattr(self, name)} must be at least 1")
        for name in ("lr", "grad_clip", "lora"):
            if getattr(self, name) < 0:
                raise ConfigError(f"score.ttt.{name}={getattr(self, name):g} must not be negative")
        if not 0 <= self.momentum < 1:
            raise ConfigError(f"score.ttt.momentum={self.momentum:g} must be at least 0 and below 1")
        if self.max_seconds is not None and self.max_seconds < 0:
            raise ConfigError(f"score.ttt.max_seconds={self.max_seconds:g} must not be negative")


@dataclass(frozen=True)
class SidecarConfig:
    """Which sidecar rides along while the split is scored."""

    name: str = ""
    """`cache`: tokens that came lately; `bigram`: those that lately followed the same token; `ngram`: a normalized
    mixture with an n-gram model of all that came; `mixture`: contexts, matches and the model, mixed decision by
    decision; "": none. See `sidecars.ADJUSTERS`."""
    reset: Literal["carry", "document"] = "carry"
    """`carry`: what was learned stays until the end of the split, and ngram has a second n-gram model for the document
    alone; `document`: all is forgotten at each BOS."""
    window: int = 1024
    """cache, bigram: tokens that are remembered."""
    strength: float | None = None
    """cache, bigram: the bias is strength · ln(1 + count); null: 0.1 for cache, 0.3 for bigram."""
    order: int = 16
    """ngram: the longest context, in tokens."""
    weight: float = 0.2
    """ngram: weight (exponent) of the n-gram models together at the start, beside 1 of the model."""
    rate: float = 0.002
    """ngram: learning rate of the weights; 0: they stay."""
    mix: Literal["strong", "fast"] = "strong"
    """mixture: how much is mixed; see `mixture.SETTINGS`."""
    memory: int = 128
    """mixture: MiB for what its contexts learn, a power of two; 40 bytes for every byte that is read serve well."""

    def __post_init__(self) -> None:
        if self.name and self.name not in SIDECARS:
            raise ConfigError(f"unknown score.sidecar.name={self.name!r}{nearest(self.name, SIDECARS)}")
        if self.reset not in ("carry", "document"):
            raise ConfigError(f"unknown score.sidecar.reset={self.reset!r}: choose carry or document")
        if self.window < 1:
            raise ConfigError(f"score.sidecar.window={self.window} must be at least 1 token")
        if not 0 <= self.order <= MAX_ORDER:
            raise ConfigError(f"score.sidecar.order={self.order} must be between 0 and {MAX_ORDER} tokens")
        if self.mix not in ("strong", "fast"):
            raise ConfigError(f"unknown score.sidecar.mix={self.mix!r}: choose strong or fast")
        if self.memory not in MEMORY:
            raise ConfigError(
                f"score.sidecar.memory={self.memory} must be a power of two between {MEMORY[0]} and {MEMORY[-1]} MiB"
            )
        for key in ("strength", "weight", "rate"):
            value = getattr(self, key)
            if value is not None and not 0 <= value <= 2:
                raise ConfigError(f"score.sidecar.{key}={value:g} must be between 0 and 2")


@dataclass(frozen=True)
class ScoreConfig:
    """How the validation split is scored."""

    seq_len: int = 1024
    """Window length in tokens."""
    batch_tokens: int = 32_768
    """Tokens handled at once; no influence on the score but by rounding."""
    scorer: str = "contiguous"
    """`contiguous`: windows one behind the other; `sliding`: windows that overlap; `document`: no window reaches into
    another document, so that each starts with empty context. See `windowing.SCORERS`."""
    stride: int = 0
    """Targets that a window scores after the first, of the stream or of a document; 0: all (seq_len)."""
    capacity: str = ""
    """Room for chunks in an H-Net while it is scored: `bucketed`, `packed` or `divisor:k`; "": as it was trained."""
    documents: int = 0
    """So many documents of the validation split, its first ones, are the text that is scored; 0: all of them."""
    max_seconds: float | None = None
    """Time for the whole of scoring. Test-time training gives way in time; a score is never left half done."""
    ttt: TTTConfig = field(default_factory=TTTConfig)
    """Learning from text that is scored already."""
    sidecar: SidecarConfig = field(default_factory=SidecarConfig)
    """What text that is scored already says beside the model."""

    def __post_init__(self) -> None:
        if self.scorer not in SCORERS:
            raise ConfigError(f"unknown score.scorer={self.scorer!r}{nearest(self.scorer, SCORERS)}")
        for name in ("seq_len", "batch_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"score.{name}={getattr(self, name)} must be at least 1")
        if self.documents < 0:
            raise ConfigError(f"score.documents={self.documents} must be at least 1, or 0 for all")
        if not 0 <= self.stride <= self.seq_len:
            raise ConfigError(
                f"score.stride={self.stride} must be between 1 and the window score.seq_len={self.seq_len}: "
                "a larger stride would leave targets out"
            )
        if self.windows.overlap == "always" and not self.stride:
            raise ConfigError(f"score.scorer={self.scorer} needs a stride: set score.stride=64, say")
        if self.windows.overlap == "never" and self.stride not in (0, self.seq_len):
            raise ConfigError(f"score.stride={self.stride} is for windows that overlap: set score.scorer=sliding")
        if self.capacity:
            LevelConfig(capacity=self.capacity)
        if self.max_seconds is not None and self.max_seconds <= 0:
            raise ConfigError(f"score.max_seconds={self.max_seconds:g} must be positive, or null for no limit")
        if self.ttt.optimizer and self.ttt.reset == "document" and not self.windows.by_document:
            raise ConfigError(
                f"score.ttt.reset=document forgets between documents, which score.scorer={self.scorer} does not keep "
                "apart: set score.scorer=document"
            )

    def plain(self) -> ScoreConfig:
        """Return the quick way of scoring, for validation while training: contiguous, and nothing is learned."""
        return self if self.is_plain else ScoreConfig(self.seq_len, self.batch_tokens, capacity=self.capacity)

    @property
    def is_plain(self) -> bool:
        """Whether it is what `plain` returns, but for a capacity: `score_contiguous` can do it."""
        more = self.stride or self.capacity or self.max_seconds or self.ttt.optimizer or self.sidecar.name
        return self.scorer == "contiguous" and not more

    @property
    def windows(self) -> Scorer:
        """How windows are laid."""
        return SCORERS[self.scorer]

    @property
    def step(self) -> int:
        """Targets that a window scores after the first."""
        return self.stride or self.seq_len
