"""Documents, and the blocks of them that are sent to worker processes: raw there, and read where they arrive.

A document without text is one whose text is null, absent or empty. Where `skip_empty` says so such documents are left
out and counted; otherwise an empty text is a document, and a text that is null or absent an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from niblick.errors import DataError

BLOCK_BYTES = 2 << 20
"""What a block aims at: large enough that sending it costs nothing, small enough that dozens fit in memory."""

MAX_DOCUMENT_BYTES = 64 << 20
"""A document is held whole, several times over, while it is encoded; this keeps preparation under a gigabyte."""


@dataclass(frozen=True, slots=True)
class Document:
    """One text and where it comes from (a file, a collection): `source` groups scores, it identifies nothing."""

    text: str
    source: str


@dataclass(frozen=True, slots=True)
class Documents:
    """What a block holds. For each document that was left out, `skipped` has how many of `kept` stand before it."""

    kept: list[Document]
    skipped: list[int]


@dataclass(frozen=True, slots=True)
class Texts:
    """Documents that are already text."""

    items: list[Document]
    size: int
    skip_empty: bool = False

    def read(self) -> Documents:
        """Give the documents, and what was left out."""
        return sorted_out(self.items, self.skip_empty)


def sorted_out(documents: Iterable[Document], skip_empty: bool) -> Documents:
    """Leave out the documents without text, where `skip_empty` says so."""
    found = Documents([], [])
    for document in documents:
        if document.text or not skip_empty:
            found.kept.append(document)
        else:
            found.skipped.append(len(found.kept))
    return found


def grouped(documents: Iterable[Document], skip_empty: bool = False) -> Iterator[Texts]:
    """Gather documents into blocks."""
    items: list[Document] = []
    size = 0
    for document in documents:
        items.append(document)
        size += len(document.text)
        if size >= BLOCK_BYTES or len(items) >= _MOST_ITEMS:
            yield Texts(items, size, skip_empty)
            items, size = [], 0
    if items:
        yield Texts(items, size, skip_empty)


_MOST_ITEMS = 1 << 17
"""Documents of a block at most: millions of empty ones have no size."""


def named_source(value: object) -> str | None:
    """What a `source` of any kind is called: numbers and booleans by their digits or name, what is no value None.

    It is a label that only groups scores, so that no form of it is a reason to refuse the text.
    """
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value) if value == value else None  # pandas writes NaN where there is none
    return value if isinstance(value, str) else None


def too_long(where: str, how: str = "split it into documents") -> DataError:
    """The error for a document that cannot be held."""
    return DataError(f"{where}: one document is longer than {MAX_DOCUMENT_BYTES >> 20} MiB; {how}")


def no_text(where: str, found: str) -> DataError:
    """The error for a row or a line whose text is null or absent; `found` says which."""
    return DataError(
        f"{where}: {found}; name another key or column by --text-key, or leave such documents out by --skip-empty"
    )
