"""One text as bytes, as lossless subwords and as the challenge's: one table, written into docs/data.md.

Usage: python benchmarks/tokenizers_table.py [--source pydocs] [--val-docs N] [--challenge fineweb_1024_bpe.model]
           [--seconds 150] [--folder DIR] [--document docs/data.md] [key=value …]

Three small H-Nets of the kind of `hnet-small` train for the same time on the same documents, with windows of about the
same number of bytes, and are scored from their artifacts on the same held-out documents. Without --challenge a lossy
vocabulary is trained here in the challenge's way (nmt_nfkc). `key=value` changes all three configs alike.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

from niblick.config.run_config import RunConfig, override
from niblick.console import RunConsole, human_bytes
from niblick.data.dataset import Dataset
from niblick.data.prepare import prepare
from niblick.facts.reading import plain
from niblick.recipes.presets import get_preset
from niblick.run.directory import machine
from niblick.run.pipeline import run
from niblick.run.prepared import bytes_per_token
from niblick.score.baselines import xz_size

BEGIN, END = "<!-- tokenizers: begin -->", "<!-- tokenizers: end -->"
VOCABULARY = "sp:1024"


def config_for(dataset: Dataset, path: Path, seconds: float, overrides: list[str]) -> RunConfig:
    """`hnet-small` with this vocabulary, its windows as long in bytes as those of the byte model."""
    base = override(get_preset("hnet-small"), overrides)
    tokens = {key: max(8, round(length / bytes_per_token(dataset) / 8) * 8) for key, length in _lengths(base).items()}
    rows = base.train.batch_tokens // base.train.seq_len
    return override(
        base,
        [
            f"preset={dataset.tokenizer.name}",
            f"data.path={path}",
            f"model.vocab_size={dataset.tokenizer.vocab_size}",
            f"schedule.max_seconds={seconds}",
            f"train.seq_len={tokens['train']}",
            f"train.batch_tokens={rows * tokens['train']}",
            f"train.micro_batch_tokens={rows * tokens['train']}",
            f"score.seq_len={tokens['score']}",
        ],
    )


def _lengths(config: RunConfig) -> dict[str, int]:
    return {"train": config.train.seq_len, "score": config.score.seq_len}


def make_rows(given: argparse.Namespace, folder: Path) -> tuple[list[dict[str, Any]], dict[str, float]]:
    """Prepare, train and score all three. Returns their rows, and bits per byte of xz on the held-out text."""
    kinds: list[tuple[str, str, Any]] = [("byte260", "byte260", "identity"), ("lossless", VOCABULARY, "identity")]
    kinds.append(("lossy", given.challenge or VOCABULARY, "identity" if given.challenge else "nmt_nfkc"))
    rows, datasets = [], []
    for kind, tokenizer, normalization in kinds:
        path = folder / "data" / kind
        prepare(given.source, tokenizer, path, val_docs=given.val_docs, normalization=normalization)
        datasets.append(Dataset.open(path))
    if len({dataset.val.text_hash for dataset in datasets}) != 1:
        sys.exit("the three datasets hold different texts: they cannot be compared")
    for dataset in datasets:
        config = config_for(dataset, dataset.directory, given.seconds, given.overrides)
        with RunConsole() as console:
            result = run(config, folder / "runs", console)
        seen = result.step * config.train.batch_tokens * bytes_per_token(dataset)
        facts = {
            "name": dataset.tokenizer.name,
            "speed": seen / result.train_seconds,
            "seq_len": config.train.seq_len,
        }
        rows.append(plain(result) | facts)
    held_out, training = (_text(split) for split in (datasets[0].val, datasets[0].train))
    prefix = xz_size(training + held_out) - xz_size(training)
    return rows, {"xz": 8 * xz_size(held_out) / len(held_out), "xz_prefixed": 8 * prefix / len(held_out)}


def _text(split: Any) -> bytes:
    """The documents of a byte260 split, one after another."""
    tokens = split.slice(0, split.tokens)
    return (tokens[tokens >= 4] - 4).astype("uint8").tobytes()


def render(rows: list[dict[str, Any]], xz: dict[str, float], given: argparse.Namespace, command: str) -> str:
    """The table in Markdown, with where its numbers come from."""
    lines = [
        "| tokenizer | BPB | lossless | repaired BPB | against `xz -9e` | training bytes/s |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        lost = row["lost"]["documents"]
        lossless = "yes" if row["lossless"] else f"no: {lost:,} of {row['documents']:,} documents"
        cells = [f"`{row['name']}`", f"{row['bpb']:.4f}", lossless, f"{row['bpb_repaired']:.4f}"]
        lines.append(f"| {' | '.join([*cells, _against(row['bpb_repaired'], xz['xz']), human_bytes(row['speed'])])} |")
    lines.append(f"| `xz -9e` alone | {xz['xz']:.4f} | yes | {xz['xz']:.4f} | | |")
    lines.append(
        f"| `xz -9e`, training text as prefix | {xz['xz_prefixed']:.4f} | yes | {xz['xz_prefixed']:.4f} "
        f"| {_against(xz['xz_prefixed'], xz['xz'])} | |"
    )
    spans = ", ".join(f"{row['seq_len']} tokens of `{row['name']}`" for row in rows)
    here = machine()
    return "\n".join(
        [
            *lines,
            "",
            f"One seed of a toy each: {rows[0]['train_seconds']:.0f} s on {here.cores} cores ({here.processor}), "
            f"windows of {spans}. Held out: {rows[0]['original_bytes']:,} bytes, text hash "
            f"`{str(rows[0]['text_hash'])[:16]}`. Made by `{command}`.",
        ]
    )


def _against(bpb: float, xz: float) -> str:
    return f"{abs(bpb / xz - 1):.1%} {'less' if bpb < xz else 'more'}"


def write_between(document: Path, text: str, markers: tuple[str, str] = (BEGIN, END)) -> None:
    """Put `text` between the markers of `document`."""
    first, last = markers
    before, begin, rest = document.read_text(encoding="utf-8").partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end:
        sys.exit(f"{document} has no place for the table: put {first} and {last} on lines of their own")
    document.write_text(f"{before}{first}\n{text}\n{last}{after}", encoding="utf-8")


def main(arguments: list[str]) -> None:
    """Make the table, print it, write it into the document."""
    parser = argparse.ArgumentParser(description="One text, three tokenizers, one table.")
    parser.add_argument("--source", default="pydocs")
    parser.add_argument("--val-docs", type=int)
    parser.add_argument("--challenge", help="the challenge's fineweb_1024_bpe.model")
    parser.add_argument("--seconds", type=float, default=150)
    parser.add_argument("--folder", type=Path, help="keep data and runs there")
    parser.add_argument("--document", type=Path, default=Path(__file__).parents[1] / "docs" / "data.md")
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_intermixed_args(arguments)
    # What was typed, without the places of this machine.
    shown = [Path(a).name if Path(a).is_absolute() else a for a in arguments]
    command = " ".join(["python benchmarks/tokenizers_table.py", *map(shlex.quote, shown)])
    with tempfile.TemporaryDirectory() as folder:
        rows, xz = make_rows(given, given.folder or Path(folder))
    table = render(rows, xz, given, command)
    print(table)
    write_between(given.document, table)


if __name__ == "__main__":
    main(sys.argv[1:])
