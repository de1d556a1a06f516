"""Routers of 2026 and before that training teaches by more than the gradient of p: by draws, by costs, by counts.

Each says in its docstring what is published and what is our reading; docs/routers.md has the equations and sources.

Shapes: B batch, L positions, D width, K positions before one, N positions of all rows that are decided.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from niblick.model.chunking import cosine_probability, linear_scan
from niblick.model.plain_routers import LOGIT_EPS, CosineRouter, Router, Routing, before

EDGE_PACE = 0.05
"""How far a running quantile goes towards that of a training pass."""


def decided(like_BL: Tensor, length_B: Tensor | None) -> Tensor:
    """True where a router has a choice: not at the first position of a row, and not on its padding."""
    place_L = torch.arange(like_BL.shape[1], device=like_BL.device)
    chosen_BL = (place_L > 0).expand(like_BL.shape)
    return chosen_BL if length_B is None else chosen_BL & (place_L < length_B[:, None])


def taken(x_BL: Tensor, length_B: Tensor | None) -> Tensor:
    """Return the values where a router has a choice, (N,). Where all rows are full no device has to count them."""
    return x_BL[:, 1:].flatten() if length_B is None else x_BL[decided(x_BL, length_B)]


@torch.no_grad()
def follow(edge: Tensor, score_N: Tensor, share: Tensor) -> None:
    """Move `edge` towards the value that `share` of the scores are above; in place. Without scores it stays."""
    if len(score_N):
        edge.lerp_(torch.quantile(score_N.to(edge.dtype), 1 - share.to(edge.dtype)), EDGE_PACE)


class GateRouter(Router):
    """Base of the routers that draw: p = σ(w·x_t + c), where c starts at log-odds of one chunk in N.

    A score must not depend on draws. Outside training nothing is drawn: a chunk starts where the log-odds are above
    `edge`, a running quantile that lets through as many as are drawn in training; p is then σ(log-odds − edge), so that
    it says how sure the decision is (ours; at ½ without an edge, a router that is never sure would cut nothing).
    """

    def __init__(self, width: int, target_length: float) -> None:
        super().__init__(width, target_length)
        self.gate = nn.Linear(width, 1)
        nn.init.constant_(self.gate.bias, -math.log(target_length - 1))
        self.edge: Tensor
        self.register_buffer("edge", torch.zeros(()))

    def forward(self, x_BLD: Tensor) -> tuple[Tensor, Tensor]:
        """Return p_BL and boundary_BL."""
        p_BL = F.pad(torch.sigmoid(self._log_odds(x_BLD) - self.edge)[:, 1:], (1, 0), value=1.0)
        return p_BL, p_BL >= 0.5

    def explore(self, x_BLD: Tensor, length_B: Tensor | None, aim: float) -> tuple[Tensor, Tensor]:
        """Return p_BL and boundary_BL, drawn."""
        z_BL = self._log_odds(x_BLD)
        p_BL, boundary_BL = self.drawn(z_BL)
        follow(self.edge, taken(z_BL.detach(), length_B), taken(boundary_BL, length_B).float().mean())
        return F.pad(p_BL[:, 1:], (1, 0), value=1.0), F.pad(boundary_BL[:, 1:], (1, 0), value=True)

    def drawn(self, z_BL: Tensor) -> tuple[Tensor, Tensor]:
        """Return p_BL and boundary_BL for these log-odds; the first position is of no account."""
        raise NotImplementedError

    def _log_odds(self, x_BLD: Tensor) -> Tensor:
        z_BL = self.gate(x_BLD).squeeze(-1)
        return z_BL.to(torch.promote_types(z_BL.dtype, torch.float32))


class ScoreRouter(GateRouter):
    """Bernoulli draws that learn from what follows them: a score-function estimate (arXiv 2602.13940).

    Published: boundaries as draws, returns as discounted sums of later next-token losses, the batch's mean at the same
    place as baseline. Ours: the mean is that of the other rows, so that the estimate has no bias from it; a single row
    has its own mean. The losses of the forward pass that trains the model are all that is needed.
    """

    discount = 0.9
    """γ: what a later loss counts for, a position further on. At 1 the estimate has no bias, and most variance."""

    def drawn(self, z_BL: Tensor) -> tuple[Tensor, Tensor]:
        """Return p_BL, and boundary_BL drawn with it."""
        p_BL = torch.sigmoid(z_BL)
        return p_BL, torch.rand_like(p_BL) < p_BL

    def loss(self, routing: Routing, cost_BL: Tensor, aim: float) -> Tensor:
        """Return Σ log π(b_t)·(R_t − baseline): its gradient estimates that of the expected loss, by the draws."""
        chosen_BL = decided(cost_BL, routing.length_B)
        ahead_BL = advantage(cost_BL, chosen_BL, self.discount)
        p_BL = routing.p_BL.clamp(LOGIT_EPS, 1 - LOGIT_EPS)
        log_BL = torch.where(routing.boundary_BL, p_BL, 1 - p_BL).log()
        return (log_BL * ahead_BL * chosen_BL).sum()


def advantage(cost_BL: Tensor, chosen_BL: Tensor, discount: float) -> Tensor:
    """Return R_t = Σ_{s ≥ t} γ^{s−t} cost_s less the mean of the other rows at t; of its own row, where it is alone."""
    decay_BL = torch.full_like(cost_BL, math.log(discount))
    with torch.autocast(cost_BL.device.type, enabled=False):
        return_BL = linear_scan(decay_BL, cost_BL.flip(1)[:, :, None]).squeeze(-1).flip(1)
    axis = 0 if len(cost_BL) > 1 else 1
    among_BL = return_BL * chosen_BL
    others = chosen_BL.sum(axis, keepdim=True) - (chosen_BL.long() if axis == 0 else 0)
    total = among_BL.sum(axis, keepdim=True) - (among_BL if axis == 0 else 0)
    return return_BL - total / others.clamp_min(1)


class GumbelRouter(GateRouter):
    """Relaxed bits b = σ((log-odds + logistic noise) / τ), a boundary where b ≥ ½ (dynamic pooling, arXiv 2211.09761).

    What reads p reads b, so gradients flow through the draw. `ratio=binomial` is the published prior on their number.
    """

    temperature = 0.5
    """τ."""

    def drawn(self, z_BL: Tensor) -> tuple[Tensor, Tensor]:
        """Return the relaxed bits and where they round to 1."""
        noise_BL = torch.logit(torch.rand_like(z_BL), LOGIT_EPS)
        relaxed_BL = torch.sigmoid((z_BL + noise_BL) / self.temperature)
        return relaxed_BL, relaxed_BL >= 0.5


class SombreroRouter(CosineRouter):
    """The cosine router, told where its compute is needed: at the dearest tokens (Sombrero, arXiv 2601.22805).

    Published: a loss that aligns the router's confidence with predictive difficulty, and smoothing at the level's input
    in place of its chunks (`dechunk=input`). Ours: the loss is the cross-entropy of p against "the next token's cost is
    among the top 1/N of the batch", times `weight`.
    """

    weight = 0.1

    def loss(self, routing: Routing, cost_BL: Tensor, aim: float) -> Tensor:
        """Return the mean cross-entropy of p against being among the dearest, nats, weighted."""
        cost_N, p_N = (taken(x_BL, routing.length_B) for x_BL in (cost_BL, routing.p_BL))
        p_N = p_N.clamp(LOGIT_EPS, 1 - LOGIT_EPS)
        if not len(cost_N):
            return 0.0 * routing.p_BL.sum()
        dear_N = cost_N > torch.quantile(cost_N.float(), 1 - 1 / aim)
        return -self.weight * torch.where(dear_N, p_N, 1 - p_N).log().mean()


class RateRouter(Router):
    """A boundary where the coding rate of the last states grows most (ByteFlow Net, arXiv 2603.03583).

    R(Z) = ½ log det(I + d/(n ε²) ZᵀZ); the score of t is its growth by x_t, which is the logarithm of the last pivot of
    a Cholesky factor. Published: the rate, and top-K of a row. Ours: a causal window of `reach` + 1 states of length 1,
    and what stands in for top-K outside training, where nobody may look ahead: scores above `edge`, a running quantile
    of those in training. States get no gradient from the score; they learn as contents of the chunks that they start.
    """

    reach = 7
    epsilon = 0.5
    slope = 4.0
    """p = σ(slope · (score − edge))."""

    def __init__(self, width: int, target_length: float) -> None:
        super().__init__(width, target_length)
        self.gain = width / ((self.reach + 1) * self.epsilon**2)
        self.edge: Tensor
        self.register_buffer("edge", torch.tensor(0.25 * math.log1p(self.gain)))

    def forward(self, x_BLD: Tensor) -> tuple[Tensor, Tensor]:
        """Return p_BL and boundary_BL."""
        p_BL = self._p(self.growth(x_BLD))
        return p_BL, p_BL >= 0.5

    def explore(self, x_BLD: Tensor, length_B: Tensor | None, aim: float) -> tuple[Tensor, Tensor]:
        """Return p_BL, and the length / aim positions of each row where the rate grows most."""
        score_BL = self.growth(x_BLD)
        B, L = score_BL.shape
        valid_BL = decided(score_BL, length_B)
        held_BL = score_BL.masked_fill(~valid_BL, -math.inf)
        held_BL[:, 0] = math.inf
        count_B = torch.full((B,), L, device=x_BLD.device) if length_B is None else length_B
        count_B = (count_B / aim).round().clamp_min(1)
        place_BK = held_BL.topk(max(1, min(L, round(L / aim))), dim=1).indices
        within_BK = torch.arange(place_BK.shape[1], device=x_BLD.device) < count_B[:, None]
        boundary_BL = torch.zeros_like(valid_BL).scatter(1, place_BK, within_BK)
        follow(self.edge, taken(score_BL, length_B), taken(boundary_BL, length_B).float().mean())
        return self._p(score_BL), boundary_BL

    def _p(self, score_BL: Tensor) -> Tensor:
        return F.pad(torch.sigmoid(self.slope * (score_BL - self.edge))[:, 1:], (1, 0), value=1.0)

    @torch.no_grad()
    def growth(self, x_BLD: Tensor) -> Tensor:
        """Return ½ log of how much x_t multiplies the determinant, given the `reach` states before it; (B, L)."""
        K = self.reach
        z_BLD = F.normalize(x_BLD.to(torch.promote_types(x_BLD.dtype, torch.float32)), dim=-1)
        z_BLD = torch.cat((z_BLD[:, :1].expand(-1, K, -1), z_BLD), 1)
        back = [F.pad((z_BLD[:, k:] * z_BLD[:, : z_BLD.shape[1] - k]).sum(-1), (k, 0)) for k in range(K + 1)]
        near_BLK = torch.stack(back, -1)  # near[t, k] = ⟨z_t, z_{t−k}⟩
        rows_BLKK = near_BLK.unfold(1, K + 1, 1).transpose(2, 3)  # [t, i, k]: the i-th of t's window, k before it
        i_K = torch.arange(K + 1, device=x_BLD.device)
        far_KK = (i_K[:, None] - i_K).clamp_min(0)
        lower_BLKK = rows_BLKK.gather(3, far_KK.expand(*rows_BLKK.shape[:2], -1, -1)).tril()
        one_KK = torch.eye(K + 1, device=x_BLD.device, dtype=z_BLD.dtype)
        return torch.linalg.cholesky_ex(one_KK + self.gain * lower_BLKK).L[:, :, -1, -1].log()


class DelayedRouter(CosineRouter):
    """Decides about a position when it has seen the one after it; the chunk starts there, one position late (ours).

    p_t = ½(1 − cos(W_q x_{t−1} + W_a x_t, W_k x_{t−2})), with W_a = 0 at the start: the cosine router's p_{t−1}.
    """

    reach = 2

    def __init__(self, width: int, target_length: float) -> None:
        super().__init__(width, target_length)
        self.ahead = nn.Linear(width, width, bias=False)
        nn.init.zeros_(self.ahead.weight)

    def forward(self, x_BLD: Tensor) -> tuple[Tensor, Tensor]:
        """Return p_BL and boundary_BL."""
        before_BLD = before(x_BLD)
        p_BL = cosine_probability(self.q(before_BLD) + self.ahead(x_BLD), self.k(before_BLD))
        return p_BL, p_BL >= 0.5
