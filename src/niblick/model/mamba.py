"""Mamba-2: a state that fades and takes in each position, both as the input says (Dao and Gu 2024, arXiv:2405.21060).

    s_t = exp(a·Δ_t)·s_{t−1} + Δ_t·x_t·b_tᵀ      y_t = s_t·c_t + d·x_t      Δ_t = softplus(δ_t + bias), a = −exp(a_log)

for each head a matrix s of its channels by the state's numbers; x, b and c come out of a short causal convolution. All
positions of a chunk are one product with a lower-triangular matrix, and chunks pass on their last state: matrix
products on the CPU and on GPUs. Where `mamba_ssm` is installed and tensors are on CUDA, its kernel does the scan.

Shapes: B batch, L positions, D width, E inner width, H heads, K head width, S numbers of state; in the scan N chunks, M
positions in a chunk; in steps R rows that take part (of B).
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from niblick.model.context import Context, StepContext
from niblick.model.conv import CausalConv, ConvState
from niblick.model.mlp import Norm, add_mlp, add_scaled, new_mlp, new_norm, new_scale
from niblick.model.model_config import BlockConfig

CHUNK = 64
"""Positions that `scan` handles as one triangular matrix product."""
KERNEL_CHUNK = 256
"""The same for the kernel of `mamba_ssm`, as its authors set it."""
GATED_EPS = 1e-5
"""Added to the mean square in the norm behind the gate."""
RATE_RANGE, STEP_RANGE = (1.0, 16.0), (1e-3, 1e-1)
"""Between which −a and Δ are drawn to start with: evenly, and evenly in the logarithm (as published)."""


@cache
def find_kernel() -> Callable[..., Tensor] | None:
    """Return the scan of the package `mamba_ssm`, which compilers leave alone; None where it cannot be loaded.

    That is so where it is not installed, and without a GPU. `torch.compiler.disable` is not asked before, as by a
    decorator: it takes a second to import.
    """
    if not torch.cuda.is_available() or importlib.util.find_spec("mamba_ssm") is None:
        return None
    try:
        from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined
    except Exception:  # without triton or a driver for it, or built for another torch: a model is still to be had
        return None
    return torch.compiler.disable(mamba_chunk_scan_combined)


def _fading(log_decay_BHN: Tensor, row_N: Tensor | None) -> Tensor:
    """Return the share of chunk j's final state that is left at the end of chunk i ≥ j, (B, H, N, N); 0 for j > i.

    Each entry is summed by itself: differences of long sums would lose what is close by. `row_N` numbers the rows that
    chunks end in, where several are packed into one; between rows nothing is left.
    """
    N = log_decay_BHN.shape[-1]
    index_N = torch.arange(N, device=log_decay_BHN.device)
    later_NN = index_N[:, None] > index_N
    steps_BHNN = log_decay_BHN[..., None].expand(*log_decay_BHN.shape, N).masked_fill(~later_NN, 0.0)
    unseen_NN = index_N[:, None] < index_N
    if row_N is not None:
        unseen_NN = unseen_NN | (row_N[:, None] != row_N)
    return steps_BHNN.cumsum(-2).exp().masked_fill(unseen_NN, 0.0)


def _within(log_decay_BNHM: Tensor, row_NM: Tensor | None) -> Tensor:
    """The same between the positions of each chunk, (B, N, H, M, M): sums are short there, and differences cheaper."""
    total_BNHM = log_decay_BNHM.cumsum(-1)
    index_M = torch.arange(total_BNHM.shape[-1], device=total_BNHM.device)
    unseen_MM = index_M[:, None] < index_M
    if row_NM is not None:
        unseen_MM = unseen_MM | (row_NM[:, :, None] != row_NM[:, None, :])[:, None]
    return (total_BNHM[..., :, None] - total_BNHM[..., None, :]).masked_fill(unseen_MM, float("-inf")).exp()


def scan(
    x_BLHK: Tensor, step_BLH: Tensor, a_H: Tensor, b_BLS: Tensor, c_BLS: Tensor, first_L: Tensor | None = None
) -> Tensor:
    """Return y_t = s_t·c_t of s_t = exp(a·Δ_t)·s_{t−1} + Δ_t·x_t·b_tᵀ, (B, L, H, K), without a loop over positions.

    The state is empty before the first position, and again where `first_L` says that another row starts.
    """
    B, L, H, K = x_BLHK.shape
    M = min(CHUNK, L)
    if short := -L % M:
        longer = (F.pad(v, (0, 0) * (v.ndim - 2) + (0, short)) for v in (x_BLHK, step_BLH, b_BLS, c_BLS))
        x_BLHK, step_BLH, b_BLS, c_BLS = longer
        first_L = None if first_L is None else F.pad(first_L, (0, short))
    N = x_BLHK.shape[1] // M
    row_NM = None if first_L is None else first_L.cumsum(0).view(N, M)
    step_BNHM = step_BLH.reshape(B, N, M, H).transpose(2, 3)
    taken_BNHMK = x_BLHK.reshape(B, N, M, H, K).transpose(2, 3) * step_BNHM[..., None]
    b_BNMS, c_BNMS = (v.reshape(B, N, M, -1) for v in (b_BLS, c_BLS))
    log_decay_BNHM = step_BNHM * a_H[:, None]
    left_BNHMM = _within(log_decay_BNHM, row_NM)
    y_BNHMK = ((c_BNMS @ b_BNMS.mT)[:, :, None] * left_BNHMM) @ taken_BNHMK
    if N > 1:
        ends_BNHSK = b_BNMS.mT[:, :, None] @ (left_BNHMM[..., -1, :, None] * taken_BNHMK)
        before_BNHSK = _passed_on(ends_BNHSK, log_decay_BNHM.sum(-1).transpose(1, 2), row_NM)
        left_BNHM = log_decay_BNHM.cumsum(-1).exp()
        if row_NM is not None:
            left_BNHM = left_BNHM * (row_NM == F.pad(row_NM[:-1, -1:], (0, 0, 1, 0), value=-1))[:, None]
        y_BNHMK = y_BNHMK + left_BNHM[..., None] * (c_BNMS[:, :, None] @ before_BNHSK)
    return y_BNHMK.transpose(2, 3).reshape(B, N * M, H, K)[:, :L]


def _passed_on(ends_BNHSK: Tensor, log_decay_BHN: Tensor, row_NM: Tensor | None) -> Tensor:
    """Return the state before each chunk, from the state each chunk alone ends with and how much each lets fade."""
    fading_BHNN = _fading(log_decay_BHN, None if row_NM is None else row_NM[:, -1])
    come_BNHSK = torch.einsum("bhij,bjhsk->bihsk", fading_BHNN, ends_BNHSK)
    return F.pad(come_BNHSK[:, :-1], (0, 0, 0, 0, 0, 0, 1, 0))


@dataclass
class MambaState:
    """The last inputs of the convolution, and the state of every head, float32 or wider."""

    conv: ConvState
    s_BHKS: Tensor


class Mamba2(nn.Module):
    """One map in, a short convolution, the scan, a gate and a norm behind it, one map out."""

    def __init__(self, config: BlockConfig) -> None:
        """Raises ConfigError if heads do not divide the inner width."""
        super().__init__()
        self.kernel = find_kernel()
        self.inner, self.head_width = config.ssm_inner, config.ssm_head_width
        self.heads, self.state = config.ssm_heads, config.ssm_state
        self.up = nn.Linear(config.width, 2 * self.inner + 2 * self.state + self.heads, bias=False)
        self.conv = CausalConv(self.inner + 2 * self.state, config.conv_kernel)
        low, high = map(math.log, STEP_RANGE)
        step_H = torch.empty(self.heads).uniform_(low, high).exp()
        self.dt_bias = nn.Parameter(step_H + torch.log(-torch.expm1(-step_H)))  # softplus turned round
        self.a_log = nn.Parameter(torch.empty(self.heads).uniform_(*RATE_RANGE).log())
        self.skip = nn.Parameter(torch.ones(self.heads))
        self.norm = Norm(self.inner, True, GATED_EPS)
        self.out = nn.Linear(self.inner, config.width, bias=False)
        nn.init.zeros_(self.out.weight)

    def _has_kernel(self, like: Tensor) -> bool:
        """Whether the kernel does the scan of tensors that lie where `like` does."""
        return self.kernel is not None and like.is_cuda

    def _kernel_scan(
        self, x_BLHK: Tensor, delta_BLH: Tensor, a_H: Tensor, b_BLS: Tensor, c_BLS: Tensor, first_L: Tensor | None
    ) -> Tensor:
        """The scan of `mamba_ssm`, with softplus and the way past the state inside; (B, L, H, K)."""
        assert self.kernel is not None
        row_BL = None
        if first_L is not None:
            row_BL = (first_L.cumsum(0) - 1).to(torch.int32).expand(len(x_BLHK), -1).contiguous()
        return self.kernel(
            x_BLHK.contiguous(),
            delta_BLH.contiguous(),
            a_H,
            b_BLS[:, :, None].contiguous(),
            c_BLS[:, :, None].contiguous(),
            chunk_size=KERNEL_CHUNK,
            D=self.skip,
            dt_bias=self.dt_bias,
            dt_softplus=True,
            seq_idx=row_BL,
        )

    def _split(self, x_D: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the gate, what goes through the convolution, and δ."""
        gate_E, mixed, delta_H = self.up(x_D).split([self.inner, self.inner + 2 * self.state, self.heads], -1)
        return gate_E, mixed, delta_H

    def _parts(self, mixed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return x by heads, b and c of the convolution's output."""
        x_E, b_S, c_S = F.silu(mixed).split([self.inner, self.state, self.state], -1)
        return x_E.unflatten(-1, (self.heads, self.head_width)), b_S, c_S

    def _out(self, y_HK: Tensor, gate_E: Tensor) -> Tensor:
        y_E = self.norm(y_HK.flatten(-2) * F.silu(gate_E.to(y_HK.dtype)))
        return self.out(y_E.to(gate_E.dtype))

    def forward(self, x_BLD: Tensor, context: Context) -> Tensor:
        """Mix; returns (B, L, D), or only the last positions where the context wants no more."""
        gate_BLE, mixed, delta_BLH = self._split(x_BLD)
        first_L = None if context.place_L is None else context.place_L == 0
        x_BLHK, b_BLS, c_BLS = self._parts(self.conv(mixed, context.place_L))
        wide = torch.promote_types(x_BLD.dtype, torch.float32)
        a_H = -self.a_log.to(wide).exp()
        if self._has_kernel(x_BLD):
            y_BLHK = self._kernel_scan(x_BLHK, delta_BLH, a_H, b_BLS, c_BLS, first_L).to(wide)
        else:
            with torch.autocast(x_BLD.device.type, enabled=False):
                x_BLHK, b_BLS, c_BLS = (v.to(wide) for v in (x_BLHK, b_BLS, c_BLS))
                step_BLH = F.softplus(delta_BLH.to(wide) + self.dt_bias)
                y_BLHK = scan(x_BLHK, step_BLH, a_H, b_BLS, c_BLS, first_L) + self.skip[:, None] * x_BLHK
        if context.last is not None:
            y_BLHK, gate_BLE = y_BLHK[:, -context.last :], gate_BLE[:, -context.last :]
        return self._out(y_BLHK, gate_BLE)

    def new_state(self, rows: int, like: Tensor) -> MambaState:
        """Return the state before the first position."""
        wide = torch.promote_types(like.dtype, torch.float32)
        empty = like.new_zeros(rows, self.heads, self.head_width, self.state, dtype=wide)
        return MambaState(self.conv.new_state(rows, like), empty)

    def step(self, x_RD: Tensor, state: MambaState, rows_R: Tensor) -> Tensor:
        """One position of the rows `rows_R`; updates `state` in place."""
        gate_RE, mixed, delta_RH = self._split(x_RD)
        wide = state.s_BHKS.dtype
        x_RHK, b_RS, c_RS = (v.to(wide) for v in self._parts(self.conv.step(mixed, state.conv, rows_R)))
        step_RH = F.softplus(delta_RH.to(wide) + self.dt_bias)
        left_RH = (-self.a_log.to(wide).exp() * step_RH).exp()
        taken_RHK = x_RHK * step_RH[..., None]
        s_RHKS = torch.addcmul(
            state.s_BHKS[rows_R] * left_RH[..., None, None], taken_RHK[..., None], b_RS[:, None, None]
        )
        state.s_BHKS[rows_R] = s_RHKS
        y_RHK = (s_RHKS * c_RS[:, None, None]).sum(-1) + self.skip[:, None] * x_RHK
        return self._out(y_RHK, gate_RE)


class MambaBlock(nn.Module):
    """x + Mamba-2 of norm(x), then perhaps an MLP, each branch scaled per channel.

    Letter `m` without the MLP, `M` with it.
    """

    by_segments = True

    def __init__(self, config: BlockConfig, mlp: bool) -> None:
        super().__init__()
        self.ssm = Mamba2(config)
        self.mlp = new_mlp(config) if mlp else None
        self.ssm_scale = new_scale(config)
        self.mlp_scale = new_scale(config) if mlp else None
        self.ssm_norm = new_norm(config)
        self.mlp_norm = new_norm(config) if mlp else None

    def forward(self, x_BLD: Tensor, x0_BLD: Tensor, context: Context) -> Tensor:
        mixed_BLD = self.ssm(self.ssm_norm(x_BLD), context)
        if context.last is not None:
            x_BLD = x_BLD[:, -context.last :]
        return add_mlp(add_scaled(x_BLD, mixed_BLD, self.ssm_scale), self.mlp, self.mlp_norm, self.mlp_scale)

    def new_state(self, rows: int, like: Tensor) -> MambaState:
        """Return the state before the first position."""
        return self.ssm.new_state(rows, like)

    def step(self, x_RD: Tensor, x0_RD: Tensor, state: MambaState, context: StepContext) -> Tensor:
        """One position of the rows `context.rows_R`; updates `state` in place."""
        mixed_RD = self.ssm.step(self.ssm_norm(x_RD), state, context.rows_R)
        return add_mlp(add_scaled(x_RD, mixed_RD, self.ssm_scale), self.mlp, self.mlp_norm, self.mlp_scale)
