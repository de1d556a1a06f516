"""Causal attention in blocks, forward and backward, against torch's own."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from measure import Row, compare
from niblick.model.blocked import attend


def bench_attention(quick: bool) -> list[Row]:
    """Windows of 256 at two heads over one, and of 512 at eight over four; in both dtypes."""
    shapes = [(2, 2, 1, 70, 16)] if quick else [(16, 2, 1, 256, 64), (8, 8, 4, 512, 64)]
    dtypes = (torch.bfloat16, torch.float32)
    return [row(shape, dtype, 3 if quick else 15) for shape in shapes for dtype in dtypes]


def row(shape: tuple[int, int, int, int, int], dtype: torch.dtype, repeats: int) -> Row:
    """One shape (rows, heads, key-value heads, positions, head width) in one dtype, once both agree."""
    B, H, G, L, K = shape
    generator = torch.Generator().manual_seed(0)
    q, k, v, upstream = (torch.randn(B, L, n, K, generator=generator).to(dtype).transpose(1, 2) for n in (H, G, G, H))
    for x in (q, k, v):
        x.requires_grad_()

    def torchs() -> torch.Tensor:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=H != G)

    close = 3e-2 if dtype == torch.bfloat16 else 1e-4
    torch.testing.assert_close(attend(q, k, v), torchs(), rtol=close, atol=close)
    return compare(
        f"attention, {B}×{L}, {H} heads of {K} over {G}, {str(dtype).removeprefix('torch.')}, forward + backward",
        lambda: attend(q, k, v).backward(upstream),
        lambda: torchs().backward(upstream),
        peer_name="torch's scaled_dot_product_attention",
        repeats=repeats,
    )
