"""Checks of a whole scorer: from the tokens of a stream to the cost of each but the first, in nats.

What a function is asked of windows, this is asked of everything around it too: test-time training, caches, mixtures,
corrections, which windows are read and which targets are left out. A scorer is a black box here as well.

Shapes: N tokens of a stream, D documents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from niblick.audit.checks import Check, failed, not_applicable, passed

Tokens = npt.NDArray[np.uint16]
Scorer = Callable[[Tokens], npt.NDArray[np.float64]]

TOLERANCE = 1e-4
"""Nats that differ by less are the same."""

SUM_TOLERANCE = 1e-3


def score_first(scorer: Scorer, tokens: Tokens, vocab_size: int, cuts: Iterable[int] = (), seed: int = 0) -> Check:
    """The cost of a target is settled before the tokens after it play any part: in learning, fitting or choosing.

    `cuts` are the stream positions to try first: where stretches, windows or documents begin.
    """
    random, plain = np.random.default_rng(seed), scorer(tokens)
    if (bad := _coverage(plain, tokens)) is not None:
        return bad
    if not np.allclose(plain, scorer(tokens), atol=TOLERANCE, rtol=0):
        return failed("score-first", "scored again, the same stream costs something else: scoring leaves traces")
    places = dict.fromkeys([*cuts, *random.integers(1, len(tokens), 8).tolist(), len(tokens) - 1])
    tried = [cut for cut in places if 1 <= cut < len(tokens)]
    for cut in tried:
        changed = tokens.copy()
        changed[cut:] = (tokens[cut:] + random.integers(1, vocab_size, len(tokens) - cut)) % vocab_size
        found = scorer(changed)
        apart = np.abs(found[: cut - 1] - plain[: cut - 1])
        if cut > 1 and not (apart <= TOLERANCE).all():
            target = int(np.nonzero(~(apart <= TOLERANCE))[0][-1]) + 1
            return failed(
                "score-first",
                f"the cost of target {target} depends on tokens from {cut} on: {plain[target - 1]:.4f} nats become "
                f"{found[target - 1]:.4f} when those are others",
                target=target,
                changed_from=cut,
                nats=[float(plain[target - 1]), float(found[target - 1])],
            )
    return passed(
        "score-first",
        f"no cost of {len(plain):,} targets depends on later tokens ({len(tried)} cuts of the stream); every target "
        "is scored once",
        cuts=len(tried),
    )


def _coverage(nats: npt.NDArray[np.float64], tokens: Tokens) -> Check | None:
    """The check that fails if targets are left out, or None."""
    if len(nats) != len(tokens) - 1:
        return failed(
            "score-first",
            f"{len(nats):,} costs for {len(tokens) - 1:,} targets: every token but the first is scored once",
            costs=len(nats),
            targets=len(tokens) - 1,
        )
    if not np.isfinite(nats).all():
        target = int(np.nonzero(~np.isfinite(nats))[0][0]) + 1
        return failed("score-first", f"target {target} has no cost ({nats[target - 1]})", target=target)
    return None


def sums_to_one(scorer: Scorer, tokens: Tokens, vocab_size: int, places: Iterable[int] = ()) -> Check:
    """Put every token of the vocabulary in a target's place: exp(−cost) over all of them is one.

    Whatever knows the target, or gives more to what it finds in its tables, is told here. The cheapest target is always
    tried, and `places`.
    """
    plain = scorer(tokens)
    if (bad := _coverage(plain, tokens)) is not None:
        return failed("normalization", bad.detail, **bad.facts)
    tried = [place for place in dict.fromkeys([int(plain.argmin()) + 1, *places]) if 1 <= place < len(tokens)]
    for place in tried:
        prefix, total = tokens[: place + 1].copy(), 0.0
        for token in range(vocab_size):
            prefix[place] = token
            total += float(np.exp(-scorer(prefix)[place - 1]))
        if not abs(total - 1) <= SUM_TOLERANCE:
            return failed(
                "normalization",
                f"what target {place} costs, asked of each of the {vocab_size} tokens, adds up to a probability of "
                f"{total:.4f}, not 1",
                target=place,
                sum=total,
            )
    return passed(
        "normalization",
        f"asked of each of the {vocab_size} tokens, the cost of a target adds up to a probability of 1 "
        f"({len(tried)} targets)",
        targets=len(tried),
    )


def documents_apart(scorer: Scorer, tokens: Tokens, begin_D: npt.NDArray[np.int64], resets: bool) -> Check:
    """Where everything is reset at documents, a document costs the same whatever came before it."""
    name = "independence"
    if not resets:
        return not_applicable(name, "this scorer carries on from document to document, and says so")
    if len(begin_D) < 2:
        return not_applicable(name, "there is one document alone")
    plain, last = scorer(tokens), int(begin_D[-1])
    if _coverage(plain, tokens) is not None:
        return not_applicable(name, "targets are left out, so documents cannot be compared")
    for begin in (int(begin_D[1]), last):
        alone = scorer(tokens[begin:])
        apart = np.abs(plain[begin:] - alone)
        if not (apart <= TOLERANCE).all():
            target = int(apart.argmax())
            return failed(
                name,
                f"target {target + 1} of the document at {begin} costs {plain[begin + target]:.4f} nats in the stream "
                f"and {alone[target]:.4f} without the documents before it",
                document_at=begin,
                target=target + 1,
                nats=[float(plain[begin + target]), float(alone[target])],
            )
    return passed(name, "documents cost the same without those before them", documents=len(begin_D))


def audit_scorer(
    scorer: Scorer, tokens: Tokens, vocab_size: int, begin_D: npt.NDArray[np.int64], *, resets: bool
) -> list[Check]:
    """All of them; `begin_D` are where documents begin in the stream."""
    return [
        score_first(scorer, tokens, vocab_size, begin_D[1:].tolist()),
        sums_to_one(scorer, tokens, vocab_size, [len(tokens) // 2, len(tokens) - 1]),
        documents_apart(scorer, tokens, begin_D, resets),
    ]
