"""Routers: which positions start a chunk, and how sure that is.

Shapes: B batch, L positions, D width.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from niblick.errors import ConfigError
from niblick.model.chunking import cosine_probability


@dataclass(frozen=True)
class Routing:
    """One level's decisions for a batch."""

    p_BL: Tensor
    """Boundary probability of each position, float32 or wider."""
    boundary_BL: Tensor
    """True where a chunk starts. Position 0 always does; padding never."""
    length_B: Tensor | None = None
    """Valid positions of each row; None where all of L are."""

    def chunks_B(self) -> Tensor:
        """Number of chunks of each row."""
        return self.boundary_BL.sum(1)


class CosineRouter(nn.Module):
    """The published router: a boundary where p = ½(1 − cos(W_q x_t, W_k x_{t−1})) is at least ½.

    W_q and W_k start as the identity. Decisions at p = ½ are knife-edges: rounding may turn them.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(width, width, bias=False)
        nn.init.eye_(self.q.weight)
        nn.init.eye_(self.k.weight)

    def forward(self, x_BLD: Tensor) -> tuple[Tensor, Tensor]:
        """Return p_BL and boundary_BL."""
        p_BL = cosine_probability(self.q(x_BLD), self.k(x_BLD))
        return p_BL, p_BL >= 0.5


ROUTERS: dict[str, Callable[[int], nn.Module]] = {"cosine": CosineRouter}
"""Routers by the name that configs use."""


def register_router(name: str, router: Callable[[int], nn.Module]) -> None:
    """Make `name` available in configs: `router(width)` builds a module from x_BLD to (p_BL, boundary_BL).

    Position 0 must be a boundary, and no decision may depend on later positions. Raises ConfigError if the name is
    taken by another router.
    """
    if ROUTERS.get(name, router) is not router:
        raise ConfigError(f"router {name!r} is taken: choose another name (taken: {', '.join(sorted(ROUTERS))})")
    ROUTERS[name] = router


def route(router: nn.Module, x_BLD: Tensor, length_B: Tensor | None) -> Routing:
    """Ask the router, and take its boundaries off the padding of rows shorter than L."""
    p_BL, boundary_BL = router(x_BLD)
    if length_B is not None:
        boundary_BL = boundary_BL & (torch.arange(x_BLD.shape[1], device=x_BLD.device) < length_B[:, None])
    return Routing(p_BL, boundary_BL, length_B)
