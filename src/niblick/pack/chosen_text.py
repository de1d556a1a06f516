"""Which training text goes into an artifact: the documents that save most for the bytes they take.

Some documents are held back, and every other one is asked how much cheaper it gets once they are known. What two texts
tell of each other is the same both ways (the symmetry of information), so that is about what the document saves on
text like theirs; a reading of each gives it, where trying them all on held-back text would take a reading of that for
each. The documents held back are asked about others that are. (docs/log.md has this beside other ways to choose.)

Shapes: D documents, N tokens.
"""

from __future__ import annotations

import copy

import numpy as np

from niblick.data.dataset import Split
from niblick.data.tokenizers import Tokenizer
from niblick.score.mixture import FAST, Integers, Mixture
from niblick.score.plan import document_starts

HELD_BACK = 1 << 17
"""Tokens that are held back, at most, of a sixteenth of the documents; and of another sixteenth, to ask these."""
ASKED = 8_000_000
"""Bytes of documents that are asked, besides twice what is wanted: more would take longer than it gives."""
_MEMORY = 4


def chosen_text(split: Split, tokenizer: Tokenizer, size: int) -> tuple[Integers, int, int]:
    """Return about `size` bytes of a split's documents as tokens, their bytes, and how many documents they are.

    All of the split where it is no larger; else whole documents in their order, and the beginning of one more.
    """
    if not split.tokens:
        return np.zeros(0, np.int64), 0, 0
    begin_D = document_starts(split, tokenizer.bos_id)
    end_D = np.append(begin_D[1:], split.tokens)
    bytes_D = document_bytes(split, tokenizer, begin_D, end_D)
    taken: dict[int, int] = {}
    if size >= bytes_D.sum():
        taken = dict(enumerate(end_D.tolist()))
    else:
        order, room = _by_saving(split, tokenizer.vocab_size, begin_D, end_D, bytes_D, size), size
        for d in order:
            if bytes_D[d] <= room:
                taken[d] = int(end_D[d])
                room -= int(bytes_D[d])
        if room and (cut := next((d for d in order if d not in taken), None)) is not None:
            span = split.slice(int(begin_D[cut]), int(end_D[cut] - begin_D[cut]))
            within = np.cumsum(tokenizer.token_bytes(span[:-1], span[1:])) <= room
            taken[cut] = int(begin_D[cut]) + 1 + int(within.sum())
    spans = [split.slice(int(begin_D[d]), end - int(begin_D[d])) for d, end in sorted(taken.items())]
    tokens_N = np.concatenate(spans).astype(np.int64) if spans else np.zeros(0, np.int64)
    told = sum(int(tokenizer.token_bytes(span[:-1], span[1:]).sum()) for span in spans)
    return tokens_N, told, len(spans)


def document_bytes(split: Split, tokenizer: Tokenizer, begin_D: Integers, end_D: Integers) -> Integers:
    """Return the bytes of text of each document's tokens."""
    bytes_D = np.zeros(len(begin_D), np.int64)
    for d, (begin, end) in enumerate(zip(begin_D.tolist(), end_D.tolist(), strict=True)):
        span = split.slice(begin, end - begin)
        bytes_D[d] = tokenizer.token_bytes(span[:-1], span[1:]).sum()
    return bytes_D


def _by_saving(
    split: Split, vocab_size: int, begin_D: Integers, end_D: Integers, bytes_D: Integers, size: int
) -> list[int]:
    """Return documents, first those that save most for what they take when packed; ties in their order."""
    count = max(1, round(len(begin_D) * min(1.0, (ASKED + 2 * size) / max(1, int(bytes_D.sum())))))
    asked = np.unique(np.linspace(0, len(begin_D) - 1, count).astype(np.int64)).tolist()

    def document(d: int) -> Integers:
        return split.slice(int(begin_D[d]), int(end_D[d] - begin_D[d])).astype(np.int64)

    def reader_of(documents: list[int]) -> Mixture:
        reader, room = copy.deepcopy(fresh), HELD_BACK
        for d in documents:
            if room > 0:
                reader.read(document(d)[:room])
                room -= int(end_D[d] - begin_D[d])
        return reader

    fresh = Mixture(vocab_size, FAST, _MEMORY)
    fresh.tell_speed(2 * int((end_D - begin_D)[asked].sum()))
    kept = set(asked[7::16])
    reader, other = reader_of(asked[7::16]), reader_of(asked[15::16])
    saved: dict[int, float] = {}
    for d in asked:
        tokens_N = document(d)
        known = copy.deepcopy(other if d in kept else reader).read(tokens_N).sum()
        saved[d] = 1 - known / max(1e-9, copy.deepcopy(fresh).read(tokens_N).sum())
    return sorted(asked, key=lambda d: -saved[d])
