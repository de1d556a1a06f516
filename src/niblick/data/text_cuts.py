"""One text cut into documents at the ends of its paragraphs. Nothing is lost: one after another they are the text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

LONGEST_PIECE = 1 << 20
"""A text is cut into documents of about so many bytes at most."""

_ENDS = ((b"\n\n", b"\n\r\n"), (b"\n",), (b" ", b"\t"))
"""Where a text may be cut: after a paragraph, else after a line, else after a word."""


def piece_bytes(total: int, share: float) -> int:
    """How long the documents of one text of `total` bytes shall be: `share` of it, or LONGEST_PIECE."""
    return max(1, min(LONGEST_PIECE, round(total * share)))


def at_paragraphs(pieces: Iterable[bytes], aim: int) -> Iterator[bytes]:
    """A text cut into documents of about `aim` bytes: between half and twice as much, at the nearest paragraph end.

    Where there is none, a line ends, else a word, else a character.
    """
    waiting = b""
    for piece in pieces:
        waiting += piece
        begin = 0
        while len(waiting) - begin >= 2 * aim + 4:
            end = _cut(waiting, begin, aim)
            yield waiting[begin:end]
            begin = end
        waiting = waiting[begin:]
    while len(waiting) > 1.5 * aim:
        end = _cut(waiting, 0, aim)
        if end >= len(waiting):
            break
        yield waiting[:end]
        waiting = waiting[end:]
    if waiting:
        yield waiting


def _cut(data: bytes, begin: int, aim: int) -> int:
    """Where the document that begins at `begin` ends."""
    least, middle, most = begin + aim // 2, begin + aim, begin + 2 * aim
    for ends in _ENDS:
        before = max((at + len(end) for end in ends if (at := data.rfind(end, least, middle)) >= 0), default=None)
        after = min((at + len(end) for end in ends if (at := data.find(end, middle, most)) >= 0), default=None)
        if before is not None and (after is None or middle - before <= after - middle):
            return before
        if after is not None:
            while after < most and data[after : after + 1] in (b"\n", b"\r"):
                after += 1
            return after
    end = middle
    while end < len(data) and data[end] & 0xC0 == 0x80:
        end += 1
    return end
