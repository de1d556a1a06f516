"""Compressed files of several streams: all of them are read, or the file is refused; no half of one is the whole."""

from __future__ import annotations

import bz2
import io
import lzma
from collections.abc import Callable

import pytest

from niblick.data.compressed import DAMAGED, decompressed
from niblick.errors import DataError

ONE, TWO = b"first line\n" * 20_000, bytes(range(256)) * 3_000
KINDS: list[tuple[str, Callable[[bytes], bytes]]] = [(".xz", lzma.compress), (".bz2", bz2.compress)]


def read(data: bytes, suffix: str) -> bytes:
    return b"".join(decompressed(io.BytesIO(data), f"text{suffix}"))


@pytest.mark.parametrize(("suffix", "pack"), KINDS)
def test_streams_after_each_other_are_read(suffix: str, pack: Callable[[bytes], bytes]) -> None:
    one, two = pack(ONE), pack(TWO)
    assert read(one, suffix) == ONE
    assert read(one + two + one, suffix) == ONE + TWO + ONE
    assert read(pack(b""), suffix) == b""


def test_zeros_between_streams() -> None:
    one, two = lzma.compress(ONE), lzma.compress(TWO)
    for count in (4, 8, 65_536 + 4):
        assert read(one + bytes(count) + two + bytes(count), ".xz") == ONE + TWO
    for wrong in (one + bytes(3) + two, one + bytes(6)):
        with pytest.raises(DAMAGED):
            read(wrong, ".xz")
    with pytest.raises(DataError, match=r"not compressed as \.xz"):
        read(bytes(4) + one, ".xz")
    assert read(lzma.compress(ONE, lzma.FORMAT_ALONE), ".xz") == ONE


@pytest.mark.parametrize(("suffix", "pack"), KINDS)
def test_damage_in_a_further_stream_is_no_end(suffix: str, pack: Callable[[bytes], bytes]) -> None:
    one, two = pack(ONE), pack(TWO)
    for at in (0, 4, 8, 14, len(two) // 2):
        wrong = bytearray(two)
        wrong[at] ^= 0x10
        with pytest.raises(DAMAGED):
            read(one + bytes(wrong), suffix)
    for wrong_end in (one + b"rubbish", one + two[:-1], one + two[:5], one[:-1], b""):
        with pytest.raises(DAMAGED):
            read(wrong_end, suffix)
