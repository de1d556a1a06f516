"""The configs of training, without torch.

What the names in a config stand for is in the modules of those parts. Only the names are here, and whoever registers a
part of his own adds its name.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal, get_args

from niblick.errors import ConfigError, nearest
from niblick.pack.schemes import parse_scheme

OPTIMIZER_NAMES = {"muon+adam"}
"""Names of optimizers; `optim.register_optimizer` adds to them."""
PENALTY_NAMES = {"reconstruction", "grid", "scales", "rank1", "ternary", "outliers", "entropy"}
"""Names of penalties; `regularizers.register_penalty` adds to them."""
DTYPES = ("bfloat16", "float32")
"""What autocast may run in."""
Average = Literal["raw", "ema", "swa", "best"]
AVERAGES = get_args(Average)


@dataclass(frozen=True)
class OptimConfig:
    """Learning rates and moments. Defaults: the challenge baseline."""

    name: str = "muon+adam"
    """The optimizer, by its registered name; what follows is for it to use."""
    matrix_lr: float = 0.04
    """Muon, on the weight of every linear map inside the body."""
    vector_lr: float = 0.04
    """Adam, on everything else inside the body."""
    embed_lr: float = 0.05
    """Adam, on the embedding (0.6 is the published value where the head is not tied to it)."""
    head_lr: float = 0.008
    """Adam, on a head of its own."""
    muon_momentum: float = 0.95
    muon_momentum_start: float = 0.85
    muon_momentum_steps: int = 500
    """The momentum rises linearly from its start over so many steps."""
    muon_iterations: int = 5
    weight_decay: float = 0.0
    """Muon: what each step takes off a matrix, as a multiple of the rate and the matrix itself."""
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    grad_clip: float = 0.0
    """Largest norm of all gradients together; 0 leaves them alone."""

    def __post_init__(self) -> None:
        if self.name not in OPTIMIZER_NAMES:
            raise ConfigError(f"unknown optim.name={self.name!r}{nearest(self.name, sorted(OPTIMIZER_NAMES))}")
        if self.weight_decay < 0:
            raise ConfigError(f"optim.weight_decay={self.weight_decay} must not be negative")


@dataclass(frozen=True)
class PenaltyConfig:
    """One penalty, and when it acts on what."""

    kind: str
    """Name of the penalty, see `train.regularizers`."""
    weight: float
    """Factor of its gradient, which is added to that of the loss."""
    interval: int = 1
    """Steps from one time that it acts to the next."""
    start: int = 0
    """Steps before the first."""
    patterns: tuple[str, ...] = ()
    """Names of tensors (shell wildcards, or parts of a name); empty: all that the export rounds."""
    matrices: int = 4
    """How many of them are drawn each time; 0: all."""

    def __post_init__(self) -> None:
        if self.kind not in PENALTY_NAMES:
            raise ConfigError(f"unknown penalty kind={self.kind!r}{nearest(self.kind, sorted(PENALTY_NAMES))}")
        if not self.weight > 0:
            raise ConfigError(f"penalty {self.kind}: weight={self.weight} must be positive; leave the penalty away")
        if self.interval < 1:
            raise ConfigError(f"penalty {self.kind}: interval={self.interval} must be at least 1 step")
        if self.start < 0 or self.matrices < 0:
            raise ConfigError(
                f"penalty {self.kind}: start={self.start} and matrices={self.matrices} must not be negative"
            )


@dataclass(frozen=True)
class QATConfig:
    """When training sees rounded weights, and how they are rounded. Whatever comes first starts it, for good."""

    share: float = 0.0
    """The last share of the budget trains so; 0: none."""
    lr_scale: float = 0.0
    """Or from the step on whose factor of the learning rates is below this; 0: never."""
    scheme: str = ""
    """Scheme of all large tensors, see `pack.schemes`; empty: the export's scheme and rules."""
    refresh: int = 50
    """Steps after which the grids are fitted anew."""

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise ConfigError(f"qat.share={self.share} must lie between 0 (none of the budget) and 1 (all of it)")
        if not 0 <= self.lr_scale <= 1:
            raise ConfigError(f"qat.lr_scale={self.lr_scale} must lie between 0 (never) and 1 (once the rate falls)")
        if self.refresh < 1:
            raise ConfigError(f"qat.refresh={self.refresh} must be at least 1 step")
        if self.scheme:
            parse_scheme(self.scheme)
            if not self.on:
                raise ConfigError(f"qat.scheme={self.scheme!r} is never used: set qat.share=0.15, say, or qat.lr_scale")

    @property
    def on(self) -> bool:
        """Whether it is to start at all."""
        return self.share > 0 or self.lr_scale > 0

    def starts(self, lr_scale: float, left: float) -> bool:
        """Whether a step at `lr_scale`, with the share `left` of the budget before it, starts it."""
        return (self.share > 0 and left <= self.share) or lr_scale < self.lr_scale


