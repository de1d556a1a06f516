"""Compressed documents: every packing gives the same text, long zstd windows are read, damage and limits are named."""

from __future__ import annotations

import bz2
import gzip
import lzma
from pathlib import Path

import pytest
import zstandard

from niblick.data.compressed import decompressed
from niblick.data.documents import Reading, read_documents
from niblick.errors import ConfigError, DataError

LINES = b'{"text": "one"}\n{"text": "two"}\n'


def frame(body: bytes, window_log: int) -> bytes:
    """A zstd frame of one raw block, whose header asks for a window of 2^window_log bytes (RFC 8878)."""
    return b"\x28\xb5\x2f\xfd" + bytes([0, window_log - 10 << 3]) + (len(body) << 3 | 1).to_bytes(3, "little") + body


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".json"])
@pytest.mark.parametrize(
    ("packing", "pack"),
    [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress), (".bz2", bz2.compress), (".zst", zstandard.compress)],
)
def test_every_packing(tmp_path: Path, suffix: str, packing: str, pack: object) -> None:
    path = tmp_path / f"docs{suffix}{packing}"
    path.write_bytes(pack(LINES) + (pack(LINES) if packing else b""))  # type: ignore[operator]
    found = list(read_documents(str(path)))
    assert [d.text for d in found] == ["one", "two"] * (2 if packing else 1)
    assert {d.source for d in found} == {"docs"}


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".bz2", ".zst"])
def test_texts_too(tmp_path: Path, suffix: str) -> None:
    pack = {".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress, ".zst": zstandard.compress}[suffix]
    path = tmp_path / f"book.txt{suffix}"
    path.write_bytes(pack(b"a text\n"))
    assert [(d.text, d.source) for d in read_documents(str(path))] == [("a text\n", "book")]
    for data in (pack(b"a text\n" * 99)[:-5], b"none of these", pack(b"a text") + b"and something else"):
        path.write_bytes(data)
        if suffix in (".xz", ".bz2") and data.endswith(b"else"):
            continue  # what follows a stream is ignored by Python's own readers
        with pytest.raises(
            DataError, match="damaged" if data != b"none of these" else f"not compressed as {suffix}: it begins"
        ):
            list(read_documents(str(path)))


@pytest.mark.parametrize("window_log", [27, 28, 31])
def test_long_windows(tmp_path: Path, window_log: int) -> None:
    path = tmp_path / "docs.jsonl.zst"
    path.write_bytes(frame(LINES, 20) + frame(LINES, window_log))
    assert len(list(read_documents(str(path)))) == 4
    small = Reading(max_window=(1 << window_log) - 1)
    with pytest.raises(DataError) as caught:
        list(read_documents(str(path), small))
    size = f"{1 << window_log - 20:,} MiB"
    assert f"a window of {size}" in str(caught.value)
    assert f"--max-window {1 << window_log - 20}" in str(caught.value)
    assert "damaged" not in str(caught.value)


def test_windows_that_nobody_can_read(tmp_path: Path) -> None:
    path = tmp_path / "docs.jsonl.zst"
    path.write_bytes(frame(LINES, 32))
    with pytest.raises(DataError, match=r"of 4,096 MiB, and 2,048 MiB are allowed; .*--long=31"):
        list(read_documents(str(path)))
    for size in (0, 1 << 19, 1 << 32):
        with pytest.raises(ConfigError, match="give 1 to 2048 MiB"):
            Reading(max_window=size)


def test_a_frame_with_its_size_asks_for_its_content(tmp_path: Path) -> None:
    path = tmp_path / "docs.jsonl.zst"
    content = LINES * 50_000
    path.write_bytes(zstandard.ZstdCompressor(19).compress(content))
    assert zstandard.get_frame_parameters(path.read_bytes()).window_size == len(content) > 1 << 20
    with pytest.raises(DataError, match="--max-window 2"):
        list(read_documents(str(path), Reading(max_window=1 << 20)))
    assert len(list(read_documents(str(path), Reading(max_window=2 << 20)))) == 100_000


def test_skippable_frames_and_headers_across_reads(tmp_path: Path) -> None:
    """As pzstd and seekable zstd write them; a frame may begin in the last bytes of a read."""
    skipped = b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"notes"
    for length in range(8170, 8192):
        path = tmp_path / "docs.zst"
        filling = b"\x50\x2a\x4d\x18" + (length - 8).to_bytes(4, "little") + bytes(length - 8)
        path.write_bytes(filling + frame(LINES, 28) + skipped + frame(LINES, 20))
        with open(path, "rb") as file:
            assert b"".join(decompressed(file, "docs.zst")) == LINES * 2


@pytest.mark.parametrize("sized", [True, False])
def test_frames_that_need_a_dictionary(tmp_path: Path, sized: bool) -> None:
    lines = b"".join(b'{"text": "number %d of %d"}\n' % (number, 7 * number) for number in range(2000))
    trained = zstandard.train_dictionary(4096, lines.splitlines())
    path = tmp_path / "docs.jsonl.zst"
    path.write_bytes(zstandard.ZstdCompressor(dict_data=trained, write_content_size=sized).compress(lines))
    with pytest.raises(
        DataError, match=rf"compressed with a dictionary \(number {trained.dict_id()}\), .*`zstd -dc -D DICTIONARY"
    ):
        list(read_documents(str(path)))


def test_bare_names_say_what_they_are_taken_for(tmp_path: Path) -> None:
    for data in (b"plain words\n", b"17\n"):
        path = tmp_path / "notes.gz"
        path.write_bytes(gzip.compress(data))
        with pytest.raises(DataError, match=r"line 1: .*call a text notes\.txt\.gz, a table notes\.csv\.gz"):
            list(read_documents(str(path)))
    path = path.rename(tmp_path / "notes.jsonl.gz")
    with pytest.raises(DataError) as refused:
        list(read_documents(str(path)))
    assert "call a text" not in str(refused.value)
