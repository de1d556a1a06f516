"""Verbs that study what models learned."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from niblick.cli.app import RUNS, Data, Json, Runs, app, print_json, print_table
from niblick.errors import ConfigError


@app.command()
def boundaries(
    target: Annotated[str, typer.Argument(help="RUN, RUN:NAME or the path of an artifact.")],
    windows: Annotated[int, typer.Option(help="Validation windows, spread evenly.")] = 32,
    window: Annotated[int, typer.Option(help="Tokens of a window; 0: as it was scored.")] = 0,
    before: Annotated[bool, typer.Option("--before", help="The untrained model as well, from the seed.")] = False,
    training: Annotated[bool, typer.Option("--training", help="Every checkpoint that is left as well.")] = False,
    stability: Annotated[bool, typer.Option("--stability", help="Flips between windows, float and packed.")] = False,
    robustness: Annotated[bool, typer.Option("--robustness", help="How far changes of the text reach.")] = False,
    against: Annotated[str, typer.Option(help="Another RUN, RUN:NAME or artifact: a seed, a checkpoint's run.")] = "",
    against_data: Annotated[str, typer.Option(help="Data of the other, where its tokenizer is another.")] = "",
    subwords: Annotated[list[Path] | None, typer.Option(help="FILE.model whose tokens' edges to compare with.")] = None,
    text: Annotated[str | None, typer.Option(help="Cut this text instead of windows.")] = None,
    file: Annotated[Path | None, typer.Option(help="Cut the bytes of this file instead, UTF-8 or not.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for boundaries.json and pictures (HTML, SVG, PNG).")] = None,
    data: Data = "",
    runs: Runs = RUNS,
    json_: Json = False,
) -> None:
    """What the router learned. Example: `niblick boundaries latest --before --out boundaries`"""
    from niblick.facts.reading import plain
    from niblick.reports.boundary_report import Wanted, open_subject, study, write_pictures
    from niblick.reports.boundary_tables import print_study

    wanted = Wanted(windows, window, before, training, stability, robustness, tuple(subwords or ()))
    if out and out.exists() and not out.is_dir():
        raise ConfigError(f"{out} is a file: --out names a folder for the pictures")
    if file and text is not None:
        raise ConfigError("--text and --file both name a text: give one of them")
    if file or text is not None:
        _cut(target, _bytes(file) if file else text or "", out, data, runs, json_)
        return
    subject = open_subject(target, runs, data)
    other = open_subject(against, runs, against_data) if against else None
    facts = study(subject, wanted, other)
    drawn = {"pictures": write_pictures(subject, facts, out)} if out else {}
    if json_:
        print_json(plain(facts) | drawn)
        return
    print_study(facts, print_table)
    if out:
        print(f"\npictures  {out}")


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file} cannot be read ({error.strerror}): --file names a file of text") from error


def _cut(target: str, text: str | bytes, out: Path | None, data: str, runs: Path, json_: bool) -> None:
    """Show the chunks of one text: on colours where people look, in brackets elsewhere."""
    from dataclasses import asdict

    from niblick.boundaries.pictures import brackets, coloured
    from niblick.files import write_together
    from niblick.reports.boundary_report import open_subject, text_page

    levels, files = text_page(open_subject(target, runs, data), text)
    if out:
        out.mkdir(parents=True, exist_ok=True)
        write_together({out / name: content for name, content in files.items()})
    if json_:
        drawn = {"pictures": sorted(files)} if out else {}
        print_json({"chunks": [asdict(chunk) for level in levels for chunk in level]} | drawn)
        return
    for level, pieces in enumerate(levels):
        if len(levels) > 1:
            print(f"level {level}")
        print(coloured(pieces) if sys.stdout.isatty() else brackets(pieces))
        print(f"\n{len(pieces):,} chunks of {sum(c.end - c.start for c in pieces) / len(pieces):.2f} bytes", end="")
        split = sum(len(c.text.encode()) != c.end - c.start for c in pieces)
        print(f"; {split:,} with bytes that are no whole character" if split else "")
    if out:
        print(f"pictures  {out}")
