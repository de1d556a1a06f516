"""How fast text becomes token shards, against the loop that everyone writes first."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

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


def _seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def bench_prepare(quick: bool) -> list[dict[str, Any]]:
    """MB of JSONL a second, on Python's own source code repeated to 60 (quick) or 500 MB.

    Best of two runs each, taken in turns.
    """
    lines = "".join(json.dumps({"text": text}) + "\n" for text, _ in embedded_documents("pysource")).encode()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "docs.jsonl")
        with open(source, "wb") as file:
            while file.tell() < (60e6 if quick else 500e6):
                file.write(lines)
        megabytes = source.stat().st_size / 1e6
        ours, peer = [], []
        for i in range(2):
            out = Path(folder, f"out{i}")
            ours.append(_seconds(lambda out=out: prepare(str(source), "byte260", out)))
            peer.append(_seconds(lambda i=i: _plain_loop(source, Path(folder, f"plain{i}"))))
    rates = megabytes / min(ours), megabytes / min(peer)
    return [
        {
            "name": f"prepare byte260, {megabytes:.0f} MB of JSONL",
            "ours": rates[0],
            "peer": rates[1],
            "unit": "MB/s",
            "ratio": rates[0] / rates[1],
            "note": "ours has a document index and hashes texts, stream and files; the peer is a plain loop without",
        }
    ]


if __name__ == "__main__":
    print(json.dumps(bench_prepare(quick=True), indent=1))
