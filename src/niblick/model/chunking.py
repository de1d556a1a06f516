"""Dynamic chunking as pure functions: probabilities, decisions, selection, smoothing, expansion, ratio loss.

Each is a few lines; slow float64 loops beside them in the tests say the same. Source: the H-Net paper
(Hwang, Wang, Gu 2025, arXiv:2507.07955), with the choices of study 1 (byte260 against sp1024).

Shapes: B batch, L positions, C chunks, D width; in the scan N blocks (of one row, or of all), M positions in a block.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

P_EPS = 1e-4
"""Boundary probabilities are clamped to [P_EPS, 1 − P_EPS] before smoothing (study 1)."""

ENTROPY_EPS = 1e-6
"""Boundary probabilities are clamped to [ENTROPY_EPS, 1 − ENTROPY_EPS] before their entropy is taken."""

SCAN_BLOCK = 32
"""Positions that `linear_scan` handles as one triangular matrix product."""


def cosine_probability(q_BLD: Tensor, k_BLD: Tensor) -> Tensor:
    """Boundary probability p_t = ½(1 − cos(q_t, k_{t−1})), p_1 = 1; (B, L) in float32 or wider (paper, Eq. 4)."""
    wide = torch.promote_types(q_BLD.dtype, torch.float32)
    cosine_BL = F.cosine_similarity(q_BLD[:, 1:].to(wide), k_BLD[:, :-1].to(wide), dim=-1)
    return F.pad(0.5 * (1 - cosine_BL), (1, 0), value=1.0)


def select(x_BLD: Tensor, boundary_BL: Tensor, chunks: int) -> tuple[Tensor, Tensor]:
    """Bring the boundary positions to the front, in order, and keep `chunks` of them.

    Returns (B, C, D) and the position each chunk starts at, (B, C). Rows with fewer boundaries are filled up with
    position 0; what stands there is never used, since everything after it is causal.
    """
    B, L, D = x_BLD.shape
    slot_BL = torch.where(boundary_BL, boundary_BL.cumsum(1) - 1, chunks).clamp_max(chunks)
    start_BC = torch.zeros(B, chunks + 1, dtype=torch.long, device=x_BLD.device)
    start_BC = start_BC.scatter_(1, slot_BL, torch.arange(L, device=x_BLD.device).expand(B, L))[:, :chunks]
    rows_N = (start_BC + torch.arange(B, device=x_BLD.device)[:, None] * L).flatten()
    return x_BLD.reshape(B * L, D).index_select(0, rows_N).view(B, chunks, D), start_BC


def _triangle(log_decay_BC: Tensor, M: int) -> tuple[Tensor, Tensor]:
    """Cut rows into blocks of M. Returns the decay from before the block to t, (BN, M), and from s to t, (BN, M, M).

    Differences of summed logarithms are exact enough in float32; products of decays would underflow.
    """
    total_NM = log_decay_BC.reshape(-1, M).cumsum(1)
    future_MM = torch.ones(M, M, dtype=torch.bool, device=total_NM.device).triu(1)
    weight_NMM = (total_NM[:, :, None] - total_NM[:, None, :]).masked_fill_(future_MM, float("-inf")).exp_()
    return total_NM.exp(), weight_NMM


def linear_scan(log_decay_BC: Tensor, x_BCD: Tensor) -> Tensor:
    """s_t = exp(log_decay_t)·s_{t−1} + x_t with s_0 = 0, without a loop over positions. Returns (B, C, D).

    Inside a block of SCAN_BLOCK positions this is one product with a lower-triangular matrix; the states at the ends
    of the blocks follow the same recurrence at 1/SCAN_BLOCK of the length, so the function calls itself for them.
    """
    B, C, D = x_BCD.shape
    M = min(SCAN_BLOCK, C)
    if C % M:
        short = M - C % M
        return linear_scan(F.pad(log_decay_BC, (0, short)), F.pad(x_BCD, (0, 0, 0, short)))[:, :C]
    decay_NM, weight_NMM = _triangle(log_decay_BC, M)
    s_NMD = torch.bmm(weight_NMM, x_BCD.reshape(-1, M, D))
    if C > M:
        s_NMD = _add_carry(s_NMD, decay_NM, log_decay_BC.view(B, C // M, M).sum(2))
    return s_NMD.view(B, C, D)


def _add_carry(s_NMD: Tensor, decay_NM: Tensor, log_decay_BN: Tensor) -> Tensor:
    """Add to each block what the blocks before it left: their end state, decayed. Works in place."""
    ends_BND = linear_scan(log_decay_BN, s_NMD[:, -1].view(*log_decay_BN.shape, -1))
    carry_BND = F.pad(ends_BND[:, :-1], (0, 0, 1, 0))
    return s_NMD.baddbmm_(decay_NM[:, :, None], carry_BND.flatten(0, 1)[:, None, :])


class _Smooth(torch.autograd.Function):
    """The moving average and its adjoint, both as blocked scans; the probabilities are folded into the matrices.

    The adjoint of a linear recurrence is the same recurrence run backwards: g_t = ∂s_t + (1 − p_{t+1}) g_{t+1},
    ∂z_t = p_t g_t, ∂p_t = ⟨g_t, z_t − s_{t−1}⟩. Autograd through the forward pass gives the same with three times the
    memory traffic.
    """

    @staticmethod
    def forward(ctx: Any, z_BCD: Tensor, p_BC: Tensor) -> Tensor:
        B, C, D = z_BCD.shape
        M = min(SCAN_BLOCK, C)
        log_decay_BC = torch.log1p(-p_BC)
        gain_BC = p_BC.clone()
        gain_BC[:, 0] = 1.0
        decay_NM, weight_NMM = _triangle(log_decay_BC, M)
        weight_NMM *= gain_BC.view(-1, 1, M)
        s_NMD = torch.bmm(weight_NMM, z_BCD.view(-1, M, D))
        log_decay_BN = log_decay_BC.view(B, C // M, M).sum(2)
        if C > M:
            s_NMD = _add_carry(s_NMD, decay_NM, log_decay_BN)
        s_BCD = s_NMD.view(B, C, D)
        ctx.save_for_backward(z_BCD, s_BCD, gain_BC, decay_NM, weight_NMM, log_decay_BN)
        return s_BCD

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_BCD: Tensor) -> tuple[Tensor, Tensor]:
        z_BCD, s_BCD, gain_BC, decay_NM, weight_NMM, log_decay_BN = ctx.saved_tensors
        B, C, D = z_BCD.shape
        M = weight_NMM.shape[-1]
        grad_NMD = grad_BCD.reshape(-1, M, D)
        dz_NMD = torch.bmm(weight_NMM.transpose(1, 2), grad_NMD)
        if C > M:
            # What each block's carry receives, summed over the blocks after it: the recurrence between the ends of
            # blocks, run backwards.
            into_BND = torch.bmm(decay_NM[:, None, :], grad_NMD).view(B, C // M, D)
            back_BND = linear_scan(log_decay_BN.flip(1), into_BND.flip(1)).flip(1)
            later_BND = F.pad(back_BND[:, 1:], (0, 0, 0, 1))
            dz_NMD.baddbmm_(weight_NMM[:, -1, :, None], later_BND.flatten(0, 1)[:, None, :])
        dz_BCD = dz_NMD.view(B, C, D)
        before_BC = torch.linalg.vecdot(dz_BCD[:, 1:], s_BCD[:, :-1])
        dp_BC = (torch.linalg.vecdot(dz_BCD, z_BCD) - F.pad(before_BC, (1, 0))) / gain_BC
        dp_BC[:, 0] = 0.0  # s_1 = z_1, whatever p_1 is
        return dz_BCD, dp_BC


def smooth(z_BCD: Tensor, p_BC: Tensor) -> Tensor:
    """Exponential moving average s_1 = z_1, s_t = p_t z_t + (1 − p_t) s_{t−1} in float32 or wider (paper, Eq. 5).

    z_BCD are chunk states, p_BC the boundary probabilities at the chunks' starts. Returns (B, C, D).
    """
    C = z_BCD.shape[1]
    wide = torch.promote_types(z_BCD.dtype, torch.float32)
    short = -C % SCAN_BLOCK if C > SCAN_BLOCK else 0
    z_BCD = F.pad(z_BCD.to(wide), (0, 0, 0, short)) if short else z_BCD.to(wide).contiguous()
    p_BC = F.pad(p_BC.to(wide).clamp(P_EPS, 1 - P_EPS), (0, short), value=0.5)
    with torch.autocast(z_BCD.device.type, enabled=False):
        return _Smooth.apply(z_BCD, p_BC)[:, :C]


def expand(s_BCD: Tensor, boundary_BL: Tensor, last: int | None = None, left_out: int = 0) -> Tensor:
    """Give each position the state of its chunk: (B, C, D) to (B, L, D), or to the last `last` positions of it.

    `s_BCD` may lack the first `left_out` chunks where those positions need none of them.
    """
    B, C, D = s_BCD.shape
    chunk_BL = (boundary_BL.cumsum(1) - 1 - left_out).clamp(0, C - 1)[:, -(last or 0) :]
    rows_N = (chunk_BL + torch.arange(B, device=s_BCD.device)[:, None] * C).flatten()
    return s_BCD.reshape(B * C, D).index_select(0, rows_N).view(B, -1, D)


def decay(s_BLD: Tensor, boundary_BL: Tensor, log_decay_D: Tensor) -> Tensor:
    """Fade each chunk's state with the distance from its start: s_t·exp(log_decay · offset_t) (TinyHNet).

    `s_BLD` may hold the last positions alone.
    """
    place_L = torch.arange(boundary_BL.shape[1], device=s_BLD.device)
    offset_BL = (place_L - torch.where(boundary_BL, place_L, 0).cummax(1).values)[:, -s_BLD.shape[1] :]
    return s_BLD * (offset_BL[:, :, None] * log_decay_D).exp()


def confidence(p_BL: Tensor, boundary_BL: Tensor) -> Tensor:
    """How sure the decision was: p at boundaries, 1 − p elsewhere (paper, Eq. 6)."""
    return torch.where(boundary_BL, p_BL, 1 - p_BL)


def straight_through(c_BL: Tensor) -> Tensor:
    """Value 1, gradient of c (paper, Eq. 7)."""
    return 1 + (c_BL - c_BL.detach())


class _ScaleGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad * ctx.factor, None


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """Return x; on the way back its gradient is multiplied by `factor`."""
    return x if factor == 1.0 else _ScaleGradient.apply(x, factor)


def ratio_loss(p_BL: Tensor, boundary_BL: Tensor, target_length: float, length_B: Tensor | None = None) -> Tensor:
    """Mean over sequences of N/(N−1) · ((N−1)·F·G + (1−F)(1−G)) (paper, Eq. 10); 1 at the target, a scalar.

    F is the share of boundaries, G the mean probability, N the target chunk length in positions. `length_B` counts
    the valid positions of each row where rows differ.
    """
    length = p_BL.shape[1] if length_B is None else length_B
    if length_B is not None:
        valid_BL = torch.arange(p_BL.shape[1], device=p_BL.device) < length_B[:, None]
        p_BL, boundary_BL = p_BL * valid_BL, boundary_BL & valid_BL
    share_B = boundary_BL.to(p_BL.dtype).sum(1) / length
    mean_B = p_BL.sum(1) / length
    n = target_length
    return (n / (n - 1) * ((n - 1) * share_B * mean_B + (1 - share_B) * (1 - mean_B))).mean()


def square_ratio_loss(
    p_BL: Tensor, boundary_BL: Tensor, target_length: float, length_B: Tensor | None = None
) -> Tensor:
    """(F − 1/N)², F the batch's share of boundaries, with the gradient of p straight through (TinyHNet); a scalar."""
    share_BL = boundary_BL.to(p_BL.dtype) + (p_BL - p_BL.detach())
    return (mean_over(share_BL, length_B) - 1 / target_length).square()


