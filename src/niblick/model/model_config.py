"""The config of a model and its parts, without torch: whatever only looks at configs answers at once.

What the names in a config stand for (blocks, routers, losses) is in the modules of those parts. Only the names are
here, and whoever registers a part of his own adds its name.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Any

from niblick.errors import ConfigError, nearest

BLOCK_LETTERS = set("TtCcMm")
"""Letters of layouts; `layers.register_block` adds to them."""
ROUTER_NAMES = {
    *("cosine", "cosine-threshold", "cosine-bias", "soft", "fixed", "whitespace", "entropy", "given"),
    *("score-function", "gumbel", "sombrero", "coding-rate", "delayed"),
}
"""Names of routers; `routers.register_router` adds to them."""
SOFT_ROUTERS = {"soft"}
"""Those that blend instead of cutting."""
GIVEN = ("whitespace", "entropy", "given")
"""Routers whose boundaries come from outside the stream; they can only stand at the outermost level."""
MLP_KINDS = ("relu2", "leaky_relu2", "swiglu")
"""Kinds of MLP, see `mlp.MLPS`."""
UNTAUGHT = (*GIVEN, "fixed", "coding-rate")
"""Routers that have nothing to learn."""
RATE_WINDOW = 8
"""Positions that the router `coding-rate` compares; a state must be at least as wide."""
DECHUNKS = ("smooth", "decay", "input", "plain")
RATIOS = ("paper", "square", "binomial")
"""Forms of the ratio loss, see `level.RATIO_LOSSES`."""
FACTORS = (1, 36_313, 27_191, 50_021, 61_027, 15_511, 44_203, 58_031)
"""One odd factor for each token of an n-gram, newest first; their sum of products is the hash, modulo the rows."""


MOST_HEADS = 1024
"""That are proposed where heads do not divide the width."""


@dataclass(frozen=True)
class BlockConfig:
    """What all blocks of a model have in common, unless a stage says otherwise. Defaults: the challenge baseline."""

    width: int = 512
    heads: int = 8
    kv_heads: int = 4
    mlp_mult: float = 2.0
    """Hidden units of the MLP, as a multiple of the width."""
    mlp: str = "relu2"
    """Kind of MLP: relu2, leaky_relu2 or swiglu."""
    mlp_multiple: int = 1
    """Hidden units are rounded up to a multiple of this (128 in the H-Net paper)."""
    window: int = 0
    """Attention sees so many positions, its own included; 0 is all before it."""
    rope_base: float = 10_000.0
    rope_fraction: float = 1.0
    """Share of each head that is turned by position."""
    qk_norm: bool = True
    """Whether queries and keys are normalized, per head."""
    qk_gain: float = 1.5
    """Initial value of the learned gain on queries, per head; 0: there is none."""
    residual_mix: bool = True
    """Whether blocks with attention mix the stage's input into the stream, by learned channel weights."""
    branch_scale: bool = True
    """Whether blocks scale what they add to the stream, by learned channel weights."""
    parallel: bool = False
    """Whether the MLP reads what attention reads, not what attention has added to (as in late records)."""
    norm_weights: bool = False
    """Whether norms have learned channel weights."""
    norm_eps: float | None = None
    """Added to the mean square in norms; null: the dtype's own smallest."""
    conv_kernel: int = 4
    """Positions that a convolution sees, its own included; that inside Mamba-2 too."""
    ssm_state: int = 128
    """Mamba-2: numbers of state for each channel."""
    ssm_expand: int = 2
    """Mamba-2: inner width, as a multiple of the width."""
    ssm_head_width: int = 64
    """Mamba-2: channels of the inner width that fade at one rate."""

    def __post_init__(self) -> None:
        for name in ("width", "heads", "kv_heads", "mlp_multiple", "conv_kernel", *_SSM):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1")
        if self.width % self.heads:
            fits = [h for h in range(1, min(self.width, MOST_HEADS) + 1) if self.width % (2 * h) == 0]
            near = min(fits, key=lambda h: abs(h - self.heads), default=1)
            raise ConfigError(f"heads={self.heads} do not divide width={self.width}: choose heads={near}, say")
        if (self.width // self.heads) % 2:
            raise ConfigError(
                f"width={self.width} over heads={self.heads} gives heads of odd width {self.width // self.heads}, "
                "and rotary positions turn pairs: choose an even head width"
            )
        if self.heads % self.kv_heads:
            raise ConfigError(f"kv_heads={self.kv_heads} do not divide heads={self.heads}")
        if self.qk_gain < 0:
            raise ConfigError(f"qk_gain={self.qk_gain} must be positive, or 0 for none")
        if self.norm_eps is not None and self.norm_eps < 0:
            raise ConfigError(f"norm_eps={self.norm_eps} must not be negative")
        if self.mlp_mult <= 0:
            raise ConfigError(f"mlp_mult={self.mlp_mult} must be positive")
        if self.mlp not in MLP_KINDS:
            raise ConfigError(f"unknown mlp {self.mlp!r}{nearest(self.mlp, MLP_KINDS)}")
        if self.window < 0:
            raise ConfigError(f"window={self.window} must be 0 (attend to everything before) or a number of positions")
        if not 0 <= self.rope_fraction <= 1:
            raise ConfigError(f"rope_fraction={self.rope_fraction} must be between 0 and 1")

    @property
    def rotary_width(self) -> int:
        """Channels of each head that are turned by position, an even number."""
        return 2 * int(self.width // self.heads * self.rope_fraction / 2 + 1e-9)  # 96 · (58 / 96) is below 58

    @property
    def hidden(self) -> int:
        """Hidden units of the MLP."""
        hidden = round(self.mlp_mult * self.width)
        return hidden if self.mlp_multiple == 1 else -(-hidden // self.mlp_multiple) * self.mlp_multiple

    @property
    def ssm_inner(self) -> int:
        """Mamba-2: the inner width."""
        return self.ssm_expand * self.width

    @property
    def ssm_heads(self) -> int:
        """Mamba-2: heads of the inner width. Raises ConfigError if they do not divide it."""
        if self.ssm_inner % self.ssm_head_width:
            raise ConfigError(
                f"ssm_head_width={self.ssm_head_width} does not divide the inner width {self.ssm_inner} "
                f"(ssm_expand={self.ssm_expand} times width={self.width}): choose ssm_head_width="
                f"{math.gcd(self.ssm_inner, self.ssm_head_width)}, say"
            )
        return self.ssm_inner // self.ssm_head_width


_SSM = ("ssm_state", "ssm_expand", "ssm_head_width")


def parse_layout(layout: str) -> str:
    """Expand a layout such as `T2c3` to one letter a block (`TTccc`).

    Raises ConfigError that shows where the layout stops making sense, or which letters there are.
    """
    blocks, at = "", 0
    while at < len(layout):
        match = re.compile(r"([A-Za-z])(\d*)").match(layout, at)
        if not match or match[2].startswith("0"):
            raise ConfigError(
                f"layout {layout!r} cannot be read at {layout[at:]!r} (character {at + 1}): "
                "expected a block letter and a count of at least 1, as in 'T3'"
            )
        if match[1] not in BLOCK_LETTERS:
            raise ConfigError(
                f"layout {layout!r} names the unknown block {match[1]!r} (character {at + 1}): "
                f"known letters are {', '.join(sorted(BLOCK_LETTERS))}"
            )
        if len(match[2]) > 4:
            raise ConfigError(f"layout {layout!r} asks for {match[2][:20]} blocks: 9999 are the most")
        blocks += match[1] * int(match[2] or 1)
        at = match.end()
    if not blocks:
        raise ConfigError("an empty layout has no blocks: write a letter and a count, as in 'T3'")
    return blocks


@dataclass(frozen=True)
class StageConfig:
    """A stack of blocks. Of the fields that blocks have, those left None take the model's value."""

    layout: str
    width: int | None = None
    """Left None, the width of the level that the stage belongs to; only a main stage may have its own."""
    heads: int | None = None
    kv_heads: int | None = None
    mlp_mult: float | None = None
    mlp: str | None = None
    mlp_multiple: int | None = None
    window: int | None = None
    rope_base: float | None = None
    rope_fraction: float | None = None
    qk_norm: bool | None = None
    qk_gain: float | None = None
    residual_mix: bool | None = None
    parallel: bool | None = None
    branch_scale: bool | None = None
    norm_weights: bool | None = None
    norm_eps: float | None = None
    conv_kernel: int | None = None
    ssm_state: int | None = None
    ssm_expand: int | None = None
    ssm_head_width: int | None = None
    unique: int = 0
    """Blocks with weights of their own, used over and over until the layout is done; 0: all of them."""
    skips: bool = True
    """U-net skips: the first ⌊n/2⌋ blocks push their output, the others add what was pushed."""
    norm_in: bool = True
    """Whether the input is normalized; the output always is."""

    def __post_init__(self) -> None:
        letters = parse_layout(self.layout)
        if not 0 <= self.unique <= len(letters):
            raise ConfigError(
                f"unique={self.unique} must be between 0 (all) and the {len(letters)} blocks of the stage"
            )
        if self.unique and any(letter != letters[i % self.unique] for i, letter in enumerate(letters)):
            raise ConfigError(
                f"layout {self.layout!r} cannot repeat its first unique={self.unique} blocks: its letters do not repeat"
            )

    def block_config(self, model: BlockConfig) -> BlockConfig:
        """Return the config of this stage's blocks inside a model with the given defaults."""
        if not self.differs:
            return model
        return BlockConfig(**{f.name: getattr(model, f.name) for f in fields(BlockConfig)} | self.own())

    def own(self) -> dict[str, Any]:
        """Return what blocks of this stage have of their own, by field."""
        return {f.name: v for f in fields(BlockConfig) if (v := getattr(self, f.name, None)) is not None}

    @property
    def differs(self) -> bool:
        """Whether they have anything of their own."""
        return bool(self.own())


@dataclass(frozen=True)
class LevelConfig:
    """One level of chunking: what stands around the router, and what the router is asked for."""

    encoder: StageConfig | None = field(default_factory=lambda: StageConfig("T2"))
    """None: the level's input goes to the router as it is."""
    decoder: StageConfig | None = field(default_factory=lambda: StageConfig("T2"))
    router: str = "cosine"
    width: int | None = None
    """Width of encoder, router and decoder; None for the model's."""
    target_length: float = 6.0
    """N of the ratio loss: positions per chunk that training aims at."""
    target_start: float | None = None
    """Where N begins in training, to rise (or fall) to `target_length` (ATDC); null: it is that from the start on."""
    target_share: float = 0.5
    """Share of the budget after which N has come to `target_length`."""
    target_shape: str = "linear"
    """How N goes there: linear or cosine."""
    ratio_weight: float = 0.03
    """λ: weight of the ratio loss in the training loss."""
    ratio: str = "paper"
    """Form of the ratio loss: paper (Eq. 10), square (TinyHNet) or binomial (the prior of dynamic pooling)."""
    router_weight: float = 1.0
    """Weight of the loss that a router has of its own (`score-function`, `sombrero`)."""
    ahead_weight: float = 0.0
    """Weight of a loss for the unit ahead: a chunk's state, as it comes out of the inside, is to tell the token after
    the start of the next chunk."""
    entropy_weight: float = 0.0
    """Weight of a reward for undecided routers: this much entropy of p is taken off the loss (TinyHNet)."""
    dechunk: str = "smooth"
    """How positions get their chunk's state: smooth (moving average, Eq. 5), decay (it fades, TinyHNet), plain (as it
    is), or input (as it is; the moving average runs over positions, before chunks are selected: Sombrero)."""
    confidence: bool = True
    """Whether the router's confidence multiplies the dechunked state, with value 1 and its own gradient (Eq. 7)."""
    residual_bias: bool = False
    """Whether the residual projection has a bias (that of the paper's code has)."""
    lr_diff: float = 0.75
    """d: gradients are scaled by d where they enter the level from its decoder, and by 1/d where they leave its inside
    towards the encoder."""
    lr_mult: float = 1.0
    """Multiplier on the learning rates of the level's own weights."""
    capacity: str = "bucketed"
    """Room for chunks: `bucketed` (those of the longest row), `packed` (all rows' chunks in one sequence) or
    `divisor:k` (L // k a row; boundaries past that are dropped and what follows joins the last chunk, study 2)."""
    bucket: int = 16
    """Chunk counts are rounded up to a multiple of this."""

    def __post_init__(self) -> None:
        if self.router not in ROUTER_NAMES:
            raise ConfigError(f"unknown router {self.router!r}{nearest(self.router, sorted(ROUTER_NAMES))}")
        if self.target_length <= 1:
            raise ConfigError(f"target_length={self.target_length} must be above 1: a chunk of 1 position is no chunk")
        for name in ("lr_diff", "lr_mult"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name}={getattr(self, name)} must be positive")
        self._check_curriculum()
        for name in ("router_weight", "ratio_weight", "ahead_weight"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}={getattr(self, name)} must not be negative: 0 leaves the loss away")
        if self.ahead_weight:
            self._check_ahead()
        if self.bucket < 1:
            raise ConfigError(f"bucket={self.bucket} must be at least 1")
        for name, known in (("dechunk", DECHUNKS), ("ratio", RATIOS), ("target_shape", ("linear", "cosine"))):
            if getattr(self, name) not in known:
                raise ConfigError(f"unknown {name} {getattr(self, name)!r}{nearest(getattr(self, name), known)}")
        if self.capacity not in ("bucketed", "packed") and not re.fullmatch(r"divisor:[1-9]\d*", self.capacity):
            raise ConfigError(f"capacity={self.capacity!r} must be bucketed, packed or divisor:k, as in divisor:4")

    def _check_ahead(self) -> None:
        if is_soft(self.router):
            raise ConfigError(
                f"ahead_weight={self.ahead_weight} asks for the next chunk, and the router {self.router!r} cuts none: "
                "leave ahead_weight away, or choose a router that cuts"
            )

    def _check_curriculum(self) -> None:
        if not 0 < self.target_share <= 1:
            raise ConfigError(f"target_share={self.target_share} must be a share of the budget: above 0, at most 1")
        if self.target_start is None:
            return
        if self.target_start <= 1:
            raise ConfigError(f"target_start={self.target_start} must be above 1: a chunk of 1 position is no chunk")
        if self.router in GIVEN:
            raise ConfigError(
                f"target_start={self.target_start} moves the target of a router, and {self.router!r} has none: "
                "leave target_start away, or choose a router that cuts by itself"
            )

    def target_at(self, progress: float) -> float:
        """Return N when a share `progress` of the training budget is used up."""
        if self.target_start is None or progress >= self.target_share:
            return self.target_length
        part = progress / self.target_share
        part = part if self.target_shape == "linear" else (1 - math.cos(math.pi * part)) / 2
        return self.target_start + part * (self.target_length - self.target_start)

    @property
    def divisor(self) -> int | None:
        """k of `divisor:k`; None for other capacities."""
        kind, _, k = self.capacity.partition(":")
        return int(k) if kind == "divisor" else None

    def with_capacity(self, capacity: str) -> LevelConfig:
        """Return the config with another capacity."""
        return replace(self, capacity=capacity)

    def block_config(self, model: BlockConfig) -> BlockConfig:
        """Return the defaults of this level's blocks inside a model with the given ones."""
        return StageConfig("T", width=self.width).block_config(model)


@dataclass(frozen=True)
class NgramConfig:
    """One table of hashed n-grams."""

    n: int = 2
    rows: int = 4_096
    width: int = 128
    words: bool = False
    """Of words instead of tokens; the tokens must be bytes."""

    def __post_init__(self) -> None:
        least = 1 if self.words else 2
        if not least <= self.n <= len(FACTORS):
            raise ConfigError(f"ngrams: n={self.n} must be between {least} and {len(FACTORS)}")
        if self.rows < 1 or self.width < 1:
            raise ConfigError(f"ngrams: rows={self.rows} and width={self.width} must be at least 1")


@dataclass(frozen=True)
class EntropyConfig:
    """The small model that the router `entropy` asks; frozen, and packed inside the big one."""

    model: ModelConfig
    threshold: float = 2.0
    """Nats of entropy about a token above which it starts a chunk."""


@dataclass(frozen=True)
class ModelConfig(BlockConfig):
    """A whole model. Without levels it is dense; the values inherited from BlockConfig hold for all stages."""

    vocab_size: int = 260
    levels: tuple[LevelConfig, ...] = ()
    main: StageConfig = field(default_factory=lambda: StageConfig("T9"))
    tie_embeddings: bool = True
    embed_width: int = 0
    """Width of a factorized embedding: the table has so many columns, and a linear map of its own leads to the stream
    (and back, in a tied head). 0: the table is as wide as the stream."""
    ngrams: tuple[NgramConfig, ...] = ()
    """Hashed n-gram embeddings, added to the token's."""
    bos_id: int = 1
    """The token that starts every document; n-grams never reach across it."""
    embed_std: float = 0.005
    """Standard deviation of the embedding's initial values."""
    embed_norm: bool = True
    """Whether embeddings are normalized where the first stage does not do so itself."""
    softcap: float = 30.0
    """Logits are softcap · tanh(z / softcap); 0: they are z."""
    entropy: EntropyConfig | None = None
    """What the router `entropy` asks. Runs fill it in from the artifact that `entropy.artifact` names."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.vocab_size <= 65536:
            raise ConfigError(f"vocab_size={self.vocab_size} must be between 2 and 65536: tokens are stored in 16 bits")
        for name in ("softcap", "embed_std"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}={getattr(self, name)} must be positive, or 0 for none")
        if not 0 <= self.embed_width <= self.width:
            raise ConfigError(f"embed_width={self.embed_width} must be between 0 (off) and the width {self.width}")
        level_widths(self.levels, self.main, self)
        for level in self.levels:
            block = level.block_config(self)
            for stage in (level.encoder, level.decoder):
                if stage:
                    stage.block_config(block)
        self.main.block_config(self)
        if self.levels and (self.levels[0].width or self.width) != self.width:
            raise ConfigError(
                f"levels.0.width={self.levels[0].width} is the embedding's width: set width={self.levels[0].width}"
            )
        if any(ngram.words for ngram in self.ngrams):
            control_tokens(self.vocab_size, "ngrams of words are")
        self._check_router()

    def _check_router(self) -> None:
        router = self.levels[0].router if self.levels else None
        if router == "whitespace":
            control_tokens(self.vocab_size, "'whitespace' boundaries are")
        if self.entropy and router != "entropy":
            raise ConfigError("model.entropy is a small model that only the router 'entropy' asks: set levels.0.router")
        if self.entropy and self.entropy.model.vocab_size != self.vocab_size:
            raise ConfigError(
                f"entropy.model.vocab_size={self.entropy.model.vocab_size} differs from vocab_size={self.vocab_size}: "
                "both must read the same tokens"
            )

    def expect_entropy(self) -> None:
        """Raise ConfigError if the router asks a small model that is not there."""
        if self.levels and self.levels[0].router == "entropy" and not self.entropy:
            raise ConfigError(
                "router 'entropy' asks a small trained model, which a run takes from entropy.artifact=FILE.nib"
            )

    def stages(self) -> Iterator[StageConfig]:
        """All stages, from the outside in and out again."""
        yield from (level.encoder for level in self.levels if level.encoder)
        yield self.main
        yield from (level.decoder for level in reversed(self.levels) if level.decoder)


def level_widths(levels: tuple[LevelConfig, ...], main: StageConfig, model: BlockConfig) -> list[int]:
    """Return the width of each level, outermost first, and of the main stage.

    Raises ConfigError if widths shrink inward, if a stage of a level has another width than the level, or for a router
    or capacity that cannot stand where it stands.
    """
    widths = [level.width or model.width for level in levels] + [main.width or model.width]
    for i, (outer, inner) in enumerate(itertools.pairwise(widths)):
        where = f"levels.{i + 1}" if i + 1 < len(levels) else "main"
        if inner < outer:
            raise ConfigError(
                f"{where} has width {inner}, less than the {outer} outside it: widths may only grow inward"
            )
        if inner != outer and is_soft(levels[i].router):
            raise ConfigError(f"{where} has width {inner}, but a soft router keeps the width outside it, {outer}")
    for i, level in enumerate(levels):
        for name, stage in (("encoder", level.encoder), ("decoder", level.decoder)):
            if stage and stage.width not in (None, widths[i]):
                raise ConfigError(
                    f"levels.{i}.{name}.width={stage.width} differs from its level's {widths[i]}: set levels.{i}.width"
                )
        if level.router == "coding-rate" and widths[i] < RATE_WINDOW:
            raise ConfigError(
                f"levels.{i}.router='coding-rate' compares the last {RATE_WINDOW} states, which says nothing at width "
                f"{widths[i]}: give the level a width of {RATE_WINDOW} or more, or choose another router"
            )
        if level.router in GIVEN and i:
            raise ConfigError(f"levels.{i}.router={level.router!r} can only stand at the outermost level, levels.0")
        if level.divisor and any(outer.divisor is None for outer in levels[:i]):
            raise ConfigError(
                f"levels.{i}.capacity={level.capacity} needs a divisor at every level outside it: else the room for a "
                "row's chunks would depend on the other rows of its batch"
            )
        if level.capacity == "packed" and i + 1 < len(levels):
            raise ConfigError(
                f"levels.{i}.capacity=packed can only stand at the innermost level, levels.{len(levels) - 1}"
            )
    return widths


def is_soft(router: str) -> bool:
    """Whether a router blends instead of cutting."""
    return router in SOFT_ROUTERS


def control_tokens(vocab_size: int, what: str) -> int:
    """Return how many control tokens stand before the bytes. Raises ConfigError, about `what` is read off bytes, if
    the vocabulary is none of bytes.
    """
    if not 256 <= vocab_size <= 272:
        raise ConfigError(f"{what} read off bytes, and vocab_size={vocab_size} is no byte vocabulary: use byte260")
    return vocab_size - 256
