"""How fast text becomes token shards, against the loop that everyone writes first."""

from __future__ import annotations

import itertools
import json
import tempfile
from pathlib import Path

import numpy as np
from measure import Row, compare

from niblick.data.embedded import embedded_documents
from niblick.data.prepare import prepare


def _plain_loop(source: Path, out: Path) -> None:
    """One process, no checks, no index, no hashes: json.loads, frombuffer, tofile."""
    bos = np.array([1], np.uint16)
    with open(source, encoding="utf-8") as lines, open(out, "wb") as file:
        for line in lines:
            text = json.loads(line)["text"]
            bos.tofile(file)
            (np.frombuffer(text.encode(), np.uint8).astype(np.uint16) + np.uint16(4)).tofile(file)


def bench_prepare(quick: bool) -> list[Row]:
    """MB of JSONL a second with two workers, on Python's own source code repeated to 20 (quick) or 300 MB."""
    lines = "".join(json.dumps({"text": text}) + "\n" for text, _ in embedded_documents("pysource")).encode()
    with tempfile.TemporaryDirectory() as folder:
        source, fresh = Path(folder, "docs.jsonl"), itertools.count()
        with open(source, "wb") as file:
            while file.tell() < (20e6 if quick else 300e6):
                file.write(lines)
        megabytes = source.stat().st_size / 1e6
        return [
            compare(
                f"prepare byte260, {megabytes:.0f} MB of JSONL",
                lambda: prepare(str(source), "byte260", Path(folder, f"out{next(fresh)}"), workers=2),
                lambda: _plain_loop(source, Path(folder, "plain")),
                peer_name="plain loop without index, hashes or checks",
                repeats=1 if quick else 3,
                amount=megabytes,
                unit="MB/s",
            )
        ]
