"""The codec `range`: exact, small, the same on every machine, and bounded whatever it is given."""

from __future__ import annotations

import hashlib
import lzma
import tracemalloc
import zlib
from typing import Literal

import brotli
import numpy as np
import pytest
import zstandard
from constriction import stream
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from niblick.artifact import range_coding, range_models
from niblick.artifact.codec import Spec
from niblick.artifact.container import DTYPES
from niblick.artifact.range_coding import MAX_PER_BYTE, PLANES, RAW, SPARSE, SPREADS, WIDE, RangeCodec
from niblick.artifact.range_models import Shape, bits, family, frequencies
from niblick.errors import ArtifactError

CODEC = RangeCodec()


def matrix(rows: int, columns: int, levels: int, seed: int = 0, dtype: type = np.int8) -> np.ndarray:
    """Codes as rows of trained weights have them: rows and columns of unlike spread, the largest at the end."""
    rng = np.random.default_rng(seed)
    spread = np.exp(0.4 * rng.standard_normal((rows, 1)) + 0.3 * rng.standard_normal(columns))
    weights = rng.standard_normal((rows, columns)) * spread
    codes = np.round(weights / np.abs(weights).max(1, keepdims=True) * levels)
    return codes.astype(dtype) if dtype is np.int8 else (codes + levels + 1).astype(dtype)


def order0(symbols: np.ndarray) -> float:
    """Bytes of the symbols under their own frequencies, those for nothing."""
    counts = np.unique(symbols, return_counts=True)[1]
    return float((counts * np.log2(counts.sum() / counts)).sum() / 8)


def specs(arrays: list[np.ndarray]) -> list[Spec]:
    return [(array.dtype, array.shape) for array in arrays]


def forms(arrays: list[np.ndarray]) -> list[int]:
    return [part[0] for part in range_coding._segments(CODEC.encode(arrays), len(arrays))]


def roundtrip(arrays: list[np.ndarray]) -> bytes:
    data = CODEC.encode(arrays)
    for array, back in zip(arrays, CODEC.decode(data, specs(arrays)), strict=True):
        assert (array.dtype, array.shape, array.tobytes()) == (back.dtype, back.shape, back.tobytes())
    return data


# Exact


@given(
    st.lists(
        st.sampled_from(list(DTYPES.values())).flatmap(
            lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9))
        ),
        max_size=4,
    )
)
@settings(max_examples=100, deadline=None)
def test_any_arrays_come_back_and_hardly_grow(arrays: list[np.ndarray]) -> None:
    data = roundtrip(arrays)
    sizes = CODEC.part_bytes(data, specs(arrays))
    assert sum(sizes) == len(data)
    for array, size in zip(arrays, sizes, strict=True):
        assert size <= array.nbytes + 1 + len(range_coding._length(array.nbytes + 1))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8])
@pytest.mark.parametrize("shape", [(300, 200), (200, 3, 100), (1, 60_000), (60_000, 1)])
def test_matrices_come_back(dtype: type, shape: tuple[int, ...]) -> None:
    roundtrip([matrix(300, 200, 31, dtype=dtype).reshape(shape)])


@pytest.mark.parametrize("dtype", [np.int16, np.int32])
@pytest.mark.parametrize("bits", [6, 9, 12, 15, 21])
def test_fine_grids_cost_their_entropy(dtype: type, bits: int) -> None:
    """Codes of a normal spread of 2^bits / 4 steps, whose entropy is known, and the ends of what the dtype holds."""
    if bits > 8 * np.dtype(dtype).itemsize - 4:
        bits = 11
    weights = np.random.default_rng(0).standard_normal((256, 256))
    codes = np.round(weights * 2.0**bits / 4).astype(dtype)
    assert forms([codes]) == [WIDE]
    assert len(roundtrip([codes])) < 1.01 * codes.size * (bits + 0.05) / 8 + 50
    roundtrip([np.array([np.iinfo(dtype).min, 0, -1, np.iinfo(dtype).max], dtype)])
    roundtrip([codes.reshape(4, 64, 256)[:, ::2], codes.ravel()[:7], codes[:0]])


