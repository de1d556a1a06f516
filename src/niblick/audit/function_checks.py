"""Checks of any function from ids (B, L) to log-probabilities (B, L, V): causality, normalization, independence.

The function is a black box: it is asked again with other tokens, other neighbours, other batches. What it says at t may
follow from the ids up to t alone. A difference counts only if it shows again with the row by itself, and is then made
as small as it gets: few changed tokens, a short row.

Shapes: B batch, L positions, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from niblick.audit.checks import Check, failed, passed
from niblick.score.any_function import sum_tolerance

Function = Callable[[Tensor], Tensor]

TOLERANCE = 1e-4
"""Log-probabilities that differ by less are the same: what float32 leaves of different orders of summing."""

FLOOR = -30.0
"""Log-probabilities below this are taken for it: they are never what anything depends on."""


@dataclass(frozen=True)
class Effort:
    """How hard the checks look."""

    tokens: int = 1 << 17
    """Ids that a check may have computed; where all cuts of a row fit in, every one is tried."""
    batch: int = 1 << 13
    """Ids handled at once."""
    seed: int = 0


class Leak(NamedTuple):
    """Position `at` of row `ids` says something else where the tokens of `changed` stand behind it."""

    ids_L: Tensor
    changed_L: Tensor
    at: int


def causality(f: Function, ids_BL: Tensor, vocab_size: int, effort: Effort, targeted: Iterable[int] = ()) -> Check:
    """Change what comes after t, for as many t as fit: nothing up to t may change.

    `targeted` are the cuts to try first (document starts, boundaries); the first and last positions are always tried.
    """
    random = torch.Generator().manual_seed(effort.seed)
    length, tried = ids_BL.shape[1], 0
    cuts = _cuts(length, max(2, effort.tokens // (length * len(ids_BL))), targeted, random)
    for row_L in ids_BL:
        rows = max(1, effort.batch // length)
        for at in range(0, len(cuts), rows):
            own = cuts[at : at + rows]
            changed_RL = row_L.repeat(len(own), 1)
            for changed_L, cut in zip(changed_RL, own, strict=True):
                changed_L[cut + 1 :] = other_tokens(row_L[cut + 1 :], vocab_size, random)
            plain_1LV, found_RLV = f(row_L[None]), f(changed_RL)
            tried += len(own)
            for cut, changed_L, found_LV in zip(own, changed_RL, found_RLV, strict=True):
                if leak := _leak(f, row_L, changed_L, cut, plain_1LV[0], found_LV):
                    return _shown(f, leak)
    every = "every one" if len(cuts) == length - 1 else f"{len(cuts)} of {length - 1}"
    return passed(
        "causality",
        f"no distribution changes with later tokens: {every} of the cuts of {len(ids_BL)} rows of {length} tokens",
        cuts=tried,
        length=length,
    )


def _cuts(length: int, most: int, targeted: Iterable[int], random: torch.Generator) -> list[int]:
    """The positions after which tokens are changed: all, or the targeted ones, both ends, and some drawn."""
    if length - 1 <= most:
        return list(range(length - 1))
    ends = [length - 2, 0, 1, length - 3]
    wanted = list(dict.fromkeys([*ends, *(t for t in targeted if 0 <= t < length - 1)]))[:most]
    drawn = torch.randperm(length - 1, generator=random).tolist()
    return list(dict.fromkeys([*wanted, *drawn]))[:most]


def other_tokens(ids: Tensor, vocab_size: int, random: torch.Generator) -> Tensor:
    """Draw tokens that differ from `ids` everywhere."""
    return (ids + torch.randint(1, vocab_size, ids.shape, generator=random)) % vocab_size


def difference(one_V: Tensor, other_V: Tensor) -> Tensor:
    """How far log-probabilities are apart, without the last dimension; infinite where one of them is no number."""
    apart = (one_V.double().clamp_min(FLOOR) - other_V.double().clamp_min(FLOOR)).abs().nan_to_num(torch.inf)
    return apart.amax(-1)


def _leak(f: Function, row_L: Tensor, changed_L: Tensor, cut: int, plain_LV: Tensor, found_LV: Tensor) -> Leak | None:
    """The leak that a cut shows, if the row shows it by itself as well."""
    if not bool((difference(plain_LV[: cut + 1], found_LV[: cut + 1]) > TOLERANCE).any()):
        return None
    return _leak_alone(f, row_L, changed_L, cut)


def _leak_alone(f: Function, row_L: Tensor, changed_L: Tensor, last: int) -> Leak | None:
    """Ask twice, with each row by itself; of the positions up to `last` that differ, the last one."""
    apart_L = difference(f(row_L[None])[0, : last + 1], f(changed_L[None])[0, : last + 1])
    again_L = difference(f(row_L[None])[0, : last + 1], f(changed_L[None])[0, : last + 1])
    found = torch.nonzero((apart_L > TOLERANCE) & (again_L > TOLERANCE)).flatten().tolist()
    return Leak(row_L, changed_L, found[-1]) if found else None


def _smallest(f: Function, leak: Leak) -> Leak:
    """Change fewer tokens, then drop tokens behind and in front, as long as the position still differs."""

    def still(ids_L: Tensor, changed_L: Tensor, at: int) -> bool:
        if not torch.equal(ids_L[: at + 1], changed_L[: at + 1]):
            return False
        try:
            return bool(difference(f(ids_L[None])[0, at], f(changed_L[None])[0, at]) > TOLERANCE)
        except Exception:  # a stranger's function may read rows of one length alone
            return False

    ids_L, changed_L, at = leak
    places = torch.nonzero(ids_L != changed_L).flatten().tolist()
    while len(places) > 1:
        for half in (places[: len(places) // 2], places[len(places) // 2 :]):
            candidate_L = ids_L.clone()
            candidate_L[half] = changed_L[half]
            if still(ids_L, candidate_L, at):
                places, changed_L = half, candidate_L
                break
        else:
            break
    end = places[-1] + 1
    if still(ids_L[:end], changed_L[:end], at):
        ids_L, changed_L = ids_L[:end], changed_L[:end]
    drop = at
    while drop:
        if still(ids_L[drop:], changed_L[drop:], at - drop):
            ids_L, changed_L, at = ids_L[drop:], changed_L[drop:], at - drop
            drop = min(drop, at)
        else:
            drop //= 2
    return Leak(ids_L, changed_L, at)


def _shown(f: Function, leak: Leak) -> Check:
    small = _smallest(f, leak)
    before_V, after_V = (f(row_L[None])[0, small.at].double() for row_L in (small.ids_L, small.changed_L))
    channel = int((before_V.clamp_min(FLOOR) - after_V.clamp_min(FLOOR)).abs().nan_to_num(torch.inf).argmax())
    places = torch.nonzero(small.ids_L != small.changed_L).flatten().tolist()
    log_p = [round(float(before_V[channel]), 6), round(float(after_V[channel]), 6)]
    facts: dict[str, object] = {
        "length": len(small.ids_L),
        "position": small.at,
        "changed": [{"at": s, "from": int(small.ids_L[s]), "to": int(small.changed_L[s])} for s in places[:8]],
        "token": channel,
        "log_p": log_p,
        "ids": small.ids_L.tolist() if len(small.ids_L) <= 64 else None,
    }
    ahead = f"token {places[0]}" if len(places) == 1 else f"{len(places)} tokens from {places[0]} on"
    return failed(
        "causality",
        f"in a row of {len(small.ids_L)} tokens, changing {ahead} changes what position {small.at} says of token "
        f"{channel}: log-probability {log_p[0]:.4f} becomes {log_p[1]:.4f}",
        **facts,
    )


def normalization(f: Function, ids_BL: Tensor) -> Check:
    """Probabilities of every position are numbers that sum to one over the whole vocabulary, up to rounding."""
    found_BLV = f(ids_BL)
    log_p_BLV, tolerance = found_BLV.double(), sum_tolerance(found_BLV.dtype)
    sums_BL = log_p_BLV.logsumexp(-1).exp()
    off_BL = (sums_BL - 1).abs().nan_to_num(torch.inf)
    worst = int(off_BL.argmax())
    row, place = divmod(worst, ids_BL.shape[1])
    if float(off_BL.max()) > tolerance:
        return failed(
            "normalization",
            f"the probabilities at position {place} of row {row} sum to {float(sums_BL[row, place]):.4f}, not to 1",
            position=place,
            row=row,
            sum=float(sums_BL[row, place]),
            positions_wrong=int((off_BL > tolerance).sum()),
        )
    return passed(
        "normalization",
        f"{off_BL.numel():,} distributions over {log_p_BLV.shape[-1]:,} tokens sum to 1 within "
        f"{max(float(off_BL.max()), 1e-15):.0e}",
        worst=float(off_BL.max()),
    )


def independence(f: Function, ids_BL: Tensor) -> Check:
    """A row says the same by itself, in batches of any size, in any order, and after other rows were read."""
    alone_BLV = torch.cat([f(row_L[None]) for row_L in ids_BL])
    ways: list[tuple[str, Callable[[], Tensor]]] = [
        ("after other rows were read", lambda: torch.cat([f(row_L[None]) for row_L in ids_BL])),
        ("in a batch with other rows", lambda: f(ids_BL)),
        ("in a batch in the opposite order", lambda: f(ids_BL.flip(0)).flip(0)),
        ("in a batch of two", lambda: torch.cat([f(pair) for pair in ids_BL.split(2)])),
    ]
    for way, ask in ways:
        apart_BL = difference(alone_BLV, ask())
        if bool((apart_BL > TOLERANCE).any()) and bool((difference(alone_BLV, ask()) > TOLERANCE).any()):
            row, place = divmod(int(apart_BL.argmax()), ids_BL.shape[1])
            return failed(
                "independence",
                f"row {row} of {len(ids_BL)} says something else {way} than by itself before: at position {place} a "
                f"log-probability differs by {float(apart_BL.max()):.4g}",
                way=way,
                row=row,
                position=place,
                difference=float(apart_BL.max()),
            )
    return passed(
        "independence",
        f"{len(ids_BL)} rows say the same by themselves, in batches of other sizes and orders, and when asked again",
        rows=len(ids_BL),
    )


def audit_function(
    f: Function, ids_BL: Tensor, vocab_size: int, effort: Effort | None = None, targeted: Iterable[int] = ()
) -> list[Check]:
    """All three, the one that wants a function that has seen nothing first."""
    effort = effort or Effort()
    with torch.no_grad():
        return [
            independence(f, ids_BL),
            normalization(f, ids_BL),
            causality(f, ids_BL[: max(1, effort.tokens // ids_BL.shape[1] ** 2)], vocab_size, effort, targeted),
        ][::-1]