def binomial_loss(p_BL: Tensor, boundary_BL: Tensor, target_length: float, length_B: Tensor | None = None) -> Tensor:
    """−log Binomial(K; L, 1/N) / L, K a row's boundaries with the gradient of p straight through; mean over rows.

    The prior of dynamic pooling (Nawrot 2023, arXiv:2211.09761), in nats for each position.
    """
    share_BL = boundary_BL.to(p_BL.dtype) + (p_BL - p_BL.detach())
    size_B = torch.full_like(share_BL[:, 0], p_BL.shape[1]) if length_B is None else length_B.to(p_BL.dtype)
    if length_B is not None:
        share_BL = share_BL * (torch.arange(p_BL.shape[1], device=p_BL.device) < length_B[:, None])
    count_B, rest_B = share_BL.sum(1), size_B - share_BL.sum(1)
    ways_B = (size_B + 1).lgamma() - (count_B + 1).lgamma() - (rest_B + 1).lgamma()
    n = target_length
    return -((ways_B - count_B * math.log(n) + rest_B * math.log1p(-1 / n)) / size_B).mean()


def entropy(p_BL: Tensor, length_B: Tensor | None = None) -> Tensor:
    """Mean entropy of the decisions in nats, a scalar (TinyHNet)."""
    p_BL = p_BL.clamp(ENTROPY_EPS, 1 - ENTROPY_EPS)
    return mean_over(-(p_BL * p_BL.log() + (1 - p_BL) * (1 - p_BL).log()), length_B)


def guide_loss(p_BL: Tensor, guide_BL: Tensor) -> Tensor:
    """Mean cross-entropy of p against given boundaries, position 0 aside, nats; a scalar."""
    p_BL = p_BL[:, 1:].clamp(ENTROPY_EPS, 1 - ENTROPY_EPS)
    return -torch.where(guide_BL[:, 1:], p_BL, 1 - p_BL).log().mean()


def mean_over(x_BL: Tensor, length_B: Tensor | None) -> Tensor:
    """Mean over the valid positions of all rows."""
    if length_B is None:
        return x_BL.mean()
    valid_BL = torch.arange(x_BL.shape[1], device=x_BL.device) < length_B[:, None]
    return (x_BL * valid_BL).sum() / length_B.sum()
