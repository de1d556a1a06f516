"""The codec `range`: every array range-coded by itself, under a model that is fitted to it and stored with it.

The payload: for each array the length of its segment (LEB128), then the segments. A segment begins with its form:

    0 raw      the bytes as they are
    1 planes   the bytes of all elements, plane by plane (the first byte of each element, the second, …)
    2 spreads  a matrix of 8-bit codes under the family of range_models: its shape, then for each row how far it is like
               the one above, its spread, and the spread of each column
    3 wide     codes of 16 or 32 bits: how many low bits k, the segment of codes >> k as 8-bit codes, then the low bits
               as they are: so fine a grid fills its last steps evenly
    4 sparse   a matrix of which many rows are nothing but zeros: a flag for each row, the segment of the other rows.
               Rows of a hashed table that training never looked up, beside rows that fill their grid to its ends

The encoder makes all forms that an array can have and keeps the shortest, so none grows by more than its length and one
byte. Planes, and what belongs to rows and columns, are coded adaptively: the counts of what was already decoded are the
frequencies of the next block. What comes before a stream is then three bytes: lowest and highest symbol, and the weight
of a count (0 leaves them equally likely). One function does both directions, with a writer or a reader of the stream,
so they cannot disagree.

Portable: constriction gets weights that are float64 only in form. Each is an integer, and they add up to 2**24 less the
number of symbols, so its `perfect=False` way of making frequencies (scale by that quotient: 1; cut to an integer; give
each symbol one more) has nothing to round. Streams are its words in big-endian order without the zeros at their end.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from constriction import stream

from niblick.artifact import range_models as models
from niblick.artifact.codec import Codec, Spec, spec_bytes
from niblick.errors import ArtifactError

RAW, PLANES, SPREADS, WIDE, SPARSE = range(5)
MANY = 1 / 16
"""From this share of rows of zeros on they are told apart."""
GAINS = np.array([0, 1, 4, 16, 64])
"""Weight of one count against the 1 that each symbol begins with."""
BLOCK = 2**20
"""At most so many symbols are coded at once: what bounds the memory beside the arrays themselves."""
MAX_PER_BYTE = 256
"""Coded symbols for each byte of a stream: what bounds the time of a decoder. Shorter streams are filled up."""


class RangeCodec(Codec):
    """Range coding under a model for each array; see the head of this file."""

    def encode(self, parts: list[np.ndarray]) -> bytes:
        """Return lengths and segments; the same for the same arrays."""
        segments = [_encode(np.ascontiguousarray(part)) if part.size else b"" for part in parts]
        return b"".join(map(_length, map(len, segments))) + b"".join(segments)

    def decode(self, data: bytes, specs: Sequence[Spec]) -> list[np.ndarray]:
        """Return the arrays; raise ArtifactError unless `data` is segments for exactly these specs."""
        return [_decode(part, spec) for part, spec in zip(_segments(data, len(specs)), specs, strict=True)]

    def part_bytes(self, data: bytes, specs: Sequence[Spec]) -> list[int]:
        """Return the bytes of each segment with its length."""
        return [len(part) + len(_length(len(part))) for part in _segments(data, len(specs))]


def _damaged(what: str) -> ArtifactError:
    return ArtifactError(f"the range-coded payload {what}; copy or export the file again")


def _length(size: int) -> bytes:
    out = bytearray()
    while size >= 128:
        out.append(size & 127 | 128)
        size >>= 7
    return bytes([*out, size])


def _read_length(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """Return the length that stands at `at`, and where it ends."""
    size, shift = 0, 0
    while True:
        if at >= len(data) or shift > 28:
            raise _damaged("has no lengths of its segments")
        size |= (data[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 128:
            return size, at


def _cut(data: memoryview) -> tuple[memoryview, memoryview]:
    """Return the first segment, its length before it, and all that follows."""
    size, at = _read_length(data, 0)
    end = at + size
    if end > len(data):
        raise _damaged(f"declares {end:,} bytes and has {len(data):,}")
    return data[at:end], data[end:]


def _segments(data: bytes | memoryview, count: int) -> list[memoryview]:
    sizes, at = [], 0
    for _ in range(count):
        size, at = _read_length(data, at)
        sizes.append(size)
    *_, end = ends = [*itertools.accumulate([at, *sizes])]
    if end != len(data):
        raise _damaged(f"declares {end:,} bytes and has {len(data):,}")
    return [memoryview(data)[start:end] for start, end in itertools.pairwise(ends)]


# One array


def _encode(part: np.ndarray) -> bytes:
    symbols = _symbols(part.reshape(-1).view(np.uint8), part.dtype)
    forms = [bytes([RAW]) + part.tobytes(), _encode_planes(symbols.reshape(-1, part.itemsize).T)]
    if _has_spreads(part.dtype, part.shape):
        codes = symbols.reshape(len(part), -1)
        filled = np.count_nonzero(part.reshape(codes.shape), axis=1) > 0
        forms.append(_encode_spreads(codes) if filled.mean() > 1 - MANY else _encode_sparse(part, filled))
    if _has_wide(part.dtype):
        forms.append(_encode_wide(part))
    return min(forms, key=len)


def _decode(segment: memoryview, spec: Spec) -> np.ndarray:
    dtype, shape = spec
    count, size = math.prod(shape), spec_bytes(spec)
    if not count:
        if len(segment):
            raise _damaged("has bytes for an empty array")
        return np.empty(shape, dtype)
    form, rest = (segment[0], segment[1:]) if len(segment) else (None, segment)
    if form == RAW and len(rest) == size:
        return np.frombuffer(rest, dtype).reshape(shape).copy()
    if form == PLANES and len(rest) >= 3 * dtype.itemsize:
        planes = _decode_planes(rest, count, dtype.itemsize)
        return _symbols(np.ascontiguousarray(planes.T), dtype).view(dtype).reshape(shape)
    if form == SPREADS and _has_spreads(dtype, shape) and len(rest) >= 15:
        return _symbols(_decode_spreads(rest, shape[0], count // shape[0]), dtype).view(dtype).reshape(shape)
    if form == WIDE and _has_wide(dtype) and rest:
        return _decode_wide(rest, spec)
    if form == SPARSE and _has_spreads(dtype, shape) and len(rest) >= 3:
        return _decode_sparse(rest, spec)
    raise _damaged(f"has a segment of form {form} and {len(segment)} bytes for {dtype.name} {list(shape)}")


def _has_spreads(dtype: np.dtype, shape: tuple[int, ...]) -> bool:
    return dtype.itemsize == 1 and len(shape) >= 2


def _has_wide(dtype: np.dtype) -> bool:
    return dtype.kind == "i" and dtype.itemsize > 1


def _encode_wide(part: np.ndarray) -> bytes:
    largest = max(int(part.max()), -1 - int(part.min()))
    k = max(0, largest.bit_length() - 7)  # what is left fits 8 bits with its sign
    high = _encode((part >> k).astype(np.int8))
    low = (part.reshape(-1, 1) >> np.arange(k, dtype=part.dtype) & 1).astype(np.uint8)
    return bytes([WIDE, k]) + _length(len(high)) + high + np.packbits(low).tobytes()


def _decode_wide(rest: memoryview, spec: Spec) -> np.ndarray:
    dtype, shape = spec
    k, count = rest[0], math.prod(shape)
    packed = -(-count * k // 8)
    if k > 8 * dtype.itemsize - 8 or len(rest) < 1 + packed:
        raise _damaged("has a model that cannot be")
    cut = len(rest) - packed
    [high] = _segments(rest[1:cut], 1)
    codes = _decode(high, (np.dtype(np.int8), shape)).astype(dtype).reshape(-1) << k
    bits = np.unpackbits(np.frombuffer(rest[cut:], np.uint8), count=count * k).reshape(count, k)
    for place in range(k):
        codes |= bits[:, place].astype(dtype) << place
    return codes.reshape(shape)


def _encode_sparse(part: np.ndarray, filled: np.ndarray) -> bytes:
    coder, others = _Writer(), part[filled]
    head = _write(coder, [filled.astype(np.uint8)])
    stream = coder.stream()
    return bytes([SPARSE]) + head + _length(len(stream)) + stream + (_encode(others) if others.size else b"")


def _decode_sparse(rest: memoryview, spec: Spec) -> np.ndarray:
    dtype, shape = spec
    flags, others = _cut(rest[3:])
    if rest[1] > 1 or (len(others) and others[0] == SPARSE):
        raise _damaged("has a model that cannot be")
    filled = _adaptive(_Reader(flags), bytes(rest[:3]), None, shape[0]) == 1
    rows = np.zeros(shape, dtype)
    rows[filled] = _decode(others, (dtype, (int(filled.sum()), *shape[1:])))
    return rows


def _symbols(raw: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Bytes of signed integers in order of their values (-128 → 0), and back."""
    return raw ^ np.uint8(128) if dtype.kind == "i" else raw


