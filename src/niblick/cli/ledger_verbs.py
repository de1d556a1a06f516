"""Verbs that look at many runs: list, tag, note, rank, report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from niblick.cli.app import RUNS, Json, Runs, app, print_json
from niblick.errors import ConfigError

Values = Annotated[list[str] | None, typer.Argument(help="key=value …, such as model.width=128.")]
Preset = Annotated[str, typer.Option(help="Of this preset; patterns such as 'hnet-*' are fine, here and below.")]
Branch = Annotated[str, typer.Option(help="Of this branch.")]
Track = Annotated[str, typer.Option(help="Of this track.")]
Sweep = Annotated[str, typer.Option(help="Of this sweep.")]
Tag = Annotated[str, typer.Option(help="With this tag.")]
Status = Annotated[str, typer.Option(help="done, imported, running, stopped, failed, unfinished or broken.")]


@app.command("runs")
def list_runs(
    values: Values = None,
    preset: Preset = "",
    branch: Branch = "",
    track: Track = "",
    sweep: Sweep = "",
    tag: Tag = "",
    status: Status = "",
    sort: Annotated[str, typer.Option(help="`new`, or a column such as `bpb`, lowest first.")] = "new",
    limit: Annotated[int, typer.Option(help="Rows of the table; 0 for all. --csv and --json have all.")] = 40,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV: all facts, and config keys that differ.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Keep the table as it is by now, until Ctrl-C.")] = False,
    runs: Runs = RUNS,
    json_: Json = False,
) -> None:
    """List runs, newest first. Example: `niblick runs --status done model.width=128 --sort bpb`"""
    from niblick.ledger.ledger import Ledger
    from niblick.ledger.listing import csv_text, ordered, print_runs, watch_runs

    if csv + json_ + watch > 1:
        raise ConfigError("--csv, --json and --watch each want stdout for themselves: give one of them")
    ledger, wanted = Ledger(runs), _filter(values, preset, branch, track, sweep, tag, status)
    rows = ordered(ledger.rows(wanted), sort)
    if watch:
        watch_runs(lambda: ordered(ledger.rows(wanted), sort), limit, runs)
    elif json_:
        print_json({"runs": [row.facts() for row in rows]})
    elif csv:
        print(csv_text(ledger, rows), end="")
    else:
        print_runs(rows, limit, runs)


@app.command("rm")
def remove_runs(
    targets: Annotated[list[str], typer.Argument(help="Runs, by path or id; a sweep stands for its runs.")],
    runs: Runs = RUNS,
    json_: Json = False,
) -> None:
    """Move runs out of the way, to the folder .trash among the runs. Example: `niblick rm hnet-small-3`"""
    from niblick.ledger.trash import remove_named

    moved = remove_named(targets, runs)
    if json_:
        print_json({"moved": {id: str(path) for id, path in moved.items()}})
        return
    for id, path in moved.items():
        print(f"moved     {id} to {path}")
    print("for good  delete them there; until then moving one back restores it")


@app.command("trust")
def trust_run(
    target: Annotated[str, typer.Argument(help="A run that came with a recipe: path, id or `latest`.")],
    runs: Runs = RUNS,
    json_: Json = False,
) -> None:
    """Let the recipe of a run be run, which was not trained here. Read it first. Example: `niblick trust pulled-run`"""
    from niblick.recipes.trust import recipe_digest, trust
    from niblick.run.directory import open_run

    recipe = open_run(target, runs).recipe
    if not recipe.is_file():
        raise ConfigError(f"{recipe.parent} came of a preset, and has no recipe to trust")
    trust(recipe)
    if json_:
        print_json({"recipe": str(recipe), "sha256": recipe_digest(recipe)})
    else:
        print(f"trusted {recipe}, as it is now")


@app.command("tag")
def tag_runs(
    name: Annotated[str, typer.Argument(help="The tag.")],
    targets: Annotated[list[str], typer.Argument(help="Runs: path, id or `latest`.")],
    remove: Annotated[bool, typer.Option("--remove", help="Take the tag away.")] = False,
    runs: Runs = RUNS,
    json_: Json = False,
) -> None:
    """Tag runs, to find them by `niblick runs --tag`. Example: `niblick tag keep hnet-byte260-3 latest`"""
    from niblick.ledger.notes import tag

    changed = tag(_rows(targets, runs), name, remove=remove)
    if json_:
        print_json({"tag": name, "removed": remove, "runs": [row.id for row in changed]})
    else:
        did = "no longer tagged" if remove else "tagged"
        print(f"{did} {name}: {', '.join(row.id for row in changed) or 'none that was not already'}")


@app.command("note")
def note_text(
    text: Annotated[str | None, typer.Argument(help="The note, in Markdown; without it the log is shown.")] = None,
    run: Annotated[str | None, typer.Option(help="The run it is about: path, id or `latest`.")] = None,
    runs: Runs = RUNS,
    json_: Json = False,
) -> None:
    """Write into the research log, or show it. Example: `niblick note "wider encoders do not help" --run latest`"""
    from niblick.ledger.notes import LOG, note, read_log

    row = _rows([run], runs)[0] if run else None
    if text is None:
        shown = read_log(runs) if row is None else "".join(f"- {n.get('time', '')} {n['text']}\n" for n in row.notes)
        if json_:
            print_json({"log": shown} if row is None else {"run": row.id, "notes": list(row.notes)})
        else:
            print(shown or 'there are no notes yet: niblick note "…" writes one', end="" if shown else "\n")
        return
    if not runs.is_dir():
        raise ConfigError(f"there is no folder {runs} to keep the research log in: name that of your runs by --runs")
    log = note(runs, text, row)
    if json_:
        print_json({"log": str(log), "run": row.id if row else None})
    else:
        print(f"noted in {runs / LOG}" + (f" and in {row.path}/notes.json" if row else ""))


@app.command()
def leaderboard(
    values: Values = None,
    preset: Preset = "",
    branch: Branch = "",
    track: Track = "",
    sweep: Sweep = "",
    tag: Tag = "",
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV on stdout.")] = False,
    runs: Runs = RUNS,
    json_: Json = False,
) -> None:
    """Rank the best result of each branch beside its equals. Example: `niblick leaderboard --track fixed-step`"""
    from dataclasses import asdict

    from niblick.ledger.leaderboard import leaderboard as rank
    from niblick.ledger.ledger import Ledger
    from niblick.ledger.listing import leaderboard_csv, print_leaderboard

    if csv and json_:
        raise ConfigError("--csv and --json both want stdout: give one of them")
    facts = rank(Ledger(runs), _filter(values, preset, branch, track, sweep, tag, ""))
    if json_:
        print_json(asdict(facts))
    elif csv:
        print(leaderboard_csv(facts), end="")
    else:
        print_leaderboard(facts)


@app.command()
def report(
    targets: Annotated[list[str] | None, typer.Argument(help="Runs and sweeps; by default all runs.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for report.html and its pictures; by default that of the run or sweep.")
    ] = None,
    runs: Runs = RUNS,
    json_: Json = False,
) -> None:
    """Write one offline HTML page, and its pictures as PNG, of runs or a sweep. Example: `niblick report latest`"""
    from niblick.reports.run_report import write_report

    found = write_report(targets or [], runs, out)
    if json_:
        print_json(found)
    else:
        print(f"report    {found.report}")
        print(f"pictures  {found.folder}: {', '.join(found.pictures) or 'none'}")


@app.command()
def plot(
    targets: Annotated[list[str] | None, typer.Argument(help="Runs and sweeps; by default `latest`.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("plots"),
    kind: Annotated[str, typer.Option(help="png, svg or html.")] = "svg",
    over: Annotated[str, typer.Option(help="What curves run over: step, time or bytes.")] = "time",
    compressors: Annotated[
        bool,
        typer.Option("--compressors", help="Draw what xz and others need for the text of the first run."),
    ] = False,
    runs: Runs = RUNS,
    json_: Json = False,
) -> None:
    """Draw curves, boundaries, bytes by part and bytes against BPB. Example: `niblick plot latest --kind png`"""
    from niblick.reports.plots import figures, write_figures

    files = write_figures(figures(targets or [], runs, x=over, compressors=compressors), out, kind)
    if json_:
        print_json({"pictures": [str(file) for file in files]})
    else:
        for file in files:
            print(f"picture   {file}")


def _filter(values: list[str] | None, preset: str, branch: str, track: str, sweep: str, tag: str, status: str) -> Any:
    from niblick.ledger.ledger import Filter

    return Filter(preset, branch, track, sweep, tag, status, tuple(values or ()))


def _rows(targets: list[str], runs: Path) -> list[Any]:
    """The runs of these names. Raises ConfigError for one that is not there."""
    from niblick.ledger.ledger import Ledger, find_rows

    rows = find_rows(Ledger(runs), targets)
    return list({row.id: row for row in rows}.values())
