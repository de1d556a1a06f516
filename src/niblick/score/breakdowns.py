"""Where the bits go: a score taken apart by context, chunk, kind of byte, source and document.

Every breakdown sorts the same targets into parts, so that nats, bytes and targets of its parts add up to those of the
score. A target is a token to be predicted; the BOS that ends a document counts with that document.

Shapes: N consecutive targets, T tokens of the split, D documents, V vocabulary, B batch, L positions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from niblick.data.dataset import Split
from niblick.data.tokenizers import Tokenizer
from niblick.facts.record import Record
from niblick.model.lm import LM
from niblick.score.plan import Batch, Windows, batches, read_batch

CLASSES = ("letter", "digit", "whitespace", "punctuation", "control", "UTF-8 lead", "UTF-8 continuation", "no byte")
"""Kinds of bytes. ASCII but for the UTF-8 ones; `no byte` are the tokens that stand for none: BOS."""

_WHITESPACE = b" \t\n\r\v\f"
_NO_BYTE = CLASSES.index("no byte")

CHUNK_EDGES = (*range(1, 13), 13, 17, 33)
"""First positions of the bins of position in chunk."""

_WINDOWS_AT_ONCE = 4096

FIRST_CHARACTERS = 60
"""So much of a document is shown."""


@dataclass(frozen=True)
class Part:
    """Targets that have something in common, and what they cost."""

    name: str
    nats: float
    bytes: int
    tokens: int

    @property
    def bits(self) -> float:
        """Cost in bits."""
        return self.nats / math.log(2)

    @property
    def bpb(self) -> float | None:
        """Bits per byte; None for targets that stand for no bytes."""
        return self.bits / self.bytes if self.bytes else None

    def facts(self) -> PartFacts:
        """What files say of it."""
        return PartFacts(name=self.name, bits=self.bits, bytes=self.bytes, tokens=self.tokens, bpb=self.bpb)


@dataclass(frozen=True, kw_only=True)
class PartFacts(Record):
    """A `Part` with its cost worked out."""

    name: str
    bits: float
    bytes: int
    tokens: int
    bpb: float | None


class Sums:
    """Nats, bytes and number of targets by part number."""

    def __init__(self, parts: int) -> None:
        self.nats, self.bytes, self.tokens = np.zeros(parts), np.zeros(parts, np.int64), np.zeros(parts, np.int64)

    def add(self, part_N: npt.NDArray[Any], nats_N: npt.NDArray[Any], bytes_N: npt.NDArray[Any]) -> None:
        """Count targets into their parts."""
        if not len(part_N):
            return
        low = int(part_N.min())  # pieces of a stream fall into few of many documents
        here, length = part_N - low, int(part_N.max()) - low + 1
        where = slice(low, low + length)
        self.nats[where] += np.bincount(here, nats_N, length)
        self.bytes[where] += np.bincount(here, bytes_N, length).astype(np.int64)
        self.tokens[where] += np.bincount(here, minlength=length)

    def regroup(self, group_P: npt.NDArray[Any], groups: int) -> Sums:
        """Return the sums of larger parts; `group_P` says to which each of these belongs."""
        sums = Sums(groups)
        for whole, parts in ((sums.nats, self.nats), (sums.bytes, self.bytes), (sums.tokens, self.tokens)):
            np.add.at(whole, group_P, parts)
        return sums

    def part(self, number: int, name: str) -> Part:
        """Return one part."""
        return Part(name, float(self.nats[number]), int(self.bytes[number]), int(self.tokens[number]))

    def parts(self, names: list[str]) -> list[Part]:
        """Return the parts that have targets, by the names of all."""
        return [self.part(i, name) for i, name in enumerate(names) if self.tokens[i]]


def byte_classes() -> npt.NDArray[np.uint8]:
    """Return the place in CLASSES of each of the 256 bytes."""

    def kind(byte: int) -> str:
        if byte in _WHITESPACE:
            return "whitespace"
        if byte >= 0xC0:
            return "UTF-8 lead"
        if byte >= 0x80:
            return "UTF-8 continuation"
        if chr(byte).isalpha():
            return "letter"
        if chr(byte).isdigit():
            return "digit"
        return "control" if byte < 0x20 or byte == 0x7F else "punctuation"

    return np.array([CLASSES.index(kind(byte)) for byte in range(256)], np.uint8)


def token_classes(tokenizer: Tokenizer) -> npt.NDArray[np.uint8]:
    """Return the place in CLASSES of each token, (V,): that of its first byte.

    Most subwords begin with the space before a word, so for them `whitespace` is the class of word starts.
    """
    kinds = byte_classes()
    pieces = tokenizer.pieces()
    return np.array([kinds[piece[0]] if piece else _NO_BYTE for piece in pieces], np.uint8)


def context_edges(longest: int) -> list[int]:
    """First positions of the bins of position in context: half octaves up to `longest` tokens of context."""
    edges = sorted({round(2 ** (k / 2)) for k in range(2 * longest.bit_length() + 1)})
    return [edge for edge in edges if edge < max(longest, 2)]


def bin_names(edges: list[int], last: int | None = None) -> list[str]:
    """Names such as `3`, `4–5`, `65 and more` of the bins that start at `edges`; the last ends at `last` if given."""
    ends = [*(after - 1 for after in edges[1:]), last]
    return [
        f"{low} and more" if high is None else str(low) if high <= low else f"{low}–{high}"
        for low, high in zip(edges, ends, strict=True)
    ]


class Breakdowns:
    """Takes a score apart while it is made: `observe` is what the scorer calls.

    `windows` are the scorer's own; `place_T` is what `chunk_places` gives, None for a model without chunks; `sources`
    are the manifest's. Without a document index there are no parts by source and document.
    """

    def __init__(
        self,
        split: Split,
        tokenizer: Tokenizer,
        windows: Windows,
        sources: list[str],
        place_T: npt.NDArray[np.uint16] | None = None,
    ) -> None:
        self.split, self.tokenizer, self.sources, self._place_T = split, tokenizer, sources, place_T
        self._scored_from_N = windows.start_N + windows.first_N + 1
        self._start_N = windows.start_N
        longest = int(windows.length_N.max())
        self._context_edges, self._longest = context_edges(longest), longest
        self._classes_V = token_classes(tokenizer)
        self.context = Sums(len(self._context_edges))
        self.chunk = Sums(len(CHUNK_EDGES) + 1)
        self.classes = Sums(len(CLASSES))
        self.documents = Sums(0 if split.index is None else len(split.index))
        self.whole = Sums(1)

    def observe(self, first: int, nats_N: npt.NDArray[np.float64]) -> None:
        """Take in the nats of the targets first, first + 1, … of the stream."""
        span = self.split.slice(first - 1, len(nats_N) + 1)
        target_N = np.arange(first, first + len(nats_N))
        bytes_N = self.split.target_bytes(first, span, self.tokenizer)
        window_N = np.searchsorted(self._scored_from_N, target_N, "right") - 1
        known_N = target_N - self._start_N[window_N]
        self.whole.add(np.zeros(len(nats_N), np.int64), nats_N, bytes_N)
        self.context.add(np.searchsorted(self._context_edges, known_N, "right") - 1, nats_N, bytes_N)
        self.classes.add(self._classes_V[span[1:]].astype(np.int64), nats_N, bytes_N)
        if self._place_T is not None:
            place_N = self._place_T[first : first + len(nats_N)]
            self.chunk.add(np.searchsorted(CHUNK_EDGES, place_N, "right"), nats_N, bytes_N)
        if self.split.index is not None:
            document_N = np.searchsorted(self.split.index["offset"], target_N - 1, "right") - 1
            self.documents.add(document_N, nats_N, bytes_N)

    def by_context(self) -> list[Part]:
        """By the number of tokens that the model knew: the position in its window."""
        return self.context.parts(bin_names(self._context_edges, self._longest))

    def by_chunk(self) -> list[Part]:
        """By the target's place in its chunk, of the outermost level; 1 starts one."""
        return self.chunk.parts([UNKNOWN_PLACE, *bin_names(list(CHUNK_EDGES))]) if self._place_T is not None else []

    def by_boundary(self) -> list[Part]:
        """Targets that start a chunk, targets inside one, and those of which it is not known."""
        if self._place_T is None:
            return []
        unknown, at = self.chunk.part(0, UNKNOWN_PLACE), self.chunk.part(1, "starts a chunk")
        return [at, rest("inside a chunk", self.total, [at, unknown]), *([unknown] if unknown.tokens else [])]

    def by_class(self) -> list[Part]:
        """By the kind of the target's first byte."""
        return self.classes.parts(list(CLASSES))

    def by_source(self) -> list[Part]:
        """By where the documents come from, the most bits first."""
        if self.split.index is None:
            return []
        numbers = np.minimum(self.split.index["source"], len(self.sources)).astype(np.int64)
        sums = self.documents.regroup(numbers, len(self.sources) + 1)
        return sorted(sums.parts([*self.sources, "other sources"]), key=lambda part: -part.nats)

    def by_document(self, count: int) -> list[tuple[int, Part]]:
        """The `count` documents with the most bits per byte, dearest first, with their numbers.

        They are named by their first characters. What the others cost is `rest`.
        """
        if self.split.index is None:
            return []
        rate_D = self.documents.nats / np.maximum(self.documents.bytes, 1)
        dearest = np.argsort(-np.where(self.documents.bytes > 0, rate_D, -1.0), kind="stable")[:count]
        return [(int(d), self.documents.part(int(d), self.beginning(int(d)))) for d in dearest]

    def beginning(self, document: int) -> str:
        """The first characters of a document, white space made single spaces."""
        assert self.split.index is not None
        record = self.split.index[document]
        tokens = self.split.slice(int(record["offset"]), min(int(record["tokens"]), 4 * FIRST_CHARACTERS + 1))
        text = " ".join(self.tokenizer.decode(tokens).decode("utf-8", "ignore").split())
        return text if len(text) <= FIRST_CHARACTERS else text[: FIRST_CHARACTERS - 1] + "…"

    @property
    def total(self) -> Part:
        """The whole score."""
        return self.whole.part(0, "all")


