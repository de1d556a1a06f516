"""H-Net: levels of encoder, router and decoder around a main stage that sees chunks (study 1; paper, Section 2).

The body is a list, not a recursion: down through the levels, the main stage, up again. Chunks are never truncated:
the longest row of the batch counts, rounded up to a bucket so that few shapes occur.

Shapes: B batch, L positions, C chunks, D width.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

from niblick.errors import ConfigError, nearest
from niblick.model.chunking import confidence, expand, scale_gradient, select, smooth, straight_through
from niblick.model.layers import BlockConfig
from niblick.model.routers import ROUTERS, Routing, route
from niblick.model.stage import Stage, StageConfig


@dataclass(frozen=True)
class LevelConfig:
    """One level of chunking: what stands around the router, and what the router is asked for."""

    encoder: StageConfig = field(default_factory=lambda: StageConfig("T2"))
    decoder: StageConfig = field(default_factory=lambda: StageConfig("T2"))
    router: str = "cosine"
    target_length: float = 6.0
    """N of the ratio loss: positions per chunk that training aims at."""
    ratio_weight: float = 0.03
    """λ: weight of the ratio loss in the training loss."""
    lr_diff: float = 0.75
    """d: gradients are scaled by d where they enter the level from its decoder, and by 1/d where they leave its inside
    towards the encoder."""
    bucket: int = 16
    """Chunk counts are rounded up to a multiple of this."""

    def __post_init__(self) -> None:
        if self.router not in ROUTERS:
            raise ConfigError(f"unknown router {self.router!r}{nearest(self.router, ROUTERS)}")
        if self.target_length <= 1:
            raise ConfigError(f"target_length={self.target_length} must be above 1: a chunk of 1 position is no chunk")
        if self.lr_diff <= 0:
            raise ConfigError(f"lr_diff={self.lr_diff} must be positive")
        if self.bucket < 1:
            raise ConfigError(f"bucket={self.bucket} must be at least 1")


class Level(nn.Module):
    """Encoder, router, residual projection and decoder of one level. `down` and `up` are the two halves of its work."""

    def __init__(self, config: LevelConfig, model: BlockConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Stage(config.encoder, model)
        self.router = ROUTERS[config.router](model.width)
        self.residual = nn.Linear(model.width, model.width, bias=False)
        self.decoder = Stage(config.decoder, model)
        nn.init.zeros_(self.residual.weight)

    def down(self, x_BLD: Tensor, length_B: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Routing]:
        """Encode and chunk. Returns the encoder's output, the chunks (B, C, D), their starts (B, C), the routing."""
        encoded_BLD = self.encoder(x_BLD)
        routing = route(self.router, encoded_BLD, length_B)
        longest = int(routing.chunks_B().max())
        bucket = self.config.bucket
        chunks = min(-(-longest // bucket) * bucket, x_BLD.shape[1])
        chunks_BCD, start_BC = select(encoded_BLD, routing.boundary_BL, chunks)
        return encoded_BLD, scale_gradient(chunks_BCD, 1 / self.config.lr_diff), start_BC, routing

    def dechunk(self, chunks_BCD: Tensor, start_BC: Tensor, routing: Routing) -> Tensor:
        """Smooth the chunk states and give each position its chunk's: (B, C, D) to (B, L, D)."""
        p_BC = routing.p_BL.gather(1, start_BC)
        return expand(smooth(chunks_BCD, p_BC), routing.boundary_BL)

    def up(self, chunks_BCD: Tensor, encoded_BLD: Tensor, start_BC: Tensor, routing: Routing) -> Tensor:
        """Dechunk, add the encoder's output through the residual projection, decode. Returns (B, L, D)."""
        spread_BLD = self.dechunk(chunks_BCD, start_BC, routing)
        gate_BL1 = straight_through(confidence(routing.p_BL, routing.boundary_BL))[:, :, None]
        x_BLD = (gate_BL1 * spread_BLD).to(encoded_BLD.dtype) + self.residual(encoded_BLD)
        return self.decoder(scale_gradient(x_BLD, self.config.lr_diff))


class HNet(nn.Module):
    """Levels from the outermost in, and the main stage. Without levels it is the main stage alone: a dense model."""

    def __init__(self, levels: tuple[LevelConfig, ...], main: StageConfig, model: BlockConfig) -> None:
        super().__init__()
        self.levels = nn.ModuleList(Level(level, model) for level in levels)
        self.main = Stage(main, model)

    def forward(self, x_BLD: Tensor) -> tuple[Tensor, list[Routing]]:
        """Return hidden states (B, L, D) and the routing of each level, outermost first."""
        length_B: Tensor | None = None
        saved: list[tuple[Tensor, Tensor, Routing]] = []
        for level in self.levels:
            encoded_BLD, x_BLD, start_BC, routing = level.down(x_BLD, length_B)  # type: ignore[operator]
            saved.append((encoded_BLD, start_BC, routing))
            length_B = routing.chunks_B()
        x_BLD = self.main(x_BLD)
        for level, (encoded_BLD, start_BC, routing) in zip(reversed(self.levels), reversed(saved), strict=True):
            x_BLD = level.up(x_BLD, encoded_BLD, start_BC, routing)  # type: ignore[operator]
        return x_BLD, [routing for _, _, routing in saved]
