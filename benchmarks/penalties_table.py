"""What each penalty of `train.penalties`, and QAT, change in bytes and BPB of the export: a table for docs/training.md.

Usage: python benchmarks/penalties_table.py [--source pydocs] [--val-docs 12] [--steps 300] [--folder DIR]
           [--document docs/training.md] [key=value …]

A byte-level H-Net, much smaller than `hnet-small`, trains anew for each row: the same initial weights, the same
batches, the same steps. Every one is packed alike and scored from its artifact on all of the held-out documents.
"""

from __future__ import annotations

import argparse
import json
import shlex
import tempfile
from pathlib import Path
from typing import Any

from niblick.artifact.dequantize import matrix_shape
from niblick.config.run_config import RunConfig, override
from niblick.console import RunConsole
from niblick.data.dataset import Dataset
from niblick.data.prepare import prepare
from niblick.facts.events import Validation
from niblick.facts.reading import plain
from niblick.model.counting import parameter_count
from niblick.model.lm import LM
from niblick.recipes.presets import get_preset
from niblick.run.directory import Run, machine
from niblick.run.pipeline import run
from niblick.score.baselines import xz_size
from niblick.train.checkpoint import load_weights, read_tensors
from niblick.train.qat import rounded_parameters
from niblick.train.regularizers import PENALTIES
from tokenizers_table import write_between

MARKERS = ("<!-- penalties: begin -->", "<!-- penalties: end -->")
SMALL = [
    *("model.width=96", "model.heads=2", "model.kv_heads=1", "model.main.layout=T2"),
    *("train.seq_len=256", "train.batch_tokens=2048", "train.micro_batch_tokens=2048", "score.seq_len=256"),
    *("schedule.max_seconds=null", "schedule.warmdown_share=0.5", "train.dtype=float32", "optim.matrix_lr=0.02"),
    *("export.scheme=int4", 'export.rules=["embed*=int8"]', "export.codec=zstd"),
]
WEIGHTS = {
    "reconstruction": 10.0,
    "grid": 1.0,
    "scales": 10.0,
    "rank1": 10.0,
    "ternary": 1.0,
    "outliers": 0.3,
    "entropy": 1.0,
}
"""As in the tests; a penalty registered by others acts with weight 1."""
QAT_SHARE = 0.15


def variants(steps: int) -> dict[str, list[str]]:
    """Overrides of every row by its name: each penalty acts every other step of the second half."""
    rows: dict[str, list[str]] = {"none": []}
    for kind in PENALTIES:
        weight = WEIGHTS.get(kind, 1.0)
        penalty = {"kind": kind, "weight": weight, "interval": 2, "start": steps // 2, "matrices": 0}
        rows[f"`{kind}`, weight {weight:g}"] = [f"train.penalties={json.dumps([penalty])}"]
    rows[f"QAT, last {QAT_SHARE:.0%}"] = [f"qat.share={QAT_SHARE}", "qat.refresh=10"]
    return rows


def make_rows(given: argparse.Namespace, folder: Path) -> tuple[list[dict[str, Any]], RunConfig]:
    """Train, pack and score all. Returns the rows and the config of the first."""
    data = folder / "data"
    if not data.exists():
        prepare(given.source, "byte260", data, val_docs=given.val_docs)
    base = override(
        get_preset("hnet-small"), [*SMALL, f"data.path={data}", f"schedule.steps={given.steps}", *given.overrides]
    )
    rows = []
    for name, changes in variants(given.steps).items():
        with RunConsole() as console:
            result = run(override(base, changes), folder / "runs", console)
        assert result is not None
        floats = [e.bpb for e in Run(Path(result.run)).events() if isinstance(e, Validation)][-1]
        values = penalty_values(Path(result.run), base)
        rows.append(plain(result) | {"name": name, "float_bpb": floats, "values": values})
    return rows, base


def penalty_values(path: Path, config: RunConfig) -> dict[str, float]:
    """What each penalty is for the final weights of a run, mean over all matrices that export rounds."""
    model = LM(config.model)
    load_weights(model, read_tensors(Run(path).weights)[0], path)
    rounded = rounded_parameters(model, config.export).values()
    matrices = [(p.detach().view(matrix_shape(tuple(p.shape))), scheme) for p, scheme in rounded]
    return {k: sum(float(f(w, scheme)) for w, scheme in matrices) / len(matrices) for k, f in PENALTIES.items()}


def render(rows: list[dict[str, Any]], config: RunConfig, data: Path, command: str) -> str:
    """The table in Markdown, with where its numbers come from."""
    lines = [
        "| trained with | its own value | BPB of the floats | BPB from the artifact | lost | artifact | against none |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    plain, before = rows[0]["artifact_bytes"], rows[0]["values"]
    for row in rows:
        lost, size = row["bpb"] - row["float_bpb"], row["artifact_bytes"]
        kind = row["name"].split("`")[1] if "`" in row["name"] else None
        moved = f"{before[kind]:.3g} → {row['values'][kind]:.3g}" if kind else ""
        cells = [row["name"], moved, f"{row['float_bpb']:.4f}", f"{row['bpb']:.4f}", f"{lost:+.4f}", f"{size:,} bytes"]
        lines.append(f"| {' | '.join([*cells, f'{size / plain - 1:+.1%}'])} |")
    val = Dataset.open(data).val
    tokens = val.slice(0, val.tokens)
    held_out = (tokens[tokens >= 4] - 4).astype("uint8").tobytes()
    rounded = len(rounded_parameters(LM(config.model), config.export))
    here = machine()
    facts = (
        f"A toy: {parameter_count(config.model):,} weights, {config.schedule.steps} steps of "
        f"{config.train.batch_tokens:,} bytes, one seed; {rounded} tensors are rounded, all by `{config.export.name}`. "
        f"Held out: {len(held_out):,} bytes; `xz -9e` makes {8 * xz_size(held_out) / len(held_out):.4f} BPB of them. "
        f"{here.cores} cores ({here.processor}). Made by `{command}`."
    )
    return "\n".join([*lines, "", facts])


def main(arguments: list[str] | None = None) -> None:
    """Make the table, print it, write it into the document."""
    parser = argparse.ArgumentParser(description="Bytes and BPB with each penalty, and without.")
    parser.add_argument("--source", default="pydocs")
    parser.add_argument("--val-docs", type=int, default=12)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--folder", type=Path, help="keep data and runs there")
    parser.add_argument("--document", type=Path, default=Path(__file__).parents[1] / "docs" / "training.md")
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_intermixed_args(arguments)
    settings = [f"--source {Path(given.source).name}", f"--val-docs {given.val_docs}", f"--steps {given.steps}"]
    command = " ".join(["python benchmarks/penalties_table.py", *settings, *map(shlex.quote, given.overrides)])
    with tempfile.TemporaryDirectory() as scratch:
        folder = given.folder or Path(scratch)
        rows, config = make_rows(given, folder)
        table = render(rows, config, folder / "data", command)
    print(table)
    write_between(given.document, table, MARKERS)


if __name__ == "__main__":
    main()
