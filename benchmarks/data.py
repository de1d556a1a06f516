"""How fast text becomes token shards, against the loop that everyone writes first."""

from __future__ import annotations

import hashlib
import itertools
import json
import tempfile
from pathlib import Path

import numpy as np

from measure import Row, compare
from niblick.data.embedded import embedded_documents
from niblick.data.prepare import prepare


def plain_loop(source: Path, out: Path, *, record: bool) -> None:
    """One process, json.loads, frombuffer, tofile; with `record` the index and hashes that prepare keeps, too."""
    bos = np.array([1], np.uint16)
    stream, index = hashlib.sha256(), []
    with open(source, encoding="utf-8") as lines, open(out, "wb") as file:
        for line in lines:
            data = json.loads(line)["text"].encode()
            tokens = np.frombuffer(data, np.uint8).astype(np.uint16) + np.uint16(4)
            bos.tofile(file)
            tokens.tofile(file)
            if record:
                stream.update(bos)
                stream.update(tokens)
                index.append((len(tokens) + 1, len(data), hashlib.sha256(data).digest()))
    if record:
        with open(out, "rb") as file:
            hashlib.file_digest(file, "sha256")


def text_lines(folder: Path, size: float) -> Path:
    """Write Python's own source code as JSONL, repeated to `size` bytes."""
    lines = "".join(json.dumps({"text": text}) + "\n" for text, _ in embedded_documents("pysource")).encode()
    path = folder / "docs.jsonl"
    with open(path, "wb") as file:
        while file.tell() < size:
            file.write(lines)
    return path


def bench_prepare(quick: bool) -> list[Row]:
    """MB of JSONL a second, on Python's own source code repeated to 20 (quick) or 100 MB."""
    with tempfile.TemporaryDirectory() as folder:
        source, fresh = text_lines(Path(folder), 20e6 if quick else 100e6), itertools.count()
        megabytes = source.stat().st_size / 1e6
        return [
            compare(
                f"prepare byte260, {megabytes:.0f} MB of JSONL",
                lambda: prepare(str(source), "byte260", Path(folder, f"out{next(fresh)}")),
                lambda record=record: plain_loop(source, Path(folder, f"plain{next(fresh)}"), record=record),
                peer_name=peer_name,
                repeats=1 if quick else 3,
                amount=megabytes,
                unit="MB/s",
            )
            for record, peer_name in (
                (True, "plain loop, same index and hashes"),
                (False, "plain loop, tokens only"),
            )
        ]