@dataclass(frozen=True)
class TrainConfig:
    """The training loop."""

    seq_len: int = 1024
    batch_tokens: int = 524_288
    """Tokens of one optimizer step, on all devices together."""
    micro_batch_tokens: int = 65_536
    """Tokens of one forward and backward pass of one device; a step accumulates the gradients of several such."""
    warmup_steps: int = 20
    """Steps that prime compilation and are then undone: weights, optimizers and data go back to the start."""
    val_every: int = 1_000
    """Steps between validations; 0 for one at the end alone."""
    sample_bytes: int = 80
    """Bytes of text that the model writes at each validation, to be looked at; 0: none."""
    checkpoint_every: int | None = None
    """Steps between checkpoints; 0 for one only when the run is stopped, null for one every ten minutes of training."""
    checkpoints_kept: int = 2
    """So many of the newest are kept; 0: all, to see how a model came to be."""
    rollback: bool = False
    """Undo a loss spike, once in a run: weights go back to the last checkpoint, the data goes on."""
    average: Average = "raw"
    """The final weights: `raw` as they are, `ema` over all steps, `swa` over the warmdown, or the `best` of these on
    training text that is held back for it."""
    ema_decay: float = 0.997
    """Of the exponential moving average."""
    log_every: int = 200
    """Steps between lines of the log."""
    init_from: str = ""
    """Boundaries that the outermost router is trained towards at first: `whitespace`, `bpe:FILE.model` (the edges of
    a SentencePiece model's tokens), `entropy` (of the small model `entropy.artifact`); empty: none."""
    init_steps: int = 500
    """Steps of that; then the router is free."""
    penalties: tuple[PenaltyConfig, ...] = ()
    """What makes weights cheaper to pack, see `train.regularizers`."""
    device: str = "auto"
    dtype: str = "auto"
    """Autocast dtype: bfloat16, float32, or auto: what is fast on the device. Weights and optimizer stay float32."""
    compile: str = "auto"
    """Compile each stage by itself: always, never, or auto (on CUDA)."""

    def __post_init__(self) -> None:
        if self.seq_len < 2:
            raise ConfigError(f"train.seq_len={self.seq_len} must be at least 2")
        if self.micro_batch_tokens < 1 or self.micro_batch_tokens % self.seq_len:
            raise ConfigError(
                f"train.micro_batch_tokens={self.micro_batch_tokens} must be a multiple of train.seq_len={self.seq_len}"
            )
        if self.batch_tokens % self.micro_batch_tokens:
            raise ConfigError(
                f"train.batch_tokens={self.batch_tokens} must be a multiple of "
                f"train.micro_batch_tokens={self.micro_batch_tokens}"
            )
        if self.average not in AVERAGES:
            raise ConfigError(f"train.average={self.average!r} must be one of {', '.join(AVERAGES)}")
        if not 0 <= self.ema_decay < 1:
            raise ConfigError(f"train.ema_decay={self.ema_decay} must be at least 0 and less than 1")
        if self.sample_bytes < 0:
            raise ConfigError(f"train.sample_bytes={self.sample_bytes} must be at least 0")
        if self.rollback and not self.checkpoint_every:
            raise ConfigError("train.rollback goes back to a checkpoint: set train.checkpoint_every, such as to 500")
        if self.checkpoints_kept < 0:
            raise ConfigError(f"train.checkpoints_kept={self.checkpoints_kept} must not be negative")
        if self.init_steps < 0:
            raise ConfigError(f"train.init_steps={self.init_steps} must not be negative")
        if self.dtype not in ("auto", *DTYPES):
            raise ConfigError(f"train.dtype={self.dtype!r} must be auto, {' or '.join(DTYPES)}")
        if self.compile not in ("always", "never", "auto"):
            raise ConfigError(f"train.compile={self.compile!r} must be always, never or auto")

    def passes(self, devices: int) -> int:
        """Passes of each device in one step. Raises ConfigError if the devices cannot share the step evenly."""
        together = self.micro_batch_tokens * devices
        if self.batch_tokens % together:
            raise ConfigError(
                f"{devices} devices take {devices} × train.micro_batch_tokens={self.micro_batch_tokens} = {together} "
                f"tokens at once, which does not divide train.batch_tokens={self.batch_tokens}: set "
                "train.micro_batch_tokens or train.batch_tokens accordingly"
            )
        return self.batch_tokens // together

    def fitting(self, devices: int, most: int | None = None) -> TrainConfig:
        """Itself, with the micro-batch shrunk until whole ones of all devices make up a step.

        It has `most` tokens at most, but one row at least.

        Raises ConfigError if a step has no whole number of rows for each device.
        """
        rows, rest = divmod(self.batch_tokens, self.seq_len * devices)
        if rest or not rows:
            raise ConfigError(
                f"train.batch_tokens={self.batch_tokens} must be a multiple of {devices} × train.seq_len="
                f"{self.seq_len} (devices × tokens of a row): set one of them accordingly"
            )
        most = max(1, min(rows, (most or self.micro_batch_tokens) // self.seq_len))
        count = next(n for n in range(most, 0, -1) if rows % n == 0)
        return replace(self, micro_batch_tokens=count * self.seq_len)
