"""Files that are no text are named for what they begin with, whatever they are called."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import re
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zstandard

from niblick.data.dataset import Dataset
from niblick.data.documents import read_documents
from niblick.data.prepare import convert, prepare
from niblick.data.tokenizers import given_tokenizer
from niblick.errors import DataError

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "ab" * 32 + "\nsize 4711\n"
LINE = b'{"text": "a line"}\n'


@pytest.mark.parametrize(
    "name",
    ["a.txt", "a", "a.md.xz", "a.jsonl", "a.jsonl.gz", "a.json.zst", "a.csv", "a.parquet", "a.arrow", "deep/a.txt"],
)
def test_pointers_of_git_lfs(tmp_path: Path, name: str) -> None:
    """A file, a folder of one, and both as they are counted: all say what to run."""
    if name.endswith((".parquet", ".arrow")):
        pytest.importorskip("pyarrow")
    path = tmp_path / "source" / name
    path.parent.mkdir(parents=True)
    path.write_text(POINTER)
    for source in [path, tmp_path / "source"] if path.suffix else [path]:
        with pytest.raises(DataError, match=r"is a Git LFS pointer, .*: run `git lfs pull` there"):
            prepare(str(source), "byte260", tmp_path / "out")


def test_a_vocabulary_that_is_a_pointer(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(POINTER)
    with pytest.raises(DataError, match="is a Git LFS pointer"):
        given_tokenizer(str(tmp_path / "tokenizer.json"))


@pytest.mark.parametrize(
    "name",
    [
        "manifest.json",
        "tokenizers/sp300.model",
        "datasets/docs_sp300/fineweb_train_000000.bin",
        "datasets/docs_sp300/fineweb_val.documents.npy",
    ],
)
def test_pointers_among_shards(tmp_path: Path, name: str, write_jsonl: Callable[[Path, list[str]], Path]) -> None:
    """A clone of a dataset without its large files: whichever is a pointer, opening the data says so."""
    texts = [f"{chr(97 + i % 26)} text number {i} of {i * i}" for i in range(200)]
    prepare(str(write_jsonl(tmp_path / "docs.jsonl", texts)), "sp:300", tmp_path / "out")
    (tmp_path / "out" / name).write_text(POINTER)
    with pytest.raises(DataError, match=r"is a Git LFS pointer, .*: run `git lfs pull` there"):
        Dataset.open(tmp_path / "out")


@pytest.mark.parametrize("name", ["train.bin", "x_train_000001.npy", "fineweb_train_000001.bin"])
def test_pointers_among_foreign_shards(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(POINTER)
    with pytest.raises(DataError, match=r"is a Git LFS pointer"):
        convert(tmp_path, "byte260", tmp_path / "out", given=given_tokenizer("byte260"))


def tarred() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        described = tarfile.TarInfo("a.jsonl")
        described.size = len(LINE)
        archive.addfile(described, io.BytesIO(LINE))
    return file.getvalue()


def zipped() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.jsonl", LINE)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (gzip.compress(LINE, mtime=0), r"it begins as gzip does; give it the suffix \.gz"),
        (lzma.compress(LINE), r"it begins as xz does; give it the suffix \.xz"),
        (bz2.compress(LINE), r"it begins as bzip2 does; give it the suffix \.bz2"),
        (zstandard.compress(LINE), r"it begins as zstd does; give it the suffix \.zst"),
        (zipped(), "it begins as zip does; unpack it first"),
        (b"%PDF-1.7\n%\xe2\xe3", "it begins as PDF does; take the text out of it first"),
        (
            b"WARC/1.0\r\nWARC-Type: conversion\r\n",
            r"it begins as a web archive \(WARC\) does; take the text out of it",
        ),
        (tarred(), "it begins as tar does; unpack it first"),
        (b"{\\rtf1 hello}", "it begins as RTF does; take the text out of it first"),
    ],
)
def test_what_a_file_begins_with(tmp_path: Path, data: bytes, said: str) -> None:
    for name in ("a.jsonl", "a.txt", "a.csv", "a"):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=f"holds no text: {said}"):
            list(read_documents(str(tmp_path / name)))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(data))
    with pytest.raises(DataError, match="holds no text: what is inside it begins as"):
        list(read_documents(str(tmp_path / "a.jsonl.gz")))


def test_tables_that_are_called_text(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    from pyarrow import feather, parquet

    parquet.write_table(pa.table({"text": ["a"]}), tmp_path / "p.jsonl")
    feather.write_feather(pa.table({"text": ["a"]}), str(tmp_path / "f.txt"))
    for name, said in (("p.jsonl", r"Parquet does; give it the suffix \.parquet"), ("f.txt", r"Arrow .* \.arrow")):
        with pytest.raises(DataError, match=f"holds no text: it begins as {said}"):
            list(read_documents(str(tmp_path / name)))


@pytest.mark.parametrize("text", ["PAR1 is a mark", "BZh9 too", "ARROW1", "PK", "version https://git-lfs", "%PDF"])
def test_text_that_begins_alike(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    assert [d.text for d in read_documents(str(tmp_path / "a.txt"))] == [text]


def test_a_long_list_in_bzip2(tmp_path: Path) -> None:
    """The first bytes of a stream of more than one block stand for no text yet."""
    words = np.random.default_rng(1).integers(97, 123, 400_000, np.uint8).tobytes().decode()
    path = tmp_path / "a.json.bz2"
    path.write_bytes(bz2.compress(json.dumps([{"text": words}]).encode()))
    assert path.stat().st_size > 1 << 16
    with pytest.raises(DataError, match="line 1: found a JSON list"):
        list(read_documents(str(path)))


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.csv", "a.jsonl.gz"])
@pytest.mark.parametrize("wide", ["utf-16", "utf-16le", "utf-16be", "utf-32"])
def test_wide_encodings_are_told_how_to_be_converted(tmp_path: Path, name: str, wide: str) -> None:
    """As PowerShell's `>` and Excel's "Unicode text" write."""
    path, text = tmp_path / name, '{"text": "naïve 日本"}\n'
    data = text.encode(wide)
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    with pytest.raises(DataError, match=f"is {wide.upper()}, where UTF-8 is expected") as refused:
        list(read_documents(str(path)))
    command = re.findall("`(.*)`", str(refused.value))[0].replace("NEW", str(tmp_path / "new"))
    subprocess.run(["sh", "-c", command], check=True)
    assert (tmp_path / "new").read_text(encoding="utf-8-sig") == text


def test_zeros_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(bytes(5000) + b"text")
    with pytest.raises(DataError, match="begins with 512 zero bytes, as a download that broke off"):
        list(read_documents(str(tmp_path / "a.txt")))
    (tmp_path / "a.txt").write_bytes(bytes(5) + b"text")
    assert [document.text for document in read_documents(str(tmp_path / "a.txt"))] == ["\0\0\0\0\0text"]
