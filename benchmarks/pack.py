"""Seconds to pack a 17.5-million-parameter model: niblick against the plain published way; and GPTQ by itself.

The plain way is what the published scripts do: torch.quantile over each matrix, then zlib over `torch.save` of a
dictionary. Both do the same work to the same codes; the compression, which takes most of the time, is the same zlib.
GPTQ's peer is its recursion as published but for the blocks: every column corrects all that come after it.
"""

from __future__ import annotations

import io
import tempfile
import zlib
from pathlib import Path

import torch

from measure import Row, compare
from niblick.artifact.container import write_artifact
from niblick.pack.gptq import DAMPING, gptq_codes
from niblick.pack.grid import Grid, fit_grid
from niblick.pack.published import CLIP_QUANTILE, CONTROL_PATTERNS, KEEP_ELEMENTS
from niblick.pack.quantize import pack
from niblick.pack.schemes import parse_scheme


def model_weights(blocks: int = 9, width: int = 512) -> dict[str, torch.Tensor]:
    """Return weights with the shapes of study 1's byte260 H-Net (17.5 million at 9 blocks), spread as trained ones."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * 0.3

    state = {"embed.weight": normal(260, width)}
    for i in range(blocks):
        for name, rows, columns in (
            ("attn.q", width, width),
            ("attn.k", width // 2, width),
            ("attn.v", width // 2, width),
            ("attn.out", width, width),
            ("mlp.up", 2 * width, width),
            ("mlp.down", width, 2 * width),
        ):
            state[f"body.main.blocks.{i}.{name}.weight"] = normal(rows, columns)
        for name in ("attn_scale", "mlp_scale"):
            state[f"body.main.blocks.{i}.{name}"] = normal(width)
        state[f"body.main.blocks.{i}.resid_mix"] = normal(2, width)
    for name in ("router.q", "router.k", "residual"):
        state[f"body.levels.0.{name}.weight"] = normal(width, width)
    return state


def plain_codes(state: dict[str, torch.Tensor]) -> dict[str, tuple[torch.Tensor, ...]]:
    """Quantize the plain way: a sort of every row by torch.quantile."""
    out: dict[str, tuple[torch.Tensor, ...]] = {}
    for name, tensor in state.items():
        if tensor.numel() <= KEEP_ELEMENTS:
            out[name] = (tensor if any(pattern in name for pattern in CONTROL_PATTERNS) else tensor.half(),)
            continue
        clip = torch.quantile(tensor.abs(), CLIP_QUANTILE, dim=1)[:, None]
        scale = (clip / 127).clamp_min(1 / 127)
        codes = (tensor.clamp(-clip, clip) / scale).round().clamp(-127, 127).to(torch.int8)
        out[name] = (codes, scale[:, 0].half())
    return out


def plain_file(state: dict[str, torch.Tensor]) -> bytes:
    """Return the plain way's file: zlib over torch.save of codes and scales."""
    buffer = io.BytesIO()
    torch.save(plain_codes(state), buffer)
    return zlib.compress(buffer.getvalue(), 9)


def random_hessian(columns: int, seed: int = 0) -> torch.Tensor:
    """Return the Hessian of correlated random inputs, (C, C)."""
    generator = torch.Generator().manual_seed(seed)
    x_NC = torch.randn(4 * columns, columns, generator=generator) @ torch.randn(columns, columns, generator=generator)
    return x_NC.t() @ x_NC / len(x_NC)


def plain_gptq(weights_RC: torch.Tensor, grid: Grid, hessian_CC: torch.Tensor) -> torch.Tensor:
    """Return codes by GPTQ column by column, without blocks."""
    order_C = hessian_CC.diagonal().argsort(descending=True)
    moved_RC, step_RC = weights_RC[:, order_C].clone(), grid.step_RC()
    damped_CC = hessian_CC[order_C][:, order_C].clone()
    damped_CC.diagonal().add_(DAMPING * hessian_CC.diagonal().mean())
    inverse_CC = torch.cholesky_inverse(torch.linalg.cholesky(damped_CC))
    upper_CC = torch.linalg.cholesky(inverse_CC, upper=True)
    codes_RC = torch.empty_like(moved_RC)
    for j in range(len(order_C)):
        code_R1 = (moved_RC[:, j : j + 1] / step_RC).round().clamp(-grid.levels, grid.levels)
        error_R1 = (moved_RC[:, j : j + 1] - code_R1 * step_RC) / upper_CC[j, j]
        moved_RC[:, j + 1 :] -= error_R1 * upper_CC[j, j + 1 :]
        codes_RC[:, order_C[j]] = code_R1[:, 0]
    return codes_RC


def bench_gptq(state: dict[str, torch.Tensor], millions: float, quick: bool) -> Row:
    """Round all matrices to int6 with given Hessians."""
    matrices = [w for w in state.values() if w.ndim == 2 and w.numel() > KEEP_ELEMENTS]
    hessians = {columns: random_hessian(columns) for columns in {w.shape[1] for w in matrices}}
    jobs = [(w, fit_grid(w, parse_scheme("int6")), hessians[w.shape[1]]) for w in matrices]
    return compare(
        f"pack: GPTQ int6 of {millions:.1f} M parameters, Hessians given",
        lambda: [gptq_codes(*job) for job in jobs],
        lambda: [plain_gptq(*job) for job in jobs],
        peer_name="GPTQ column by column, without blocks",
        repeats=1 if quick else 3,
    )


def bench_pack(quick: bool) -> list[Row]:
    """Quantize, and go all the way to the file; `quick`: one block instead of nine."""
    state = model_weights(blocks=1 if quick else 9)
    millions = sum(tensor.numel() for tensor in state.values()) / 1e6
    with tempfile.TemporaryDirectory() as folder:
        ours, peer = Path(folder, "a.nib"), Path(folder, "a.ptz")
        return [
            compare(
                f"pack: quantize {millions:.1f} M parameters",
                lambda: pack(state),
                lambda: plain_codes(state),
                peer_name="torch.quantile, as published",
                repeats=1 if quick else 3,
            ),
            compare(
                f"pack: {millions:.1f} M parameters to a file",
                lambda: write_artifact(ours, {}, pack(state), "zlib"),
                lambda: peer.write_bytes(plain_file(state)),
                peer_name="zlib over torch.save, as published",
                repeats=1 if quick else 3,
            ),
            bench_gptq(state, millions, quick),
        ]
