"""Verbs that hand runs on: as a submission, as a model on the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from niblick.cli.app import RUNS, Json, Runs, app, print_json
from niblick.errors import ConfigError


@app.command()
def submit(
    targets: Annotated[list[str], typer.Argument(metavar="RUN…", help="Runs of one config, with different seeds.")],
    out: Annotated[Path, typer.Option("--out", help="The folder to write.")],
    track: Annotated[str | None, typer.Option(help="The track it is made for; else the runs' own.")] = None,
    record: Annotated[str, typer.Option(help="What to hold it against: BPB, BPB,BPB,… or RUN,RUN,…")] = "",
    author: Annotated[str, typer.Option(help="Your name.")] = "",
    github_id: Annotated[str, typer.Option("--github-id", help="Your name on GitHub.")] = "",
    name: Annotated[str, typer.Option(help="Title of the submission; else the preset's name.")] = "",
    blurb: Annotated[str, typer.Option(help="A sentence or two about it.")] = "",
    force: Annotated[bool, typer.Option("--force", help="As a non-record, whatever speaks against it.")] = False,
    runs: Runs = RUNS,
    json_: Json = False,
) -> None:
    """Make one folder of runs that anyone can rerun. Example: `niblick submit latest --out records/mine`"""
    from niblick.challenge.tracks import get_track
    from niblick.facts.reading import plain
    from niblick.run.directory import open_run
    from niblick.submission.folder import About
    from niblick.submission.folder import submit as make

    if track:
        get_track(track)
    opened = [open_run(target, runs) for target in targets]
    about = About(author, github_id, name, blurb)
    facts = make(opened, out, about=about, claim=track, against=_scores(record, runs), force=force)
    if json_:
        print_json(plain(facts) | {"out": str(out)})
        return
    spread = "" if facts.val_bpb_deviation is None else f" ± {facts.val_bpb_deviation:.4f}"
    runs_ = f"{len(facts.seeds)} run" + "s" * (len(facts.seeds) > 1)
    print(f"score     {facts.val_bpb_mean:.4f}{spread} BPB, {runs_}")
    print(
        f"bytes     {facts.bytes_total:,} of 16,000,000: artifact {facts.bytes_model_int8_zlib:,}, "
        f"code {facts.bytes_code:,}"
    )
    if facts.verdict:
        print(f"record    {facts.verdict.better} is better by {facts.verdict.gain:.4f} BPB: {facts.verdict.reason}")
    for reason in facts.reasons:
        print(f"forced    {reason}")
    print(f"folder    {out}   check it by   niblick audit {out}")


@app.command()
def push(
    target: Annotated[str, typer.Argument(metavar="RUN", help="A finished run: path, id or `latest`.")],
    to: Annotated[str, typer.Argument(metavar="hf:OWNER/NAME|DIR", help="A model on the hub, or a new folder.")],
    private: Annotated[bool, typer.Option("--private", help="A repository that is made for it is private.")] = False,
    runs: Runs = RUNS,
    json_: Json = False,
) -> None:
    """Write weights, artifact and model card for others. Example: `niblick push latest hf:me/tiny`"""
    from niblick.facts.reading import plain
    from niblick.run.directory import open_run
    from niblick.submission.pushing import push as make

    pushed = make(open_run(target, runs), to, private)
    if json_:
        print_json(plain(pushed))
        return
    for name, size in pushed.files.items():
        print(f"{size:>12,}  {name}")
    where = f"{pushed.where}@{pushed.revision}" if pushed.revision else pushed.where
    print(f"pushed    {where}   try it by   niblick generate {pushed.where}")


def _scores(text: str, runs: Path) -> list[float]:
    """The scores that --record names: numbers, or runs."""
    from niblick.run.directory import open_run

    found = []
    for word in filter(None, text.split(",")):
        try:
            found.append(float(word))
        except ValueError:
            result = open_run(word, runs).result()
            if result is None:
                raise ConfigError(f"--record {word} has no score: name finished runs, or give numbers") from None
            found.append(result.bpb)
    return found
