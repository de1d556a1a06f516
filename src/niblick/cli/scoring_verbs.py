"""Verbs that score and compare."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from niblick.cli.app import RUNS, Data, Json, Runs, app, print_json, print_score
from niblick.errors import ConfigError


@app.command("eval")
def evaluate(
    target: Annotated[str, typer.Argument(help="RUN, RUN:NAME or the path of an artifact.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="score.key=value …, such as score.scorer=sliding score.stride=64.")
    ] = None,
    breakdown: Annotated[
        bool, typer.Option("--breakdown", help="Take the score apart: tables, pictures and JSON in --out.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the breakdown; by default `breakdown` beside the run's artifact.")
    ] = None,
    data: Data = "",
    devices: Annotated[int, typer.Option(help="Processes that share the scoring, one for each GPU.")] = 1,
    runs: Runs = RUNS,
    json_: Json = False,
) -> None:
    """Score an artifact. Example: `niblick eval latest score.scorer=sliding score.seq_len=512 score.stride=64`"""
    if devices != 1:
        from niblick.run.torchrun import launch

        if breakdown:
            raise ConfigError(f"--breakdown is made by one process: leave --devices {devices} away")
        sys.exit(launch(devices, sys.argv[1:], runs))
    from niblick.console import RunConsole
    from niblick.facts.reading import plain
    from niblick.run.artifacts import find_artifact
    from niblick.run.prepared import config_of
    from niblick.run.scoring import score_artifact
    from niblick.train.distributed import joined

    path, run = find_artifact(target, runs)
    if not data:
        if run is None:
            raise ConfigError(f"{path} belongs to no run, so its text is unknown: pass --data DIR")
        data = config_of(run).data.path
    if not data:
        raise ConfigError(f"{target} names no text: pass --data DIR")
    if out and not breakdown:
        raise ConfigError("--out is the folder of a breakdown: add --breakdown")
    collector = None
    if breakdown:
        from niblick.reports.breakdown import Collector, breakdown_folder

        collector, folder = Collector(), breakdown_folder(path, run, out)
    with joined() as ranks, RunConsole() as console:
        record = score_artifact(
            path,
            data,
            run=run,
            overrides=overrides or [],
            inspect=collector,
            keep=ranks.main,
            progress=(lambda p: console.progress("scoring", p.done / p.total, p.bpb, p.eta_seconds))
            if ranks.main
            else None,
        )
    if not ranks.main:
        return
    parts = collector.write(folder) if collector else None
    if json_:
        print_json(plain(record) | ({"breakdown": parts.plain()} if parts else {}))
        return
    if parts:
        from rich.console import Console

        from niblick.reports.tables import print_breakdown

        print_breakdown(parts, Console(highlight=False))
        print(f"pictures  {folder}\n")
    print_score(record)


@app.command()
def compare(
    targets: Annotated[list[str], typer.Argument(help="RUN, RUN:NAME or the artifact of a run, two or more.")],
    scorer: Annotated[
        str, typer.Option(help="Take the newest scores by this scorer, such as sliding; by default the official ones.")
    ] = "",
    runs: Runs = RUNS,
    json_: Json = False,
) -> None:
    """Which is better, and is it luck? Runs that differ in their seeds alone are one group, and groups are compared.

    Example: `niblick compare base-1 base-2 base-3 wide-1 wide-2 wide-3`
    """
    from rich.console import Console

    from niblick.compare.groups import compare as compare_runs
    from niblick.reports.tables import print_comparison

    facts = compare_runs(targets, runs, scorer)
    if json_:
        print_json(facts)
    else:
        print_comparison(facts, Console(highlight=False))
