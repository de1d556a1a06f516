"""`niblick compress` on files of several kinds, beside xz, zstd, PPMd and zpaq: bits per byte and seconds, a table.

Each file's first `--bytes` are coded with an artifact's model and what it is scored with, decoded again, and given to
the compressors. The artifact is opened once, and what it reads of its own text before is told apart.

Usage: python benchmarks/files_table.py ARTIFACT [--bytes N] NAME=FILE…
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from niblick.run.compressor import open_model
from niblick.score.baselines import compressor_baselines, label
from niblick.score.coded_file import compress, decompress


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifact")
    parser.add_argument("files", nargs="+")
    parser.add_argument("--bytes", type=int, default=20_000)
    asked = parser.parse_args()
    model, config = open_model(asked.artifact, Path("runs"))
    started = time.process_time()
    compress(b"warm-up, which compiles and reads the artifact's text before its first byte", model, config)
    print(f"reading the artifact's text: {time.process_time() - started:.0f} s\n")
    rows, peers = [], []
    for name, file in (pair.split("=", 1) for pair in asked.files):
        data = Path(file).read_bytes()[: asked.bytes]
        started = time.process_time()
        stream, _ = compress(data, model, config)
        coded = time.process_time()
        assert decompress(stream, model) == data
        seconds = [coded - started, time.process_time() - coded]
        found = compressor_baselines(data)
        peers = list(found)
        told = [f"{8 * len(stream) / len(data):.4f} ({seconds[0]:.0f} + {seconds[1]:.0f} s)"]
        told += [f"{row['bits_per_byte']:.4f} ({row['seconds']:.2f} s)" for row in found.values()]
        rows.append((name, f"{len(data):,}", *told))
        print("done:", rows[-1], flush=True)
    print(f"\n| file | bytes | niblick (coding + decoding) | {' | '.join(map(label, peers))} |")
    print(f"| --- | ---: |{' ---: |' * (1 + len(peers))}")
    for row in rows:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