UNKNOWN_PLACE = "last of its window"
"""A window's last target is never an input of it, so no router says whether it starts a chunk."""


def rest(name: str, total: Part, parts: list[Part]) -> Part:
    """What `parts` leave of `total`."""
    return Part(
        name,
        total.nats - sum(part.nats for part in parts),
        total.bytes - sum(part.bytes for part in parts),
        total.tokens - sum(part.tokens for part in parts),
    )


def chunk_places(model: LM, split: Split, windows: Windows, batch_tokens: int) -> npt.NDArray[np.uint16] | None:
    """Return for each token of the split its place in its chunk, (T,), as the window sees it that scores it.

    1 starts a chunk, 0 is unknown: the last target of a window. Boundaries that a capacity has no room for start
    none. Of the outermost level; None for a model that cuts no chunks (dense, or with a soft router). Runs the model
    over all windows once, under the caller's autocast.
    """
    if not model.config.levels or model.config.levels[0].router == "soft":
        return None
    place_T = np.zeros(split.tokens, np.uint16)
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for batch in _batches(windows, split, batch_tokens):
                _, routings = model.hidden(torch.from_numpy(batch.ids_BL).to(device))
                boundary_BL, capacity = routings[0].boundary_BL, routings[0].capacity
                if capacity is not None:
                    boundary_BL = boundary_BL & (boundary_BL.cumsum(1) <= capacity)
                place_BL = _places(boundary_BL.cpu().numpy())
                unknown_B1 = np.zeros((len(place_BL), 1), np.int64)
                place_BT = np.concatenate((place_BL[:, batch.first + 1 :], unknown_B1), axis=1)
                place_T[batch.place_N] = np.minimum(place_BT, 65535).ravel()
    finally:
        model.train(was_training)
    return place_T


def _batches(windows: Windows, split: Split, batch_tokens: int) -> Iterator[Batch]:
    """Batches of windows of one length, without padding, so that every row is full."""
    for begin in range(0, len(windows.start_N), _WINDOWS_AT_ONCE):
        part = windows.part(begin, begin + _WINDOWS_AT_ONCE)
        first, after = int(part.start_N.min()), int((part.start_N + part.length_N).max()) + 1
        tokens = split.slice(first, after - first)
        for bundle in batches(part, batch_tokens, pad=False, ordered=False):
            yield read_batch(bundle, tokens, first)


def _places(boundary_BL: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Place of each position in its chunk, from 1."""
    position_L = np.arange(boundary_BL.shape[1])
    return position_L - np.maximum.accumulate(np.where(boundary_BL, position_L, 0), axis=1) + 1
