"""`make bench`: every speed beside its peer, in one run. Prints a table, writes build/bench.json with the machine.

With --docs the table goes into docs/performance.md too.

Usage: python benchmarks/bench.py [--quick] [--docs] [NAME …]
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from datetime import date
from pathlib import Path

from rich.console import Console
from rich.table import Table

from attention import bench_attention
from chunking import bench_smooth
from coding import bench_coding
from data import bench_prepare
from hnet import bench_hnet
from ledger import bench_ledger
from loader import bench_loader
from measure import Row, put_into_docs
from niblick.run.directory import environment, machine
from pack import bench_pack
from proving import bench_proving
from routers import bench_routers
from scoring import bench_scoring
from sidecars import bench_sidecars
from step import bench_step

BENCHMARKS = {
    "chunking": bench_smooth,
    "attention": bench_attention,
    "step": bench_step,
    "routers": bench_routers,
    "hnet": bench_hnet,
    "scoring": bench_scoring,
    "data": bench_prepare,
    "loader": bench_loader,
    "pack": bench_pack,
    "coding": bench_coding,
    "sidecars": bench_sidecars,
    "ledger": bench_ledger,
    "proving": bench_proving,
}
OUT = Path(__file__).parents[1] / "build" / "bench.json"


def write_docs(rows: list[Row]) -> None:
    """Put the table between the markers of docs/performance.md."""
    here = machine()
    lines = [
        f"{here.processor}, {here.threads} threads, torch {environment()['packages']['torch']}, {date.today()}:",
        "",
        "| what | ours | peer | ratio (lowest–highest) | peer is |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    for r in rows:
        ratio = f"{r.ratio:.2f}× ({r.lowest:.2f}–{r.highest:.2f})"
        lines.append(f"| {r.name} | {r.ours:.1f} {r.unit} | {r.peer:.1f} {r.unit} | {ratio} | {r.peer_name} |")
    put_into_docs("bench", "\n".join(lines))


def main(arguments: list[str]) -> None:
    """Run the benchmarks named in `arguments`, or all."""
    quick = "--quick" in arguments
    names = [a for a in arguments if not a.startswith("-")] or list(BENCHMARKS)
    if unknown := set(names) - set(BENCHMARKS):
        sys.exit(f"there is no benchmark {', '.join(sorted(unknown))} (there are: {', '.join(BENCHMARKS)})")
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 140)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column, justify in (
        ("what", "left"),
        ("ours", "right"),
        ("peer", "right"),
        ("unit", "left"),
        ("ratio", "right"),
        ("lowest–highest", "right"),
        ("peer is", "left"),
    ):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    rows = []
    for name in names:
        print(f"{name} … ", end="", file=sys.stderr, flush=True)
        started = time.monotonic()
        rows += BENCHMARKS[name](quick)
        print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)
    for row in rows:
        spread = f"{row.lowest:.2f}–{row.highest:.2f}"
        figures = (f"{row.ours:.1f}", f"{row.peer:.1f}", row.unit, f"{row.ratio:.2f}×", spread, row.peer_name)
        table.add_row(row.name, *figures)
    console.print(table)
    if not quick:
        OUT.parent.mkdir(exist_ok=True)
        if "--docs" in arguments:
            write_docs(rows)
        OUT.write_text(json.dumps({"environment": environment(), "rows": [asdict(r) for r in rows]}, indent=2) + "\n")
        print(f"written to {OUT.relative_to(Path.cwd()) if OUT.is_relative_to(Path.cwd()) else OUT}")


if __name__ == "__main__":
    main(sys.argv[1:])
