"""Routers: which positions start a chunk, and how sure that is.

    cosine            where neighbours differ: p = ½(1 − cos) at least ½ (paper, study 1)
    cosine-threshold  the same p above a "learned" threshold σ(θ), which gets no gradient (TinyHNet)
    cosine-bias       the same decisions, with θ as a bias on the log-odds of p, so that it learns
    soft              no decision: how far each position blends with the one before it (the soft chunker)
    fixed             every k-th position (as MegaByte)
    whitespace        where a run of space-like bytes starts (as SpaceByte)
    entropy           where the next byte is hard to guess for a small model (as BLT)
    given             boundaries handed to the model
    score-function    drawn in training with probability p, which learns from what follows a draw
    gumbel            drawn in training as relaxed bits, through which gradients flow
    sombrero          as cosine; p also learns where the next token is dear
    coding-rate       where a state is new among the last ones; in training so many a row as the target asks for
    delayed           as cosine, decided one position late with a look at that position

All are causal: no decision depends on later positions; `coding-rate` alone looks ahead while it trains. `whitespace`,
`entropy` and `given` do not look at the stream; where their boundaries come from is a provider's business
(`niblick.model.providers`). What each of them is, and who published it, is in docs/routers.md.

Shapes: B batch, L positions, D width; in steps R rows that take part.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from niblick.errors import ConfigError, expect_free
from niblick.model.model_config import ROUTER_NAMES, SOFT_ROUTERS
from niblick.model.plain_routers import (
    BiasRouter,
    CosineRouter,
    FixedRouter,
    GivenRouter,
    RouterState,
    Routing,
    SoftRouter,
    ThresholdRouter,
)
from niblick.model.taught_routers import DelayedRouter, GumbelRouter, RateRouter, ScoreRouter, SombreroRouter

ROUTERS: dict[str, Callable[[int, float], nn.Module]] = {
    "cosine": CosineRouter,
    "cosine-threshold": ThresholdRouter,
    "cosine-bias": BiasRouter,
    "soft": SoftRouter,
    "fixed": FixedRouter,
    "whitespace": GivenRouter,
    "entropy": GivenRouter,
    "given": GivenRouter,
    "score-function": ScoreRouter,
    "gumbel": GumbelRouter,
    "sombrero": SombreroRouter,
    "coding-rate": RateRouter,
    "delayed": DelayedRouter,
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


def route(
    router: Any,
    x_BLD: Tensor,
    length_B: Tensor | None,
    given_BL: Tensor | None = None,
    aim: float | None = None,
) -> Routing:
    """Ask the router, and take its boundaries off the padding of rows shorter than L.

    In training `aim` is the chunk length that is asked for now: routers that explore do so. Raises ConfigError if the
    router wants boundaries from outside and there are none.
    """
    if isinstance(router, GivenRouter):
        boundary_BL = _given(given_BL)
        p_BL = boundary_BL.float()
    elif aim is not None and hasattr(router, "explore"):
        p_BL, boundary_BL = router.explore(x_BLD, length_B, aim)
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
