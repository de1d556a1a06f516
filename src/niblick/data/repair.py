"""The bits that it takes to get a text back after a lossy tokenizer.

Model bits alone are no fair score where the tokenizer dropped part of the text. Here the difference is written as an
exact patch and compressed with xz, so that (model bits + patch bits) / original bytes can be set beside the score of a
lossless tokenizer.

The patch knows what such tokenizers do: they change spaces. An edit (delete so many bytes of the decoded text, insert
others) is placed by the number of spaces passed since the last one; edits elsewhere have an escape. Counts, places,
deletions and insertions are columns of their own, which compress better than records. Every document's patch is
applied and compared as it is written.
"""

from __future__ import annotations

import lzma
from collections.abc import Iterable, Iterator
from pathlib import Path

from niblick.errors import DataError

Edit = tuple[int, int, bytes]
"""Place in the decoded text, bytes deleted there, bytes inserted."""

REPAIR_NAME = "fineweb_val.repair.xz"

_AGREE = 6
"""Bytes that must be the same before two texts count as being in step again."""
_NEAR = 48
_FAR = 4096

_AT_END, _ELSEWHERE, _AT_SPACE = 0, 1, 2
_COLUMNS = ("edits", "skips", "places", "deletions", "lengths", "inserted")


class RepairWriter:
    """Collects the patches of documents in their order; `finish` compresses them."""

    def __init__(self) -> None:
        self._columns = {name: bytearray() for name in _COLUMNS}

    def add(self, original: bytes, decoded: bytes) -> None:
        """Append the patch from `decoded` to `original`."""
        starts = {name: len(column) for name, column in self._columns.items()}
        edits = find_edits(original, decoded)
        self._write_number("edits", len(edits))
        end = 0
        for place, deleted, inserted in edits:
            self._write_place(decoded, end, place)
            self._write_number("deletions", deleted)
            self._write_number("lengths", len(inserted))
            self._columns["inserted"] += inserted
            end = place + deleted
        written = {name: bytes(column[starts[name] :]) for name, column in self._columns.items()}
        if _Columns(written).repair(decoded) != original:
            raise AssertionError("a repair patch does not give back its document")

    def add_exact(self) -> None:
        """Append the empty patch of a document that came back by itself."""
        self._write_number("edits", 0)

    def finish(self) -> bytes:
        """Return all patches, compressed."""
        head = bytearray()
        for column in self._columns.values():
            _append_number(head, len(column))
        body = b"".join([head, *self._columns.values()])
        return lzma.compress(body, preset=9 | lzma.PRESET_EXTREME)

    def _write_number(self, column: str, value: int) -> None:
        _append_number(self._columns[column], value)

    def _write_place(self, decoded: bytes, end: int, place: int) -> None:
        if place == len(decoded):
            self._write_number("skips", _AT_END)
        elif decoded[place] == 32:
            self._write_number("skips", _AT_SPACE + decoded.count(b" ", end, place))
        else:
            self._write_number("skips", _ELSEWHERE)
            self._write_number("places", place - end)


def apply_repair(patch: bytes, documents: Iterable[bytes]) -> Iterator[bytes]:
    """Give back the originals of decoded `documents`, in order. Raises DataError if the patch is not theirs."""
    try:
        body = lzma.decompress(patch)
        lengths, at = [], 0
        for _ in _COLUMNS:
            length, at = _read_number(body, at)
            lengths.append(length)
        columns = {}
        for name, length in zip(_COLUMNS, lengths, strict=True):
            columns[name] = body[at : at + length]
            at += length
        reader = _Columns(columns)
        for document in documents:
            yield reader.repair(document)
    except (lzma.LZMAError, IndexError, ValueError) as error:
        raise DataError(f"the repair patch does not fit the documents ({error}); prepare the data again") from error


def read_repair(path: Path) -> bytes:
    """Read a patch file. Raises DataError if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"the repair patch {path} cannot be read ({error.strerror}); prepare the data again") from error


def find_edits(original: bytes, decoded: bytes) -> list[Edit]:
    """Return edits that make `original` of `decoded`, in order; few where the changes are local."""
    edits: list[Edit] = []
    a = b = 0
    while True:
        same = _same(original, a, decoded, b)
        a, b = a + same, b + same
        if a == len(original) and b == len(decoded):
            return edits
        inserted, deleted = _back_in_step(original, a, decoded, b)
        place, text = b, original[a : a + inserted]
        # "x  y" out of "x y": the same insertion before the space that stands there, which is a shorter place to name.
        if deleted == 0 and text.endswith(b" ") and same and decoded[place - 1] == 32:
            place, text = place - 1, b" " + text[:-1]
        edits.append((place, deleted, text))
        a, b = a + inserted, b + deleted


def _same(x: bytes, i: int, y: bytes, j: int) -> int:
    """How many bytes agree from x[i] and y[j] on."""
    limit, agreed, step = min(len(x) - i, len(y) - j), 0, 32
    while agreed < limit:
        step = min(step, limit - agreed)
        if x[i + agreed : i + agreed + step] == y[j + agreed : j + agreed + step]:
            agreed += step
            step *= 2
        elif step == 1:
            return agreed
        else:
            step //= 2
            limit = min(limit, agreed + 2 * step + 1)  # the difference is in this piece
    return agreed


def _back_in_step(x: bytes, i: int, y: bytes, j: int) -> tuple[int, int]:
    """The fewest bytes to leave out of x and y before they agree again (or both end)."""
    for total in range(1, _NEAR):
        for left_out in range(total + 1):
            p, q = i + total - left_out, j + left_out
            if p <= len(x) and q <= len(y) and x[p : p + _AGREE] == y[q : q + _AGREE]:
                return total - left_out, left_out
    for left_out in range(min(_FAR, len(y) - j)):
        anchor = y[j + left_out : j + left_out + 2 * _AGREE]
        found = x.find(anchor, i, i + 16 * _FAR) if len(anchor) == 2 * _AGREE else -1
        if found >= 0:
            return found - i, left_out
    return len(x) - i, len(y) - j


class _Columns:
    """Reads the columns of a patch, document by document."""

    def __init__(self, columns: dict[str, bytes]) -> None:
        self._columns = columns
        self._at = dict.fromkeys(columns, 0)

    def _number(self, column: str) -> int:
        value, self._at[column] = _read_number(self._columns[column], self._at[column])
        return value

    def repair(self, decoded: bytes) -> bytes:
        """Return the original of the next document."""
        parts, end = [], 0
        for _ in range(self._number("edits")):
            place = self._place(decoded, end)
            parts.append(decoded[end:place])
            end = place + self._number("deletions")
            start = self._at["inserted"]
            self._at["inserted"] += self._number("lengths")
            parts.append(self._columns["inserted"][start : self._at["inserted"]])
        parts.append(decoded[end:])
        return b"".join(parts)

    def _place(self, decoded: bytes, end: int) -> int:
        skip = self._number("skips")
        if skip == _AT_END:
            return len(decoded)
        if skip == _ELSEWHERE:
            return end + self._number("places")
        place = decoded.index(b" ", end)
        for _ in range(skip - _AT_SPACE):
            place = decoded.index(b" ", place + 1)
        return place


def _append_number(column: bytearray, value: int) -> None:
    while value >= 128:
        column.append(value & 127 | 128)
        value >>= 7
    column.append(value)


def _read_number(column: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = column[at]
        value |= (byte & 127) << shift
        shift, at = shift + 7, at + 1
        if byte < 128:
            return value, at
