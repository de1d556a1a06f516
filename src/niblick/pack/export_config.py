"""The config of an export, without torch."""

from __future__ import annotations

from dataclasses import dataclass, field

from niblick.artifact.codecs import get_codec
from niblick.errors import ConfigError, nearest
from niblick.pack.schemes import PUBLISHED, Scheme, on_a_grid, parse_rules, parse_scheme

DAMPING = 0.01
"""Share of the mean diagonal that is added to the diagonal (study 2)."""
GPTQ = {"off": "", "float": "-gptq", "quantized": "-gptq.quantized"}
"""Where GPTQ's layer inputs come from, and what that adds to an artifact's name."""


@dataclass(frozen=True)
class ResidualConfig:
    """How many bytes go into corrections, and where."""

    bytes: int = 0
    """Budget before coding; 0: none."""
    dtype: str = "int8"
    """Of the factors: fp16, or int8 with a scale for each vector."""
    group: str = "all"
    """all, mlp-out (the sprint's MLP outputs), early-mlp-out (those of the first half of the blocks), attn-out, out
    (MLP and attention outputs), or a pattern of names."""

    def __post_init__(self) -> None:
        if self.bytes < 0:
            raise ConfigError(f"residual.bytes={self.bytes} must be at least 0")
        if self.dtype not in ("fp16", "int8"):
            raise ConfigError(f"residual.dtype={self.dtype!r} must be fp16 or int8")


@dataclass(frozen=True)
class ExportConfig:
    """How weights become an artifact."""

    scheme: str = PUBLISHED
    """Of all large tensors; see `pack.schemes`."""
    rules: tuple[str, ...] = ()
    """PATTERN=SCHEME: tensors that are stored otherwise, small ones too; the last rule that fits holds."""
    codec: str = "zlib"
    prune: float = 0.0
    """Share of each quantized tensor, its smallest weights, that is set to zero first."""
    gptq: str = "off"
    """Rounding by what layers see of training text (`pack.gptq`): off, float (inputs from the float model) or
    quantized (from the model as quantized so far: a pass over the text for every block)."""
    calibration_tokens: int = 131_072
    """Tokens of training text that layer inputs come from."""
    damping: float = DAMPING
    """Share of the mean diagonal of a Hessian that GPTQ adds to the diagonal."""
    permute: bool = False
    """Sort hidden units and heads first: the same function, for codecs that gain from neighbours alike."""
    residual: ResidualConfig = field(default_factory=ResidualConfig)
    """Low-rank corrections of what is on a grid."""
    text: int = 0
    """Bytes of training text, at most, that the artifact holds packed, and that its sidecar reads before it scores."""

    def __post_init__(self) -> None:
        parse_scheme(self.scheme)
        parse_rules(self.rules)
        get_codec(self.codec)
        if not 0 <= self.prune < 1:
            raise ConfigError(f"export.prune={self.prune} is a share: at least 0 and below 1")
        if self.gptq not in GPTQ:
            raise ConfigError(f"unknown export.gptq={self.gptq!r}{nearest(self.gptq, GPTQ)}")
        if self.gptq != "off" and not any(on_a_grid(s) for s in self._schemes()):
            raise ConfigError(
                f"export.gptq={self.gptq} rounds to grids, and export.scheme={self.scheme} has none: "
                "choose int2 to int8, ternary or ecsqB, or turn gptq off"
            )
        if self.calibration_tokens < 1:
            raise ConfigError(f"export.calibration_tokens={self.calibration_tokens} must be at least 1")
        if self.text < 0:
            raise ConfigError(f"export.text={self.text} must be at least 0 bytes of text")
        if self.damping < 0:
            raise ConfigError(f"export.damping={self.damping} must not be negative")

    def _schemes(self) -> list[Scheme]:
        return [parse_scheme(self.scheme), *(rule.scheme for rule in parse_rules(self.rules))]

    @property
    def name(self) -> str:
        """Name of the artifact inside its run, if nobody gives another."""
        name = self.scheme.replace(":", ".")
        if self.rules:
            name += "-mixed"
        if self.residual.bytes:
            name += "-residual"
        if self.text:
            name += "-text"
        return f"{name}{GPTQ[self.gptq]}+{self.codec}"
