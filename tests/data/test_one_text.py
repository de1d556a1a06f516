"""One text alone is cut at the ends of its paragraphs, loses nothing by it, and its beginning is held out."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from niblick.data import blocks, compressed, text_cuts
from niblick.data.dataset import Dataset
from niblick.data.documents import Reading
from niblick.data.prepare import prepare
from niblick.data.text_cuts import at_paragraphs, piece_bytes
from niblick.errors import DataError


def book(paragraphs: int, seed: int = 0) -> str:
    """Paragraphs of a few lines each, of words made up."""
    chosen = random.Random(seed)

    def line() -> str:
        return " ".join("".join(chosen.choices("abcdeéш", k=chosen.randint(1, 9))) for _ in range(9))

    return "\n\n".join("\n".join(line() for _ in range(chosen.randint(1, 5))) for _ in range(paragraphs)) + "\n"


def split_texts(out: Path) -> list[list[bytes]]:
    dataset = Dataset.open(out)
    found = []
    for split in (dataset.val, dataset.train):
        assert split.index is not None
        spans = zip(split.index["offset"].tolist(), split.index["tokens"].tolist(), strict=True)
        found.append([dataset.tokenizer.decode(split.slice(*span)) for span in spans])
    return found


@pytest.mark.parametrize(("share", "expected"), [(None, 0.05), (0.2, 0.2)])
def test_the_first_share_is_held_out(tmp_path: Path, share: float | None, expected: float) -> None:
    text = book(300)
    (tmp_path / "book.txt").write_text(text, newline="")
    manifest = prepare(str(tmp_path / "book.txt"), "byte260", tmp_path / "out", val_share=share)
    val, train = split_texts(tmp_path / "out")
    whole = text.encode()
    assert b"".join([*val, *train]) == whole
    held_out = b"".join(val)
    assert abs(len(held_out) / len(whole) - expected) < 0.02
    assert held_out.endswith(b"\n\n")
    said = manifest["niblick"]["one_text"]
    assert (said["val_share"], said["held_out_bytes"], said["bytes"]) == (expected, len(held_out), len(whole))
    again = prepare(str(tmp_path / "book.txt"), "byte260", tmp_path / "again", val_share=share)
    assert again["niblick"] == manifest["niblick"]


@pytest.mark.parametrize(("text", "end"), [("word " * 4000, b" "), ("line\n" * 4000, b"\n"), ("日" * 7000, b"\xa5")])
def test_texts_without_paragraphs(tmp_path: Path, text: str, end: bytes) -> None:
    """As text8 is: no line ends at all. Cut after a line, a word or a character."""
    (tmp_path / "text8").write_text(text, newline="")
    prepare(str(tmp_path / "text8"), "byte260", tmp_path / "out")
    val, train = split_texts(tmp_path / "out")
    assert b"".join([*val, *train]) == text.encode()
    assert b"".join(val).endswith(end)
    assert 0.04 < sum(map(len, val)) / len(text.encode()) < 0.06


def test_longer_than_a_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "MAX_DOCUMENT_BYTES", 1 << 15)
    monkeypatch.setattr(compressed, "PIECE", 1 << 13)
    monkeypatch.setattr(text_cuts, "LONGEST_PIECE", 1 << 12)
    text = book(600)
    (tmp_path / "book.txt").write_text(text, newline="")
    with pytest.raises(DataError, match="cut it by --separator, or give that file alone, with --val-share"):
        prepare(str(tmp_path / "book.txt"), "byte260", tmp_path / "out", val_docs=0)
    prepare(str(tmp_path / "book.txt"), "byte260", tmp_path / "out", val_share=0.1)
    val, train = split_texts(tmp_path / "out")
    assert b"".join([*val, *train]) == text.encode()
    assert max(map(len, [*val, *train])) <= 2 << 12


@pytest.mark.parametrize("aim", [1, 7, 100, 5000])
def test_no_byte_is_lost_wherever_pieces_end(aim: int) -> None:
    whole = book(40, seed=aim).encode()
    found = [
        list(at_paragraphs((whole[at : at + size] for at in range(0, len(whole), size)), aim))
        for size in (11, 999, 10**6)
    ]
    assert found[0] == found[1] == found[2]
    assert b"".join(found[0]) == whole
    assert all(piece.decode() for piece in found[0])


def test_shares_of_many_documents(tmp_path: Path) -> None:
    (tmp_path / "docs.txt").write_text("|".join(map(str, range(50))))
    reading = Reading(separator="|")
    for share, count in {0.1: 5, 0.001: 1, 0.999: 49}.items():
        out = tmp_path / str(share)
        assert prepare(str(tmp_path / "docs.txt"), None, out, val_share=share, reading=reading)["num_val_docs"] == count


def test_refused(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("a")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "latin.txt").write_bytes(b"word " * 500 + b"caf\xe9 " + b"word " * 500)
    for name, said in {
        "short": "is one text of 1 bytes, too short to be cut",
        "empty": "holds no documents",
        "latin": "byte 2504 is not UTF-8",
    }.items():
        with pytest.raises(DataError, match=said):
            prepare(str(tmp_path / f"{name}.txt"), "byte260", tmp_path / "out")
        assert not (tmp_path / "out").exists()
    (tmp_path / "one.jsonl").write_text('{"text": "one document"}')
    with pytest.raises(DataError, match=r"holds one document, .* --val-docs 1 or --val-docs 0"):
        prepare(str(tmp_path / "one.jsonl"), "byte260", tmp_path / "out", val_share=0.1)
    for count in (0, 1):
        for name in ("one.jsonl", "short.txt"):
            out = tmp_path / f"{name}{count}"
            assert prepare(str(tmp_path / name), "byte260", out, val_docs=count)["num_val_docs"] == count
    for options, said in (
        ({"val_share": 0.1, "val_docs": 1}, "--val-docs and --val-share both"),
        ({"val_share": 1.5}, r"--val-share is 1\.5; give a share between"),
        ({"val_docs": -1}, "--val-docs is -1"),
    ):
        with pytest.raises(DataError, match=said):
            prepare(str(tmp_path / "latin.txt"), "byte260", tmp_path / "out", **options)  # type: ignore[arg-type]
    with pytest.raises(DataError, match="are fixed by the challenge; leave --val-share out"):
        prepare("challenge:docs", None, tmp_path / "out", val_share=0.1)
    assert piece_bytes(10**9, 0.05) == 1 << 20
    assert np.isclose(piece_bytes(10**6, 0.05), 50_000)
