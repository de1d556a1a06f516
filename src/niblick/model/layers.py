"""Blocks: attention and causal convolution, each perhaps with an MLP, and what layouts call them.

    T  attention + MLP      C  convolution + MLP      M  Mamba-2 + MLP (in `mamba`)
    t  attention alone      c  convolution alone      m  Mamba-2 alone

Weights stay float32. The residual stream has the dtype of the input (bfloat16 under autocast), so every vector that
scales it is cast to the stream, never the other way round.

Every block has two faces with one set of weights: sequences, and `step` with an explicit state, one position at a time.

Shapes: B batch, L positions, D width, H heads, G key-value heads, K head width; in steps R rows that take part (of B),
T cached positions, J inputs that a convolution still needs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from niblick.errors import ConfigError, expect_free
from niblick.model import blocked
from niblick.model.context import Context, Rope, StepContext, rotate
from niblick.model.conv import CausalConv, ConvState
from niblick.model.fused import rms_norm
from niblick.model.mamba import MambaBlock
from niblick.model.mlp import add_mlp, add_scaled, new_mlp, new_norm, new_scale
from niblick.model.model_config import BLOCK_LETTERS, BlockConfig
from niblick.model.varlen import attend_segments


@dataclass
class AttentionState:
    """Keys and values so far; with a window of W positions a ring of W slots, else slots that grow by doubling."""

    k_BGTK: Tensor
    v_BGTK: Tensor
    grows: bool = True

    def make_room(self, slots: int) -> None:
        """Grow to so many slots, where it is no ring and has fewer."""
        short = slots - self.k_BGTK.shape[2]
        if self.grows and short > 0:
            self.k_BGTK, self.v_BGTK = (F.pad(x, (0, 0, 0, short)) for x in (self.k_BGTK, self.v_BGTK))


class Attention(nn.Module):
    """Causal attention: q and k normalized per head, rotary positions, a learned gain on q, grouped keys and values.

    Norms and gain may be switched off.
    """

    def __init__(self, config: BlockConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.window = config.heads, config.kv_heads, config.window
        self.head_width = config.width // config.heads
        kv_width = self.kv_heads * self.head_width
        self.q = nn.Linear(config.width, config.width, bias=False)
        self.k = nn.Linear(config.width, kv_width, bias=False)
        self.v = nn.Linear(config.width, kv_width, bias=False)
        self.out = nn.Linear(config.width, config.width, bias=False)
        self.normalizes = config.qk_norm
        self.q_gain = nn.Parameter(torch.full((self.heads,), config.qk_gain)) if config.qk_gain else None
        nn.init.zeros_(self.out.weight)

    def _qkv(self, x_BLD: Tensor, rope: Rope, last: int | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, of the last positions only where `last` is given; keys and values."""
        asking_BQD, q_rope = x_BLD, rope
        if last is not None:
            asking_BQD, q_rope = x_BLD[:, -last:], Rope(rope.cos[-last:], rope.sin[-last:])
        q_BHQK, k_BGLK, v_BGLK = [
            y_BLD.unflatten(-1, (-1, self.head_width)).transpose(1, 2)
            for y_BLD in (self.q(asking_BQD), self.k(x_BLD), self.v(x_BLD))
        ]
        if self.normalizes:
            q_BHQK, k_BGLK = rms_norm(q_BHQK), rms_norm(k_BGLK)
        q_BHQK, k_BGLK = rotate(q_BHQK, q_rope), rotate(k_BGLK, rope)
        if self.q_gain is not None:
            q_BHQK = q_BHQK * self.q_gain.to(q_BHQK.dtype)[:, None, None]
        return q_BHQK, k_BGLK, v_BGLK

    def _mix(self, q_BHLK: Tensor, k_BGTK: Tensor, v_BGTK: Tensor, mask: Tensor | None) -> Tensor:
        if mask is None and blocked.fits(q_BHLK, k_BGTK):
            mixed_BHLK = blocked.attend(q_BHLK, k_BGTK, v_BGTK)
        else:
            mixed_BHLK = F.scaled_dot_product_attention(
                q_BHLK, k_BGTK, v_BGTK, mask, is_causal=mask is None, enable_gqa=self.kv_heads != self.heads
            )
        return self.out(mixed_BHLK.transpose(1, 2).flatten(2))

    def forward(self, x_BLD: Tensor, context: Context) -> Tensor:
        """Attend; returns (B, L, D), or only the last positions where the context wants no more."""
        q_BHLK, k_BGLK, v_BGLK = self._qkv(x_BLD, context.rope, context.last)
        if context.segments is None:
            mask = context.mask_LL
            return self._mix(q_BHLK, k_BGLK, v_BGLK, mask if mask is None else mask[-q_BHLK.shape[2] :])
        mixed_BHLK = attend_segments(q_BHLK, k_BGLK, v_BGLK, context.segments, self.window)
        return self.out(mixed_BHLK.transpose(1, 2).flatten(2))

    def new_state(self, rows: int, like: Tensor) -> AttentionState:
        """Return the state before the first position, for `rows` rows, in the dtype and on the device of `like`."""
        empty = like.new_zeros(rows, self.kv_heads, self.window or 16, self.head_width)
        return AttentionState(empty, empty.clone(), grows=not self.window)

    def step(self, x_RD: Tensor, state: AttentionState, context: StepContext) -> Tensor:
        """One position of the rows `context.rows_R`; updates `state` in place."""
        q_RH1K, k_RG1K, v_RG1K = self._qkv(x_RD[:, None], context.rope)
        slot_R = context.place_R % self.window if self.window else context.place_R
        used = state.k_BGTK.shape[2]
        if not torch.compiler.is_compiling():  # which knows no values: whoever compiles has made room
            last = int(context.place_R.max())
            if last >= used:
                state.make_room(max(2 * used, last + 1))
            used = min(last + 1, state.k_BGTK.shape[2])
        state.k_BGTK[context.rows_R, :, slot_R] = k_RG1K[:, :, 0]
        state.v_BGTK[context.rows_R, :, slot_R] = v_RG1K[:, :, 0]
        seen_RT = torch.arange(used, device=x_RD.device) <= context.place_R[:, None]
        k_RGTK, v_RGTK = state.k_BGTK[:, :, :used], state.v_BGTK[:, :, :used]
        if len(context.rows_R) < len(k_RGTK):  # else all rows take part, in order, and nothing needs copying
            k_RGTK, v_RGTK = k_RGTK[context.rows_R], v_RGTK[context.rows_R]
        return self._mix(q_RH1K, k_RGTK, v_RGTK, seen_RT[:, None, None])[:, 0]


