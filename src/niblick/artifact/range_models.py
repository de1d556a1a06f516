"""Integer probability models of quantized weights, for range coding.

A matrix of trained weights is close to a generalized Gaussian once the spread of its row and of its column is known:
P(x) ∝ 2^-(|x - center| / s)^p with log₂ s = (row + column) / 4, one small integer for each row and column. That gives
64 possible spreads, whose distributions share the power p and need no histograms: what is stored is those integers and
a few bytes. Two more bytes say how much mass lies besides at both ends (a scale is mostly the largest weight of its
row) and at the center (pruned weights).

Embeddings of tokens that never occur are nearly the same, since the same gradients moved them. So a row may also be
predicted by some eighths of the row above; what is coded is then the difference.

A decoder must come to the same probabilities as the encoder did, on any machine, or it decodes nonsense. So everything
from the stored bytes to the frequencies is integer arithmetic, and no `exp` or `pow` of a machine's mathematics library
is ever asked. Only the fit, on the encoder's side, uses floats: it merely chooses what is stored.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np

PRECISION = 24
"""All frequencies of a distribution add up to 2**24: what constriction's coders work with."""
SPREADS = 64
"""s = 2^(k / 4) / 8 codes for k = 0 … 63: from 1/8 to 6,900, far past the widest distribution of bytes."""
ZERO = 64
"""Rows and columns are stored as bytes; k is their sum less this, cut to 0 … 63."""
POWERS = range(4, 33)
"""Eighths of the exponent p; 8 is a Laplace, 16 a Gaussian, more is nearer to a uniform distribution."""
EXTRAS = range(64)
"""0: no mass besides; e: about 2^(e/4 - 15) of what there is."""

MIN_COLUMNS = 64
"""Only rows of so many codes may be predicted: it is done row by row, and a reader's time is bounded."""

_STEP = 1024
"""Fixed-point logarithms count in 1/1024 of a factor of two."""
_ONE = 30
"""The table of powers counts in 2^-30."""
_HEIGHT = 26
"""Weights count in 2^-26, so that no sum or product of them leaves 63 bits."""


class Shape(NamedTuple):
    """The six bytes that are stored for a family of distributions."""

    power: int
    edge: int
    peak: int
    center: int
    low: int
    high: int


def frequencies(weights: np.ndarray) -> np.ndarray:
    """Return positive frequencies (…, symbols) in proportion to nonnegative `weights`, with the sum 2**24 in each row.

    Weights are int64 below 2**38, of which each row sums to 1 or more, so that nothing overflows.
    """
    free = 2**PRECISION - weights.shape[-1]  # each symbol has one to begin with: all can be coded
    shares = weights * free // weights.sum(-1, keepdims=True)
    rows = shares.reshape(-1, shares.shape[-1])  # a view or a copy, as `weights` lie in memory
    rows[np.arange(len(rows)), rows.argmax(-1)] += free - rows.sum(-1)
    return rows.reshape(shares.shape) + 1


def coder_weights(freqs: np.ndarray) -> np.ndarray:
    """Return frequencies (…, symbols) as the weights that constriction makes the same frequencies of.

    In C order: constriction takes a table in Fortran order without a word and reads it as if it were in C order.
    """
    return np.ascontiguousarray(freqs - 1, np.float64)


def family(shape: Shape, spreads: slice = slice(None)) -> np.ndarray:
    """Return the frequencies (spreads, symbols low … high) of a family, as int64; `spreads` may name some of the 64."""
    return frequencies(_weights(shape, spreads))


