"""Attention inside the rows of a packed sequence by torch's variable-length kernel, where there is one.

The kernel (`torch.nn.attention.varlen`, FlashAttention) takes no mask but the ends of the rows, so that memory grows
with the length and not with its square. It runs on CUDA in bfloat16 and float16; everywhere else stages attend under
a dense mask, which is the reference.

Shapes: L positions, H heads, G key-value heads, K head width, N segments.
"""

from __future__ import annotations

import inspect
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


@cache
def has_kernel() -> bool:
    """Whether this torch has such a kernel, with windows: 2.11 and newer do."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:  # before torch 2.10
        return False
    # In 2.10 it had no windows, and said otherwise that it is causal.
    return "window_size" in inspect.signature(varlen_attn).parameters


class Segments(NamedTuple):
    """Where the rows of a packed sequence lie: segment n is [edges[n], edges[n + 1]), perhaps empty."""

    edge_N: Tensor
    """N + 1 ascending int32, from 0 to the length of the sequence."""
    longest: int
    """No segment is longer. A bound that few batches change, as compiled stages are compiled anew for each."""


def available(like: Tensor) -> bool:
    """Whether the kernel runs where `like` is, in the dtype that its attention would have."""
    if like.device.type != "cuda" or torch.version.hip is not None or not has_kernel():
        return False
    dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else like.dtype
    if dtype not in (torch.bfloat16, torch.float16) or not torch.backends.cuda.is_flash_attention_available():
        return False
    return torch.cuda.get_device_capability(like.device) >= (8, 0)


def fits(head_width: int) -> bool:
    """Whether the kernel has this head width."""
    return head_width % 8 == 0 and head_width <= 256


def make_segments(end_B: Tensor, size: int, longest: int) -> Segments:
    """Return the segments of B rows, which end at `end_B` and have at most `longest` positions each.

    What fills the sequence up to `size` (at most B · longest) becomes B segments of its own: every position must be in
    one, as the kernel leaves others unwritten.
    """
    step_B = torch.arange(1, len(end_B) + 1, device=end_B.device) * longest
    filled_B = (end_B[-1] + step_B).clamp_max(size)
    return Segments(F.pad(torch.cat((end_B, filled_B)), (1, 0)).to(torch.int32), min(longest, size))


def attend_segments(q_1HLK: Tensor, k_1GLK: Tensor, v_1GLK: Tensor, segments: Segments, window: int) -> Tensor:
    """Causal attention inside segments; each position sees `window` of them, its own included (0: all). (1, H, L, K).

    Computed in the dtype of `v_1GLK`: autocast knows nothing of the kernel.
    """
    from torch.nn.attention.varlen import varlen_attn  # here: its import takes longer than many a command

    shared = q_1HLK.shape[1] // k_1GLK.shape[1]
    q_LHK, k_LHK, v_LHK = (
        x_1HLK[0].transpose(0, 1).to(v_1GLK.dtype).contiguous()
        for x_1HLK in (q_1HLK, k_1GLK.repeat_interleave(shared, 1), v_1GLK.repeat_interleave(shared, 1))
    )
    edge_N, longest = segments
    seen = (window - 1 if window else -1, 0)
    mixed_LHK = varlen_attn(q_LHK, k_LHK, v_LHK, edge_N, edge_N, longest, longest, window_size=seen)
    assert isinstance(mixed_LHK, Tensor)
    return mixed_LHK.transpose(0, 1)[None]
