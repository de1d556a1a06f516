"""Routers: which positions start a chunk, and how sure that is.

    cosine            where neighbours differ: p = ½(1 − cos) at least ½ (paper, study 1)
    cosine-threshold  the same p above a "learned" threshold σ(θ), which gets no gradient (TinyHNet)
    cosine-bias       the same decisions, with θ as a bias on the log-odds of p, so that it learns
    soft              no decision: how far each position blends with the one before it (the soft chunker)
    fixed             every k-th position (as MegaByte)
    whitespace        where a run of space-like bytes starts (as SpaceByte)
    entropy           where the next byte is hard to guess for a small model (as BLT)
    given             boundaries handed to the model

All are causal: no decision depends on later positions. The last three do not look at the stream; where their
boundaries come from is a provider's business (`niblick.model.providers`).

Shapes: B batch, L positions, D width; in steps R rows that take part.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from niblick.errors import ConfigError, expect_free
from niblick.model.chunking import cosine_probability
from niblick.model.model_config import ROUTER_NAMES, SOFT_ROUTERS

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

    def chunks_B(self) -> Tensor:
        """Number of chunks of each row."""
        found_B = self.boundary_BL.sum(1)
        return found_B if self.capacity is None else found_B.clamp_max(self.capacity)

    def dropped_B(self) -> Tensor:
        """Boundaries of each row that the capacity has no room for."""
        return self.boundary_BL.sum(1) - self.chunks_B()


@dataclass
class RouterState:
    """What routers keep between steps: the last input, and the position each row is at."""

    last_BD: Tensor
    place_B: Tensor


class Router(nn.Module):
    """Base of the routers that look at the stream: they need the position before, and nothing else from the past."""

    def __init__(self, width: int, target_length: float) -> None:
        super().__init__()
        self.width = width

    def new_state(self, rows: int, like: Tensor) -> RouterState:
        """Return the state before the first position."""
        place_B = torch.zeros(rows, dtype=torch.long, device=like.device)
        return RouterState(like.new_zeros(rows, self.width), place_B)

    def step(self, x_RD: Tensor, state: RouterState, rows_R: Tensor) -> tuple[Tensor, Tensor]:
        """One position of the rows `rows_R`; updates `state` in place. Returns p_R and boundary_R."""
        pair_R2D = torch.stack((state.last_BD[rows_R], x_RD), 1)
        first_R = state.place_B[rows_R] == 0
        state.last_BD[rows_R] = x_RD
        state.place_B[rows_R] += 1
        p_R2, boundary_R2 = self(pair_R2D)
        return torch.where(first_R, 1.0, p_R2[:, 1]), boundary_R2[:, 1] | first_R


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
    """A boundary at every k-th position, k the target length rounded."""

    def __init__(self, width: int, target_length: float) -> None:
        super().__init__(width, target_length)
        self.every = max(1, round(target_length))

    def forward(self, x_BLD: Tensor) -> tuple[Tensor, Tensor]:
        """Return p_BL and boundary_BL."""
        B, L, _ = x_BLD.shape
        boundary_BL = (torch.arange(L, device=x_BLD.device) % self.every == 0).expand(B, L)
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


ROUTERS: dict[str, Callable[[int, float], nn.Module]] = {
    "cosine": CosineRouter,
    "cosine-threshold": ThresholdRouter,
    "cosine-bias": BiasRouter,
    "soft": SoftRouter,
    "fixed": FixedRouter,
    "whitespace": GivenRouter,
    "entropy": GivenRouter,
    "given": GivenRouter,
}
"""Routers by the name that configs use, each built from the width and the target chunk length."""


def register_router(name: str, router: Callable[[int, float], nn.Module]) -> None:
    """Make `name` available: `router(width, target_length)` builds a module from x_BLD to (p_BL, boundary_BL).

    Position 0 must be a boundary, and no decision may depend on later positions. For generation it needs `new_state`
    and `step` too; a subclass of `Router` that compares neighbours has them already. Raises ConfigError if the name is
    taken by another router.
    """
    expect_free("router", ROUTERS, name, router, ConfigError)
    ROUTERS[name] = router
    ROUTER_NAMES.add(name)
    soft = isinstance(router, type) and issubclass(router, SoftRouter)
    (SOFT_ROUTERS.add if soft else SOFT_ROUTERS.discard)(name)


def route(router: nn.Module, x_BLD: Tensor, length_B: Tensor | None, given_BL: Tensor | None = None) -> Routing:
    """Ask the router, and take its boundaries off the padding of rows shorter than L.

    Raises ConfigError if the router wants boundaries from outside and there are none.
    """
    if isinstance(router, GivenRouter):
        boundary_BL = _given(given_BL)
        p_BL = boundary_BL.float()
    else:
        p_BL, boundary_BL = router(x_BLD)
    if length_B is not None:
        boundary_BL = boundary_BL & (torch.arange(x_BLD.shape[1], device=x_BLD.device) < length_B[:, None])
    return Routing(p_BL, boundary_BL, length_B)


def route_step(
    router: Any, x_RD: Tensor, state: RouterState, rows_R: Tensor, given_R: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Ask the router for one position of the rows `rows_R`. Returns p_R and boundary_R."""
    if not isinstance(router, GivenRouter):
        return router.step(x_RD, state, rows_R)
    boundary_R = _given(given_R[:, None] if given_R is not None else None, state.place_B[rows_R, None])[:, 0]
    state.place_B[rows_R] += 1
    return boundary_R.float(), boundary_R


def _given(given_BL: Tensor | None, place_BL: Tensor | None = None) -> Tensor:
    if given_BL is None:
        raise ConfigError(
            "this model's router takes its boundaries from outside: pass `given_BL`, or set `model.provider`"
        )
    if place_BL is None:
        place_BL = torch.arange(given_BL.shape[1], device=given_BL.device)[None]
    return given_BL | (place_BL == 0)


def blend(x_D: Tensor, before_D: Tensor, b: Tensor) -> Tensor:
    """x_t + (1 − b)(x_{t−1} − x_t) (the soft chunker)."""
    return torch.lerp(x_D, before_D, (1 - b).to(x_D.dtype)[..., None])


def before(x_BLD: Tensor) -> Tensor:
    """Each position's predecessor; the first stands before itself."""
    return torch.cat((x_BLD[:, :1], x_BLD[:, :-1]), 1)
