"""Boundary providers: boundaries for routers that do not look at the stream.

A provider maps token ids to boundaries, position by position and without looking ahead; `step` says the same one
position at a time. Users may set `model.provider` to one of their own for the router `given`.

Shapes: B batch, L positions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from niblick.model.model_config import control_tokens


class Provider(Protocol):
    """What a provider must offer."""

    def __call__(self, ids_BL: Tensor) -> Tensor:
        """Return boundary_BL; whether position t starts a chunk may depend on the tokens up to t."""

    def new_state(self, rows: int, like: Tensor) -> Any:
        """Return the state before the first position."""

    def step(self, token_B: Tensor, state: Any) -> Tensor:
        """Return boundary_B for one more token of every row; updates `state` in place."""


@dataclass
class WhitespaceState:
    """Whether each row's last byte was space-like."""

    spacelike_B: Tensor


class Whitespace:
    """A boundary where a run of space-like bytes starts, and at control tokens (SpaceByte, Slagle 2024).

    Space-like are bytes that are no ASCII letter or digit and do not continue a UTF-8 character. Tokens must be bytes:
    the last 256 of the vocabulary, after control tokens. Raises ConfigError for a vocabulary of another size.
    """

    def __init__(self, vocab_size: int) -> None:
        self.controls = control_tokens(vocab_size, "'whitespace' boundaries are")
        spacelike = [not (chr(b).isalnum() and b < 128) and not 0x80 <= b < 0xC0 for b in range(256)]
        self.spacelike_V = torch.tensor([False] * self.controls + spacelike)

    def __call__(self, ids_BL: Tensor) -> Tensor:
        spacelike_BL = self.spacelike_V.to(ids_BL.device)[ids_BL]
        before_BL = torch.cat((torch.zeros_like(spacelike_BL[:, :1]), spacelike_BL[:, :-1]), 1)
        return (spacelike_BL & ~before_BL) | (ids_BL < self.controls)

    def new_state(self, rows: int, like: Tensor) -> WhitespaceState:
        """Return the state before the first position."""
        return WhitespaceState(torch.zeros(rows, dtype=torch.bool, device=like.device))

    def step(self, token_B: Tensor, state: WhitespaceState) -> Tensor:
        """Return boundary_B for one more token of every row."""
        spacelike_B = self.spacelike_V.to(token_B.device)[token_B]
        boundary_B = (spacelike_B & ~state.spacelike_B) | (token_B < self.controls)
        state.spacelike_B = spacelike_B
        return boundary_B


@dataclass
class EntropyState:
    """The small model's state, and what it thinks of the next token of each row, in nats."""

    model: Any
    entropy_B: Tensor


class Entropy(nn.Module):
    """A boundary at t where a small language model's entropy about token t is above a threshold (BLT, Pagnoni 2024).

    The entropy is that of the prediction made before token t, so nothing looks ahead. The small model is frozen; it
    lies inside the big one, so it is in the artifact and counted.
    """

    def __init__(self, lm: Any, threshold: float) -> None:
        super().__init__()
        self.lm, self.threshold = lm, threshold
        self.requires_grad_(False)

    @torch.no_grad()
    def entropy(self, ids_BL: Tensor) -> Tensor:
        """Return the nats of entropy about each token, (B, L); infinity about the first, which nothing predicts."""
        ahead_BL = _entropy(self.lm(ids_BL))
        return torch.cat((torch.full_like(ahead_BL[:, :1], float("inf")), ahead_BL[:, :-1]), 1)

    def forward(self, ids_BL: Tensor) -> Tensor:
        """Return boundary_BL."""
        return self.entropy(ids_BL) > self.threshold

    def new_state(self, rows: int, like: Tensor) -> EntropyState:
        """Return the state before the first position."""
        return EntropyState(self.lm.new_state(rows), like.new_full((rows,), float("inf"), dtype=torch.float64))

    @torch.no_grad()
    def step(self, token_B: Tensor, state: EntropyState) -> Tensor:
        """Return boundary_B for one more token of every row."""
        boundary_B = state.entropy_B > self.threshold
        state.entropy_B = _entropy(self.lm.step(token_B, state.model)).double()
        return boundary_B


def _entropy(logits: Tensor) -> Tensor:
    log_p = logits.log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)
