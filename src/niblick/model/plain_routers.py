"""Routers that decide by what neighbours are, or by place alone; and the base of all that look at the stream.

Shapes: B batch, L positions, K positions before one, W = K + 1, D width; in steps R rows that take part.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from niblick.model.chunking import cosine_probability

LOGIT_EPS = 1e-6
"""Probabilities are clamped to [LOGIT_EPS, 1 − LOGIT_EPS] before their log-odds are taken."""


@dataclass(frozen=True)
class Routing:
    """One level's decisions for a batch."""

    p_BL: Tensor
    """Boundary probability of each position, float32 or wider."""
    boundary_BL: Tensor
    """True where a chunk starts. Position 0 always does; padding never."""
    length_B: Tensor | None = None
    """Valid positions of each row; None where all of L are."""
    capacity: int | None = None
    """Chunks that a row may have; what starts later is part of the last one. None: as many as there are."""
    inside_BCD: Tensor | None = None
    """The chunks' states as they came out of the inside, where a loss asks for them."""

    def chunks_B(self) -> Tensor:
        """Number of chunks of each row."""
        found_B = self.boundary_BL.sum(1)
        return found_B if self.capacity is None else found_B.clamp_max(self.capacity)

    def dropped_B(self) -> Tensor:
        """Boundaries of each row that the capacity has no room for."""
        return self.boundary_BL.sum(1) - self.chunks_B()


@dataclass
class RouterState:
    """What routers keep between steps: the last inputs, oldest first, and the position each row is at."""

    past_BKD: Tensor
    place_B: Tensor


class Router(nn.Module):
    """Base of the routers that look at the stream: the last `reach` positions, and nothing else from the past.

    Before the first position stands the first again. A router may have two methods more, which only training calls:

        explore(x_BLD, length_B, aim) → p_BL, boundary_BL    decides otherwise while it trains
        loss(routing, cost_BL, aim) → a scalar               a loss of its own, beside the level's

    `aim` is the chunk length that is asked for now. `cost_BL` is each position's part of the model's loss, without
    gradient: its sum is the loss, and a position of an inner level has the costs of all tokens in its chunk.
    """

    reach = 1
    """Positions before its own that a decision depends on."""

    def __init__(self, width: int, target_length: float) -> None:
        super().__init__()
        self.width = width

    def new_state(self, rows: int, like: Tensor) -> RouterState:
        """Return the state before the first position."""
        place_B = torch.zeros(rows, dtype=torch.long, device=like.device)
        return RouterState(like.new_zeros(rows, self.reach, self.width), place_B)

    def step(self, x_RD: Tensor, state: RouterState, rows_R: Tensor) -> tuple[Tensor, Tensor]:
        """One position of the rows `rows_R`; updates `state` in place. Returns p_R and boundary_R."""
        first_R = state.place_B[rows_R] == 0
        past_RKD = torch.where(first_R[:, None, None], x_RD[:, None], state.past_BKD[rows_R])
        window_RWD = torch.cat((past_RKD, x_RD[:, None]), 1)
        state.past_BKD[rows_R] = window_RWD[:, 1:]
        state.place_B[rows_R] += 1
        p_RW, boundary_RW = self(window_RWD)
        return torch.where(first_R, 1.0, p_RW[:, -1]), boundary_RW[:, -1] | first_R


class CosineRouter(Router):
    """The published router: a boundary where p = ½(1 − cos(W_q x_t, W_k x_{t−1})) is at least ½.

    W_q and W_k start as the identity. Decisions at p = ½ are knife-edges: rounding may turn them.
    """

    def __init__(self, width: int, target_length: float) -> None:
        super().__init__(width, target_length)
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(width, width, bias=False)
        nn.init.eye_(self.q.weight)
        nn.init.eye_(self.k.weight)

    def forward(self, x_BLD: Tensor) -> tuple[Tensor, Tensor]:
        """Return p_BL and boundary_BL."""
        p_BL = cosine_probability(self.q(x_BLD), self.k(x_BLD))
        return p_BL, p_BL >= 0.5


