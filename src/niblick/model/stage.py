"""A stage: a stack of blocks at one resolution, between two norms, with U-net skips, written as a layout string.

Shapes: B batch, L positions, D width, S skips.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from niblick.errors import ConfigError
from niblick.model.layers import BLOCKS, BlockConfig, rms_norm, rope_table


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
        if match[1] not in BLOCKS:
            raise ConfigError(
                f"layout {layout!r} names the unknown block {match[1]!r} (character {at + 1}): "
                f"known letters are {', '.join(sorted(BLOCKS))}"
            )
        blocks += match[1] * int(match[2] or 1)
        at = match.end()
    if not blocks:
        raise ConfigError("an empty layout has no blocks: write a letter and a count, as in 'T3'")
    return blocks


@dataclass(frozen=True)
class StageConfig:
    """A stack of blocks. A field left None takes the model's value."""

    layout: str
    heads: int | None = None
    kv_heads: int | None = None
    mlp_mult: float | None = None

    def __post_init__(self) -> None:
        parse_layout(self.layout)

    def block_config(self, model: BlockConfig) -> BlockConfig:
        """Return the config of this stage's blocks inside a model with the given defaults."""
        values = {f.name: getattr(model, f.name) for f in fields(BlockConfig)}
        values |= {k: v for k in values if (v := getattr(self, k, None)) is not None}
        return BlockConfig(**values)


class Stage(nn.Module):
    """norm → blocks → norm. The first ⌊n/2⌋ blocks push their output, the others add what was pushed, last first."""

    def __init__(self, config: StageConfig, model: BlockConfig) -> None:
        super().__init__()
        block = config.block_config(model)
        letters = parse_layout(config.layout)
        self.blocks = nn.ModuleList(BLOCKS[letter](block) for letter in letters)
        self.skips = len(letters) // 2
        self.skip_weights = nn.Parameter(torch.ones(self.skips, block.width)) if self.skips else None
        self.head_width, self.rope_base = block.width // block.heads, block.rope_base

    def forward(self, x_BLD: Tensor) -> Tensor:
        rope = rope_table(x_BLD.shape[1], self.head_width, self.rope_base, like=x_BLD)
        x_BLD = x0_BLD = rms_norm(x_BLD)
        pushed: list[Tensor] = []
        for i, block in enumerate(self.blocks):
            if i >= self.skips and pushed:
                assert self.skip_weights is not None
                weight_D = self.skip_weights[i - self.skips].to(x_BLD.dtype)
                x_BLD = torch.addcmul(x_BLD, pushed.pop(), weight_D)
            x_BLD = block(x_BLD, x0_BLD, rope)
            if i < self.skips:
                pushed.append(x_BLD)
        return rms_norm(x_BLD)
