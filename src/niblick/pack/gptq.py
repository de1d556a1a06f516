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

import math
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from niblick.artifact.dequantize import EncodedTensor, matrix_shape
from niblick.errors import ConfigError
from niblick.pack.export_config import DAMPING
from niblick.pack.grid import Grid, fit_grid
from niblick.pack.schemes import Scheme
from niblick.pack.stored import on_grid

BLOCK = 64
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


@torch.autocast("cpu", enabled=False)  # under the caller's, corrections would be rounded to bfloat16
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
    factor = factor_of(hessian_CC, damping, tell)
    if factor is None:
        return plain_RC
    step_RC, order_C = grid.step_RC(), factor.order_C
    step_CR = step_RC.t()[order_C] if step_RC.shape[1] > 1 else step_RC.t().expand(len(order_C), -1)
    codes_CR = _successive(
        weights_RC.t()[order_C].contiguous(),
        step_CR,
        grid.levels,
        factor.feedback_CC.to(weights_RC.dtype),
        block,
        None if zero_RC is None else zero_RC.t()[order_C].contiguous(),
    )
    codes_RC = torch.empty_like(plain_RC)
    codes_RC[:, order_C] = codes_CR.t()
    unseen_C = hessian_CC.diagonal() <= 0
    codes_RC[:, unseen_C] = plain_RC[:, unseen_C]
    better_R = _less_error(weights_RC, codes_RC * step_RC, plain_RC * step_RC, hessian_CC)
    return torch.where(better_R[:, None], codes_RC, plain_RC)


def _less_error(weights_RC: Tensor, some_RC: Tensor, other_RC: Tensor, hessian_CC: Tensor) -> Tensor:
    """Say of each row whether `some` gives outputs of less error: aᵀHa < bᵀHb is (a − b)ᵀ H (a + b) < 0, (R,) bool."""
    weights_RC, some_RC, other_RC = (x.double() for x in (weights_RC, some_RC, other_RC))
    return ((other_RC - some_RC) @ hessian_CC.double() * (2 * weights_RC - some_RC - other_RC)).sum(1) < 0


def column_weights(hessian_CC: Tensor, damping: float = DAMPING, *, tell: Tell = lambda note: None) -> Tensor:
    """Return what an error in each column costs once all later ones have made up for it, (C,) float32: R_jj².

    Steps in proportion to 1/R_jj make every column cost the same, which no other steps of the same total rate improve
    on (reverse water-filling). Without a Cholesky factor it is the diagonal of H.
    """
    factor = factor_of(hessian_CC, damping, tell)
    return hessian_CC.diagonal().clamp_min(0).float() if factor is None else factor.weight_C


def _expect_square(hessian_CC: Tensor, columns: int) -> None:
    if hessian_CC.shape != (columns, columns):
        raise ConfigError(
            f"a Hessian of shape {list(hessian_CC.shape)} was given for weights of {columns} columns, expected "
            f"{[columns, columns]}: collect it from the model that the weights are of"
        )


@dataclass(frozen=True)
class Factor:
    """What GPTQ needs of a damped Hessian's R, its columns in the order of a falling diagonal."""

    order_C: Tensor
    feedback_CC: Tensor
    """R_ij / R_jj, in the dtype of the Hessian: how much of the error of column i is made up for in column j."""
    weight_C: Tensor
    """R_jj² in the columns' own order, float32."""


def factor_of(hessian_CC: Tensor, damping: float = DAMPING, tell: Tell = lambda note: None) -> Factor | None:
    """Return the factor of a Hessian; None if there is none. `tell` hears of what was unusual about it.

    It is kept as long as the Hessian lives: weights that read one input share it, and so do the trials of a fit. One
    that changes in place is factored anew, but not if it changes behind torch's back, as through NumPy.
    """
    if hessian_CC.is_inference():  # of which torch does not know when they change
        return _factor(hessian_CC, damping, tell)
    state = (hessian_CC._version, damping)
    found = _factors.get(hessian_CC)
    if found is None or found[0] != state:
        notes: list[str] = []
        found = _factors[hessian_CC] = state, _factor(hessian_CC, damping, notes.append), notes
    for note in found[2]:
        tell(note)
    return found[1]