class ThresholdRouter(CosineRouter):
    """TinyHNet's gate: a boundary where p is above σ(θ), θ starting at −3. A comparison gives θ no gradient."""

    def __init__(self, width: int, target_length: float) -> None:
        super().__init__(width, target_length)
        self.threshold = nn.Parameter(torch.tensor(-3.0))

    def forward(self, x_BLD: Tensor) -> tuple[Tensor, Tensor]:
        """Return p_BL and boundary_BL."""
        p_BL = cosine_probability(self.q(x_BLD), self.k(x_BLD))
        return p_BL, p_BL > torch.sigmoid(self.threshold)


class BiasRouter(ThresholdRouter):
    """The same decisions as ThresholdRouter's, as p ≥ ½ of shifted log-odds: σ(logit p − θ) ≥ ½ where p ≥ σ(θ).

    So p says how sure the decision was, and whatever reads p trains θ.
    """

    def forward(self, x_BLD: Tensor) -> tuple[Tensor, Tensor]:
        """Return p_BL and boundary_BL."""
        p_BL = cosine_probability(self.q(x_BLD), self.k(x_BLD))
        p_BL = torch.sigmoid(torch.logit(p_BL, LOGIT_EPS) - self.threshold)
        first_L = torch.arange(p_BL.shape[1], device=p_BL.device) == 0
        p_BL = torch.where(first_L, 1.0, p_BL)
        return p_BL, p_BL >= 0.5


class FixedRouter(Router):
    """A boundary at every k-th position, k the target length rounded, 2 at least."""

    def __init__(self, width: int, target_length: float) -> None:
        super().__init__(width, target_length)
        self.every = max(2, round(target_length))

    def forward(self, x_BLD: Tensor) -> tuple[Tensor, Tensor]:
        """Return p_BL and boundary_BL."""
        return self.explore(x_BLD, None, self.every)

    def explore(self, x_BLD: Tensor, length_B: Tensor | None, aim: float) -> tuple[Tensor, Tensor]:
        """Return the same for another target length."""
        B, L, _ = x_BLD.shape
        boundary_BL = (torch.arange(L, device=x_BLD.device) % max(2, round(aim)) == 0).expand(B, L)
        return boundary_BL.float(), boundary_BL

    def step(self, x_RD: Tensor, state: RouterState, rows_R: Tensor) -> tuple[Tensor, Tensor]:
        """One position of the rows `rows_R`; updates `state` in place. Returns p_R and boundary_R."""
        boundary_R = state.place_B[rows_R] % self.every == 0
        state.place_B[rows_R] += 1
        return boundary_R.float(), boundary_R


class SoftRouter(Router):
    """The soft chunker's gate: b = σ(w·[x_{t−1}; x_t] + c), x_0 standing before itself. Nothing is cut at b ≥ ½;
    those positions are reported as boundaries.
    """

    def __init__(self, width: int, target_length: float) -> None:
        super().__init__(width, target_length)
        self.gate = nn.Linear(2 * width, 1)

    def probability(self, before_D: Tensor, x_D: Tensor) -> Tensor:
        """Return b, in float32 or wider, without the last dimension."""
        z = self.gate(torch.cat((before_D, x_D), -1)).squeeze(-1)
        return torch.sigmoid(z.to(torch.promote_types(z.dtype, torch.float32)))


class GivenRouter(Router):
    """Takes its boundaries from outside the stream. p is 1 at boundaries and 0 elsewhere."""


def blend(x_D: Tensor, before_D: Tensor, b: Tensor) -> Tensor:
    """x_t + (1 − b)(x_{t−1} − x_t) (the soft chunker)."""
    return torch.lerp(x_D, before_D, (1 - b).to(x_D.dtype)[..., None])


def before(x_BLD: Tensor) -> Tensor:
    """Each position's predecessor; the first stands before itself."""
    return torch.cat((x_BLD[:, :1], x_BLD[:, :-1]), 1)