class Block(Protocol):
    """What a block must offer: built from a BlockConfig, it maps the stream to the stream.

    `x0_BLD` is the stage's normalized input, `context` what else is known of the sequence. A block is causal: its
    output at position t depends on no input after t. Where `context.last` is set it may leave out the positions before
    the last so many; an attribute `reach`, the number of earlier inputs that an output depends on (None, or no such
    attribute: all of them), lets scoring leave out inputs that nothing needs; `by_segments = True` says that the block
    keeps packed rows apart by `context.place_L` and `context.segments`, and needs no mask. `new_state` and `step` are
    its face for generation: `step` gets one position of the rows `context.rows_R` and updates their part of the state
    in place. A block without these two trains and scores, but does not generate.
    """

    def __init__(self, config: BlockConfig) -> None: ...

    def __call__(self, x_BLD: Tensor, x0_BLD: Tensor, context: Context) -> Tensor: ...

    def new_state(self, rows: int, like: Tensor) -> Any: ...

    def step(self, x_RD: Tensor, x0_RD: Tensor, state: Any, context: StepContext) -> Tensor: ...


class TransformerBlock(nn.Module):
    """The baseline's block: mix with the stage's input, attention, MLP, each branch scaled per channel.

    Letter `T`; `t` is the same without the MLP.
    """

    by_segments = True

    def __init__(self, config: BlockConfig, mlp: bool = True) -> None:
        super().__init__()
        self.attn = Attention(config)
        self.mlp = new_mlp(config) if mlp else None
        self.attn_scale = new_scale(config)
        self.mlp_scale = new_scale(config) if mlp else None
        self.attn_norm = new_norm(config)
        self.mlp_norm = new_norm(config) if mlp else None
        mix = torch.stack((torch.ones(config.width), torch.zeros(config.width)))
        self.resid_mix = nn.Parameter(mix) if config.residual_mix else None
        self.reach = config.window - 1 if config.window else None
        self.parallel = config.parallel

    def _mixed(self, x_BLD: Tensor, x0_BLD: Tensor) -> Tensor:
        if self.resid_mix is None:
            return x_BLD
        mix_2D = self.resid_mix.to(x_BLD.dtype)
        return torch.addcmul(x_BLD * mix_2D[0], x0_BLD, mix_2D[1])

    def forward(self, x_BLD: Tensor, x0_BLD: Tensor, context: Context) -> Tensor:
        x_BLD = self._mixed(x_BLD, x0_BLD)
        mixed_BLD = self.attn(self.attn_norm(x_BLD), context)
        if context.last is not None:
            x_BLD = x_BLD[:, -context.last :]
        return self._after(x_BLD, mixed_BLD)

    def _after(self, x_BLD: Tensor, mixed_BLD: Tensor) -> Tensor:
        """Add attention and MLP to the stream."""
        sum_BLD = add_scaled(x_BLD, mixed_BLD, self.attn_scale)
        return add_mlp(sum_BLD, self.mlp, self.mlp_norm, self.mlp_scale, x_BLD if self.parallel else None)

    def new_state(self, rows: int, like: Tensor) -> AttentionState:
        """Return the state before the first position."""
        return self.attn.new_state(rows, like)

    def step(self, x_RD: Tensor, x0_RD: Tensor, state: AttentionState, context: StepContext) -> Tensor:
        """One position of the rows `context.rows_R`; updates `state` in place."""
        x_RD = self._mixed(x_RD, x0_RD)
        return self._after(x_RD, self.attn.step(self.attn_norm(x_RD), state, context))