# Streams


class _Writer:
    """One stream of symbols as it is written."""

    def __init__(self) -> None:
        self._encoder = stream.queue.RangeEncoder()
        self._coded = 0

    def expect(self, count: int) -> None:
        """Say that `count` symbols follow."""
        self._coded += count

    def code(self, model: Any, symbols: np.ndarray | None, count: int) -> np.ndarray:
        """Write `symbols` (0 …, any integers) and return them, as a reader would."""
        assert symbols is not None
        self._encoder.encode(symbols.astype(np.int32), model)
        return symbols

    def stream(self) -> bytes:
        """Return what was written; a reader adds the zeros at its end by itself."""
        words = self._encoder.get_compressed().astype(">u4").tobytes().rstrip(b"\0")
        return words.ljust(-(-self._coded // MAX_PER_BYTE), b"\0")


class _Reader:
    """One stream of symbols as it is read."""

    def __init__(self, data: memoryview) -> None:
        words = bytes(data) + bytes(-len(data) % 4)
        self._decoder = stream.queue.RangeDecoder(np.frombuffer(words, ">u4").astype(np.uint32))
        self._left = MAX_PER_BYTE * len(data)

    def expect(self, count: int) -> None:
        """Say that `count` symbols follow; raise ArtifactError, before room is made, if the stream cannot hold them."""
        self._left -= count
        if self._left < 0:
            raise _damaged("has a stream too short for its symbols")

    def code(self, model: Any, symbols: np.ndarray | None, count: int) -> np.ndarray:
        """Read `count` symbols as int32; raise ArtifactError for a damaged stream."""
        try:
            return self._decoder.decode(model, count)
        except (AssertionError, ValueError) as error:  # no encoder writes such words
            raise _damaged(f"has a damaged stream ({error})") from None


def _model(freqs: np.ndarray) -> Any:
    return stream.model.Categorical(models.coder_weights(freqs), perfect=False, lazy=False)


def _blocks(count: int) -> Iterator[slice]:
    """Blocks that grow with what is known: a quarter of it, 16 at least."""
    start = 0
    while start < count:
        stop = min(count, start + min(max(16, start // 4), BLOCK))
        yield slice(start, stop)
        start = stop


def _adaptive(coder: _Writer | _Reader, head: bytes, symbols: np.ndarray | None, count: int) -> np.ndarray:
    """Code `count` bytes under the counts of those before; `head` is lowest, highest, index of the gain."""
    low, high, gain = head
    if low > high or gain >= len(GAINS):
        raise _damaged("has a model that cannot be")
    if low == high:
        return np.full(count, low, np.uint8)
    coder.expect(count)
    out = np.empty(count, np.uint8)
    counts = np.zeros(high - low + 1, np.int64)
    for block in _blocks(count):
        model = _model(models.frequencies(1 + GAINS[gain] * counts))
        given = None if symbols is None else symbols[block] - np.uint8(low)
        coded = coder.code(model, given, block.stop - block.start)
        counts += np.bincount(coded, minlength=len(counts))
        out[block] = coded + low
    return out


def _adaptive_head(symbols: np.ndarray) -> bytes:
    """Return the head under which `symbols` take the fewest bits."""
    low, high = int(symbols.min()), int(symbols.max())
    counts, costs = np.zeros(high - low + 1, np.int64), np.zeros(len(GAINS))
    for block in _blocks(len(symbols) if low < high else 0):
        new = np.bincount(symbols[block] - low, minlength=len(counts))
        costs += models.bits(models.frequencies(1 + GAINS[:, None] * counts)) @ new
        counts += new
    return bytes([low, high, int(costs.argmin())])


def _write(coder: _Writer, parts: Iterable[np.ndarray]) -> bytes:
    """Code each part adaptively and return their heads."""
    heads = b""
    for part in parts:
        heads += (head := _adaptive_head(part))
        _adaptive(coder, head, part, len(part))
    return heads


def _encode_planes(planes: np.ndarray) -> bytes:
    coder = _Writer()
    return bytes([PLANES]) + _write(coder, planes) + coder.stream()


def _decode_planes(rest: memoryview, count: int, itemsize: int) -> np.ndarray:
    coder = _Reader(rest[3 * itemsize :])
    heads = [bytes(rest[3 * i : 3 * i + 3]) for i in range(itemsize)]
    return np.stack([_adaptive(coder, head, None, count) for head in heads])


def _encode_spreads(codes: np.ndarray) -> bytes:
    outline = models.outline(codes)
    eighths = models.likeness(codes, outline.center)
    residual = models.unlike(codes, eighths, outline)
    shape, rows, columns = models.fit(residual, outline)
    coder = _Writer()
    heads = _write(coder, (eighths, rows, columns))
    _spread(coder, shape, rows, columns, residual.reshape(-1))
    return bytes([SPREADS, *shape]) + heads + coder.stream()


def _decode_spreads(rest: memoryview, rows: int, columns: int) -> np.ndarray:
    shape, coder = models.Shape(*rest[:6]), _Reader(rest[15:])
    if shape.power not in models.POWERS or max(shape.edge, shape.peak) not in models.EXTRAS or shape.low > shape.high:
        raise _damaged("has a model that cannot be")
    eighths, row_spreads, column_spreads = [
        _adaptive(coder, bytes(rest[at : at + 3]), None, count) for at, count in ((6, rows), (9, rows), (12, columns))
    ]
    if eighths[0] or eighths.max() > (8 if columns >= models.MIN_COLUMNS else 0):
        raise _damaged("has a model that cannot be")
    codes = _spread(coder, shape, row_spreads, column_spreads, None).reshape(rows, columns)
    models.undo_unlike(codes, eighths, shape)
    return codes


def _spread(
    coder: _Writer | _Reader, shape: models.Shape, rows: np.ndarray, columns: np.ndarray, codes: np.ndarray | None
) -> np.ndarray:
    """Code a matrix, flat, spread by spread within each block of it."""
    count = len(rows) * len(columns)
    if shape.low == shape.high:
        return np.full(count, shape.low, np.uint8)
    coder.expect(count)
    out = np.empty(count, np.uint8)
    base = int(models.spread_index(rows.min(), columns.min()))
    stop = int(models.spread_index(rows.max(), columns.max())) + 1
    family = [_model(freqs) for freqs in models.family(shape, slice(base, stop))]
    for start in range(0, count, BLOCK):
        block = slice(start, min(count, start + BLOCK))
        index = models.spread_index(*_spreads_of(block, rows, columns))
        order = np.argsort(index, kind="stable")
        given = None if codes is None else codes[block][order] - np.uint8(shape.low)
        coded, first = np.empty(len(order), np.uint8), 0
        for model, many in zip(family, np.bincount(index - base).tolist(), strict=False):
            own = slice(first, first := first + many)
            if many:
                coded[own] = coder.code(model, None if given is None else given[own], many)
        out[block][order] = coded + np.uint8(shape.low)
    return out


def _spreads_of(block: slice, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the spread of the row, and of the column, of each code of a block of a flat matrix."""
    start, stop, width = block.start, block.stop, len(columns)
    row = np.arange(start // width, -(-stop // width))
    lengths = np.minimum(stop, (row + 1) * width) - np.maximum(start, row * width)
    rest = columns[start % width :][: stop - start]
    more = stop - start - len(rest)
    return np.repeat(rows[row], lengths), np.concatenate([rest, np.resize(columns[:more], more)])
