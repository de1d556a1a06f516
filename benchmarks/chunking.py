"""`smooth`, forward and backward, against the package h-net-dynamic-chunking and against a loop over chunks."""

from __future__ import annotations

import torch
from assoc_scan import AssocScan

from measure import Row, compare
from niblick.model.chunking import P_EPS, smooth


def bench_smooth(quick: bool) -> list[Row]:
    """B=16, C=256, D=512 in float32: the moving average of H-Net's dechunk layer."""
    B, C, D = (4, 64, 64) if quick else (16, 256, 512)
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(B, C, D, generator=generator, requires_grad=True)
    p = torch.rand(B, C, generator=generator).requires_grad_()
    upstream = torch.randn(B, C, D, generator=generator)
    # What DynamicSequenceChunker.upsample of h-net-dynamic-chunking runs: its gates are 1 − p, its inputs p·z.
    scan = AssocScan(use_accelerated=False)
    first = torch.arange(C) == 0

    def package() -> torch.Tensor:
        gain = p.clamp(P_EPS, 1 - P_EPS).masked_fill(first, 1.0)
        return scan(1 - gain, z * gain[..., None])

    def loop() -> torch.Tensor:
        gain = p.clamp(P_EPS, 1 - P_EPS)[..., None]
        states = [z[:, 0]]
        for t in range(1, C):
            states.append(gain[:, t] * z[:, t] + (1 - gain[:, t]) * states[-1])
        return torch.stack(states, 1)

    for peer in (package, loop):
        torch.testing.assert_close(smooth(z, p), peer(), rtol=1e-4, atol=1e-4)
    shape = f"B={B}, C={C}, D={D}, float32, forward + backward"
    return [
        compare(
            f"smooth, {shape}",
            lambda: smooth(z, p).backward(upstream),
            lambda peer=peer: peer().backward(upstream),
            peer_name=peer_name,
            repeats=3 if quick else 15,
        )
        for peer, peer_name in ((package, "h-net-dynamic-chunking"), (loop, "loop over chunks"))
    ]
