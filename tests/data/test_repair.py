"""Repair patches: always exact, small where only spaces changed."""

from __future__ import annotations

import lzma
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from niblick.data.repair import RepairWriter, apply_repair, find_edits
from niblick.errors import DataError

SPACED = st.text("ab \n.", max_size=60).map(str.encode)


def patched(pairs: list[tuple[bytes, bytes]]) -> bytes:
    writer = RepairWriter()
    for original, decoded in pairs:
        if original == decoded:
            writer.add_exact()
        else:
            writer.add(original, decoded)
    return writer.finish()


@given(st.lists(st.tuples(st.one_of(SPACED, st.binary()), st.one_of(SPACED, st.binary()))))
def test_any_two_texts(pairs: list[tuple[bytes, bytes]]) -> None:
    assert list(apply_repair(patched(pairs), [decoded for _, decoded in pairs])) == [original for original, _ in pairs]


@given(SPACED)
def test_collapsed_spaces(text: bytes) -> None:
    decoded = b" ".join(text.split())
    edits = find_edits(text, decoded)
    assert sum(deleted for _, deleted, _ in edits) <= len(decoded)
    assert list(apply_repair(patched([(text, decoded)]), [decoded])) == [text]


def test_edits_are_few() -> None:
    """One edit a changed place, and a patch far smaller than the text."""
    words = random.Random(0).choices(["some", "words", "of", "text", "that", "goes", "on"], k=5000)
    original = b"".join(w.encode() + (b"\n\n" if i % 50 == 49 else b" ") for i, w in enumerate(words))
    decoded = b" ".join(original.split())
    assert len(find_edits(original, decoded)) == 100
    assert len(patched([(original, decoded)])) < 200


def test_long_unlike_stretches() -> None:
    """A lossy tokenizer makes one mark of a long run of unknown characters."""
    for length in (10, 3000, 50_000):
        unknown = "字".encode() * length
        original, decoded = b"before " + unknown + b" and after that", b"before  \xe2\x81\x87  and after that"
        edits = find_edits(original, decoded)
        assert len(edits) <= 2
        assert list(apply_repair(patched([(original, decoded)]), [decoded])) == [original]


def test_patches_that_do_not_fit() -> None:
    patch = patched([(b"a\nb c\nd", b"a b c d")])
    for wrong, documents in (
        (b"no xz", [b""]),
        (lzma.compress(b""), [b""]),
        (patch, [b"x"]),
        (patch, [b"a b c d"] * 2),
    ):
        with pytest.raises(DataError, match="does not fit the documents"):
            list(apply_repair(wrong, documents))
