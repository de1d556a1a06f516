"""Checks of the text: are its bytes counted right, and is it kept apart from the training text?

Bytes are recounted from what the tokens decode to: the challenge's rule counts each token's bytes by a table, and a
wrong table is worth more than any model. Validation text is looked for in the training text by runs of bytes.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from niblick.audit.checks import Check, failed, not_applicable, passed
from niblick.audit.copies import RUN, Copy, Matches, normal
from niblick.data.dataset import Split
from niblick.data.tokenizers import Tokenizer
from niblick.facts.record import Record

_PIECE = 1 << 22


def document_spans(split: Split, bos_id: int) -> list[tuple[int, int]]:
    """Return (offset, tokens) of each document: as the index says, or from BOS to BOS."""
    if split.index is not None:
        return list(zip(split.index["offset"].tolist(), split.index["tokens"].tolist(), strict=True))
    starts = [at + np.flatnonzero(split.slice(at, min(_PIECE, split.tokens - at)) == bos_id)
              for at in range(0, split.tokens, _PIECE)]  # fmt: skip
    begin_D = np.unique(np.concatenate([[0], *starts])).tolist()
    return [(a, b - a) for a, b in zip(begin_D, [*begin_D[1:], split.tokens], strict=True) if b > a]


def bytes_counted(
    split: Split, tokenizer: Tokenizer, claimed: int | None = None, lossless: bool | None = None
) -> Check:
    """Count the bytes of every document anew from its decoded text; each token must cover the bytes it adds.

    `claimed` is the byte count of a score, `lossless` what that says of the text.
    """
    name, counted, exact = "bytes", 0, True
    spans = document_spans(split, tokenizer.bos_id)
    for number, (offset, length) in enumerate(spans):
        tokens = split.slice(offset, length)
        rule = int(tokenizer.token_bytes(tokens[:-1], tokens[1:]).sum())
        text = tokenizer.decode(tokens)
        if rule != len(text) and (wrong := _wrong_token(tokens, tokenizer)) is not None:
            return failed(name, f"in document {number}, {wrong[0]}", document=number, **wrong[1])
        counted += rule
        if split.index is not None:
            exact &= hashlib.sha256(text).digest() == bytes(split.index["sha256"][number])
    facts: dict[str, object] = {"bytes": counted, "documents": len(spans)}
    if claimed is not None and claimed != counted:
        return failed(
            name,
            f"the score counts {claimed:,} bytes and the text has {counted:,} ({claimed / max(1, counted) - 1:+.1%})",
            claimed=claimed,
            **facts,
        )
    said = split.lossless if lossless is None else lossless
    if split.index is None:
        return passed(
            name, f"{counted:,} bytes of {len(spans):,} documents; what the text was, nobody recorded", **facts
        )
    if said and not exact:
        return failed(name, "the text is called lossless, but documents do not decode to what they were", **facts)
    kind = (
        "every document comes back"
        if exact
        else "the text is lossy and " + ("called so" if said is False else "nobody says")
    )
    check = failed if not exact and said is None else passed
    return check(name, f"{counted:,} bytes of {len(spans):,} documents, each covered once; {kind}", **facts)


def _wrong_token(tokens: npt.NDArray[np.uint16], tokenizer: Tokenizer) -> tuple[str, dict[str, int]] | None:
    """The first token that does not cover the bytes it adds; None if only unknown characters, which count 0, differ."""
    for at in range(1, len(tokens)):
        previous, token = int(tokens[at - 1]), int(tokens[at])
        rule = int(tokenizer.token_bytes(tokens[at - 1 : at], tokens[at : at + 1])[0])
        before = tokenizer.decode(tokens[at - 1 : at])
        added = tokenizer.decode(tokens[at - 1 : at + 1])[len(before) :]
        if rule != len(added) and rule:
            return (
                f"token {token} after token {previous} (position {at}) stands for {len(added)} bytes {added!r} and is "
                f"counted as {rule}",
                {"position": at, "token": token, "previous": previous, "decoded": len(added), "counted": rule},
            )
    return None


def hygiene(
    train: Split,
    val: Split,
    tokenizer: Tokenizer,
    source: Iterable[bytes] | None = None,
    most: int | None = None,
    report: Callable[[float], None] | None = None,
) -> Check:
    """No validation document, and no run of RUN bytes of one, in training text beyond what the source repeats itself.

    `source` are the documents that both splits were made of, where they are at hand: a training document that is one
    of them, and not more often than there, repeats by itself. Without it, what training documents repeat of each other
    is the measure. `most` limits the bytes of training text that are searched.
    """
    name, texts = "split hygiene", list(_compared(val, tokenizer))
    if not texts or not train.tokens:
        return not_applicable(name, "there is no training text or no validation text to compare")
    surplus = _surplus(train, val, tokenizer, source)
    found = _search(texts, _compared(train, tokenizer), surplus, most, report)
    facts = {"val_bytes": found.total, "searched_bytes": found.searched, "runs": found.hits, "bytes_found": found.bytes}
    shown = (
        f"{found.hits:,} runs of {RUN} bytes or more of validation text ({found.bytes:,} of {found.total:,} bytes) "
        f"stand in {found.searched:,} bytes of training text, whatever their case and line ends"
    )
    if surplus is not None:
        if found.foreign and (worst := found.worst) is not None:
            return failed(
                name,
                f"{found.foreign} of these are in training documents that the source does not have so often; the "
                f"longest: {worst.bytes} bytes of validation document {worst.val_document} in training document "
                f"{worst.train_document}; {shown}",
                **facts,
                example=worst,
            )
        return passed(name, f"{shown}, all of them where the source itself repeats", **facts)
    if not found.hits:
        nothing = f"no run of {RUN} bytes of validation text stands in {found.searched:,} bytes of training text"
        return passed(name, nothing, **facts)
    return _beside_its_own(name, found, texts, _repeated_by_itself(found.sample, train, tokenizer), shown, facts)


@dataclass(frozen=True, kw_only=True)
class Place(Record):
    """Validation text in a training document."""

    train_document: int
    at: int
    val_document: int
    val_at: int
    bytes: int
    changed: int
    """How many bytes of it are not the same."""
    text: str


@dataclass
class _Found:
    """What a search for validation text in training text found."""

    total: int
    """Bytes of validation text."""
    found_D: npt.NDArray[np.int64]
    """Bytes of each validation document that were found."""
    searched: int = 0
    hits: int = 0
    foreign: int = 0
    """Hits in documents that the source does not have so often."""
    worst: Place | None = None
    sample: list[bytes] = field(default_factory=list)
    """Training documents, about as much text as there is validation text."""

    @property
    def bytes(self) -> int:
        """Bytes of validation text that were found."""
        return int(self.found_D.sum())


def _search(
    texts: list[bytes],
    training: Iterable[bytes],
    surplus: Any,
    most: int | None,
    report: Callable[[float], None] | None,
) -> _Found:
    own = Matches(texts)
    found = _Found(sum(map(len, texts)), np.zeros(0, np.int64))
    seen = [np.zeros(len(text), bool) for text in texts]
    sampled = 0
    for number, text in enumerate(training):
        if most is not None and found.searched > most:
            break
        found.searched += len(text)
        if report is not None and number % 256 == 0:
            report(found.searched)
        for copy in own.runs(text):
            found.hits += 1
            seen[copy.document][copy.begin : copy.begin + copy.length] = True
            if surplus is not None and surplus[number]:
                found.foreign += 1
                if found.worst is None or copy.length > found.worst.bytes:
                    found.worst = _place(number, copy, text)
            elif found.worst is None and surplus is None:
                found.worst = _place(number, copy, text)
        if sampled < found.total:
            found.sample.append(text)
            sampled += len(text)
    found.found_D = np.array([int(mask.sum()) for mask in seen])
    return found


def _beside_its_own(
    name: str,
    found: _Found,
    texts: list[bytes],
    usual_D: npt.NDArray[np.int64],
    shown: str,
    facts: Mapping[str, object],
) -> Check:
    """Whether validation text is repeated more than training documents repeat each other (`usual_D` bytes of each)."""
    sample = found.sample
    share, usual = found.bytes / found.total, int(usual_D.sum()) / max(1, sum(map(len, sample)))
    copies, usual_copies = _copies(found.found_D, texts), _copies(usual_D, sample)
    facts = {**facts, "share": share, "usual_share": usual, "copies": copies, "usual_copies": usual_copies}
    facts = {**facts, "documents": len(texts), "usual_documents": len(sample)}
    detail = (
        f"{shown}: {share:.2%}, {copies} of {len(texts)} documents whole; training documents repeat {usual:.2%} of "
        f"each other, {usual_copies} of {len(sample)} whole"
    )
    by_chance = _at_least(copies, len(texts), usual_copies / max(1, len(sample)))
    if share > 1.5 * usual + 2 * RUN / found.total or by_chance < 0.01:
        return failed(name, f"{detail}; name the source to see which are copies", **facts, example=found.worst)
    return passed(name, f"{detail}: no more than the source repeats itself", **facts)


def _copies(found_D: npt.NDArray[np.int64], texts: list[bytes]) -> int:
    """Documents of which nine bytes in ten are found elsewhere."""
    return sum(int(found) >= max(RUN, 0.9 * len(text)) for found, text in zip(found_D, texts, strict=True))


def _at_least(count: int, trials: int, share: float) -> float:
    """The probability of `count` or more successes in so many trials."""
    return 1 - sum(math.comb(trials, k) * share**k * (1 - share) ** (trials - k) for k in range(count))


def _place(number: int, copy: Copy, text: bytes) -> Place:
    return Place(
        train_document=number,
        at=copy.at,
        val_document=copy.document,
        val_at=copy.begin,
        bytes=copy.length,
        changed=copy.changes,
        text=text[copy.at : copy.at + min(copy.length, 80)].decode(errors="replace"),
    )


def _documents(split: Split, tokenizer: Tokenizer) -> Iterator[bytes]:
    """The text of each document, as it is."""
    for offset, length in document_spans(split, tokenizer.bos_id):
        yield tokenizer.decode(split.slice(offset, length))


def _compared(split: Split, tokenizer: Tokenizer) -> Iterator[bytes]:
    """The text of each document as it is compared: case, line ends and wrapping make no difference."""
    return map(normal, _documents(split, tokenizer))


def _surplus(
    train: Split, val: Split, tokenizer: Tokenizer, source: Iterable[bytes] | None
) -> npt.NDArray[np.bool_] | None:
    """Which training documents the source has not, or not so often once validation documents are taken out of it."""
    if source is None:
        return None
    left = Counter(hashlib.sha256(text).digest() for text in source)
    for split in (val,):
        left.subtract(_digests(split, tokenizer))
    surplus = []
    for digest in _digests(train, tokenizer):
        left[digest] -= 1
        surplus.append(left[digest] < 0)
    return np.array(surplus, bool)


def _digests(split: Split, tokenizer: Tokenizer) -> list[bytes]:
    if split.index is not None:
        return [bytes(digest) for digest in split.index["sha256"]]
    return [hashlib.sha256(text).digest() for text in _documents(split, tokenizer)]


def _repeated_by_itself(sample: list[bytes], train: Split, tokenizer: Tokenizer) -> npt.NDArray[np.int64]:
    """Bytes of each of the first training documents that stand in the others."""
    own, seen = Matches(sample), [np.zeros(len(text), bool) for text in sample]
    for number, text in enumerate(_compared(train, tokenizer)):
        if number >= len(sample):
            for copy in own.runs(text):
                seen[copy.document][copy.begin : copy.begin + copy.length] = True
    return np.array([int(mask.sum()) for mask in seen])
