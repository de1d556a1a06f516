"""One model, many ways to store it: bytes and BPB of each, and what `fit` makes of the same bytes.

Usage: python benchmarks/export_table.py --data WEBMIX [--runs DIR] [--run RUN] [--qat-run RUN]
           [--document docs/export.md] [key=value …]

A narrow model of the `hnet-byte260` kind is trained, and once more with QAT over the last third of the same steps; then
every row is exported, read back in a fresh process and scored on the whole validation split. --run and --qat-run take
finished runs instead. `key=value` changes both configs.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from niblick.config.run_config import RunConfig, override
from niblick.console import RunConsole
from niblick.data.dataset import Dataset
from niblick.facts.events import Validation
from niblick.facts.reading import plain
from niblick.pack.fit import Telling
from niblick.recipes.presets import get_preset
from niblick.run.directory import Run, machine, open_run
from niblick.run.exports import export_run, fit_run
from niblick.run.pipeline import run
from niblick.score.baselines import xz_size
from tokenizers_table import _text as text_of
from tokenizers_table import write_between

MARKERS = "<!-- exports: begin -->", "<!-- exports: end -->"
NARROW = [
    *("model.width=256", "model.heads=4", "model.kv_heads=2", "model.main.layout=T4"),
    *("model.levels.0.encoder.layout=T1", "model.levels.0.decoder.layout=T1", "model.levels.0.target_length=6"),
    *("data.order=shuffle", "train.seq_len=512", "train.batch_tokens=8192", "train.micro_batch_tokens=8192"),
    *("schedule.steps=2400", "schedule.max_seconds=null", "schedule.warmdown_share=0.5", "score.seq_len=512"),
    *("optim.matrix_lr=0.03", "train.warmup_steps=0", "train.val_every=0", "train.checkpoint_every=400"),
]
QAT = ["qat.share=0.334", "qat.scheme=int6"]
ROWS = [
    ("int8 per row as published, zlib", ["scheme=int8-published", "codec=zlib", "gptq=off"]),
    ("int6 per row, zstd-22 (study 2)", ["scheme=int6", "codec=zstd", "gptq=off"]),
    ("int6 GPTQ, zstd-22", ["scheme=int6", "codec=zstd", "gptq=float"]),
    ("int6 GPTQ, range coding", ["scheme=int6", "codec=range", "gptq=float"]),
    ("int8 per row without the floor on scales, zlib", ["scheme=int8", "codec=zlib", "gptq=off"]),
    ("ecsq4:column GPTQ, range coding", ["scheme=ecsq4:column", "codec=range", "gptq=float"]),
]
QAT_ROW = ("QAT (int6, last third of the same steps), GPTQ, range coding", ROWS[3][1])
FITTED = 3
"""The first so many rows give their bytes to `fit`."""


def trained(given: argparse.Namespace, name: str, more: list[str]) -> Run:
    """Train the narrow model in `given.runs`, and return its run."""
    config: RunConfig = override(get_preset("hnet-byte260"), [*NARROW, *more, *given.overrides])
    config = override(config, [f"preset={name}", f"data.path={given.data}"])
    with RunConsole() as console:
        result = run(config, given.runs, console)
        assert result is not None
        return Run(Path(result.run))


def make_rows(given: argparse.Namespace) -> list[dict[str, Any]]:
    """Train what is not given, export, fit and score. Returns one record for each row of the table."""
    first = open_run(given.run, given.runs) if given.run else trained(given, "narrow", [])
    qat = open_run(given.qat_run, given.runs) if given.qat_run else trained(given, "narrow-qat", QAT)
    rows = []
    with RunConsole() as console:
        for label, assignments in ROWS:
            rows.append(plain(export_run(first, assignments, console)) | {"label": label})
        rows.append(plain(export_run(qat, QAT_ROW[1], console)) | {"label": QAT_ROW[0]})
        for row in rows[:FITTED]:
            found = fit_run(first, console, artifact=row["artifact_bytes"], ladder=(), telling=Telling(console.say))
            rows.append(
                plain(found.result) | {"label": f"`fit` with the bytes of “{row['label']}”", "instead": row["bpb"]}
            )
    return rows


def float_bpb(of: Run) -> float:
    """BPB of a run's float weights: its last validation."""
    return [event.bpb for event in of.events() if isinstance(event, Validation)][-1]


def render(rows: list[dict[str, Any]], given: argparse.Namespace, command: str) -> str:
    """The table in Markdown, with where its numbers come from."""
    held_out = text_of(Dataset.open(given.data).val)
    xz = 8 * xz_size(held_out) / len(held_out)
    first, qat = Run(Path(rows[0]["run"])), Run(Path(rows[len(ROWS)]["run"]))
    base = float_bpb(first)
    lines = [
        "| export | bytes | BPB | above float | better than the row it replaces |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        above = f"{row['bpb'] - base:+.4f}" if row["run"] == rows[0]["run"] else f"{row['bpb'] - float_bpb(qat):+.4f}*"
        better = f"{row['instead'] - row['bpb']:.4f}" if "instead" in row else ""
        lines.append(f"| {row['label']} | {row['artifact_bytes']:,} | {row['bpb']:.4f} | {above} | {better} |")
    here, config = machine(), first.config()
    return "\n".join(
        [
            *lines,
            "",
            f"`hnet-byte260` at width {config.model.width} with 1+4+1 blocks, {config.schedule.steps:,} steps of "
            f"{config.train.batch_tokens:,} bytes, one seed; {base:.4f} BPB as floats, `xz -9e` {xz:.4f}.\n\n*Above "
            f"the float weights of its own run, {float_bpb(qat):.4f}. Scored from the file by a fresh process on "
            f"{len(held_out):,} bytes in contiguous windows of {config.score.seq_len}; text hash "
            f"`{str(rows[0]['text_hash'])[:16]}`; {here.cores} cores ({here.processor}). Made by `{command}`.",
        ]
    )


def main(arguments: list[str]) -> None:
    """Make the table, print it, write it into the document."""
    parser = argparse.ArgumentParser(description="One model, many exports, one table.")
    parser.add_argument("--data", required=True, help="byte260 dataset")
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--run", help="a finished run to export")
    parser.add_argument("--qat-run", help="a finished run of as many steps, trained with QAT")
    parser.add_argument("--document", type=Path, default=Path(__file__).parents[1] / "docs" / "export.md")
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_intermixed_args(arguments)
    rows = make_rows(given)
    shown = [Path(a).name if Path(a).is_absolute() else a for a in arguments]
    table = render(rows, given, " ".join(["python benchmarks/export_table.py", *map(shlex.quote, shown)]))
    print(table)
    write_between(given.document, table, MARKERS)


if __name__ == "__main__":
    main(sys.argv[1:])