def _weights(shape: Shape, spreads: slice | np.ndarray) -> np.ndarray:
    distance = np.abs(np.arange(shape.low, shape.high + 1) - shape.center)
    weights = _gaussians(shape.power)[spreads][:, distance]
    total = weights.sum(-1, keepdims=True)
    weights = weights + (total >> 18) + 1  # a code far out costs about 18 bits, not 24
    for extra, places in ((shape.edge, [0, -1]), (shape.peak, [int(distance.argmin())])):
        if extra:
            weights[:, places] += total * (64, 76, 91, 108)[extra % 4] >> (21 - extra // 4)
    return weights


@functools.lru_cache(maxsize=len(POWERS))
def _gaussians(power: int) -> np.ndarray:
    """Return 2^-(d / s)^p for all spreads and distances d = 0 … 255, (64, 256), the sum of four points in each."""
    points = np.abs(8 * np.arange(256)[:, None] + np.array([-3, -1, 1, 3]))  # in eighths, as s is: 0 is not among them
    spread = np.arange(SPREADS)[:, None, None] * (_STEP // 4)
    exponent = (_log2(points) - spread) * power // 8
    height = _exp2(np.clip(exponent, -16 * _STEP, 5 * _STEP), 10)  # in 1/1024, as its own logarithm must be
    return _exp2(-height, _HEIGHT).sum(-1)


@functools.cache
def _powers() -> np.ndarray:
    """Return 2^(30 + i/1024) for i = 0 … 1023, cut to integers, by integer square roots of two."""
    root, values = 2 << 60, [1 << 60]
    for _ in range(_STEP.bit_length() - 1):
        root = math.isqrt(root << 60)
        values = [v for value in values for v in (value, value * root >> 60)]
    return np.array([value >> (60 - _ONE) for value in values], np.int64)


def _exp2(logarithm: np.ndarray, bits: int) -> np.ndarray:
    """Return ⌊2^(logarithm / 1024 + bits)⌋, where that is at most 2^30."""
    shift = np.clip(_ONE - bits - (logarithm >> 10), 0, 63)
    return _powers()[logarithm & (_STEP - 1)] >> shift


def _log2(numbers: np.ndarray) -> np.ndarray:
    """Return ⌊1024 log₂ n⌋ for 1 ≤ n < 2**12."""
    whole = np.searchsorted(2 ** np.arange(13), numbers, side="right") - 1
    return whole * _STEP + np.searchsorted(_powers(), numbers << (_ONE - whole), side="right") - 1


# The fit


def bits(freqs: np.ndarray) -> np.ndarray:
    """Return the cost in bits of each symbol under `freqs`."""
    return PRECISION - np.log2(freqs)


def fit(codes: np.ndarray, shape: Shape) -> tuple[Shape, np.ndarray, np.ndarray]:
    """Return the family, and the spread of each row and of each column as uint8, for uint8 `codes` (rows, columns).

    `shape` says where center and ends are. A start from mean distances, then twice: the best family for the spreads,
    the best spreads for the family, the cost of storing them included.
    """
    rows, columns = _first_spreads(np.abs(codes.astype(np.int16) - shape.center))
    shape = _best_shape(shape, codes, rows, columns)
    for _ in range(2):
        costs = bits(family(shape))
        rows = _best_spreads(codes, rows, columns, costs, shape.low)
        columns = _best_spreads(codes.T, columns, rows, costs, shape.low)
        shape = _best_shape(shape, codes, rows, columns)
    return shape, rows, columns


def outline(codes: np.ndarray) -> Shape:
    """Return the shape that a fit of uint8 `codes` starts from: a Gaussian around their median."""
    return Shape(16, 0, 0, int(np.median(codes)), int(codes.min()), int(codes.max()))


def likeness(codes: np.ndarray, center: int) -> np.ndarray:
    """Return for each row how many eighths of the row above predict it best, 0 where that saves next to nothing."""
    eighths = np.zeros(len(codes), np.uint8)
    if codes.shape[1] >= MIN_COLUMNS:
        values = codes.astype(np.float32) - center
        above, below = values[:-1], values[1:]
        product, square = (above * below).sum(1), np.maximum((above**2).sum(1), 1)
        kept = 1 - product**2 / (square * np.maximum((below**2).sum(1), 1))
        saved = -codes.shape[1] / 2 * np.log2(np.maximum(kept, 1e-3))
        eighths[1:] = np.where(saved > 8, np.clip(np.round(8 * product / square), 0, 8), 0)
    return eighths


def unlike(codes: np.ndarray, eighths: np.ndarray, shape: Shape) -> np.ndarray:
    """Return `codes` with each row less what the row above predicts, around the ends of the alphabet."""
    residual = codes.copy()
    for i in np.flatnonzero(eighths):
        residual[i] = _shifted(codes[i], -_predicted(codes[i - 1], eighths[i], shape), shape)
    return residual


def undo_unlike(residual: np.ndarray, eighths: np.ndarray, shape: Shape) -> None:
    """Turn what `unlike` gave into the codes again, in place."""
    for i in np.flatnonzero(eighths):
        residual[i] = _shifted(residual[i], _predicted(residual[i - 1], eighths[i], shape), shape)


def _predicted(above: np.ndarray, eighths: np.uint8, shape: Shape) -> np.ndarray:
    return (above.astype(np.int16) - shape.center) * np.int16(eighths) + 4 >> 3


def _shifted(row: np.ndarray, by: np.ndarray, shape: Shape) -> np.ndarray:
    return ((row.astype(np.int16) - shape.low + by) % (shape.high - shape.low + 1) + shape.low).astype(np.uint8)


def spread_index(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return the spread k of each code whose row and column have these; both uint8, of shapes that broadcast."""
    return np.clip(rows.astype(np.int16) + columns - ZERO, 0, SPREADS - 1).astype(np.uint8)


def _first_spreads(distance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    row = np.maximum(distance.mean(1), 1 / 16)
    column = np.maximum((distance / row[:, None].astype(np.float32)).mean(0), 1 / 16)
    first = 4 * np.log2(8 * row / 0.68)  # the mean distance of 2^-(x/s)² is 0.68 s
    return tuple(np.clip(np.round(v), 0, 127).astype(np.uint8) for v in (first, 4 * np.log2(column) + ZERO))


def _best_spreads(codes: np.ndarray, rows: np.ndarray, columns: np.ndarray, costs: np.ndarray, low: int) -> np.ndarray:
    """Return for each row of `codes` the spread that costs least beside the columns' ones."""
    found, column_class = np.unique(columns, return_inverse=True)
    candidates = np.arange(max(int(rows.min()) - 4, 0), min(int(rows.max()) + 5, 256))
    symbols = costs.shape[1]
    table = costs[spread_index(candidates[:, None].astype(np.uint8), found)].reshape(len(candidates), -1).T
    share = np.bincount(rows, minlength=256)[candidates] + 0.5
    rate = -np.log2(share / share.sum())
    best = np.empty(len(rows), np.uint8)
    band = max(1, 2**22 // len(table))
    for start in range(0, len(rows), band):
        part = codes[start : start + band]
        place = (np.arange(len(part))[:, None] * len(found) + column_class) * symbols + (part - np.int64(low))
        counts = np.bincount(place.ravel(), minlength=len(part) * len(table)).reshape(len(part), -1)
        best[start : start + band] = candidates[(counts.astype(np.float32) @ table.astype(np.float32) + rate).argmin(1)]
    return best


def _best_shape(shape: Shape, codes: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> Shape:
    """Return the best of the shapes around `shape`, one parameter after the other until none gets better."""
    symbols = shape.high - shape.low + 1
    counts = np.zeros((SPREADS, symbols))
    for start in range(0, len(codes), band := max(1, 2**22 // codes.shape[1])):
        part = slice(start, start + band)
        place = spread_index(rows[part, None], columns) * np.int64(symbols) + (codes[part] - np.int64(shape.low))
        counts += np.bincount(place.ravel(), minlength=counts.size).reshape(counts.shape)
    used = np.flatnonzero(counts.any(1))
    counts = counts[used]

    costs: dict[Shape, float] = {}
    better = True
    while better:
        before = shape
        for name, choices in (("power", POWERS), ("edge", EXTRAS), ("peak", EXTRAS)):
            value = getattr(shape, name)
            near = {choices[0], *(value + step for step in (-16, -4, -1, 0, 1, 4, 16))}
            candidates = [shape._replace(**{name: v}) for v in sorted(near & set(choices))]
            if new := [candidate for candidate in candidates if candidate not in costs]:
                freqs = frequencies(np.array([_weights(candidate, used) for candidate in new]))
                costs |= zip(new, (counts * bits(freqs)).sum((1, 2)).tolist(), strict=True)
            shape = min(candidates, key=costs.__getitem__)
        better = costs[shape] < costs[before]
    return shape