def test_edges_of_the_symbols() -> None:
    rng = np.random.default_rng(0)
    lone = np.zeros((100, 100), np.int8)
    lone[3, 4], lone[5, 6] = -128, 127
    ternary = rng.integers(-1, 2, (100, 100)).astype(np.int8)
    full = rng.integers(0, 256, (100, 100)).astype(np.uint8)
    assert len(roundtrip([lone])) < 200
    assert len(roundtrip([ternary])) < 10_000 * np.log2(3) / 8 + 25
    assert len(roundtrip([full])) == 10_000 + 3
    assert len(roundtrip([np.zeros((1000, 1000), np.int8), np.ones(10**6, np.float32)])) < 25


def test_blocks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays larger than a block, whose rows end anywhere in it."""
    monkeypatch.setattr(range_coding, "BLOCK", 1000)
    arrays = [matrix(300, 77, 31), np.arange(5000, dtype=np.uint16) % 300]
    assert set(forms(arrays)) == {SPREADS, PLANES}
    roundtrip(arrays)


# Small


@pytest.mark.parametrize("levels", [7, 15, 31, 127])
def test_below_the_order_0_entropy(levels: int) -> None:
    """Two matrices of 256×512: all included, fewer bytes than under histograms that cost nothing."""
    arrays = [matrix(256, 512, levels, seed) for seed in (0, 1)]
    assert forms(arrays) == [SPREADS, SPREADS]
    assert len(roundtrip(arrays)) < 0.99 * sum(map(order0, arrays))


def test_without_unlike_spreads_next_to_the_order_0_entropy() -> None:
    codes = np.clip(np.round(np.random.default_rng(0).standard_normal((512, 512)) * 9), -31, 31).astype(np.int8)
    assert len(roundtrip([codes])) < 1.002 * order0(codes)
    flat = codes.reshape(-1)  # no rows, so coded by the counts alone
    assert forms([flat]) == [PLANES]
    assert len(roundtrip([flat])) < 1.005 * order0(codes)


def test_rows_like_the_one_above() -> None:
    """As in the embedding of bytes that no text holds: copies of one row, and rows that are nearly that one."""
    codes, rng = matrix(128, 256, 31), np.random.default_rng(0)
    noise = rng.standard_normal((60, 256)) * (np.arange(60) % 3)[:, None]
    codes[40:100] = np.clip(np.round(codes[39] + noise), -31, 31)
    like = codes
    eighths = range_models.likeness(like.view(np.uint8) ^ 128, 128)
    assert (eighths[40:100] >= 4).all()
    assert (eighths[100:] <= 2).all()
    assert not eighths[0]
    assert len(roundtrip([like])) < 0.8 * order0(like)
    roundtrip([np.repeat(matrix(3, 100, 127), 30, axis=0), np.full((50, 99), 255, np.uint8)])


def test_pruned_weights_and_full_edges_are_modelled() -> None:
    codes = matrix(256, 256, 31)
    pruned = np.where(np.random.default_rng(1).random(codes.shape) < 0.3, 0, codes).astype(np.int8)
    clipped = np.clip(matrix(256, 256, 93), -31, 31)
    for array, field in ((pruned, "peak"), (clipped, "edge")):
        symbols = array.view(np.uint8) ^ 128
        shape, _, _ = range_models.fit(symbols, range_models.outline(symbols))
        assert getattr(shape, field) > 40, shape
        assert len(roundtrip([array])) < order0(array)


def test_rows_of_zeros_are_told_apart() -> None:
    """A hashed table most of whose rows were never looked up, and what was hardly ever has the ends of its grid."""
    filled = np.random.default_rng(2).random(4096) < 0.2
    codes = np.clip(matrix(4096, 32, 62), -31, 31) * filled[:, None]
    assert forms([codes]) == [SPARSE]
    alone = len(CODEC.encode([np.ascontiguousarray(codes[filled])]))
    assert len(roundtrip([codes])) < alone + order0(filled) + 30
    assert len(roundtrip([codes])) < 0.95 * len(range_coding._encode_spreads(codes.view(np.uint8) ^ 128))
    assert forms([codes[:, :1]])[0] != SPREADS
    roundtrip([codes.reshape(4096, 4, 8), codes[:, :1], codes[filled][:15], codes * 0, codes.view(np.uint8)])


@pytest.mark.slow
def test_smaller_than_the_stream_codecs_and_lzma() -> None:
    arrays: list[np.ndarray] = []
    for seed in range(8):
        arrays += [matrix(512, 256, 31, seed), np.random.default_rng(seed).lognormal(size=512).astype(np.float16)]
    raw = b"".join(array.tobytes() for array in arrays)
    others = (
        zlib.compress(raw, 9),
        zstandard.ZstdCompressor(level=22).compress(raw),
        brotli.compress(raw, quality=11, lgwin=24),
        lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME),
    )
    assert len(roundtrip(arrays)) < 0.98 * min(map(len, others))


# The same on every machine


@given(hnp.arrays(np.int64, st.integers(2, 256), elements=st.integers(0, 2**30)).filter(lambda w: w.sum() > 0))
@settings(max_examples=100, deadline=None)
def test_the_coder_uses_exactly_our_frequencies(weights: np.ndarray) -> None:
    """The state after one symbol shows its frequency and that of all below it: nothing was rounded on the way."""
    freqs = frequencies(weights)
    assert freqs.min() >= 1
    assert freqs.sum() == 2**24
    model, whole = range_coding._model(freqs), (2**64 - 1) >> 24
    for symbol in {0, int(freqs.argmax()), len(freqs) - 1}:
        encoder = stream.queue.RangeEncoder()
        encoder.encode(np.array([symbol], np.int32), model)
        assert encoder.pos()[1] == (whole * int(freqs[:symbol].sum()), whole * int(freqs[symbol]))


@pytest.mark.parametrize("order", ["C", "F"])
def test_tables_are_handed_over_in_c_order(order: Literal["C", "F"]) -> None:
    """constriction reads a table in Fortran order as if it were in C order, and says nothing."""
    tables = np.array(frequencies(np.arange(1, 41).reshape(5, 8) ** 2), order=order)
    weights = range_models.coder_weights(tables)
    assert weights.flags.c_contiguous
    assert np.array_equal(weights, tables - 1)
    streams = []
    for table in (weights, range_models.coder_weights(np.ascontiguousarray(tables))):
        encoder = stream.queue.RangeEncoder()
        encoder.encode(np.arange(5, dtype=np.int32), stream.model.Categorical(perfect=False), table)
        streams.append(encoder.get_compressed().tolist())
    assert streams[0] == streams[1]
    assert range_models.coder_weights(tables[:, ::2][0]).flags.c_contiguous


def test_families_are_the_same_numbers_everywhere() -> None:
    """A change here makes every artifact written with `range` unreadable."""
    digest = hashlib.sha256()
    for power in range_models.POWERS:
        for edge, peak, center, low, high in (
            (0, 0, 128, 97, 159),
            (63, 0, 0, 0, 255),
            (63, 63, 255, 0, 255),
            (7, 3, 128, 120, 121),
        ):
            freqs = family(Shape(power, edge, peak, center, low, high))
            assert (freqs.sum(-1) == 2**24).all()
            assert freqs.min() >= 1
            digest.update(freqs.astype("<i8").tobytes())
    assert digest.hexdigest() == "18f94f33bd9d8c73529c6fe920f14c3109435a43d309debda3b8aa6e4a8d25e7"


def test_families_are_what_they_are_said_to_be() -> None:
    """Against the formula in floats: Gaussian and Laplace of spreads from one code to the width of the alphabet."""
    points = np.abs(8 * np.arange(-31, 32)[:, None] + np.array([-3, -1, 1, 3])) / 8
    for power in (8, 16):
        freqs = family(Shape(power, 0, 0, 128, 97, 159))
        for k in (12, 20, 30):
            expected = (2.0 ** -((points / (2 ** (k / 4) / 8)) ** (power / 8))).sum(-1)
            expected /= expected.sum()
            assert np.abs(freqs[k] / 2**24 - expected).max() < 0.002
            excess = (expected * (bits(freqs[k]) + np.log2(expected))).sum()
            assert 0 <= excess < 0.002


# Whatever it is given


def segment(form: int, body: bytes) -> bytes:
    return range_coding._length(1 + len(body)) + bytes([form]) + body


I1, I2, F2 = np.dtype("i1"), np.dtype("<i2"), np.dtype("<f2")
SHAPE = bytes([16, 0, 0, 128, 97, 159])
FLAT = bytes([0, 0, 0]) + bytes([64, 64, 0]) * 2


@pytest.mark.parametrize(
    ("data", "spec", "message"),
    [
        (b"", (I1, (4,)), "has no lengths"),
        (b"\x80", (I1, (4,)), "has no lengths"),
        (b"\xff" * 5 + b"\x01", (I1, (4,)), "has no lengths"),
        (b"\x05\0", (I1, (4,)), "declares 6 bytes and has 2"),
        (b"\x00\0", (I1, (4,)), "declares 1 bytes and has 2"),
        (b"\x00", (I1, (4,)), "a segment of form None and 0 bytes for int8"),
        (segment(RAW, b"abc"), (I1, (4,)), "a segment of form 0 and 4 bytes"),
        (segment(RAW, b""), (I1, (0, 4)), "bytes for an empty array"),
        (segment(9, b"abcd"), (I1, (4,)), "a segment of form 9"),
        (segment(WIDE, b"\3"), (I1, (4,)), "a segment of form 3"),
        (segment(WIDE, b""), (I2, (4,)), "a segment of form 3"),
        (segment(WIDE, b"\x09" + bytes(9)), (I2, (4,)), "a model that cannot be"),
        (segment(WIDE, b"\x08" + bytes(3)), (I2, (4,)), "a model that cannot be"),
        (segment(WIDE, b"\x08" + bytes(4)), (I2, (4,)), "has no lengths"),
        (segment(WIDE, b"\x08\x02" + bytes(6)), (I2, (4,)), "a segment of form 0 and 2 bytes"),
        (segment(PLANES, b"\0\0\0\0\0"), (F2, (4,)), "a segment of form 1"),
        (segment(PLANES, bytes([5, 4, 0]) * 2), (F2, (4,)), "a model that cannot be"),
        (segment(PLANES, bytes([4, 5, 5]) * 2), (F2, (4,)), "a model that cannot be"),
        (segment(PLANES, bytes([4, 5, 0]) * 2), (F2, (4,)), "too short for its symbols"),
        (segment(PLANES, bytes([4, 200, 0, 255, 255, 255, 255, 255, 255, 255, 255])), (I1, (4,)), "damaged stream"),
        (segment(SPREADS, SHAPE + FLAT + b"a"), (I1, (4,)), "a segment of form 2"),
        (segment(SPREADS, SHAPE + FLAT + b"a"), (F2, (2, 2)), "a segment of form 2"),
        (segment(SPREADS, SHAPE + FLAT[:8]), (I1, (2, 2)), "a segment of form 2"),
        (segment(SPREADS, SHAPE + FLAT), (I1, (2, 2)), "too short for its symbols"),
        (segment(SPREADS, bytes([3]) + SHAPE[1:] + FLAT + b"a"), (I1, (2, 2)), "a model that cannot be"),
        (segment(SPREADS, bytes([16, 64]) + SHAPE[2:] + FLAT + b"a"), (I1, (2, 2)), "a model that cannot be"),
        (segment(SPREADS, SHAPE[:4] + bytes([9, 8]) + FLAT + b"a"), (I1, (2, 2)), "a model that cannot be"),
        (segment(SPARSE, b"\0\1"), (I1, (2, 2)), "a segment of form 4"),
        (segment(SPARSE, b"\0\1\0\0"), (I1, (4,)), "a segment of form 4"),
        (segment(SPARSE, b"\0\1\0"), (I1, (2, 2)), "has no lengths"),
        (segment(SPARSE, b"\0\1\0\2a"), (I1, (2, 2)), "declares 3 bytes and has 2"),
        (segment(SPARSE, b"\0\2\0\1a"), (I1, (2, 2)), "a model that cannot be"),
        (segment(SPARSE, b"\0\1\0\0"), (I1, (2, 2)), "too short for its symbols"),
        (segment(SPARSE, b"\1\1\0\0" + b"\4\1\1\0\0"), (I1, (2, 2)), "a model that cannot be"),
        (segment(SPARSE, b"\1\1\0\0" + b"\0abc"), (I1, (2, 2)), "a segment of form 0 and 4 bytes"),
        (segment(SPARSE, b"\0\0\0\0" + b"\0abc"), (I1, (2, 2)), "bytes for an empty array"),
        (segment(SPREADS, SHAPE + b"\3\3\0" + FLAT[3:] + b"a"), (I1, (2, 99)), "a model that cannot be"),
        (segment(SPREADS, SHAPE + bytes([9, 8, 0]) * 3 + b"a"), (I1, (2, 2)), "a model that cannot be"),
    ],
)
def test_unfit_payloads_are_refused(data: bytes, spec: Spec, message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        CODEC.decode(data, [spec])


@given(
    st.sampled_from([PLANES, SPREADS, WIDE, SPARSE]),
    st.binary(max_size=60),
    st.sampled_from([(I1, (30, 20)), (F2, (9, 11)), (I2, (9, 1))]),
)
@settings(max_examples=300, deadline=None)
def test_any_segment(form: int, body: bytes, spec: Spec) -> None:
    try:
        (array,) = CODEC.decode(segment(form, body), [spec])
    except ArtifactError:
        return
    assert (array.dtype, array.shape) == spec


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_any_stream_behind_a_good_model(data: st.DataObject) -> None:
    """All bytes of a stream are symbols of the alphabet, or are refused; no third thing."""
    low, high = sorted(data.draw(st.tuples(st.integers(0, 255), st.integers(0, 255))))
    shape = [data.draw(st.integers(4, 32)), *data.draw(st.tuples(st.integers(0, 63), st.integers(0, 63)))]
    head = bytes([*shape, data.draw(st.integers(0, 255)), low, high, 0, 0, 0, 50, 60, 2, 60, 70, 2])
    try:
        (array,) = CODEC.decode(
            segment(SPREADS, head + data.draw(st.binary(min_size=8, max_size=200))), [(I1, (20, 20))]
        )
    except ArtifactError as error:
        assert "damaged stream" in str(error)
    else:
        symbols = array.view(np.uint8) ^ 128
        assert low <= symbols.min() <= symbols.max() <= high


@pytest.mark.parametrize("form", ["constant", "short", "short planes", "honest"])
def test_memory_is_bounded(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """8 MB of codes: what is held beside them is a block's worth. A stream too short is refused before that."""
    monkeypatch.setattr(range_coding, "BLOCK", 2**16)
    rows, columns = 2**11, 2**12
    head, size = SHAPE + bytes([0, 0, 0, 84, 84, 0, 64, 64, 0]), rows * columns
    body = {
        "constant": SHAPE[:4] + bytes([7, 7]) + FLAT,
        "short": head + bytes(size // MAX_PER_BYTE - 1),
        "short planes": FLAT[:1] + bytes([1, 0]) + bytes(size // MAX_PER_BYTE - 1),
        "honest": head + bytes(size // MAX_PER_BYTE),
    }[form]
    data = segment(PLANES if "planes" in form else SPREADS, body)
    tracemalloc.start()
    if "short" in form:
        with pytest.raises(ArtifactError, match="too short"):
            CODEC.decode(data, [(I1, (rows, columns))])
    else:
        (array,) = CODEC.decode(data, [(I1, (rows, columns))])
        assert array.shape == (rows, columns)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < (size // 8 if "short" in form else 2 * size + 2**22)


def test_sparse_arrays_fill_their_stream() -> None:
    """The encoder keeps the rule by which the decoder bounds its time."""
    codes = np.zeros((1000, 1000), np.int8)
    codes[:, 7] = 1
    data = roundtrip([codes])
    assert 10**6 / MAX_PER_BYTE < len(data) < 10**6 / MAX_PER_BYTE + 100


@pytest.mark.parametrize("order", ["C", "F"])
def test_frequencies_add_up_however_weights_lie_in_memory(order: str) -> None:
    weights = np.random.default_rng(0).integers(1, 2**20, (3, 20, 248))
    freqs = frequencies(np.asarray(weights, order=order))
    assert (freqs.sum(-1) == 2**24).all()
    np.testing.assert_array_equal(freqs, [frequencies(each) for each in weights])
