"""The language model: embedding, body, head, and the loss terms of training.

Shapes: B batch, L positions, D width, V vocabulary, N rows (batch × positions).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from niblick.errors import ConfigError
from niblick.model.chunking import ratio_loss
from niblick.model.hnet import HNet, LevelConfig
from niblick.model.layers import BlockConfig
from niblick.model.routers import Routing
from niblick.model.stage import StageConfig

LOGIT_ELEMENTS = 1 << 24
"""The loss never holds more logits than this at once (64 MiB in float32)."""


@dataclass(frozen=True)
class ModelConfig(BlockConfig):
    """A whole model. Without levels it is dense; the values inherited from BlockConfig hold for all stages."""

    vocab_size: int = 260
    levels: tuple[LevelConfig, ...] = ()
    main: StageConfig = field(default_factory=lambda: StageConfig("T9"))
    tie_embeddings: bool = True
    embed_std: float = 0.005
    """Standard deviation of the embedding's initial values."""
    softcap: float = 30.0
    """Logits are softcap · tanh(z / softcap)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.vocab_size <= 65536:
            raise ConfigError(f"vocab_size={self.vocab_size} must be between 2 and 65536: tokens are stored in 16 bits")
        if self.softcap <= 0:
            raise ConfigError(f"softcap={self.softcap} must be positive")
        for stage in self.stages():
            stage.block_config(self)

    def stages(self) -> Iterator[StageConfig]:
        """All stages, from the outside in and out again."""
        for level in self.levels:
            yield level.encoder
        yield self.main
        for level in reversed(self.levels):
            yield level.decoder


@dataclass(frozen=True)
class Losses:
    """Terms of the training loss, scalars in nats."""

    lm: Tensor
    """Mean cross-entropy of the targets, nats per token."""
    ratio: tuple[Tensor, ...]
    """Ratio loss of each level, unweighted: 1 where the router meets its target."""
    total: Tensor
    """What training minimizes."""


class LM(nn.Module):
    """A language model over token ids. Weights in float32; runs in the autocast dtype where one is set."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocab_size, config.width)
        nn.init.normal_(self.embed.weight, std=config.embed_std)
        self.body = HNet(config.levels, config.main, config)
        self.unembed: nn.Linear | None = None
        if not config.tie_embeddings:
            self.unembed = nn.Linear(config.width, config.vocab_size, bias=False)
            nn.init.zeros_(self.unembed.weight)

    def hidden(self, ids_BL: Tensor) -> tuple[Tensor, list[Routing]]:
        """Return the states that the head reads, (B, L, D), and the routing of each level."""
        x_BLD = self.embed(ids_BL)
        device = x_BLD.device.type
        if torch.is_autocast_enabled(device):
            x_BLD = x_BLD.to(torch.get_autocast_dtype(device))
        return self.body(x_BLD)

    def head(self, hidden_ND: Tensor) -> Tensor:
        """Return logits (…, V) in float32 or wider."""
        weight_VD = self.embed.weight if self.unembed is None else self.unembed.weight
        z_NV = F.linear(hidden_ND, weight_VD)
        z_NV = z_NV.to(torch.promote_types(z_NV.dtype, torch.float32))
        return self.config.softcap * torch.tanh(z_NV / self.config.softcap)

    def token_losses(self, hidden_BLD: Tensor, targets_BL: Tensor) -> Tensor:
        """Return the cross-entropy of each target, nats, (B, L) in float32; logits are held a slice at a time."""
        hidden_ND, targets_N = hidden_BLD.flatten(0, 1), targets_BL.flatten()

        def part(hidden_ND: Tensor, targets_N: Tensor) -> Tensor:
            return F.cross_entropy(self.head(hidden_ND), targets_N, reduction="none")

        rows = max(1, LOGIT_ELEMENTS // self.config.vocab_size)
        if len(targets_N) <= rows:
            return part(hidden_ND, targets_N).view_as(targets_BL)
        pieces = zip(hidden_ND.split(rows), targets_N.split(rows), strict=True)
        again = torch.is_grad_enabled()
        losses = [checkpoint(part, h, t, use_reentrant=False) if again else part(h, t) for h, t in pieces]
        return torch.cat(losses).view_as(targets_BL)

    def forward(self, ids_BL: Tensor, targets_BL: Tensor | None = None) -> Tensor | tuple[Losses, list[Routing]]:
        """Return logits (B, L, V); with targets the terms of the training loss instead, and the routings."""
        hidden_BLD, routings = self.hidden(ids_BL)
        if targets_BL is None:
            return self.head(hidden_BLD)
        lm = self.token_losses(hidden_BLD, targets_BL).mean()
        ratio = tuple(
            ratio_loss(r.p_BL, r.boundary_BL, level.target_length, r.length_B)
            for r, level in zip(routings, self.config.levels, strict=True)
        )
        total = lm
        for term, level in zip(ratio, self.config.levels, strict=True):
            total = total + level.ratio_weight * term
        return Losses(lm, ratio, total), routings
