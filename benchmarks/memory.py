"""How much memory `niblick data prepare` takes on a large input: `make memory`. Linux only.

Usage: python benchmarks/memory.py [--gigabytes 2] [--tokenizer byte260] [--workers N] [--folder DIR]

Writes the source code of this Python over and over into one JSONL file, prepares it with the command line, and adds up
the memory (PSS: pages shared by processes count once) of that process and its workers, ten times a second.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from niblick.data.embedded import embedded_documents

LIMIT = 1e9
"""What preparation may take, however large the input."""


def write_source(path: Path, size: float) -> None:
    """Write JSONL of at least `size` bytes; every round of the documents differs from the one before."""
    texts = [text for text, _ in embedded_documents("pysource")]
    with open(path, "w", encoding="utf-8") as file:
        number = 0
        while file.tell() < size:
            number += 1
            for text in texts:
                file.write(json.dumps({"text": f"# round {number}\n{text}"}) + "\n")


def memory(pid: int) -> int:
    """PSS in bytes of a process and all its descendants."""
    total = 0
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += 1024 * int(line.split()[1])
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += sum(memory(int(child)) for child in (task / "children").read_text().split())
    except (OSError, ValueError):  # it ended while we looked
        pass
    return total


def measure(tokenizer: str, size: float, folder: Path, workers: int | None = None) -> tuple[int, int, float]:
    """Prepare `size` bytes of JSONL in `folder`. Returns the peak in bytes, the input's bytes, and seconds."""
    source = folder / "docs.jsonl"
    write_source(source, size)
    command = [sys.executable, "-m", "niblick", "data", "prepare", "--source", str(source), "--json"]
    command += ["--workers", str(workers)] if workers else []
    started, peak = time.perf_counter(), 0
    process = subprocess.Popen(
        [*command, "--tokenizer", tokenizer, "--out", str(folder / "out")], stdout=subprocess.DEVNULL
    )
    while process.poll() is None:
        peak = max(peak, memory(process.pid))
        time.sleep(0.1)
    if process.returncode:
        sys.exit(f"preparing failed with exit code {process.returncode}")
    return peak, source.stat().st_size, time.perf_counter() - started


def main() -> None:
    """Measure and print one line; exit code 1 if it took more than LIMIT."""
    parser = argparse.ArgumentParser(description="Memory of `niblick data prepare`.")
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--tokenizer", default="byte260")
    parser.add_argument("--workers", type=int, help="processes; by default one per core for subwords")
    parser.add_argument("--folder", type=Path, help="where there is room for twice the input")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        peak, size, seconds = measure(given.tokenizer, given.gigabytes * 1e9, Path(folder), given.workers)
    print(f"{given.tokenizer}: {peak / 1e6:.0f} MB at most, for {size / 1e9:.2f} GB in {seconds:.0f} s")
    sys.exit(peak > LIMIT)


if __name__ == "__main__":
    main()
