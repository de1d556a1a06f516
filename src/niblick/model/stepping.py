"""How one position of step inference is computed: piece by piece as the modules stand, or each piece compiled.

A step of a small model is hundreds of operations on a few numbers each, and most of its time goes into calling them.
Compiled, each piece is one call. Between the pieces Python decides who goes on to the inside, so that no shape within
one depends on values.

Shapes: R rows that take part, D width, V vocabulary.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from types import FunctionType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from niblick.model.layers import AttentionState


def _enter(model: Any, token_R: Tensor, ngrams: list[Any]) -> Tensor:
    return model.step_in(token_R, ngrams)


def _down(level: Any, x_RD: Tensor, state: Any, rows_R: Tensor, given_R: Tensor | None) -> tuple[Tensor, ...]:
    return level.step_down(x_RD, state, rows_R, given_R)


def _inside(stage: Any, x_RD: Tensor, state: Any, rows_R: Tensor) -> Tensor:
    return stage.step(x_RD, state, rows_R)


def _up(
    level: Any, x_RD: Tensor, state: Any, rows_R: Tensor, encoded_RD: Tensor, p_R: Tensor, boundary_R: Tensor
) -> Tensor:
    return level.step_up(x_RD, state, rows_R, encoded_RD, p_R, boundary_R)


def _head(model: Any, hidden_RD: Tensor) -> Tensor:
    return model.head(hidden_RD)


class Steps(NamedTuple):
    """The pieces of a step, from the token in to the logits out."""

    enter: Callable[..., Any] = _enter
    down: Callable[..., Any] = _down
    inside: Callable[..., Any] = _inside
    up: Callable[..., Any] = _up
    head: Callable[..., Any] = _head
    slots: int = 0
    """Positions that states have room for from the start; 0: they grow."""


PLAIN = Steps()


def compiled(slots: int) -> Steps:
    """Return the pieces compiled, for one row of at most `slots` positions.

    A piece is compiled when it is first called, and again for every other number of rows that takes part: with many
    rows, of which some or others go on to the inside, that would not end.
    """
    enter, down, inside, up, head = map(_compiled, PLAIN[:-1])
    return Steps(enter, down, inside, up, head, slots)


def _compiled(piece: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a piece for each module by itself.

    The code is a copy each time: where one code serves states of several kinds, torch 2.13 fails at naming why it
    compiles again.
    """
    made: dict[int, Callable[..., Any]] = {}

    def call(module: Any, *rest: Any) -> Any:
        if id(module) not in made:
            copied = FunctionType(piece.__code__.replace(), piece.__globals__, piece.__name__)
            made[id(module)] = torch.compile(copied, dynamic=False)
        return made[id(module)](module, *rest)

    return call


@functools.cache
def can_compile() -> bool:
    """Whether this machine can compile, which takes a compiler of C++: tried once, on next to nothing."""
    try:
        torch.compile(torch.neg)(torch.zeros(1))
    except Exception:  # torch has a dozen for it, by version and by what is missing
        return False
    return True


def make_room(state: Any, slots: int) -> None:
    """Give every attention that keeps all positions `slots` of them, in place."""
    if isinstance(state, AttentionState):
        state.make_room(slots)
    elif isinstance(state, list):
        for each in state:
            make_room(each, slots)
    elif is_dataclass(state) and not isinstance(state, type):
        for field in fields(state):
            make_room(getattr(state, field.name), slots)
