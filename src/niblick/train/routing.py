"""Facts for the log about what routers do while a model trains, and when to worry about it.

Shapes: B batch, L positions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from niblick.facts.events import Trouble
from niblick.model.model_config import UNTAUGHT
from niblick.model.plain_routers import Routing

CERTAIN = 0.02
"""A decision is near-certain where p is so close to 0 or 1."""
SAME_P = 0.01
"""Decisions no longer depend on the input where p varies by less than this (standard deviation)."""
SAME_RATE = 0.005
"""Nor where all but so small a share of positions are decided alike."""

PATIENCE = 3
"""Logged steps that a collapse must last before it is worth a warning: early in training it often passes."""


ADVICE = {
    "all": "raise the level's ratio_weight, or begin with train.init_from=whitespace",
    "none": "raise the level's ratio_weight, or let the target rise to it (target_start)",
    "same": "lower its learning rate (lr_mult), or begin with train.init_from=whitespace",
}
RULE = "its rule does not fit this text: choose a router that learns, such as model.levels.{}.router=cosine"
"""Advice where no weight and no setting of a loss moves a boundary."""


def routing_facts(routing: Routing, tokens: int) -> dict[str, float]:
    """Boundary rate, mean and spread of p, share of near-certain decisions, boundaries without room in a row; and
    how many of `tokens`, those of all rows, a chunk has (of the innermost level over bytes: BPIC).

    But for the last, the first position of a row, a boundary in any case, does not count.
    """
    p_BL, boundary_BL = routing.p_BL.detach()[:, 1:].float(), routing.boundary_BL[:, 1:]
    p_N, boundary_N = p_BL.flatten(), boundary_BL.flatten()
    if routing.length_B is not None:
        valid_BL = torch.arange(1, p_BL.shape[1] + 1, device=p_BL.device) < routing.length_B[:, None]
        p_N, boundary_N = p_BL[valid_BL], boundary_BL[valid_BL]
    if not len(p_N):
        p_N, boundary_N = F.pad(p_N, (0, 1), value=1.0), F.pad(boundary_N, (0, 1), value=True)
    facts = (
        boundary_N.float().mean(),
        p_N.mean(),
        p_N.std(correction=0),
        ((p_N - 0.5).abs() > 0.5 - CERTAIN).float().mean(),
        routing.dropped_B().float().mean(),
        tokens / routing.chunks_B().sum(),
    )
    names = ("boundary_rate", "mean_p", "spread_p", "near_certain", "truncated", "tokens_per_chunk")
    return dict(zip(names, torch.stack(facts).tolist(), strict=True))


def collapse(facts: dict[str, float], rule: str = "") -> str | None:
    """Say in which way decisions have stopped to depend on the input, and what may help; None while they do.

    `rule` is the advice where a rule decides.
    """
    rate = facts["boundary_rate"]
    if rate > 1 - SAME_RATE:
        return f"every position is a boundary: the level cuts nothing any more; {rule or ADVICE['all']}"
    if rate < SAME_RATE:
        return f"no position is a boundary any more: each row is one chunk; {rule or ADVICE['none']}"
    if facts["spread_p"] < SAME_P:
        advice = rule or ADVICE["same"]
        return f"p is {facts['mean_p']:.2f} everywhere: decisions no longer depend on the input; {advice}"
    return None


class CollapseWatch:
    """Turns the facts of each level into warnings, one when a collapse has lasted and none until it has ended."""

    def __init__(self, lasted: list[int] | None = None) -> None:
        self._lasted: dict[int, int] = dict(enumerate(lasted or []))

    def state(self) -> list[int]:
        """Return for each level how many logged steps its collapse has lasted: what `lasted` takes back."""
        return [self._lasted[i] for i in sorted(self._lasted)]

    def warnings(self, levels: list[dict[str, float]], step: int, routers: Sequence[str]) -> list[Trouble]:
        """Take in the facts of a logged step, of levels with these routers. Returns the events to emit."""
        events = []
        for i, facts in enumerate(levels):
            reason = collapse(facts, RULE.format(i) if routers[i] in UNTAUGHT else "")
            self._lasted[i] = self._lasted.get(i, 0) + 1 if reason else 0
            if self._lasted[i] == PATIENCE:
                message = f"level {i} has collapsed: {reason}"
                events.append(Trouble(step=step, kind="dead_router", level=i, message=message))
        return events
