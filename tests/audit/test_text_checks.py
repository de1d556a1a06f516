"""Validation text in training text: found wherever it is, and what the source repeats itself is no leak."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from niblick.audit.auditor import source_texts
from niblick.audit.copies import RUN, Matches, normal
from niblick.audit.text_checks import bytes_counted, hygiene
from niblick.data.corpus import recorded_reading
from niblick.data.dataset import Dataset, Split
from niblick.data.documents import Reading
from niblick.data.index import RECORD
from niblick.data.prepare import convert, prepare
from niblick.data.tokenizers import ByteTokenizer
from niblick.errors import DataError


def documents(count: int, length: int, seed: int) -> list[bytes]:
    random = np.random.default_rng(seed)
    return [bytes(random.integers(97, 123, length, np.uint8)) for _ in range(count)]


def a_split(name: str, texts: Iterable[bytes], lossless: bool | None = True) -> Split:
    parts = [np.append(np.uint16(1), np.frombuffer(text, np.uint8) + np.uint16(4)) for text in texts]
    index = np.zeros(len(parts), RECORD)
    index["tokens"] = [len(part) for part in parts]
    index["offset"] = np.cumsum(index["tokens"]) - index["tokens"]
    for row, part in zip(index, parts, strict=True):
        row["sha256"] = np.frombuffer(hashlib.sha256(ByteTokenizer().decode(part)).digest(), np.uint8)
    return Split(name, [], [np.concatenate(parts)], index, lossless=lossless)


TRAIN, VAL = documents(30, 3000, 0), documents(8, 2500, 1)


@pytest.mark.parametrize("at", [0, 1, 99, 100, 777, 2300])
@pytest.mark.parametrize("length", [RUN - 1, RUN, RUN + 57])
def test_a_run_is_found_wherever_it_stands(at: int, length: int) -> None:
    """200 bytes are, 199 are not; at any place of both texts."""
    piece = VAL[3][at : at + length]
    found = list(Matches(VAL).runs(TRAIN[0][:501] + b"|" + piece + b"|" + TRAIN[1][:33]))
    if len(piece) < RUN:
        assert not found
    else:
        assert found == [(502, 3, at, len(piece), 0)]


def one_in(every: int, text: bytes) -> bytes:
    """The text with every so-manieth byte replaced."""
    return bytes(b if n % every else (b + 1 - 97) % 26 + 97 for n, b in enumerate(text, 1))


def words(text: bytes, width: int = 6) -> bytes:
    return b" ".join(text[at : at + width] for at in range(0, len(text), width))


CHANGES: dict[str, Callable[[bytes], bytes]] = {
    "with CRLF": lambda text: text.replace(b" ", b"\r\n"),
    "in capitals": bytes.upper,
    "one byte in 150 changed": lambda text: one_in(150, text),
    "one byte in 90 left out": lambda text: b"".join(text[at : at + 89] for at in range(0, len(text), 90)),
    "one byte in 120 more": lambda text: b"#".join(text[at : at + 119] for at in range(0, len(text), 119)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copies_are_leaks(change: str) -> None:
    train, val = [*map(words, TRAIN)], [*map(words, VAL)]
    check = hygiene(a_split("train", [*train, CHANGES[change](val[4])]), a_split("val", val), ByteTokenizer())
    assert check.status == "fail", check.detail
    assert check.facts["example"].val_document == 4 and check.facts["bytes_found"] > 0.9 * len(val[4])


def test_rewrapping_is_no_difference() -> None:
    text = b"One line of text, and another one\nthat is wrapped\r\n\r\nelsewhere.  "
    assert normal(text) == normal(b"one line of text,\nand another one that is\twrapped elsewhere.")


def test_clean_text_passes() -> None:
    check = hygiene(a_split("train", TRAIN), a_split("val", VAL), ByteTokenizer())
    assert check.status == "pass" and "no run" in check.detail


def test_one_copied_document_is_a_leak() -> None:
    check = hygiene(a_split("train", [*TRAIN, VAL[5]]), a_split("val", VAL), ByteTokenizer())
    assert check.status == "fail"
    assert (check.facts["example"].val_document, check.facts["example"].train_document) == (5, 30)


def test_one_run_in_a_changed_document_is_a_leak_where_the_source_is_known() -> None:
    changed = [*TRAIN[:-1], TRAIN[-1] + VAL[2][40 : 40 + RUN]]
    check = hygiene(a_split("train", changed), a_split("val", VAL), ByteTokenizer(), [*VAL, *TRAIN])
    assert check.status == "fail" and check.facts["example"].bytes == RUN


def test_what_the_source_repeats_is_counted_and_shown() -> None:
    """The source has a document twice, one of them held out: with the source at hand that is no leak."""
    source = [*VAL, *TRAIN, VAL[0]]
    train, val = a_split("train", [*TRAIN, VAL[0]]), a_split("val", VAL)
    check = hygiene(train, val, ByteTokenizer(), source)
    assert check.status == "pass" and check.facts["runs"] == 1 and "where the source itself repeats" in check.detail
    assert hygiene(train, val, ByteTokenizer(), source[:-1]).status == "fail"


def test_repeats_that_are_usual_are_no_leak() -> None:
    """Without the source: every document ends in the same notice, held out or not."""
    notice = documents(1, 400, 9)[0]
    train, val = ([text + notice for text in texts] for texts in (TRAIN, VAL))
    check = hygiene(a_split("train", train), a_split("val", val), ByteTokenizer())
    assert check.status == "pass" and check.facts["runs"] > 0
    assert hygiene(a_split("train", [*train, val[1]]), a_split("val", val), ByteTokenizer()).status == "fail"


def test_lossy_text_must_be_called_so() -> None:
    split = a_split("val", VAL)
    assert split.index is not None
    assert bytes_counted(split, ByteTokenizer()).status == "pass"
    split.index["sha256"][2] = 0
    check = bytes_counted(split, ByteTokenizer())
    assert check.status == "fail" and "called lossless" in check.detail
    assert bytes_counted(split, ByteTokenizer(), lossless=False).status == "pass"


def test_the_source_is_read_as_the_data_were(tmp_path: Path) -> None:
    """By the key, the files, the separator and the cuts that the manifest has: each text then stands in its source."""
    texts = [text.decode() for text in [*VAL[:3], *TRAIN[:5], VAL[0]]]
    folder, book = tmp_path / "folder", tmp_path / "book.txt"
    folder.mkdir()
    (folder / "part.story").write_text("|".join(texts[:4]))
    (folder / "rest.story").write_text("|".join(texts[4:]))
    (folder / "notes.txt").write_text("not a part of it")
    (tmp_path / "docs.jsonl").write_text("".join(json.dumps({"meta": {"story": text}}) + "\n" for text in [*texts, ""]))
    book.write_text("\n\n".join(texts))
    for number, (source, reading, val_docs) in enumerate(
        (
            (folder, Reading(separator="|", files=("*.story",)), 1),
            (tmp_path / "docs.jsonl", Reading("meta.story", skip_empty=True), 1),
            (book, Reading(), None),
        )
    ):
        out = tmp_path / f"out{number}"
        prepare(str(source), "byte260", out, val_docs=val_docs, reading=reading)
        convert(out, "byte256", tmp_path / f"again{number}")
        for made in (out, tmp_path / f"again{number}"):
            data = Dataset.open(made)
            check = hygiene(data.train, data.val, data.tokenizer, source_texts(str(source), data))
            assert check.status == "pass" and "where the source itself repeats" in check.detail


@pytest.mark.parametrize("record", [{"text_key": 3}, {"unknown": "a"}, ["a"], {"files": "a"}, {"text_key": ""}])
def test_a_manifest_that_says_nonsense_of_its_reading(record: object) -> None:
    with pytest.raises(DataError, match="of how its text was read, which is of no known form"):
        recorded_reading({"niblick": {"reading": record}})
