"""What every verb shares: the application, its common options, and how facts are printed.

People read stderr and tables on stdout; with --json stdout is exactly one JSON object.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from niblick.challenge.tracks import UNWEIGHED
from niblick.errors import ConfigError
from niblick.facts.reading import plain
from niblick.facts.scores import ScoreRecord

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="The laboratory for small language models under a byte cap, and for learned tokenization.\n\n"
    "Try `niblick quickstart`: it trains, packs and scores a small byte-level H-Net in under five minutes.",
)


def _print_version(asked: bool) -> None:
    """Print what a report of a bug needs, and end; torch is not imported for it."""
    import importlib.metadata
    import platform

    import niblick

    if not asked:
        return
    print(f"niblick {niblick.__version__}{_commit(Path(niblick.__file__).parents[2])}")
    print(f"python {platform.python_version()} on {platform.system()} {platform.machine()}")
    try:
        print(f"torch {importlib.metadata.version('torch')}")
    except importlib.metadata.PackageNotFoundError:
        print("torch is not installed")
    raise typer.Exit


def _commit(root: Path) -> str:
    """The commit of a checkout, empty where this is none."""
    import subprocess

    if not (root / ".git").exists():
        return ""
    try:
        command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
        found = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""
    return f" (commit {found})"


@app.callback()
def _niblick(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Of niblick, Python and torch."),
    ] = False,
) -> None:
    pass


data_app = typer.Typer(no_args_is_help=True, help="Make and check token shards. Example: `niblick data check DIR`")
app.add_typer(data_app, name="data")
import_app = typer.Typer(
    no_args_is_help=True,
    help="Make runs of what others trained. Example: `niblick import challenge final_model.pt --preset hnet-byte260`",
)
app.add_typer(import_app, name="import")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")]
Runs = Annotated[Path, typer.Option("--runs", help="Folder of the runs.")]
Env = Annotated[
    str, typer.Option("--env", help='Names of the challenge\'s scripts: "ITERATIONS=2000 TRAIN_SEQ_LEN=512 …".')
]
Data = Annotated[str, typer.Option("--data", help="Folder made by `niblick data prepare`.")]
RUNS = Path("runs")


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, default=plain))


def print_table(columns: list[str], rows: list[list[str]]) -> None:
    from rich.console import Console

    from niblick.console import plain_table

    Console(highlight=False).print(plain_table(columns, rows))


def unknown_target(target: str, runs: Path) -> ConfigError:
    """The error for a name that is neither preset nor run nor artifact."""
    from niblick.errors import nearest
    from niblick.ledger.ledger import find_runs
    from niblick.recipes.presets import PRESETS

    near = nearest(target, [*PRESETS, *(id for _, id in find_runs(runs))])
    where = ": `niblick presets` and `niblick runs` list what there is"
    return ConfigError(f"there is no preset, run or artifact {target!r}{near or where}")


def print_config(config: Mapping[str, object]) -> None:
    print_table(["key", "value"], [[k, v] for k, v in flat(config)])


def flat(value: Any) -> list[tuple[str, str]]:
    """Nested config as dotted keys: what overrides are written with."""
    from niblick.config.run_config import dotted

    return [(key, v if isinstance(v, str) else json.dumps(v)) for key, v in dotted(value).items()]


def number(value: Any) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def print_score(record: ScoreRecord) -> None:
    legal = record.legality
    print(f"BPB       {record.bpb:.4f}   {record.bytes:,} bytes of text, {record.seconds:.1f} s")
    print_losses(record)
    over = "  OVER THE CAP" if legal.under_cap is False else ""
    if legal.code_bytes is None:
        why = f" ({record.code_not_weighed})" if record.code_not_weighed else ""
        print(f"bytes     artifact {legal.artifact_bytes:,} of 16,000,000, {UNWEIGHED}{why}{over}")
    else:
        parts = f"artifact {legal.artifact_bytes:,}, code {legal.code_bytes:,}"
        print(f"bytes     {legal.total_bytes:,} of 16,000,000: {parts}{over}")
    if legal.reasons:
        print(f"track     not the record track: {'; '.join(legal.reasons)}")


def print_losses(record: ScoreRecord) -> None:
    """What the score leaves out, where the tokenizer does not give all of the text back."""
    if record.lossless is False and record.lost:
        lost = record.lost
        print(
            f"lossy     {lost['documents']:,} of {record.documents:,} documents do not come back "
            f"({lost['bytes']:,} bytes became {lost['decoded_bytes']:,})"
        )
        if record.bpb_repaired is not None:
            print(
                f"repaired  {record.bpb_repaired:.4f} BPB with {record.repair_bits:,} bits of patch, over "
                f"{record.original_bytes:,} original bytes: compare this one with lossless tokenizers"
            )
    for sentence in record.unavailable:
        print(f"unknown   {sentence}")
