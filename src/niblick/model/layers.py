"""Attention, MLP and the transformer block of the challenge baseline, letter `T` in layouts.

Weights stay float32. The residual stream has the dtype of the input (bfloat16 under autocast), so every vector that
scales it is cast to the stream, never the other way round.

Shapes: B batch, L positions, D width, H heads, G key-value heads, K head width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from niblick.errors import ConfigError


@dataclass(frozen=True)
class BlockConfig:
    """What all blocks of a model have in common, unless a stage says otherwise. Defaults: the challenge baseline."""

    width: int = 512
    heads: int = 8
    kv_heads: int = 4
    mlp_mult: float = 2.0
    """Hidden units of the MLP, as a multiple of the width."""
    rope_base: float = 10_000.0
    qk_gain: float = 1.5
    """Initial value of the learned gain on normalized queries, per head."""

    def __post_init__(self) -> None:
        for name in ("width", "heads", "kv_heads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)} must be at least 1")
        if self.width % self.heads:
            fits = [h for h in range(1, self.width + 1) if self.width % (2 * h) == 0]
            near = min(fits, key=lambda h: abs(h - self.heads), default=1)
            raise ConfigError(f"heads={self.heads} do not divide width={self.width}: choose heads={near}, say")
        if (self.width // self.heads) % 2:
            raise ConfigError(
                f"width={self.width} over heads={self.heads} gives heads of odd width {self.width // self.heads}, "
                "and rotary positions turn pairs: choose an even head width"
            )
        if self.heads % self.kv_heads:
            raise ConfigError(f"kv_heads={self.kv_heads} do not divide heads={self.heads}")
        if self.mlp_mult <= 0:
            raise ConfigError(f"mlp_mult={self.mlp_mult} must be positive")


class Rope(NamedTuple):
    """Cosines and sines of the rotary angles, each of shape (L, K/2), in the dtype of the stream."""

    cos: Tensor
    sin: Tensor


def rope_table(length: int, head_width: int, base: float, like: Tensor) -> Rope:
    """Return the rotary angles of positions 0…length−1, on the device and in the dtype of `like`."""
    rate = base ** (-torch.arange(0, head_width, 2, dtype=torch.float32, device=like.device) / head_width)
    angle = torch.outer(torch.arange(length, dtype=torch.float32, device=like.device), rate)
    return Rope(angle.cos().to(like.dtype), angle.sin().to(like.dtype))


def rotate(x_BHLK: Tensor, rope: Rope) -> Tensor:
    """Turn the halves (x1, x2) of each head to (x1·cos + x2·sin, −x1·sin + x2·cos), as published."""
    x1, x2 = x_BHLK.chunk(2, dim=-1)
    return torch.cat((x1 * rope.cos + x2 * rope.sin, x2 * rope.cos - x1 * rope.sin), dim=-1)


def rms_norm(x_D: Tensor) -> Tensor:
    """Divide by the root mean square over the last dimension. No weights, as everywhere in the baseline."""
    return F.rms_norm(x_D, (x_D.shape[-1],))


class Attention(nn.Module):
    """Causal attention: q and k normalized per head, rotary positions, a learned gain on q, grouped keys and values."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads = config.heads, config.kv_heads
        self.head_width = config.width // config.heads
        kv_width = self.kv_heads * self.head_width
        self.q = nn.Linear(config.width, config.width, bias=False)
        self.k = nn.Linear(config.width, kv_width, bias=False)
        self.v = nn.Linear(config.width, kv_width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)
        self.q_gain = nn.Parameter(torch.full((self.heads,), config.qk_gain))
        nn.init.zeros_(self.out.weight)

    def forward(self, x_BLD: Tensor, rope: Rope) -> Tensor:
        B, L, D = x_BLD.shape
        q_BHLK = self.q(x_BLD).view(B, L, self.heads, self.head_width).transpose(1, 2)
        k_BGLK = self.k(x_BLD).view(B, L, self.kv_heads, self.head_width).transpose(1, 2)
        v_BGLK = self.v(x_BLD).view(B, L, self.kv_heads, self.head_width).transpose(1, 2)
        gain_H11 = self.q_gain.to(q_BHLK.dtype)[:, None, None]
        q_BHLK = rotate(rms_norm(q_BHLK), rope) * gain_H11
        k_BGLK = rotate(rms_norm(k_BGLK), rope)
        grouped = self.kv_heads != self.heads
        mixed_BHLK = F.scaled_dot_product_attention(q_BHLK, k_BGLK, v_BGLK, is_causal=True, enable_gqa=grouped)
        return self.out(mixed_BHLK.transpose(1, 2).reshape(B, L, D))


class MLP(nn.Module):
    """Two maps with relu² between them."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        hidden = round(config.mlp_mult * config.width)
        self.up = nn.Linear(config.width, hidden, bias=False)
        self.down = nn.Linear(hidden, config.width, bias=False)
        nn.init.zeros_(self.down.weight)

    def forward(self, x_BLD: Tensor) -> Tensor:
        return self.down(F.relu(self.up(x_BLD)).square())


class Block(Protocol):
    """What a block must offer: built from a BlockConfig, it maps the stream to the stream.

    `x0_BLD` is the stage's normalized input, `rope` the rotary table for this length. A block is causal: its output
    at position t depends on no input after t.
    """

    def __init__(self, config: BlockConfig) -> None: ...

    def __call__(self, x_BLD: Tensor, x0_BLD: Tensor, rope: Rope) -> Tensor: ...


class TransformerBlock(nn.Module):
    """The baseline's block: mix with the stage's input, attention, MLP, each branch scaled per channel."""

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        width = config.width
        self.attn = Attention(config)
        self.mlp = MLP(config)
        self.attn_scale = nn.Parameter(torch.ones(width))
        self.mlp_scale = nn.Parameter(torch.ones(width))
        self.resid_mix = nn.Parameter(torch.stack((torch.ones(width), torch.zeros(width))))

    def forward(self, x_BLD: Tensor, x0_BLD: Tensor, rope: Rope) -> Tensor:
        dtype = x_BLD.dtype
        mix_2D = self.resid_mix.to(dtype)
        x_BLD = torch.addcmul(x_BLD * mix_2D[0], x0_BLD, mix_2D[1])
        x_BLD = torch.addcmul(x_BLD, self.attn(rms_norm(x_BLD), rope), self.attn_scale.to(dtype))
        return torch.addcmul(x_BLD, self.mlp(rms_norm(x_BLD)), self.mlp_scale.to(dtype))


BLOCKS: dict[str, Callable[[BlockConfig], nn.Module]] = {"T": TransformerBlock}
"""Block of each layout letter."""


def register_block(letter: str, block: Callable[[BlockConfig], nn.Module]) -> None:
    """Make `letter` available in layouts: `block(config)` builds a module that follows `Block`.

    Raises ConfigError if the letter is no single letter or is taken by another block.
    """
    if len(letter) != 1 or not letter.isalpha():
        raise ConfigError(f"a block is named by one letter, not {letter!r}")
    if BLOCKS.get(letter, block) is not block:
        raise ConfigError(f"layout letter {letter!r} is taken: choose another (taken: {''.join(sorted(BLOCKS))})")
    BLOCKS[letter] = block