_factors: MutableMapping[Tensor, tuple[tuple[int, float], Factor | None, list[str]]] = WeakTensorKeyDictionary()
"""By Hessian: the state that it was factored in, its factor, and what there was to tell."""


def _factor(hessian_CC: Tensor, damping: float, tell: Tell) -> Factor | None:
    diagonal_C = hessian_CC.diagonal().double()
    mean = float(diagonal_C.mean()) if len(diagonal_C) else 0.0
    if not math.isfinite(float(hessian_CC.sum(dtype=torch.float64))):
        tell("its Hessian is not finite: plain rounding")
        return None
    if mean <= 0:
        tell("its inputs are all zero: plain rounding")
        return None
    order_C = diagonal_C.argsort(descending=True, stable=True)
    back_C = order_C.flip(0)
    turned_CC = hessian_CC[back_C[:, None], back_C]
    for factor in MORE_DAMPING:
        share = damping if factor == 1 else max(damping, LEAST) * factor
        damped_CC = turned_CC.to(torch.float64, copy=True)
        damped_CC.diagonal().add_(share * mean)
        lower_CC, failed = torch.linalg.cholesky_ex(damped_CC)
        if not int(failed) and bool(torch.isfinite(lower_CC.diagonal()).all()):
            if factor != 1:
                tell(f"its Hessian is singular at a damping of {damping:g}: damped by {share:g}")
            upper_CC = lower_CC.flip(0, 1)
            weight_C = torch.empty_like(diagonal_C)
            weight_C[order_C] = upper_CC.diagonal().square()
            return Factor(order_C, (upper_CC / upper_CC.diagonal()).to(hessian_CC.dtype), weight_C.float())
    tell(f"its Hessian has no Cholesky factor, even damped by {share:g}: plain rounding")
    return None


def _successive(
    weights_CR: Tensor, step_CR: Tensor, levels: int, feedback_CC: Tensor, block: int, zero_CR: Tensor | None
) -> Tensor:
    """Round column after column (here rows, which lie together in memory); `feedback_CC` is R_ij / R_jj.

    A column has few numbers: NumPy is called here, since a call of it costs a fourth of torch's.
    """
    codes_CR, error_CR = torch.empty_like(weights_CR), torch.empty_like(weights_CR)
    for first in range(0, len(weights_CR), block):
        part = slice(first, min(first + block, len(weights_CR)))
        target_KR = torch.addmm(weights_CR[part], feedback_CC[:first, part].t(), error_CR[:first])
        _round_block(
            *(x.numpy() for x in (target_KR, weights_CR[part], step_CR[part])),
            feedback_KK=feedback_CC[part, part].t().contiguous().numpy(),
            zero_KR=None if zero_CR is None else zero_CR[part].numpy(),
            levels=levels,
            codes_KR=codes_CR[part].numpy(),
            error_KR=error_CR[part].numpy(),
        )
    return codes_CR


def _round_block(
    target_KR: np.ndarray,
    weights_KR: np.ndarray,
    step_KR: np.ndarray,
    *,
    feedback_KK: np.ndarray,
    zero_KR: np.ndarray | None,
    levels: int,
    codes_KR: np.ndarray,
    error_KR: np.ndarray,
) -> None:
    """Round the columns of one block into `codes_KR` and what they leave into `error_KR`; `feedback_KK` is R_ji / R_ii.

    `target_KR` are the weights with the corrections of earlier blocks, and is written over.
    """
    divide_KR = np.where(step_KR > 0, step_KR, np.inf).astype(step_KR.dtype)
    for k, (target_R, code_R, error_R) in enumerate(zip(target_KR, codes_KR, error_KR, strict=True)):
        if k:
            target_R += feedback_KK[k, :k] @ error_KR[:k]
        np.divide(target_R, divide_KR[k], out=code_R)
        np.rint(code_R, out=code_R)
        np.minimum(code_R, levels, out=code_R)  # np.clip goes through more Python than it computes
        np.maximum(code_R, -levels, out=code_R)
        if zero_KR is not None:
            code_R[zero_KR[k]] = 0
        np.multiply(code_R, step_KR[k], out=error_R)
        np.subtract(weights_KR[k], error_R, out=error_R)