class ConvBlock(nn.Module):
    """norm(x + gelu(conv x)) with a causal convolution of each channel by itself (TinyHNet), then perhaps an MLP.

    Letter `c` without the MLP, `C` with it.
    """

    by_segments = True

    def __init__(self, config: BlockConfig, mlp: bool = False) -> None:
        super().__init__()
        self.conv = CausalConv(config.width, config.conv_kernel)
        self.mlp = new_mlp(config) if mlp else None
        self.mlp_scale = new_scale(config) if mlp else None
        self.norm = new_norm(config)
        self.mlp_norm = new_norm(config) if mlp else None
        self.reach = config.conv_kernel - 1

    def _after(self, x_BLD: Tensor, conv_BLD: Tensor) -> Tensor:
        return add_mlp(self.norm(x_BLD + F.gelu(conv_BLD)), self.mlp, self.mlp_norm, self.mlp_scale)

    def forward(self, x_BLD: Tensor, x0_BLD: Tensor, context: Context) -> Tensor:
        return self._after(x_BLD, self.conv(x_BLD, context.place_L))

    def new_state(self, rows: int, like: Tensor) -> ConvState:
        """Return the state before the first position."""
        return self.conv.new_state(rows, like)

    def step(self, x_RD: Tensor, x0_RD: Tensor, state: ConvState, context: StepContext) -> Tensor:
        """One position of the rows `context.rows_R`; updates `state` in place."""
        return self._after(x_RD, self.conv.step(x_RD, state, context.rows_R))


BLOCKS: dict[str, Callable[[BlockConfig], nn.Module]] = {
    "T": TransformerBlock,
    "t": partial(TransformerBlock, mlp=False),
    "C": partial(ConvBlock, mlp=True),
    "c": ConvBlock,
    "M": partial(MambaBlock, mlp=True),
    "m": partial(MambaBlock, mlp=False),
}
"""Block of each layout letter."""


def register_block(letter: str, block: Callable[[BlockConfig], nn.Module]) -> None:
    """Make `letter` available in layouts: `block(config)` builds a module that follows `Block`.

    Raises ConfigError if the letter is no single letter or is taken by another block.
    """
    if len(letter) != 1 or not letter.isalpha():
        raise ConfigError(f"a block is named by one letter, not {letter!r}")
    expect_free("layout letter", BLOCKS, letter, block, ConfigError)
    BLOCKS[letter] = block
    BLOCK_LETTERS.add(letter)
