"""What each way of scoring gives and costs, for one byte and one subword model: a table, written into docs/scoring.md.

Usage: python benchmarks/scoring_table.py --bytes ARTIFACT DIR --subwords ARTIFACT DIR [--document docs/scoring.md]

Each artifact comes with a dataset of its tokens; both datasets must hold the same documents. Every row but the first
adds one thing to contiguous scoring, with the default settings and one pass of learning over each stretch.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any

from niblick.console import RunConsole
from niblick.data.dataset import Dataset
from niblick.facts.reading import plain
from niblick.run.directory import machine
from niblick.run.scoring import score_artifact
from niblick.score.baselines import xz_size
from tokenizers_table import _text as text_of
from tokenizers_table import write_between

MARKERS = "<!-- scorers: begin -->", "<!-- scorers: end -->"
TTT = "score.ttt.epochs=1"
ROWS = [
    ("contiguous, 512", []),
    ("sliding, 512/64", ["score.scorer=sliding", "score.stride=64"]),
    ("+ test-time training, SGD", ["score.ttt.optimizer=sgd", TTT]),
    ("+ test-time training, LoRA of rank 8, AdamW", ["score.ttt.optimizer=adamw", "score.ttt.lora=8", TTT]),
    ("+ cache of recent tokens", ["score.sidecar.name=cache"]),
    ("+ n-gram mixture", ["score.sidecar.name=ngram"]),
]


def make_rows(artifact: str, data: str) -> list[dict[str, Any]]:
    """Score one artifact in every way."""
    rows = []
    for label, settings in ROWS:
        with RunConsole() as console:
            overrides = ["score.seq_len=512", *settings]
            console.say(f"{Path(artifact).name}: {label}")
            rows.append(plain(score_artifact(Path(artifact), data, overrides=overrides)) | {"label": label})
    return rows


def render(both: list[list[dict[str, Any]]], text: bytes, command: str) -> str:
    """The table in Markdown, with where its numbers come from."""
    lines = [
        "| scoring | bytes: BPB | seconds | bytes/s | subwords: BPB | seconds | bytes/s |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for pair in zip(*both, strict=True):
        cells = [
            f"{r['bpb_repaired']:.4f} | {r['seconds']:.0f} | {r['original_bytes'] / r['seconds']:,.0f}" for r in pair
        ]
        lines.append(f"| {pair[0]['label']} | {' | '.join(cells)} |")
    xz, here = 8 * xz_size(text) / len(text), machine()
    return "\n".join(
        [
            *lines,
            "",
            f"`xz -9e` on the same {len(text):,} bytes: {xz:.4f}. Text hash `{str(both[0][0]['text_hash'])[:16]}`; "
            f"{here.threads} of {here.cores} cores ({here.processor}). Made by `{command}`.",
        ]
    )


def main(arguments: list[str]) -> None:
    """Make the table, print it, write it into the document."""
    parser = argparse.ArgumentParser(description="Two models, every way of scoring, one table.")
    parser.add_argument("--bytes", nargs=2, required=True, metavar=("ARTIFACT", "DIR"))
    parser.add_argument("--subwords", nargs=2, required=True, metavar=("ARTIFACT", "DIR"))
    parser.add_argument("--document", type=Path, default=Path(__file__).parents[1] / "docs" / "scoring.md")
    given = parser.parse_args(arguments)
    if len({Dataset.open(data).val.text_hash for _, data in (given.bytes, given.subwords)}) != 1:
        sys.exit("the two datasets hold different texts: they cannot be compared")
    both = [make_rows(*pair) for pair in (given.bytes, given.subwords)]
    shown = [Path(a).name if Path(a).is_absolute() else a for a in arguments]
    text = text_of(Dataset.open(given.bytes[1]).val)
    table = render(both, text, " ".join(["python benchmarks/scoring_table.py", *map(shlex.quote, shown)]))
    print(table)
    write_between(given.document, table, MARKERS)


if __name__ == "__main__":
    main(sys.argv[1:])
