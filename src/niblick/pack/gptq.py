"""GPTQ: rounding that lets each column make up for the errors of those before it (Frantar et al. 2022).

What counts is not how far weights move but how far outputs do. With H = mean x xᵀ over a map's inputs, the mean squared
error of its outputs is tr((W − Q) H (W − Q)ᵀ). Let H = R Rᵀ with R upper triangular; then the error is ‖(W − Q) R‖²,
and its column j depends on columns 0 … j alone. So columns are rounded one after another, each moved first by what
cancels the errors that the ones before it have left: with E = W − Q, q_j = round(w_j + Σ_{i<j} e_i R_ij / R_jj). That
is GPTQ's recursion in other words: its Cholesky factor of the inverse is R⁻¹, and nothing is inverted here.

As study 2 does it, columns go in the order of a falling diagonal of H, and 1% of its mean is added to the diagonal.

Shapes: R rows (outputs), C columns (inputs), K columns of a block.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from niblick.artifact.dequantize import EncodedTensor, matrix_shape
from niblick.errors import ConfigError
from niblick.pack.export_config import DAMPING
from niblick.pack.grid import Grid, fit_grid
from niblick.pack.schemes import Scheme
from niblick.pack.stored import on_grid

BLOCK = 128
"""Columns whose corrections are added one by one; those of earlier blocks come in one matrix product."""
MORE_DAMPING = (1.0, 10.0, 100.0)
"""Factors on the damping, tried in turn until the Cholesky factor exists; the least damping that grows is LEAST."""
LEAST = 1e-3

Tell = Callable[[str], None]
"""Takes one sentence about what could not be done as usual."""


def by_gptq(
    weights: Tensor, kept: Tensor, scheme: Scheme, hessian_CC: Tensor, damping: float, tell: Tell
) -> EncodedTensor:
    """Return a tensor on the grid of a scheme; what is zero in `kept`, the weights after pruning, stays zero."""
    weights_RC, kept_RC = (w.reshape(matrix_shape(tuple(weights.shape))) for w in (weights, kept))
    grid = fit_grid(kept_RC, scheme, column_weights(hessian_CC, damping))
    zero_RC = (kept_RC == 0) if kept is not weights else None
    codes_RC = gptq_codes(weights_RC, grid, hessian_CC, damping, zero_RC=zero_RC, tell=tell)
    return on_grid(grid, codes_RC, tuple(weights.shape))


def gptq_codes(
    weights_RC: Tensor,
    grid: Grid,
    hessian_CC: Tensor,
    damping: float = DAMPING,
    block: int = BLOCK,
    *,
    zero_RC: Tensor | None = None,
    tell: Tell = lambda note: None,
) -> Tensor:
    """Return codes (R, C), float32 whole numbers as of `grid.codes`, of least Hessian-weighted error that GPTQ finds.

    Rows do not depend on each other: each is the better one of GPTQ and plain rounding, so that no row is ever worse.
    Columns that no input reaches are rounded plainly. Where `zero_RC` is true the code is 0 (pruned weights). A Hessian
    that has no Cholesky factor gets more damping, in the end plain rounding; `tell` then hears of it. Raises
    ConfigError for a Hessian of another shape.
    """
    _expect_square(hessian_CC, weights_RC.shape[1])
    plain_RC = grid.codes(weights_RC)
    if zero_RC is not None:
        plain_RC = plain_RC.masked_fill(zero_RC, 0)
    hessian_CC = hessian_CC.double()
    factor = _factor(hessian_CC, damping, tell)
    if factor is None:
        return plain_RC
    order_C, upper_CC = factor
    codes_RC = torch.empty_like(plain_RC)
    step_RC = grid.step_RC()
    step_CR = (step_RC[:, order_C] if step_RC.shape[1] > 1 else step_RC.expand(-1, len(order_C))).t().contiguous()
    codes_CR = _successive(
        weights_RC[:, order_C].t().contiguous(),
        step_CR,
        grid.levels,
        (upper_CC / upper_CC.diagonal()).to(weights_RC.dtype),
        block,
        None if zero_RC is None else zero_RC[:, order_C].t().contiguous(),
    )
    codes_RC[:, order_C] = codes_CR.t()
    unseen_C = hessian_CC.diagonal() <= 0
    codes_RC[:, unseen_C] = plain_RC[:, unseen_C]
    better_R = row_errors(weights_RC - codes_RC * step_RC, hessian_CC) < row_errors(
        weights_RC - plain_RC * step_RC, hessian_CC
    )
    return torch.where(better_R[:, None], codes_RC, plain_RC)


def row_errors(error_RC: Tensor, hessian_CC: Tensor) -> Tensor:
    """Return eᵀ H e of each row, (R,) float64: the mean squared error of each output."""
    error_RC = error_RC.double()
    return (error_RC @ hessian_CC.double() * error_RC).sum(1)


def column_weights(hessian_CC: Tensor, damping: float = DAMPING, *, tell: Tell = lambda note: None) -> Tensor:
    """Return what an error in each column costs once all later ones have made up for it, (C,) float32: R_jj².

    Steps in proportion to 1/R_jj make every column cost the same, which no other steps of the same total rate improve
    on (reverse water-filling). Without a Cholesky factor it is the diagonal of H.
    """
    hessian_CC = hessian_CC.double()
    factor = _factor(hessian_CC, damping, tell)
    if factor is None:
        return hessian_CC.diagonal().clamp_min(0).float()
    order_C, upper_CC = factor
    weight_C = torch.empty(len(order_C), dtype=torch.float64)
    weight_C[order_C] = upper_CC.diagonal().square()
    return weight_C.float()


def _expect_square(hessian_CC: Tensor, columns: int) -> None:
    if hessian_CC.shape != (columns, columns):
        raise ConfigError(
            f"a Hessian of shape {list(hessian_CC.shape)} was given for weights of {columns} columns, expected "
            f"{[columns, columns]}: collect it from the model that the weights are of"
        )


def _factor(hessian_CC: Tensor, damping: float, tell: Tell) -> tuple[Tensor, Tensor] | None:
    """Return the order of columns, and R of the damped Hessian in that order; None if there is none."""
    diagonal_C = hessian_CC.diagonal()
    mean = float(diagonal_C.mean()) if len(diagonal_C) else 0.0
    if not bool(torch.isfinite(hessian_CC).all()):
        tell("its Hessian is not finite: plain rounding")
        return None
    if mean <= 0:
        tell("its inputs are all zero: plain rounding")
        return None
    order_C = diagonal_C.argsort(descending=True, stable=True)
    back_C = order_C.flip(0)
    for factor in MORE_DAMPING:
        share = damping if factor == 1 else max(damping, LEAST) * factor
        damped_CC = hessian_CC[back_C[:, None], back_C]
        damped_CC.diagonal().add_(share * mean)
        lower_CC, failed = torch.linalg.cholesky_ex(damped_CC)
        if not int(failed) and bool(torch.isfinite(lower_CC).all()):
            if factor != 1:
                tell(f"its Hessian is singular at a damping of {damping:g}: damped by {share:g}")
            return order_C, lower_CC.flip(0, 1)
    tell(f"its Hessian has no Cholesky factor, even damped by {share:g}: plain rounding")
    return None


def _successive(
    weights_CR: Tensor, step_CR: Tensor, levels: int, feedback_CC: Tensor, block: int, zero_CR: Tensor | None
) -> Tensor:
    """Round column after column (here rows, which lie together in memory); `feedback_CC` is R_ij / R_jj."""
    codes_CR, error_CR = torch.empty_like(weights_CR), torch.empty_like(weights_CR)
    divide_CR = torch.where(step_CR > 0, step_CR, torch.inf)
    for first in range(0, len(weights_CR), block):
        last = min(first + block, len(weights_CR))
        target_KR = weights_CR[first:last] + feedback_CC[:first, first:last].t() @ error_CR[:first]
        for j in range(first, last):
            target_R = target_KR[j - first]
            if j > first:
                target_R = torch.addmv(target_R, error_CR[first:j].t(), feedback_CC[first:j, j])
            code_R = (target_R / divide_CR[j]).round_().clamp_(-levels, levels)
            if zero_CR is not None:
                code_R.masked_fill_(zero_CR[j], 0)
            codes_CR[j] = code_R
            torch.addcmul(weights_CR[j], code_R, step_CR[j], value=-1, out=error_CR[j])
    return codes_CR
