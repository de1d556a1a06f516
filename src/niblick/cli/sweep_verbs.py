"""Verbs for many runs: sweeps, their cost before they run, and which ideas carry over from one to another."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from niblick.cli.app import RUNS, Data, Json, Runs, app, print_json, print_table
from niblick.errors import ConfigError

sweep_app = typer.Typer(
    no_args_is_help=True, help="Many runs from a short Python file. Example: `niblick sweep run lengths.py`"
)
app.add_typer(sweep_app, name="sweep")

File = Annotated[Path, typer.Argument(help="A Python file that sets `sweep = Sweep(…)`: see docs/lab.md.")]
Workers = Annotated[int | None, typer.Option(help="Runs at once here; by default one a GPU, or one a core.")]
ExecutorName = Annotated[str, typer.Option("--executor", help="local or ray.")]
Address = Annotated[str, typer.Option(help="HOST:PORT of a Ray cluster; empty: one on this machine.")]
BringBack = Annotated[bool, typer.Option("--bring-back", help="Ray: use no shared folder, even where there is one.")]
Retry = Annotated[bool, typer.Option("--retry", help="Try failed runs again.")]


@sweep_app.command()
def write(
    file: Annotated[Path, typer.Argument(help="The sweep file to write, such as widths.py.")],
    target: Annotated[str, typer.Argument(help="A preset, or a file: my_recipe.py, my.yaml.")],
    overrides: Annotated[list[str], typer.Argument(help="key=value for all runs, key=a,b for a grid.")],
    data: Data = "",
    seeds: Annotated[int, typer.Option(help="Seeds of each point.")] = 1,
    json_: Json = False,
) -> None:
    """Write a sweep file. Example: `niblick sweep write widths.py hnet-small model.width=64,96 --data data/pydocs`"""
    from niblick.recipes.targets import data_setting
    from niblick.sweeps.sweep_files import write_sweep

    count = len(write_sweep(file, target, [*overrides, *data_setting(data)], seeds).members())
    if json_:
        print_json({"file": str(file), "runs": count})
    else:
        print(f"{file}: {count} runs; `niblick sweep plan {file}` says how long, `niblick sweep run {file}` runs them")


@sweep_app.command("run")
def run_(
    file: File,
    runs: Runs = RUNS,
    workers: Workers = None,
    executor: ExecutorName = "local",
    address: Address = "",
    bring_back: BringBack = False,
    retry: Retry = False,
    json_: Json = False,
) -> None:
    """Bring all runs of a sweep to their end; done ones are skipped. Example: `niblick sweep run lengths.py`"""
    _run(file, runs, workers, executor, address, bring_back, retry, json_)


@sweep_app.command()
def resume(
    file: File,
    runs: Runs = RUNS,
    workers: Workers = None,
    executor: ExecutorName = "local",
    address: Address = "",
    bring_back: BringBack = False,
    retry: Retry = False,
    json_: Json = False,
) -> None:
    """Go on with a sweep that was stopped or killed. Example: `niblick sweep resume lengths.py --retry`"""
    from niblick.sweeps.running import SweepFolder
    from niblick.sweeps.sweep import load_sweep

    sweep = load_sweep(file)
    if SweepFolder(sweep, runs).recorded() is None:
        raise ConfigError(f"the sweep {sweep.name} was never started in {runs}: `niblick sweep run {file}` starts it")
    _run(file, runs, workers, executor, address, bring_back, retry, json_)


def _run(
    file: Path,
    runs: Path,
    workers: int | None,
    executor: str,
    address: str,
    bring_back: bool,
    retry: bool,
    json_: bool,
) -> None:
    from niblick.console import RunConsole
    from niblick.sweeps.running import run_sweep
    from niblick.sweeps.sweep import load_sweep

    if executor not in ("local", "ray"):
        raise ConfigError(f"there is no executor {executor!r}: choose local or ray")
    if executor == "local" and (address or bring_back):
        raise ConfigError("--address and --bring-back are about Ray clusters: add --executor ray")
    if executor == "ray" and workers is not None:
        raise ConfigError("--workers is about this machine: on Ray as many runs go at once as its nodes have room for")
    sweep = load_sweep(file)
    sweep.check()
    say = RunConsole().say
    if executor == "ray":
        from niblick.sweeps.ray_executor import RayExecutor

        ray = RayExecutor(sweep.cpus, sweep.gpus, address, bring_back)
        try:
            with contextlib.redirect_stdout(sys.stderr):  # Ray talks about its workers
                states = run_sweep(sweep, runs, ray, source=str(file), retry=retry, say=say)
        finally:
            ray.close()
    else:
        from niblick.sweeps.executors import LocalPool

        pool = LocalPool(sweep.cpus, workers)
        states = run_sweep(sweep, runs, pool, source=str(file), retry=retry, say=say)
    _show(sweep, states, json_)
    if any(state.kind in ("failed", "changed") for state in states):
        raise typer.Exit(1)


@sweep_app.command()
def status(file: File, runs: Runs = RUNS, json_: Json = False) -> None:
    """How far is a sweep, and what came out? Example: `niblick sweep status lengths.py`"""
    from niblick.sweeps.running import SweepFolder
    from niblick.sweeps.sweep import load_sweep

    sweep = load_sweep(file)
    folder = SweepFolder(sweep, runs)
    states = [folder.state(member) for member in sweep.members()]
    owner = folder.alive()
    if not json_ and owner:
        print(f"running now: process {owner.pid} on {owner.host}\n")
    _show(sweep, states, json_, running=owner is not None)


def _show(sweep: Any, states: list[Any], json_: bool, running: bool | None = None) -> None:
    from rich.console import Console

    from niblick.facts.reading import plain
    from niblick.reports.tables import print_sweep
    from niblick.sweeps.results import by_point
    from niblick.sweeps.running import as_facts

    if json_:
        facts = {
            "sweep": sweep.name,
            "points": [plain(each) for each in by_point(states)],
            "runs": [plain(as_facts(state)) for state in states],
        }
        print_json(facts | ({} if running is None else {"running": running}))
        return
    print_sweep(states, Console(highlight=False))
    if any(state.kind == "failed" for state in states):
        print("\n`niblick sweep run FILE --retry` tries failed runs again")


@sweep_app.command()
def stop(file: File, runs: Runs = RUNS, json_: Json = False) -> None:
    """Stop a running sweep; its runs write checkpoints first. Example: `niblick sweep stop lengths.py`"""
    from niblick.sweeps.running import SweepFolder
    from niblick.sweeps.sweep import load_sweep

    sweep = load_sweep(file)
    if not SweepFolder(sweep, runs).stop():
        raise ConfigError(f"the sweep {sweep.name} is not running in {runs}: there is nothing to stop")
    if json_:
        print_json({"sweep": sweep.name, "stopped": True})
    else:
        print(f"stopped; `niblick sweep resume {file}` goes on")


@sweep_app.command()
def plan(file: File, runs: Runs = RUNS, workers: Workers = None, json_: Json = False) -> None:
    """Runs, time and disk, from speeds measured now. Example: `niblick sweep plan lengths.py`"""
    from niblick.console import RunConsole, human_bytes, human_seconds
    from niblick.facts.reading import plain
    from niblick.sweeps.estimate import estimate
    from niblick.sweeps.sweep import load_sweep

    with RunConsole() as console:
        sweep = load_sweep(file)
        console.say(f"checking the sweep {sweep.name}, then timing a step and a score of each of its models")
        facts = estimate(sweep, runs, workers, console.counting("timed, of points"))
    if json_:
        print_json(plain(facts))
        return
    rows = [
        [p.name, p.branch, str(p.runs), p.steps, *map(human_seconds, p.clocks), human_bytes(p.bytes)]
        for p in facts.points
    ]
    print_table(["point", "branch", "runs", "steps", "training", "scoring", "each run", "disk of each"], rows)
    some = f"{facts.left} of " if facts.left < facts.runs else ""
    print(
        f"\n{some}{facts.runs} runs to do: {human_seconds(facts.seconds)} with {facts.slots} at once, "
        f"{human_bytes(facts.bytes)} of disk ({human_bytes(facts.free_bytes)} free)"
    )
    print(f"speeds: {facts.source}")


@app.command()
def transfer(
    first: Annotated[str, typer.Argument(help="A sweep: its file, or its name in the folder of runs.")],
    second: Annotated[str, typer.Argument(help="The sweep that the ideas should carry over to.")],
    runs: Runs = RUNS,
    json_: Json = False,
) -> None:
    """Which ideas of one sweep survive in another? Example: `niblick transfer proxy.py full.py`"""
    from dataclasses import asdict

    from niblick.sweeps.transfer import render, transfer

    facts = transfer(first, second, runs)
    if json_:
        print_json(asdict(facts))
    else:
        print(render(facts))


@app.command()
def study(
    name: Annotated[
        str,
        typer.Argument(help="study1, study2, softchunk, routers, routers2026, outer, sprint, rescue …"),
    ],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value … for all its runs.")] = None,
    toy: Annotated[bool, typer.Option("--toy", help="Small models and text, minutes on two cores.")] = False,
    data: Annotated[list[str] | None, typer.Option(help="NAME=DIR, as in byte260=data/web; repeat it.")] = None,
    source: Annotated[list[str] | None, typer.Option(help="--toy: DOMAIN=FILE, as in prose=docs.jsonl.")] = None,
    folder: Annotated[Path, typer.Option(help="--toy: where data is prepared.")] = Path("data"),
    seeds: Annotated[int, typer.Option(help="routers2026: seeds of each point; 0: as the study says.")] = 0,
    runs: Runs = RUNS,
    workers: Workers = None,
    json_: Json = False,
) -> None:
    """Run a published study and write its tables. Example: `niblick study repeatability --toy`"""
    from niblick.console import RunConsole, human_seconds
    from niblick.errors import nearest
    from niblick.studies import STUDIES
    from niblick.studies.study import Lab, run_study
    from niblick.sweeps.executors import LocalPool

    if name not in STUDIES:
        raise ConfigError(f"there is no study {name!r}{nearest(name, STUDIES)}")
    if seeds < 0 or (seeds and name != "routers2026"):
        raise ConfigError(f"--seeds {seeds}: of the studies only routers2026 takes a number of seeds, at least 1")
    lab = Lab(
        study=name,
        toy=toy,
        runs=runs,
        folder=folder,
        executor=lambda threads: LocalPool(threads, workers),
        data_given=_named(data or [], "--data"),
        sources=_named(source or [], "--source"),
        overrides=overrides or [],
        seeds=seeds,
        say=RunConsole().say,
    )
    found = run_study(STUDIES[name], lab)
    if json_:
        print_json(found)
    else:
        print(found.markdown)
        print(f"{found.folder}: tables.md, tables.json, report.html ({human_seconds(found.seconds)})")


def _named(entries: list[str], option: str) -> dict[str, str]:
    """Read NAME=VALUE options. Raises ConfigError for what is none."""
    found = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not equals or not name or not value:
            raise ConfigError(f"{option} {entry!r} names nothing: write NAME=PATH, as in byte260=data/web")
        found[name] = value
    return found
