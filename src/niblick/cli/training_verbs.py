"""Verbs that make runs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from niblick.cli.app import RUNS, Data, Env, Json, Runs, app, import_app, print_json, print_score
from niblick.errors import ConfigError

if TYPE_CHECKING:
    from niblick.config.run_config import RunConfig


@app.command()
def train(
    target: Annotated[str | None, typer.Argument(help="A preset, or a file: my_recipe.py, my.yaml.")] = None,
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value …, such as model.width=128.")] = None,
    data: Data = "",
    env: Env = "",
    track: Annotated[str, typer.Option(help="smoke, proxy, fixed-step, wallclock or challenge: see docs/lab.md.")] = "",
    seeds: Annotated[int, typer.Option(help="Runs with the seeds s, s+1, …, one after another.")] = 1,
    name: Annotated[str, typer.Option(help="Of the run; by default <preset>-<n>.")] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say bytes, steps and time; train nothing.")] = False,
    resume: Annotated[str | None, typer.Option(help="Go on with this run (path, id or `latest`).")] = None,
    devices: Annotated[int, typer.Option(help="Processes that share the training, one for each GPU.")] = 1,
    log: Annotated[
        list[str] | None, typer.Option(help="Tell another logger too: tensorboard, wandb or wandb-offline; repeatable.")
    ] = None,
    runs: Runs = RUNS,
    json_: Json = False,
) -> None:
    """Train, pack and score. Example: `niblick train hnet-byte260 --data data/web train.batch_tokens=65536`"""
    if devices != 1:
        from niblick.run.torchrun import launch

        sys.exit(launch(devices, sys.argv[1:], runs))
    from niblick.console import RunConsole
    from niblick.recipes.targets import resolve
    from niblick.run import pipeline
    from niblick.run.directory import open_run
    from niblick.run.loggers import Loggers
    from niblick.train.distributed import joined

    if seeds < 1:
        raise ConfigError(f"--seeds {seeds} is no number of runs: give at least 1")
    with joined() as ranks, RunConsole() as console, Loggers(log or (), console, console.say) as listen:
        if resume:
            if target or overrides or env or track or seeds > 1 or name or dry_run:
                raise ConfigError(
                    "--resume takes the config of the run: leave preset, overrides, --env, --track, --seeds, --name "
                    "and --dry-run away"
                )
            resumed = pipeline.resume(open_run(resume, runs), listen, ranks)
            results = [resumed] if resumed else []
        elif not target:
            raise ConfigError("name a preset or a recipe file: `niblick presets` lists the presets")
        else:
            config, recipe = resolve(target, overrides or [], env, track=track, data=data)
            if dry_run:
                if ranks.main:
                    _foresee(config, recipe, json_)
                return
            results = pipeline.run_seeds(config, seeds, runs, listen, recipe=recipe, ranks=ranks, name=name)
    if not ranks.main:
        return
    if json_:
        print_json(results[0] if seeds == 1 else {"runs": results} | pipeline.spread(results))
        return
    for result in results:
        print_score(result)
        print(f"run       {result.run}")
    if seeds > 1:
        spread = pipeline.spread(results)
        print(f"seeds     {spread['bpb_mean']:.4f} ± {spread['bpb_deviation']:.4f} BPB over {seeds} runs")


def _foresee(config: RunConfig, recipe: Path | None, json_: bool) -> None:
    """Print what a run would take, measured now."""
    from dataclasses import asdict

    from niblick.console import human_seconds, weighed
    from niblick.run.prepared import prepare
    from niblick.sweeps.estimate import foresee

    found = foresee(prepare(config), recipe)
    if json_:
        print_json(asdict(found))
        return
    print(f"weights   {found.parameters:,} parameters")
    print(f"steps     {found.steps} of {found.batch_tokens:,} tokens: {found.epochs:.3g} times the training text")
    low, high = (None if found.code_bytes is None else each + found.code_bytes for each in found.artifact_bytes)
    print(f"bytes     {weighed(low)} to {weighed(high)} of 16,000,000, artifact and code")
    train, score = map(human_seconds, (found.train_seconds, found.score_seconds))
    print(f"time      about {train} of training, {score} of scoring, by a step timed now on {found.device}")
    print("nothing   was trained or written: leave --dry-run away for that")


@import_app.command("challenge")
def import_challenge(
    file: Annotated[Path, typer.Argument(help="final_model.pt or final_model.int8.ptz of a published script.")],
    preset: Annotated[str, typer.Option(help="The preset, or recipe file, of the same model.")],
    overrides: Annotated[list[str] | None, typer.Argument(help="key=value …, where it differs.")] = None,
    data: Data = "",
    env: Env = "",
    runs: Runs = RUNS,
    json_: Json = False,
) -> None:
    """Make a run of a published checkpoint. Example: `niblick import challenge final_model.pt --preset hnet-byte260`"""
    from niblick.recipes.targets import resolve
    from niblick.run.published_import import import_published

    config, recipe = resolve(preset, overrides or [], env, data=data)
    result = import_published(file, config, runs, recipe=recipe)
    if json_:
        print_json(result)
    else:
        print(f"artifact  {result.artifact}, {result.artifact_bytes:,} bytes")
        print(f"run       {result.run}: niblick eval {result.run}{'' if data else ' --data DIR'}")


@app.command()
def quickstart(
    folder: Annotated[Path, typer.Option(help="Where data and runs go.")] = Path(),
    seconds: Annotated[float, typer.Option(help="Seconds of training.")] = 150,
    json_: Json = False,
) -> None:
    """Train, pack and score a small byte-level H-Net on this machine's own text. Example: `niblick quickstart`"""
    from dataclasses import asdict

    from niblick.quickstart import quickstart, render

    facts = quickstart(folder, seconds)
    if json_:
        print_json(asdict(facts))
    else:
        print(render(facts))
